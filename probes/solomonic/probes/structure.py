"""A layer as a realization: its registers, the spectrum of its state, and the small system that has them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from solomonic.models import AdaptedLM, HybridLM
from solomonic.realization import fitting

from .gates import gates_of, state_space
from .inputs import as_count, as_layers
from .labelled import provenance, units
from .reduced import CONV, Reduced, modes_of, reduced_layer, registers_of, width_of

__all__ = ["structure"]

_UNITS = {
    "index": ("nilpotency index: tokens until nothing is left (0: fades, -1: no number of tokens empties it)", "token"),
    "scalars": ("numbers held for one sequence (of kv: for each token)", "1"),
    "token_equivalents": ("size in units of the key and value of one token", "token"),
    "decay": ("decay of the state in one token, exp(dt A)", "1"),
    "half_life": ("half-life of the state at that step", "token"),
    "dt": ("step", "1"),
    "rate": ("rate A", "1"),
    "beta": ("strength of the writes of a delta rule, beta |k|^2", "1"),
    "along_key": ("what a delta rule leaves in one token of what it holds under the token's key", "1"),
    "gram_decay": ("decay of the Gram matrix of the keys in one token", "1"),
    "transition": ("transition of the reduced layer: slot `to` after a token from slot `from` before it", "1"),
    "input": ("what a token puts into each slot", "1"),
    "copies": ("numbers of the layer that move as the slot does", "1"),
    "eigenvalue": ("spectrum of the transition: that of its core, the largest first, and zeros", "1"),
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

    .. math:: A = \begin{pmatrix} N_3 & & & \\ B w^\top & \Lambda & & \\ 0 & 0 & N_W & \\
              \cdot & C \Lambda & 0 & N_{2W} \end{pmatrix},
              \qquad \mathrm{spec}\, A = \mathrm{spec}\, \Lambda \cup \{0\}

    for B'MOJO-F: a register of the convolution feeds the state, which feeds a register of fading tokens; the window
    stands beside them. Other layers have fewer blocks. Every register is a shift, so nilpotent and not
    diagonalizable; the state is diagonalizable. Both at once is what the block triangular form has. The block
    :math:`\Lambda` of the state, with a head's decay :math:`a_h = \exp(\Delta_h A_h)`, is

    - of Mamba2 :math:`a_h` on all of it;
    - of Gated DeltaNet :math:`a_h (1 - \beta_h)` on what is held under the key of the token, and :math:`a_h` on the
      rest, which a token of the same key does not reach;
    - of Gated KalmaNet :math:`a_h` on the content, and on the Gram matrix of the keys :math:`a_h`, or 1 where the
      model does not let it decay.

    **Stored tokens** (BMO) make a switched system, and this is one of its modes: at a token where memory is not
    refreshed, or nothing is admitted, a stored token stays where it is, which is an eigenvalue 1 for each slot. Where
    a chunk of W tokens ends, a selection takes its place: its matrix has at most a single 1 in a row and zeros else,
    which keeps a slot, or puts into it a token that has left the window and waited since. Which, the outputs of the
    state space layer decide, not the tokens' own values; no gradient says so. Fewer fading tokens than W are held
    likewise until their chunk ends.

    Parameters
    ----------
    model : HybridLM
        The model.
    layer : int
        The layer.
    ids : array_like of int, optional
        A text [T] or [prompts, T]: the gates, dt and beta, are each taken at their own quantiles over it. Without it
        they are those of the biases alone: dt is softplus(dt_bias), and beta, which has no bias, is 1/2, or 1 where
        it may be up to 2.
    window : int, optional
        W of the reduced matrix, tokens; by default the least of 3 and the W of the layer. The numbers of stored
        tokens, of fading tokens that are held, and of outputs in the innovation test are cut to it.
    quantiles : sequence of float, default (0.1, 0.5, 0.9)
        Quantiles of the gates, between 0 and 1, where there is a text.
    progress : bool, default False
        Whether to show the progress bar of the trace of the text.

    Returns
    -------
    xarray.Dataset
        Dims part, at, head, to, from, mode.

        - ``kind``, ``index``, ``scalars``, ``token_equivalents`` (part): for each part of the memory whether it is
          eidetic or fading, its nilpotency index in tokens (3 for the convolution, W for the window, 2W for the
          fading tokens, W + m - 1 where m of them are held for a chunk; 0 for a state, which is not nilpotent; -1 for
          what no fixed number of tokens drops: the keys and values of full attention, and stored tokens), how many
          numbers it holds when full, and that in units of one token's key and value.
        - ``decay``, ``half_life``, ``dt`` (at, head) and ``rate`` (head), where the layer has a state; ``at`` names
          the quantiles, or "bias". Of a delta rule ``beta`` and ``along_key`` = decay (1 - beta) (at, head), which is
          negative for a beta over 1; of Gated KalmaNet ``gram_decay`` (at, head).
        - ``transition`` (to, from) and ``input`` (to): the reduced layer at the middle one of ``at``. ``block``
          (to) names the part of each slot, ``copies`` (to) says how many numbers of the layer move so. Coordinates
          ``to`` and ``from`` name the slots; of the part eidetic, "eidetic" are stored tokens, "waiting" those that
          may be at the next refresh, "past" the outputs of the innovation test.
        - ``eigenvalue`` (mode): its spectrum, from its Fitting split.

        Attributes: ``symbol``, ``window`` (W, 0 if none), ``small_window``, ``order`` (numbers held in all, -1 if
        they grow), ``reach`` (largest lag of a token that one layer can see, -1 without a bound),
        ``eidetic_reach`` (the same without the state), ``nilpotent_order`` and ``nilpotent_index`` of the reduced
        matrix with ``certified`` ("yes", or "undecided" where a decay is too small to be told from 0), ``state``
        ("mamba2", "gdn", "gka" or "none"), ``state_readout`` ("linear", "ridge": nonlinear in the state, or "none"),
        ``switched`` ("no", or "held": this is the mode in which nothing is stored or dropped), and checks.

    Raises
    ------
    TypeError, ValueError
        If there is no such layer, the model is not a HybridLM, a window or quantile is out of its range, or the taps of
        the text do not tell what ran.

    Notes
    -----
    The reduced matrix keeps one channel: a token is one number, B and C are 1 (the input of a delta rule is its beta),
    and all heads read the same channel, of the values, with the taps of the first one. What acts on each token by
    itself (activations, norms, gates of the output) is left out. Neither its blocks nor its spectrum depend on that.
    The index of its nilpotent part is 3 + 2W for B'MOJO-F over Mamba2: what enters the convolution reaches the fading
    tokens three tokens later at most, and leaves them 2W tokens after that. It is 2 + 2W over Gated DeltaNet and Gated
    KalmaNet, where nothing passes by the state: z / (z - a) has a zero at 0, which takes one of these tokens away.

    The transition of a delta rule is that along a key of length 1; the layer divides by the root of the squared length
    plus 1e-6, which the beta of a text takes into account. A beta of 1 leaves nothing under the key: then that mode
    belongs to the nilpotent part. The matrix has the quantiles of dt and of beta together, which no token need have.

    The ridge regression of Gated KalmaNet reads the content at a query that it solves for with the Gram matrix, so its
    output is not linear in the state; the matrix has the derivative at that query. Transition and spectrum are exact.

    A text costs a trace of the layer; all else is a matrix of about 3 + 2 H + 6 W slots.

    References
    ----------
    Zancato et al., "B'MOJO" (arXiv:2407.06324), equations 2 to 5, and Algorithm 1 for the selection; Yang, Kautz and
    Hatamizadeh (arXiv:2412.06464), equation 10, for the delta rule; arXiv:2511.21016 for Gated KalmaNet.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM, load
    >>> from solomonic.probes import structure
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=64), rng=0)
    >>> parts = structure(model, 0, window=2)
    >>> dict(zip(parts.part.values.tolist(), parts["index"].values.tolist()))
    {'conv': 3, 'state': 0, 'window': 64, 'fading_tokens': 128}
    >>> parts.eigenvalue.values.round(3)
    array([0.99 , 0.852, 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   , 0.   ])
    >>> stores = structure(load("bmojo"), 0, window=2)
    >>> dict(zip(stores.part.values.tolist(), stores["index"].values.tolist()))
    {'conv': 3, 'state': 0, 'window': 64, 'fading_tokens': 128, 'eidetic': -1}
    >>> stores.eigenvalue.values[:6].round(3), stores.attrs["reach"]
    (array([1.   , 1.   , 0.991, 0.981, 0.91 , 0.811]), -1)
    """
    symbol, config = checked_layer(model, layer), model.config
    width = width_of(config, layer)
    small = min(3, width or 3) if window is None else as_count(window, "window")
    data: dict[str, Any] = _parts(model, layer, width)
    coords: dict[str, Any] = {"part": data.pop("part")}
    kind = state_space(config, layer)
    modes = None
    if kind is not None:
        gates = gates_of(model, layer, ids, quantiles, progress=progress)
        per_head, decay, middle = ("at", "head"), gates.decay, len(gates.at) // 2
        data["dt"] = (per_head, gates.dt)
        data["rate"] = ("head", gates.rate)
        data["decay"] = (per_head, decay)
        data["half_life"] = (per_head, math.log(0.5) / (gates.dt * gates.rate))
        if gates.beta is not None:
            data["beta"] = (per_head, gates.beta)
            data["along_key"] = (per_head, decay * (1 - gates.beta))
        if kind == "gka":
            data["gram_decay"] = (per_head, decay if config.gka_decay_gram else np.ones_like(decay))
        coords["at"], coords["head"] = gates.at, np.arange(gates.rate.size)
        beta = None if gates.beta is None else gates.beta[middle]
        modes = modes_of(model, layer, decay[middle], beta, range(gates.rate.size))
    small_layer = reduced_layer(model, layer, small, modes)
    split = fitting(small_layer.A)
    spectrum = np.concatenate([_real(np.linalg.eigvals(split.core)), np.zeros(split.nil_order)])
    data["transition"] = (("to", "from"), small_layer.A)
    data["input"] = ("to", small_layer.B)
    data["block"] = ("to", small_layer.blocks)
    data["copies"] = ("to", small_layer.copies)
    data["eigenvalue"] = ("mode", spectrum)
    coords["to"], coords["from"] = small_layer.names, small_layer.names
    state = np.empty(0) if modes is None else modes.value
    reach = _reach(model, layer)
    attrs = {
        **provenance(
            "structure",
            model=model,
            arguments={"layer": layer, "ids": ids, "window": window, "quantiles": list(quantiles)},
            checks=_checks(model, layer, small, small_layer, state, spectrum),
        ),
        "symbol": symbol,
        "layer": layer,
        "window": width or 0,
        "small_window": small,
        "order": -1 if symbol == "*" else int(np.sum(data["scalars"][1])),
        "reach": -1 if kind is not None and _is_read(model, layer) else reach,
        "eidetic_reach": reach,
        "nilpotent_order": split.nil_order,
        "nilpotent_index": split.index,
        "certified": "yes" if split.verdict else "undecided",
        "state": kind or "none",
        "state_readout": "none" if kind is None else "ridge" if kind == "gka" and config.gka_num_iter else "linear",
        "switched": "held" if any(each.holds for each in registers_of(config, layer)) else "no",
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def checked_layer(model: HybridLM, layer: Any) -> str:
    """The symbol of a layer; raises where there is no such layer or it has no reduced matrix."""
    if not isinstance(model, HybridLM | AdaptedLM):
        raise TypeError(f"model: expected a HybridLM, whose layers have reduced matrices, got {type(model).__name__}")
    pattern = model.config.pattern
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise ValueError(f"layer: expected a layer from 0 to {len(pattern) - 1}, got {layer!r}")
    (layer,) = as_layers(layer, len(pattern), name="layer")
    symbol = pattern[layer]
    if not has_structure(model, layer):
        raise ValueError(
            f"layer: layer {layer} ({symbol}) has no reduced matrix here; structure knows the layers of a HybridLM, "
            f"this is an {type(model).__name__}. For what a layer was along a text, see "
            "trace(model, ids).system(layer, head)"
        )
    return symbol


def has_structure(model: Any, layer: int) -> bool:
    """Whether a layer has a reduced matrix: every layer of a HybridLM has."""
    return isinstance(model, HybridLM) and 0 <= layer < len(model.config.pattern)


def _parts(model: HybridLM, layer: int, width: int | None) -> dict[str, Any]:
    """The parts of a layer's memory, their kinds, indices and sizes."""
    config = model.config
    held = [part for part in model.empty_memory().parts() if part.layer == layer]
    names = [part.part for part in held]
    frozen = config.pattern[layer] == "BMO" and config.fading_tokens not in (None, width)
    fading = 2 * (width or 0) if not frozen else (width or 0) + (config.fading_tokens or 0) - 1
    index = {"conv": CONV, "state": 0, "window": width, "fading_tokens": fading, "kv": -1, "eidetic": -1}
    mixer: Any = model.model.get_submodule(f"layers.{layer}.mixer")
    full = mixer.sizes(_when_full(model, width))
    scalars = [full[name] for name in names]
    token = 2 * config.num_key_value_heads * config.head_dim
    return {
        "part": names,
        "kind": ("part", [part.kind for part in held]),
        "index": ("part", [index[name] for name in names]),
        "scalars": ("part", scalars),
        "token_equivalents": ("part", np.array(scalars) / token),
    }


def _when_full(model: HybridLM, width: int | None) -> int:
    """Tokens after which a layer holds the most: the last before a chunk ends, when all that is stored is there."""
    if width is None:
        return 1
    chunks = 2 + -(-max(model.config.eidetic_tokens, model.config.innovation_span) // width)
    return (chunks + 1) * width - 1


def _checks(
    model: HybridLM, layer: int, window: int, small: Reduced, state: np.ndarray, spectrum: np.ndarray
) -> dict[str, Any]:
    """Block triangular, registers nilpotent of the index of their length, and the spectrum that of state and holds."""
    parts = list(dict.fromkeys(small.blocks))
    place = np.array([parts.index(b) for b in small.blocks])
    above = place[:, None] < place[None, :]
    rows = np.array([name.split("[")[0] for name in small.names])
    index, held = {}, 0
    for register in registers_of(model.config, layer, window):
        own = rows == register.name
        if register.holds:
            held += register.length
            continue
        power, count = small.A[np.ix_(own, own)].copy(), 1
        while power.any() and count <= register.length:
            power, count = power @ small.A[np.ix_(own, own)], count + 1
        index[register.name] = count
    expected = np.concatenate([state, np.ones(held), np.zeros(len(rows) - state.size - held)])
    return {
        "block_triangular": bool((small.A[above] == 0).all()),
        "block_index": index,
        "spectrum_error": float(np.abs(np.sort(spectrum) - np.sort(expected)).max()),
    }


def _reach(model: HybridLM, layer: int) -> int:
    """Largest lag of a token in the layer's registers; -1 without a bound, 3 for the convolution alone."""
    config, symbol, width = model.config, model.config.pattern[layer], width_of(model.config, layer)
    if symbol == "*" or (symbol == "BMO" and config.eidetic_tokens):
        return -1
    if width is None:
        return CONV
    if symbol == "SWA":
        return width - 1
    fading = config.fading_tokens if symbol == "BMO" and config.fading_tokens is not None else width
    return width - 1 + (fading + CONV if fading else 0)


def _is_read(model: HybridLM, layer: int) -> bool:
    """Whether anything reads the state: without fading and stored tokens, B'MOJO's is there and not read."""
    config = model.config
    return config.pattern[layer] != "BMO" or config.fading_tokens != 0


def _real(values: np.ndarray) -> np.ndarray:
    """Largest first; the core of a block triangular matrix with a diagonal state is real."""
    return np.sort(np.real(values))[::-1]
