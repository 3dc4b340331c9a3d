"""Is the memory a state? Reading a text at once or in two pieces must come to the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedConfig, AdaptedLM, HybridConfig, HybridLM, Memory

from .inputs import as_ids, as_model, log_spaced, within
from .labelled import provenance, units
from .taps import layer_window

__all__ = ["split_law"]

#: Largest error that is rounding, by the dtype of the model, relative to the scale of what is compared.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
#: Up to this many tokens every split is tried.
_ALL = 256

_UNITS = {
    "error": ("largest deviation of a layer's output after the split, relative to its largest output", "1"),
    "logits_error": ("largest deviation of the logits after the split, relative to the largest logit", "1"),
    "position": ("token at which the deviation of a layer is largest", "token"),
    "split": ("tokens before the split", "token"),
    "scale": ("largest output of a layer", "1"),
}


def split_law(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    splits: Iterable[int] | None = None,
    tolerance: float | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Compare reading a text at once with reading it in two pieces, the memory handed over between them.

    .. math:: model(a + b)\big|_b = model(b,\ \text{memory} = model(a).\text{memory})

    That is what makes the memory a state in the sense of realization theory: nothing else of the past matters for
    the future. It is also what makes prefill and decode the same system.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; one of transformers is adapted on the way in (:func:`solomonic.models.adapt`).
    ids : array_like of int
        Token ids [T] or [prompts, T], T at least 2 tokens.
    splits : iterable of int, optional
        Lengths of the first piece, from 1 to T - 1; by default every one up to T = 256, beyond that about 60: evenly
        spaced in their logarithm, and around the windows.
    tolerance : float, optional
        Largest error that counts as rounding; by default 1e-4 in float32, 1e-10 in float64, 5e-2 in bfloat16.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims split, layer.

        - ``error`` (split, layer): largest deviation of the residual stream after the layer, over prompts and the
          tokens after the split, relative to ``scale`` (layer), its largest entry in the whole run.
        - ``logits_error`` (split): the same for the logits.
        - ``position`` (split, layer): the token at which the deviation is largest.

        Attributes: ``holds`` ("yes" or "no"), ``tolerance``, ``largest_error`` with its ``layer`` (-1: the logits),
        ``split`` and ``position`` under ``worst_layer``, ``worst_split``, ``worst_position``, and ``first_layer``,
        the first layer over the tolerance (-1 if there is none): what is wrong below shows in all layers above.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens of the model, or a split leaves a piece empty.

    Notes
    -----
    Costs two passes over the text for each split. A state that is dropped, a register that is cut short or a
    position that starts again shows as an error of order 1 from the first token that would have read it; published
    code for B'MOJO-F fails so W tokens after the split, because the state of its state space layer is not kept.

    References
    ----------
    Kalman, Falb and Arbib, "Topics in mathematical system theory" (1969), chapter 1: the state as what composes.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import split_law
    >>> model = HybridLM(HybridConfig(pattern="BMF-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=3, swa_window=4), rng=0)
    >>> law = split_law(model, torch.arange(14))
    >>> law.attrs["holds"], law.error.sizes
    ('yes', Frozen({'split': 13, 'layer': 2}))
    """
    model = as_model(model)
    tokens = as_ids(ids, model, least=2)
    steps = tokens.shape[1]
    chosen = default_splits(model.config, steps) if splits is None else _as_splits(splits, steps)
    dtype = next(model.parameters()).dtype
    limit = TOLERANCE.get(dtype, 1e-2) if tolerance is None else float(tolerance)
    if not limit > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    device_ids = tokens.to(next(model.parameters()).device)
    whole, logits, _ = _outputs(model, device_ids, None)
    layers = len(whole)
    scale = np.array([float(h.abs().max()) for h in whole])
    logit_scale = float(logits.abs().max())
    error = np.empty((chosen.size, layers))
    position = np.empty((chosen.size, layers), np.int64)
    logits_error = np.empty(chosen.size)
    for row, split in enumerate(tqdm(chosen.tolist(), desc="split law", disable=not progress)):
        _, _, memory = _outputs(model, device_ids[:, :split], None)
        rest, rest_logits, _ = _outputs(model, device_ids[:, split:], memory)
        for i in range(layers):
            deviation = (rest[i] - whole[i][:, split:]).abs().amax((0, 2))
            worst = _worst(deviation)
            error[row, i] = float(deviation[worst]) / (scale[i] or 1.0)
            position[row, i] = split + worst
        logits_error[row] = float((rest_logits - logits[:, split:]).abs().max()) / (logit_scale or 1.0)
    dataset = xr.Dataset(
        {
            "error": (("split", "layer"), error),
            "logits_error": ("split", logits_error),
            "position": (("split", "layer"), position),
            "scale": ("layer", scale),
        },
        coords={
            "split": chosen,
            "layer": np.arange(layers),
            "symbol": ("layer", list(model.config.pattern)),
        },
        attrs={
            **provenance(
                "split_law",
                model=model,
                arguments={"ids": tokens, "splits": chosen, "tolerance": tolerance},
                checks={"splits": int(chosen.size)},
            ),
            "tolerance": limit,
            **_verdict(error, logits_error, position, chosen, limit),
        },
    )
    return units(dataset, _UNITS)


