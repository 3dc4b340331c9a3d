"""How small a state would do: balanced truncation of trained states on real text, and what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import HybridLM, bits_per_token
from solomonic.models.lm import mamba2_of

from .inputs import as_count, as_ids, as_layers, as_level
from .labelled import provenance, units
from .over_prompts import ratio_of_means
from .ratios import ratio_interval
from .recurrence import readout, steps
from .taps import state_kind
from .trace import Trace, trace

__all__ = ["compress", "compression"]

_UNITS = {
    "bits": ("bits a token of the reduced model", "bit/token"),
    "bits_full": ("bits a token of the model itself", "bit/token"),
    "cost": ("bits a token of the reduced model over those of the model itself", "1"),
    "cost_interval": ("confidence interval of the cost, prompts redrawn in pairs", "1"),
    "singular_value": ("balanced singular value of the state of a head on the text", "1"),
    "predicted": ("relative mean square error of the outputs of a head, from the discarded singular values", "1"),
    "measured": ("the same, measured on the text that is scored", "1"),
    "measured_interval": ("confidence interval of measured, prompts redrawn", "1"),
    "error_bound": ("upper bound of the same on the text that was balanced on", "1"),
    "proposed": ("least order that holds the share of the sum of the singular values in every head", "1"),
    "state_numbers": ("numbers in the states of the reduced layers", "1"),
    "order": ("directions that each head keeps", "1"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Balanced:
    """Of one layer: sigma [H, N], write V and read W [H, N, N], columns in the order of sigma."""

    sigma: np.ndarray
    write: np.ndarray
    read: np.ndarray

    def proposed(self, share: float) -> int:
        held = self.sigma.cumsum(1) / np.maximum(self.sigma.sum(1, keepdims=True), 1e-300)
        return int(min((held < share).sum(1).max() + 1, self.sigma.shape[1]))


def compress(
    model: HybridLM,
    ids: Any,
    *,
    layers: Iterable[int] | int | None = None,
    order: int | Sequence[int] | None = None,
    share: float = 0.999,
    progress: bool = False,
) -> HybridLM:
    r"""A model whose states are smaller: balanced truncation of the states of its Mamba2 layers on a text.

    Every head keeps r of the N directions of its state :math:`h_t` [P, N]. With the second moments of the states and
    of what reads them,

    .. math:: X = \mathbb E\, h_t^\top h_t / P = L L^\top, \qquad M = \mathbb E\, C_t C_t^\top = K K^\top, \qquad
              K^\top L = U \Sigma V^\top,

    the state is written through :math:`\Sigma^{-1/2} U^\top K^\top` and read through :math:`L V \Sigma^{-1/2}`, of
    which the first r directions stay.

    Parameters
    ----------
    model : HybridLM
        The model; it stays as it is.
    ids : array_like of int
        The text to balance on, [T] or [prompts, T].
    layers : int or iterable of int, optional
        Layers whose states are reduced; by default all that have one.
    order : int or sequence of int, optional
        r from 1 to N, for all of these layers or for each; by default the least that holds ``share`` of the sum of the
        singular values in every head of the layer.
    share : float, default 0.999
        See ``order``.
    progress : bool, default False
        Whether to show progress bars, of the trace of the text and of the layers.

    Returns
    -------
    HybridLM
        A model with the same weights and smaller states; its memory, ``save`` and ``load`` know the size
        (``config.state_sizes``).

    Raises
    ------
    TypeError, ValueError
        If a layer has no Mamba2 state, or an order is out of its range.

    Notes
    -----
    The decay is one number a head, so a projection of the state commutes with it and the reduced head is again a
    Mamba2 head: the error of its output is that of :math:`C_t^\top (1 - \Pi) h_t^\top` at each token, and there is no
    part that builds up over time. That is why X and M are balanced, and not the Gramians over all the past and future
    of an input. See :func:`compression` for what an order costs.

    References
    ----------
    Moore, "Principal component analysis in linear systems", IEEE TAC 26 (1981), for balancing; Lall, Marsden and
    Glavaski, "Empirical model reduction" (1999), for Gramians from data.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import compress
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> small = compress(model, torch.arange(64) % 16, order=3)
    >>> small.empty_memory().get(0, "state").shape
    torch.Size([1, 2, 8, 3])
    """
    chosen = _layers(model, layers)
    share = as_level(share, "share")
    sizes = _orders(model, order, chosen)
    run = trace(model, ids, layers=chosen, progress=progress).require()
    found = _balanced(run, chosen, progress)
    sizes = sizes or {i: found[i].proposed(share) for i in chosen}
    return _reduced(model, found, sizes)


def compression(
    model: HybridLM,
    ids: Any,
    *,
    calibration: Any = None,
    layers: Iterable[int] | int | None = None,
    orders: Iterable[int] | None = None,
    share: float = 0.999,
    confidence: float = 0.95,
    progress: bool = False,
) -> xr.Dataset:
    r"""What smaller states cost: bits a token against the order, and the error of each head, predicted and measured.

    Parameters
    ----------
    model : HybridLM
        The model.
    ids : array_like of int
        The text that is scored, [prompts, T] with T at least 2.
    calibration : array_like of int, optional
        The text that is balanced on (see :func:`compress`); by default the first half of the prompts, and the second
        half is scored.
    layers : int or iterable of int, optional
        Layers whose states are reduced together; by default all that have one.
    orders : iterable of int, optional
        Orders r from 1 to N, the same in all of these layers; by default about eight.
    share : float, default 0.999
        Of the sum of the singular values, for ``proposed``.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims order, layer, head, mode, prompt, bound. The orders begin with that of the proposal, as -1: each layer at
        its own ``proposed`` (layer).

        - ``bits`` (order, prompt), ``bits_full`` (prompt); ``cost`` (order), relative, with ``cost_interval``.
        - ``singular_value`` (layer, head, mode).
        - ``predicted``, ``error_bound``, ``measured`` (order, layer, head): mean square of the error of a head's output
          over that of the output, with the inputs that it has in the full model. ``measured_interval`` redraws the
          prompts that are scored; the other two are properties of the text that was balanced on.
        - ``state_numbers`` (order): size of all states together.

    Raises
    ------
    TypeError, ValueError
        As :func:`compress`; if there are fewer than two prompts and no calibration text.

    Notes
    -----
    ``predicted`` is the sum of the squares of the discarded singular values: the mean square error if states and
    what reads them were independent given the head. ``error_bound`` is the inequality of Cauchy and Schwarz, with the
    largest norm of the discarded part of what reads.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import compression
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> ids = torch.randint(16, (4, 40), generator=torch.Generator().manual_seed(0))
    >>> curve = compression(model, ids, orders=[2, 8])
    >>> bool(abs(curve.cost.sel(order=8)) < 1e-5)
    True
    """
    tokens = as_ids(ids, model, least=2)
    chosen = _layers(model, layers)
    share, confidence = as_level(share, "share"), as_level(confidence, "confidence")
    if calibration is None:
        if len(tokens) < 2:
            raise ValueError("calibration: one prompt cannot be split in halves; give a text to balance on, or more")
        half = len(tokens) // 2
        base, tokens = tokens[:half], tokens[half:]
    else:
        base = as_ids(calibration, model, name="calibration")
    width = model.config.head_dim
    spaced = np.unique(np.rint(np.geomspace(1, width, 8)).astype(int)).tolist()
    wanted = [as_count(r, "orders") for r in (spaced if orders is None else orders)]
    if not wanted or max(wanted) > width:
        raise ValueError(f"orders: expected whole numbers from 1 to {width}, got {wanted}")
    arguments = {"ids": tokens, "calibration": base, "layers": chosen, "orders": wanted, "share": share}
    on_base = trace(model, base, layers=chosen).require()
    found = _balanced(on_base, chosen)
    proposed = {i: found[i].proposed(share) for i in chosen}
    on_text = trace(model, tokens, layers=chosen).require()
    tables = [proposed, *(dict.fromkeys(chosen, r) for r in sorted(set(wanted)))]
    full = bits_per_token(model, tokens).mean(1).numpy()
    bits = np.empty((len(tables), len(tokens)))
    heads = model.config.num_attention_heads
    predicted, bound = (np.empty((len(tables), len(chosen), heads)) for _ in range(2))
    squares = np.empty((len(tokens), 2, len(tables), len(chosen), heads))
    for row, sizes in enumerate(tqdm(tables, disable=not progress, unit="order", desc="compression")):
        bits[row] = bits_per_token(_reduced(model, found, sizes), tokens).mean(1).numpy()
        for place, i in enumerate(chosen):
            predicted[row, place], bound[row, place] = _expected(on_base, i, found[i], sizes[i])
            squares[:, :, row, place] = _error(on_text, i, found[i], sizes[i])
    ratio = np.moveaxis(np.stack([bits, np.broadcast_to(full, bits.shape)], -1), 1, 0)
    interval = ratio_interval(ratio[..., 0], ratio[..., 1], confidence=confidence) - 1
    error = ratio_interval(squares[:, 0], squares[:, 1], confidence=confidence, within=(0, np.inf))
    coords = {
        "order": [-1, *sorted(set(wanted))],
        "layer": list(chosen),
        "head": np.arange(heads),
        "mode": np.arange(width),
        "prompt": np.arange(len(tokens)),
        "bound": ["lower", "upper"],
        "symbol": ("layer", [model.config.pattern[i] for i in chosen]),
    }
    per_head = ("order", "layer", "head")
    data = {
        "bits": (("order", "prompt"), bits),
        "bits_full": ("prompt", full),
        "cost": ("order", _cost(ratio, 0)),
        "cost_interval": (("bound", "order"), interval),
        "singular_value": (("layer", "head", "mode"), np.stack([found[i].sigma for i in chosen])),
        "predicted": (per_head, predicted),
        "error_bound": (per_head, bound),
        "measured": (per_head, ratio_of_means(squares, 0)),
        "measured_interval": (("bound", *per_head), error),
        "proposed": ("layer", [proposed[i] for i in chosen]),
        "state_numbers": ("order", [sum(heads * width * r for r in sizes.values()) for sizes in tables]),
    }
    attrs = {
        **provenance("compression", model=model, arguments=arguments, checks={"error": on_base.error}),
        "share": share,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _layers(model: HybridLM, layers: Iterable[int] | int | None) -> tuple[int, ...]:
    if not isinstance(model, HybridLM):
        raise TypeError(
            f"model: expected a HybridLM, whose layers can be built with smaller states, got {type(model).__name__}; "
            "for others see effective_state"
        )
    pattern = model.config.pattern
    chosen = as_layers(layers, len(pattern))
    fit = [state_kind(model.config, i) == "scalar" for i in range(len(pattern))]
    if layers is None:
        chosen = tuple(i for i in chosen if fit[i])
        if not chosen:
            raise ValueError(f"model: its layers ({'-'.join(pattern)}) have no state to reduce (of Mamba2)")
    for i in chosen:
        if not fit[i]:
            raise ValueError(f"layers: layer {i} ({pattern[i]}) has no state to reduce (of Mamba2)")
        if mamba2_of(model.layers[i].mixer).state_size < model.config.head_dim:
            raise ValueError(f"layers: the state of layer {i} has been reduced already; begin with the full model")
    return chosen


def _orders(model: HybridLM, order: Any, layers: tuple[int, ...]) -> dict[int, int]:
    if order is None:
        return {}
    each = [order] * len(layers) if isinstance(order, int | np.integer) else list(order)
    if len(each) != len(layers):
        raise ValueError(f"order: expected one number, or one for each of {len(layers)} layers, got {len(each)}")
    width = model.config.head_dim
    for r in each:
        if as_count(r, "order") > width:
            raise ValueError(f"order: expected whole numbers from 1 to {width}, got {order!r}")
    return {i: int(r) for i, r in zip(layers, each, strict=True)}


def _balanced(run: Trace, layers: tuple[int, ...], progress: bool = False) -> dict[int, _Balanced]:
    out = {}
    for i in tqdm(layers, disable=not progress, unit="layer", desc="compress"):
        C = run.C(i)
        reads = np.einsum("bthn,bthm->hnm", C, C, optimize=True) / (C.shape[0] * C.shape[1])
        out[i] = _balance(_second_moment(run, i), reads)
    return out


def _second_moment(run: Trace, layer: int) -> np.ndarray:
    """Mean over prompts, tokens and channels of h' h, [H, N, N]; states are not held."""
    u = run.u(layer)
    total = 0.0
    for h in steps(run.log_decay(layer), run.B(layer), u, run.initial_state(layer)):
        total = total + np.einsum("bhpn,bhpm->hnm", h, h, optimize=True)
    return np.asarray(total) / (u.shape[0] * u.shape[1] * u.shape[3])


