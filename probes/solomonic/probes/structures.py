"""The realizations of all heads of a model, with their certificates, in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import HybridLM
from solomonic.realization import fitting

from .gates import gates_of, state_space
from .inputs import as_count, as_layers
from .labelled import provenance, units
from .reduced import CONV, Modes, modes_of, reduced_layer, registers_of
from .structure import checked_layer

__all__ = ["structures"]

_UNITS = {
    "decay": ("decay of the state of the head in one token", "1"),
    "half_life": ("half-life of the state at that step", "token"),
    "along_key": ("what a delta rule leaves in one token of what it holds under the token's key", "1"),
    "gram_decay": ("decay of the Gram matrix of the keys in one token", "1"),
    "transition": ("transition of the head with a small window", "1"),
    "nilpotent_order": ("dimension of the nilpotent part of that matrix, from its Fitting split", "1"),
    "nilpotent_index": ("index of that part: tokens until nothing is left", "token"),
    "certified": ("1 where the split is certain, 0 where a decay is too small to be told from 0", "1"),
    "gap": ("separation of the nilpotent part from the core", "1"),
    "spectrum_error": ("distance of the spectrum from that of the state, ones for what is held, and zeros", "1"),
    "held": ("slots that a token leaves as they are: eigenvalues 1 of the core", "1"),
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

    .. math:: A_{\text{head}} = T \begin{pmatrix} N & 0 \\ 0 & \Lambda \end{pmatrix} T^{-1}, \qquad N^k = 0

    Each head is realized with a small window, its own decay and its own taps of the convolution; the Fitting split of
    that matrix, with its certificate, gives the nilpotent part N and the core :math:`\Lambda`: the decay of the head,
    of a delta rule also what it leaves under a key, and ones for stored tokens. What the registers are at full size
    stands beside it, in closed form.

    Parameters
    ----------
    model : HybridLM
        The model; any of its layers.
    layers : int or iterable of int, optional
        Which layers; all by default.
    ids : array_like of int, optional
        A text at whose gates the matrices are taken; without it those of the bias (see :func:`structure`).
    window : int, default 3
        W of the small realizations, tokens.
    quantile : float, default 0.5
        Of the gates over the text, between 0 and 1.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, head, to, from.

        - ``transition`` (layer, head, to, from): the matrices, filled up with NaN.
        - ``nilpotent_order``, ``nilpotent_index``, ``certified``, ``gap``, ``spectrum_error`` (layer, head), from the
          Fitting split; ``held`` (layer, head), how many ones its core has.
        - ``decay``, ``half_life``, ``along_key``, ``gram_decay`` (layer, head), NaN where there is no such state.
        - ``full_order``, ``full_index`` (layer, head): for B'MOJO-F over Mamba2 3 + 3 W and 3 + 2 W; the index is one
          less over Gated DeltaNet and Gated KalmaNet, where no input passes by the state.

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
    decay, along_key, gram_decay, gap, error = (np.full(shape, np.nan) for _ in range(5))
    order, index, certified, held, full_order, full_index = (np.zeros(shape, int) for _ in range(6))
    for row, layer in enumerate(tqdm(chosen, disable=not progress, unit="layer", desc="structures")):
        checked_layer(model, layer)
        kind = state_space(model.config, layer)
        gates = None if kind is None else gates_of(model, layer, ids, (quantile,))
        if gates is not None:
            decay[row] = gates.decay[0]
            if gates.beta is not None:
                along_key[row] = decay[row] * (1 - gates.beta[0])
            if kind == "gka":
                gram_decay[row] = decay[row] if model.config.gka_decay_gram else 1.0
        held[row] = sum(each.length for each in registers_of(model.config, layer, window) if each.holds)
        for head in range(heads):
            modes = None
            if gates is not None:
                beta = None if gates.beta is None else gates.beta[0, head : head + 1]
                modes = modes_of(model, layer, gates.decay[0, head : head + 1], beta, [head])
            full_order[row, head], full_index[row, head] = full_size(model, layer, modes)
            A = reduced_layer(model, layer, window, modes, head).A
            split = fitting(A)
            matrices[row, head] = A
            order[row, head], index[row, head] = split.nil_order, split.index
            certified[row, head], gap[row, head] = bool(split.verdict), split.sep
            core = np.linalg.eigvals(split.core) if split.core.size else np.empty(0)
            expected = np.concatenate([np.empty(0) if modes is None else modes.value, np.ones(held[row, head])])
            error[row, head] = _distance(core, expected, len(A))
    with np.errstate(divide="ignore", invalid="ignore"):
        half_life = np.log(0.5) / np.log(decay)
    most = max(len(A) for A in matrices.values())
    transition = np.full((*shape, most, most), np.nan)
    for place, A in matrices.items():
        transition[(*place, slice(len(A)), slice(len(A)))] = A
    per_head = ("layer", "head")
    data = {
        "transition": ((*per_head, "to", "from"), transition),
        "decay": (per_head, decay),
        "half_life": (per_head, half_life),
        "along_key": (per_head, along_key),
        "gram_decay": (per_head, gram_decay),
        "nilpotent_order": (per_head, order),
        "nilpotent_index": (per_head, index),
        "certified": (per_head, certified),
        "gap": (per_head, gap),
        "spectrum_error": (per_head, error),
        "held": (per_head, held),
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


def _distance(core: np.ndarray, expected: np.ndarray, size: int) -> float:
    """Largest distance of two spectra, each filled up with zeros to the size of the matrix."""
    found = [np.sort(np.real(np.pad(each, (0, size - each.size)))) for each in (core, expected)]
    return float(max(np.abs(found[0] - found[1]).max(), np.abs(np.imag(core)).max(initial=0.0)))


def full_size(model: HybridLM, layer: int, modes: Modes | None) -> tuple[int, int]:
    """Dimension and index of the nilpotent part of a head at full size; -1 where a register is never cut."""
    if model.config.pattern[layer] == "*":
        return -1, -1
    shifts = [each for each in registers_of(model.config, layer) if not each.holds]
    order, index, direct = sum(each.length for each in shifts), [0], True
    if modes is not None:
        # A mode that keeps nothing belongs to the nilpotent part.
        gone = (modes.value == 0) & (modes.write != 0)
        order += int((modes.value == 0).sum())
        index.append(CONV + bool(gone.any()))
        # What reaches the output through states alone has the transfer function z / (z - a), with a zero at 0.
        direct = modes.feed != 0 or bool(gone.any())
    index += [each.length + (CONV - (not direct) if each.source == "output" else 0) for each in shifts]
    return order, max(index)
