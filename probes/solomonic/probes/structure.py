"""A layer as a realization: its registers, the spectrum of its state, and the small system that has them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import softplus

from solomonic.models import HybridLM
from solomonic.realization import fitting

from .inputs import as_count, as_layers, as_level
from .labelled import provenance, units
from .taps import has_attention, has_fading_tokens, has_state, layer_window, state_kind
from .trace import trace

__all__ = ["structure"]

_UNITS = {
    "index": ("nilpotency index: tokens until nothing is left (0: fades, -1: grows without end)", "token"),
    "scalars": ("numbers held for one sequence (of kv: for each token)", "1"),
    "token_equivalents": ("size in units of the key and value of one token", "token"),
    "decay": ("decay of the state in one token, exp(dt A)", "1"),
    "half_life": ("half-life of the state at that step", "token"),
    "dt": ("step", "1"),
    "rate": ("rate A", "1"),
    "transition": ("transition of the reduced layer: slot `to` after a token from slot `from` before it", "1"),
    "input": ("what a token puts into each slot", "1"),
    "eigenvalue": ("spectrum of the transition: the decays and zeros", "1"),
}


def structure(
    model: HybridLM,
    layer: int,
    *,
    ids: Any = None,
    window: int | None = None,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    progress: bool = False,
) -> xr.Dataset:
    r"""What a layer is as a system: its parts, their dynamics, and the reduced transition matrix that joins them.

    .. math:: A = \begin{pmatrix} N_3 & & & \\ B w^\top & \mathrm{diag}(a) & & \\ 0 & 0 & N_W & \\
              \cdot & C\,\mathrm{diag}(a) & 0 & N_{2W} \end{pmatrix},
              \qquad \mathrm{spec}\, A = \{a_h\} \cup \{0\}

    for B'MOJO-F: a register of the convolution feeds the state, which feeds a register of fading tokens; the window
    stands beside them. Other layers have fewer blocks. Every register is a shift, so nilpotent and not
    diagonalizable; the state is diagonal. Both at once is what the block triangular form has.

    Parameters
    ----------
    model : HybridLM
        The model.
    layer : int
        The layer.
    ids : array_like of int, optional
        A text [T] or [prompts, T]: the steps dt are taken at their quantiles over it. Without it they are those of
        the bias alone, softplus(dt_bias).
    window : int, optional
        W of the reduced matrix, tokens; by default the least of 3 and the W of the layer.
    quantiles : sequence of float, default (0.1, 0.5, 0.9)
        Quantiles of dt, between 0 and 1, where there is a text.
    progress : bool, default False
        Whether to show the progress bar of the trace of the text.

    Returns
    -------
    xarray.Dataset
        Dims part, at, head, to, from, mode.

        - ``kind``, ``index``, ``scalars``, ``token_equivalents`` (part): for each part of the memory whether it is
          eidetic or fading, its nilpotency index in tokens (3 for the convolution, W for the window, 2W for the
          fading tokens; 0 for a state, which is not nilpotent; -1 for the keys and values of full attention, which
          are never dropped), how many numbers it holds when full, and that in units of one token's key and value.
        - ``decay``, ``half_life``, ``dt`` (at, head) and ``rate`` (head), where the layer has a state; ``at`` names
          the quantiles, or "bias".
        - ``transition`` (to, from) and ``input`` (to): the reduced layer at the middle one of ``at``. ``block``
          (to) names the part of each slot. Coordinates ``to`` and ``from`` name the slots.
        - ``eigenvalue`` (mode): its spectrum, from its Fitting split.

        Attributes: ``symbol``, ``window`` (W, 0 if none), ``small_window``, ``order`` (numbers held in all, -1 if
        they grow), ``reach`` (largest lag of a token that one layer can see, -1 without a bound),
        ``eidetic_reach`` (the same without the state), ``nilpotent_order`` and ``nilpotent_index`` of the reduced
        matrix with ``certified`` ("yes", or "undecided" where a decay is too small to be told from 0), and checks.

    Raises
    ------
    ValueError
        If there is no such layer, it is of another kind, or a window or quantile is out of its range.

    Notes
    -----
    The reduced matrix keeps one channel: a token is one number, B and C are 1, and all heads read the same channel
    with the taps of the first one. Neither its blocks nor its spectrum depend on that. The index of its nilpotent
    part is 3 + 2W for B'MOJO-F: what enters the convolution reaches the fading tokens three tokens later at most,
    and leaves them 2W tokens after that.

    References
    ----------
    Zancato et al., "B'MOJO" (arXiv:2407.06324), equations 2 to 5.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import structure
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=64), rng=0)
    >>> parts = structure(model, 0, window=2)
    >>> dict(zip(parts.part.values.tolist(), parts["index"].values.tolist()))
    {'conv': 3, 'state': 0, 'window': 64, 'fading_tokens': 128}
    >>> parts.eigenvalue.values.round(3)
    array([0.99 , 0.852, 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   ])
    """
    config = model.config
    symbol = checked_layer(model, layer)
    width = layer_window(config, layer)
    small = min(3, width or 3) if window is None else as_count(window, "window")
    data: dict[str, Any] = _parts(model, layer, symbol, width)
    coords: dict[str, Any] = {"part": data.pop("part")}
    decays = np.empty(0)
    if has_state(symbol):
        at, dt, rate = steps_of(model, layer, ids, quantiles, progress)
        data["dt"] = (("at", "head"), dt)
        data["rate"] = ("head", rate)
        data["decay"] = (("at", "head"), np.exp(dt * rate))
        data["half_life"] = (("at", "head"), math.log(0.5) / (dt * rate))
        coords["at"], coords["head"] = at, np.arange(rate.size)
        decays = np.exp(dt[len(at) // 2] * rate)
    names, blocks, A, B = reduced_layer(model, layer, symbol, small, decays)
    split = fitting(A)
    spectrum = np.concatenate([_real(np.linalg.eigvals(split.core)), np.zeros(split.nil_order)])
    data["transition"] = (("to", "from"), A)
    data["input"] = ("to", B)
    data["block"] = ("to", blocks)
    data["eigenvalue"] = ("mode", spectrum)
    coords["to"], coords["from"] = names, names
    index = data["index"][1]
    held = np.asarray(data["scalars"][1])
    reach = _reach(symbol, width)
    attrs = {
        **provenance(
            "structure",
            model=model,
            arguments={"layer": layer, "ids": ids, "window": window, "quantiles": list(quantiles)},
            checks=_checks(A, blocks, decays, spectrum),
        ),
        "symbol": symbol,
        "layer": layer,
        "window": width or 0,
        "small_window": small,
        "order": -1 if -1 in index else int(held.sum()),
        "reach": -1 if has_state(symbol) else reach,
        "eidetic_reach": reach,
        "nilpotent_order": split.nil_order,
        "nilpotent_index": split.index,
        "certified": "yes" if split.verdict else "undecided",
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def checked_layer(model: HybridLM, layer: Any) -> str:
    """The symbol of a layer; raises where there is no such layer or it has no reduced matrix."""
    pattern = model.config.pattern
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise ValueError(f"layer: expected a layer from 0 to {len(pattern) - 1}, got {layer!r}")
    (layer,) = as_layers(layer, len(pattern), name="layer")
    symbol = pattern[layer]
    if not has_structure(model, layer):
        raise ValueError(
            f"layer: layer {layer} ({symbol}) has no reduced matrix here; structure knows *, SWA, M2 and BMF over "
            "Mamba2, of a HybridLM. For what a layer was along a text, see trace(model, ids).system(layer, head)"
        )
    return symbol


def has_structure(model: Any, layer: int) -> bool:
    """Whether a layer has a reduced matrix."""
    if not isinstance(model, HybridLM):
        return False
    symbol = model.config.pattern[layer]
    return symbol in ("*", "SWA") or (symbol != "BMO" and state_kind(model.config, layer) == "scalar")


def _parts(model: HybridLM, layer: int, symbol: str, width: int | None) -> dict[str, Any]:
    """The parts of a layer's memory, their kinds, indices and sizes."""
    config = model.config
    memory = model.empty_memory()
    names = [part.part for part in memory.parts() if part.layer == layer]
    kinds = [part.kind for part in memory.parts() if part.layer == layer]
    mixer: Any = model.model.layers[layer].mixer  # type: ignore[union-attr]
    full = mixer.sizes(2 * width if width else 1)
    lengths = {"window": width, "fading_tokens": 2 * (width or 0), "kv": -1, "state": 0, "eidetic": -1}
    index = [memory.get(layer, "conv").shape[1] if n == "conv" else lengths[n] for n in names]  # type: ignore[union-attr]
    scalars = [full[name] for name in names]
    token = 2 * config.num_key_value_heads * config.head_dim
    return {
        "part": names,
        "kind": ("part", kinds),
        "index": ("part", index),
        "scalars": ("part", scalars),
        "token_equivalents": ("part", np.array(scalars) / token),
    }