def _balance(states: np.ndarray, reads: np.ndarray) -> _Balanced:
    L, K = _root(states), _root(reads)
    U, sigma, Vt = np.linalg.svd(np.swapaxes(K, -1, -2) @ L)
    scale = 1 / np.sqrt(np.maximum(sigma, sigma[:, :1] * 1e-14 + 1e-300))[:, None, :]
    return _Balanced(sigma, K @ U * scale, L @ np.swapaxes(Vt, -1, -2) * scale)


def _root(matrix: np.ndarray) -> np.ndarray:
    """A square root L of a positive semidefinite matrix [..., n, n], L L' = matrix, with a floor of rounding's size."""
    values, vectors = np.linalg.eigh(matrix)
    floor = np.maximum(values[..., -1:], 0) * 1e-14 + 1e-300
    return vectors * np.sqrt(np.maximum(values, floor))[..., None, :]


def _reduced(model: HybridLM, found: dict[int, _Balanced], sizes: dict[int, int]) -> HybridLM:
    config = model.config
    old = config.state_sizes or (None,) * len(config.pattern)
    new = tuple(sizes.get(i, size) for i, size in enumerate(old))
    like = next(model.parameters())
    with torch.device("meta"):
        out = HybridLM(dataclasses.replace(config, state_sizes=new))
    weights = dict(model.state_dict())
    for i, r in sizes.items():
        if r == config.head_dim:
            continue
        inside = mamba2_of(out.layers[i].mixer)
        (prefix,) = (name for name, module in out.named_modules() if module is inside)
        for name, value in (("state_write", found[i].write), ("state_read", found[i].read)):
            weights[f"{prefix}.{name}"] = torch.from_numpy(value[:, :, :r].copy()).to(like)
    out.load_state_dict(weights, assign=True)
    return out.eval().requires_grad_(False)