def default_splits(config: HybridConfig | AdaptedConfig, length: int) -> np.ndarray:
    """Every split of up to 256 tokens; beyond, some 60 of them, dense at both ends and around the windows."""
    if length <= _ALL:
        return np.arange(1, length)
    spaced = log_spaced(1, length - 1, 24)
    found = [*spaced, *(length - spaced)]
    for width in {layer_window(config, i) for i in range(len(config.pattern))} - {None}:
        assert width is not None
        for edge in (width, 2 * width, length - width, length - 2 * width):
            found += [edge - 1, edge, edge + 1]
    return within(found, 1, length - 1)


def _as_splits(splits: Iterable[int], length: int) -> np.ndarray:
    value = np.atleast_1d(np.asarray(list(splits)))
    if value.size == 0 or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"splits: expected whole numbers, at least one, got {value.tolist()}")
    if value.min() < 1 or value.max() >= length:
        raise ValueError(
            f"splits: a text of {length} tokens splits after 1 to {length - 1} of them, got {value.tolist()}"
        )
    return np.unique(value)


def _outputs(model: HybridLM | AdaptedLM, ids: Tensor, memory: Memory | None) -> tuple[list[Tensor], Tensor, Memory]:
    """Outputs of the layers and logits in float64, and the memory."""
    hidden: dict[int, Tensor] = {}

    def record(layer: int, name: str, value: Tensor) -> None:
        if name == "hidden":
            hidden[layer] = value.double()

    with torch.inference_mode():
        out = model(ids, memory=memory, record=record)
    if len(hidden) != len(model.config.pattern):
        raise ValueError(f"model: expected the tap 'hidden' of {len(model.config.pattern)} layers, got {len(hidden)}")
    return [hidden[i] for i in sorted(hidden)], out.logits.double(), out.memory


def _worst(deviation: Tensor) -> int:
    """Where the deviation is largest; NaN counts as larger than anything."""
    bad = torch.isnan(deviation)
    return int(bad.int().argmax()) if bool(bad.any()) else int(deviation.argmax())


def _verdict(
    error: np.ndarray, logits_error: np.ndarray, position: np.ndarray, splits: np.ndarray, limit: float
) -> dict[str, Any]:
    known = np.where(np.isnan(error), np.inf, error)
    row, layer = np.unravel_index(int(known.argmax()), known.shape)
    of_logits = np.where(np.isnan(logits_error), np.inf, logits_error)
    largest, place = float(known[row, layer]), int(position[row, layer])
    worst_layer, worst_split = int(layer), int(splits[row])
    if of_logits.max() > largest:
        largest, worst_layer = float(of_logits.max()), -1
        worst_split = int(splits[int(of_logits.argmax())])
        place = int(position[int(of_logits.argmax()), -1])
    over = np.flatnonzero((known > limit).any(0))
    return {
        "holds": "yes" if largest <= limit else "no",
        "largest_error": largest,
        "worst_layer": worst_layer,
        "worst_split": worst_split,
        "worst_position": place,
        "first_layer": int(over[0]) if over.size else -1,
    }