def steps_of(
    model: HybridLM, layer: int, ids: Any, quantiles: Sequence[float], progress: bool = False
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names and values [at, H] of the steps dt, and the rates [H]."""
    mixer: Any = _mamba(model, layer)
    rate = -np.exp(_numpy(mixer.A_log))
    if ids is None:
        return ["bias"], softplus(mixer.dt_bias.detach().double()).cpu().numpy()[None], rate
    levels = [as_level(q, "quantiles") for q in quantiles]
    if not levels:
        raise ValueError("quantiles: expected at least one, got none")
    dt = trace(model, ids, layers=layer, progress=progress).require().dt(layer)
    return [f"q{q:g}" for q in levels], np.quantile(dt.reshape(-1, dt.shape[-1]), levels, axis=0), rate


def _mamba(model: HybridLM, layer: int) -> torch.nn.Module:
    mixer: Any = model.model.layers[layer].mixer  # type: ignore[union-attr]
    return mixer.mamba if hasattr(mixer, "mamba") else mixer


def reduced_layer(
    model: HybridLM, layer: int, symbol: str, window: int, decays: np.ndarray, head: int = 0
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Slots, their parts, the transition and the input map of the layer with one channel and a small window.

    One state for each of ``decays``, all behind the taps of the first channel of ``head``.
    """
    sizes: dict[str, int] = {}
    taps = np.empty(0)
    if has_state(symbol):
        groups = model.config.num_attention_heads // model.config.num_key_value_heads
        channel = head // groups * model.config.head_dim
        taps = _numpy(_mamba(model, layer).conv1d.weight)[channel, 0]  # type: ignore[union-attr]
        sizes = {"conv": taps.size - 1, "state": decays.size}
    if has_attention(symbol):
        sizes["kv" if symbol == "*" else "window"] = window
    if has_fading_tokens(symbol):
        sizes["fading_tokens"] = 2 * window
    first = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    order = sum(sizes.values())
    A, B = np.zeros((order, order)), np.zeros(order)
    for part, size in sizes.items():
        if part != "state":
            for i in range(1, size):
                A[first[part] + i, first[part] + i - 1] = 1.0
    for part in ("conv", "window", "kv"):
        if part in sizes:
            B[first[part]] = 1.0
    if has_state(symbol):
        # x_t = w_0 u_t + w_1 u_(t-1) + ...; the last tap is that of the current token.
        weights = taps[::-1]
        conv = slice(first["conv"], first["conv"] + sizes["conv"])
        state = slice(first["state"], first["state"] + sizes["state"])
        A[state, state] = np.diag(decays)
        A[state, conv] = weights[1:]
        B[state] = weights[0]
        if has_fading_tokens(symbol):
            # f_t = mean over heads of h_t + D x_t.
            token = first["fading_tokens"]
            feed = float(_numpy(_mamba(model, layer).D).mean())  # type: ignore[arg-type]
            A[token, state] = decays / decays.size
            A[token, conv] = (1 + feed) * weights[1:]
            B[token] = (1 + feed) * weights[0]
    blocks = [part for part, size in sizes.items() for _ in range(size)]
    names = [f"{part}[{i}]" for part, size in sizes.items() for i in range(size)]
    return names, blocks, A, B


def _checks(A: np.ndarray, blocks: list[str], decays: np.ndarray, spectrum: np.ndarray) -> dict[str, Any]:
    """Block triangular, registers nilpotent of the index of their length, and the spectrum that of the state."""
    parts = list(dict.fromkeys(blocks))
    place = np.array([parts.index(b) for b in blocks])
    above = place[:, None] < place[None, :]
    index = {}
    for i, part in enumerate(parts):
        block = A[np.ix_(place == i, place == i)]
        if part != "state":
            power, count = block.copy(), 1
            while power.any():
                power, count = power @ block, count + 1
            index[part] = count
    expected = np.sort(np.concatenate([decays, np.zeros(len(A) - decays.size)]))
    return {
        "block_triangular": bool((A[above] == 0).all()),
        "block_index": index,
        "spectrum_error": float(np.abs(np.sort(spectrum) - expected).max()),
    }


def _reach(symbol: str, width: int | None) -> int:
    """Largest lag of a token in the layer's registers; -1 without a bound, 3 for the convolution alone."""
    if symbol == "*":
        return -1
    if symbol == "M2":
        return 3
    assert width is not None
    return width - 1 if symbol == "SWA" else 2 * width - 1 + 3


def _real(values: np.ndarray) -> np.ndarray:
    """Largest first; the core of a block triangular matrix with a diagonal state is real."""
    return np.sort(np.real(values))[::-1]


def _numpy(value: torch.Tensor) -> np.ndarray:
    return value.detach().to("cpu", torch.float64).numpy()