def _expected(run: Trace, layer: int, found: _Balanced, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and bounding relative mean square error of each head's output on the text that was balanced on."""
    tail = (found.sigma[:, r:] ** 2).sum(1)
    reads = np.einsum("bthn,hnk->bthk", run.C(layer), found.read[:, :, r:], optimize=True)
    # In balanced coordinates the mean square of direction k of the state is sigma_k.
    bound = (reads**2).sum(-1).max((0, 1), initial=0.0) * found.sigma[:, r:].sum(1)
    scale = _energy(run, layer).mean(0)
    return tail / scale, bound / scale


def _error(run: Trace, layer: int, found: _Balanced, r: int) -> np.ndarray:
    """Mean squares [prompts, 2, heads] of the error of each head's output when its state is projected, at the inputs of
    the full run, and of the output."""
    # What is discarded is a system of its own: written by the other directions, read by them.
    write = np.einsum("bthn,hnk->bthk", run.B(layer), found.write[:, :, r:], optimize=True)
    read = np.einsum("bthn,hnk->bthk", run.C(layer), found.read[:, :, r:], optimize=True)
    energy = _energy(run, layer)
    if r == found.sigma.shape[1]:
        return np.stack([np.zeros_like(energy), energy], 1)
    h0 = np.einsum("bhpn,hnk->bhpk", run.initial_state(layer), found.write[:, :, r:], optimize=True)
    zero = np.zeros_like(run.D(layer))
    lost = readout(run.log_decay(layer), write, read, zero, run.u(layer), h0)
    return np.stack([(lost**2).mean((1, 3)), energy], 1)


def _energy(run: Trace, layer: int) -> np.ndarray:
    """Mean squares [prompts, heads] of what each head reads from its state, without the feed-through."""
    read = run.y(layer) - run.u(layer) * run.D(layer)[:, None]
    return np.maximum((read**2).mean((1, 3)), 1e-300)


def _cost(values: np.ndarray, axis: int) -> np.ndarray:
    """Relative cost of bits [..., 2] (reduced, full), averaged over an axis."""
    mean = values.mean(axis)
    return mean[..., 0] / mean[..., 1] - 1
