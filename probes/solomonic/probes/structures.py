"""The realizations of all heads of a model, with their certificates, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import HybridLM
from solomonic.realization import fitting

from .inputs import as_count, as_layers
from .labelled import provenance, units
from .structure import checked_layer, reduced_layer, steps_of
from .taps import has_state, layer_window

__all__ = ["structures"]

_UNITS = {
    "decay": ("decay of the state of the head in one token", "1"),
    "half_life": ("half-life of the state at that step", "token"),
    "transition": ("transition of the head with a small window", "1"),
    "nilpotent_order": ("dimension of the nilpotent part of that matrix, from its Fitting split", "1"),
    "nilpotent_index": ("index of that part: tokens until nothing is left", "token"),
    "certified": ("1 where the split is certain, 0 where a decay is too small to be told from 0", "1"),
    "gap": ("separation of the nilpotent part from the core", "1"),
    "spectrum_error": ("distance of the spectrum of the core from the decay", "1"),
    "full_order": ("dimension of the nilpotent part at full size (-1: grows without end)", "1"),
    "full_index": ("index at full size (-1: never cut)", "token"),
}


def structures(
    model: HybridLM,
    *,
    layers: Any = None,
    ids: Any = None,
    window: int = 3,
    quantile: float = 0.5,
    progress: bool = False,
) -> xr.Dataset:
    r"""What every head of a model is as a system: :func:`structure` head by head, for all layers at once.

    .. math:: A_{\text{head}} = T \begin{pmatrix} N & 0 \\ 0 & a \end{pmatrix} T^{-1}, \qquad N^k = 0

    Each head is realized with a small window, its own decay and its own taps of the convolution; the Fitting split of
    that matrix, with its certificate, gives the nilpotent part N and the core a. What the same parts are at full size
    stands beside it, in closed form.

    Parameters
    ----------
    model : HybridLM
        The model; layers \*, SWA, M2 and BMF over Mamba2.
    layers : int or iterable of int, optional
        Which layers; all by default.
    ids : array_like of int, optional
        A text at whose steps dt the decays are taken; without it those of the bias (see :func:`structure`).
    window : int, default 3
        W of the small realizations, tokens.
    quantile : float, default 0.5
        Of dt over the text, between 0 and 1.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, head, to, from.

        - ``transition`` (layer, head, to, from): the matrices, filled up with NaN.
        - ``nilpotent_order``, ``nilpotent_index``, ``certified``, ``gap``, ``spectrum_error`` (layer, head), from the
          Fitting split; ``decay``, ``half_life`` (layer, head), NaN where there is no state.
        - ``full_order``, ``full_index`` (layer, head): for B'MOJO-F 3 + 3 W and 3 + 2 W.

    Raises
    ------
    TypeError, ValueError
        As :func:`structure`.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import structures
    >>> model = HybridLM(HybridConfig(pattern="BMF-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=64, swa_window=32), rng=0)
    >>> found = structures(model, window=2)
    >>> found.nilpotent_index.values.tolist(), found.full_index.values.tolist()
    ([[7, 7], [2, 2]], [[131, 131], [32, 32]])
    """
    if not isinstance(model, HybridLM):
        raise TypeError(f"model: expected a HybridLM, whose layers have reduced matrices, got {type(model).__name__}")
    chosen = as_layers(layers, len(model.config.pattern))
    window = as_count(window, "window")
    heads = model.config.num_attention_heads
    shape = (len(chosen), heads)
    matrices: dict[tuple[int, int], np.ndarray] = {}
    decay, half_life, gap, error = (np.full(shape, np.nan) for _ in range(4))
    order, index, certified, full_order, full_index = (np.zeros(shape, int) for _ in range(5))
    for row, layer in enumerate(tqdm(chosen, disable=not progress, unit="layer", desc="structures")):
        symbol = checked_layer(model, layer)
        own = _decays(model, layer, ids, (quantile,)) if has_state(symbol) else np.full(heads, np.nan)
        decay[row] = own
        with np.errstate(divide="ignore", invalid="ignore"):
            half_life[row] = np.log(0.5) / np.log(own)
        full_order[row], full_index[row] = full_size(symbol, layer_window(model.config, layer))
        for head in range(heads):
            some = own[head : head + 1] if has_state(symbol) else np.empty(0)
            A = reduced_layer(model, layer, symbol, window, some, head)[2]
            split = fitting(A)
            matrices[row, head] = A
            order[row, head], index[row, head] = split.nil_order, split.index
            certified[row, head], gap[row, head] = bool(split.verdict), split.sep
            core = np.linalg.eigvals(split.core) if split.core.size else np.empty(0)
            error[row, head] = float(np.abs(core - some).max()) if core.size == some.size and some.size else (
                0.0 if core.size == some.size else np.nan
            )  # fmt: skip
    most = max(len(A) for A in matrices.values())
    transition = np.full((*shape, most, most), np.nan)
    for place, A in matrices.items():
        transition[(*place, slice(len(A)), slice(len(A)))] = A
    per_head = ("layer", "head")
    data = {
        "transition": ((*per_head, "to", "from"), transition),
        "decay": (per_head, decay),
        "half_life": (per_head, half_life),
        "nilpotent_order": (per_head, order),
        "nilpotent_index": (per_head, index),
        "certified": (per_head, certified),
        "gap": (per_head, gap),
        "spectrum_error": (per_head, error),
        "full_order": (per_head, full_order),
        "full_index": (per_head, full_index),
    }
    coords = {
        "layer": list(chosen),
        "head": np.arange(heads),
        "symbol": ("layer", [model.config.pattern[i] for i in chosen]),
    }
    arguments = {"layers": chosen, "ids": ids, "window": window, "quantile": quantile}
    attrs = {**provenance("structures", model=model, arguments=arguments), "small_window": window}
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _decays(model: HybridLM, layer: int, ids: Any, quantiles: Sequence[float]) -> np.ndarray:
    _, dt, rate = steps_of(model, layer, ids, quantiles)
    return np.exp(dt[0] * rate)


def full_size(symbol: str, window: int | None) -> tuple[int, int]:
    """Dimension and index of the nilpotent part of a head at full size; -1 where a register is never cut."""
    if symbol == "*":
        return -1, -1
    if symbol == "M2":
        return 3, 3
    assert window is not None
    return (window, window) if symbol == "SWA" else (3 + 3 * window, 3 + 2 * window)
