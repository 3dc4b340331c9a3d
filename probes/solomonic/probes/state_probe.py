"""Linear probes of the parts of a model's memory, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM

from .edits import _HEADS, fields_of
from .inputs import as_count, as_ids, as_layers, as_model, as_rng, finite
from .labelled import provenance, units
from .linear_probe import linear_probe
from .random_weights import random_model

__all__ = ["state_probe"]


def state_probe(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    labels: Any,
    *,
    part: str = "state",
    layers: Iterable[int] | int | None = None,
    positions: Any = -1,
    recent: int = 8,
    batch_size: int = 16,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """What a linear read-out of one part of the memory tells, for every layer and head, beside three controls.

    The controls are labels exchanged between prompts (``shuffled``), the same part of a model with random weights
    (``random``), and the last tokens themselves, one-hot (``recent``): what a register that copies would know.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Token ids [prompts, T].
    labels : array_like [prompts] or [prompts, positions]
        What is to be read out at each of the positions.
    part : str, default "state"
        The part of the memory: its keys and values where it has both. A convolution has no heads: it is head 0.
    layers : int or iterable of int, optional
        Layers; by default all that have the part.
    positions : int or array_like of int, default -1
        Tokens after which the memory is read, the same for all prompts, or [prompts, positions]; negative ones count
        from the end.
    recent : int, default 8
        How many of the last tokens the control ``recent`` knows.
    batch_size : int, default 16
        Prompts that run together.
    rng : int, numpy.random.Generator or None
        Source of the random weights and of what :func:`linear_probe` draws.
    progress : bool, default False
        Whether to show a progress bar.
    **options
        Of :func:`linear_probe`: task, strength, folds, shuffles, level, confidence, resamples.

    Returns
    -------
    xarray.Dataset
        The variables of :func:`linear_probe`, with dims layer and head in the place of unit; NaN (False) where a layer
        has fewer heads. Controls shuffled, random, recent.

    Raises
    ------
    TypeError, ValueError
        If a layer lacks the part, it holds nothing or grows between the positions, labels have another shape, or as
        :func:`linear_probe`.

    Notes
    -----
    One set of random weights is drawn: its control says what that network carries, not what all of them do. What is
    read out is there; whether the model uses it is a question for :func:`edit` and :func:`interchange_subspace`.

    References
    ----------
    Hewitt and Liang (arXiv:1909.03368) for selectivity; Zhang and Bowman (arXiv:1809.10040) for random networks as
    a control.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import state_probe
    >>> model = HybridLM(HybridConfig(pattern="SWA-M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(2, (60, 6), generator=torch.Generator().manual_seed(0))
    >>> found = state_probe(model, ids, ids[:, -1], part="window", recent=1)  # told by the last token, of course
    >>> found.score_mean.dims, found.score_mean.max().item() > 0.9, bool(found.selective.any())
    (('layer', 'head'), True, False)
    """
    model = as_model(model)
    text = as_ids(ids, model)
    at = _positions(positions, text)
    y = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    y = y[:, None] if y.ndim == 1 and at.shape[1] == 1 else y
    if y.shape != at.shape:
        raise ValueError(f"labels: expected shape {at.shape}, one for each prompt and position, got {np.shape(labels)}")
    chosen = _layers(model, part, layers)
    recent, batch_size = as_count(recent, "recent"), as_count(batch_size, "batch_size")
    if "controls" in options:
        raise ValueError("controls: state_probe makes its own; give features and controls to linear_probe")
    generator, seed = as_rng(rng)
    own = part_features(model, text, part, chosen, at, batch_size)
    other = part_features(random_model(model, generator), text, part, chosen, at, batch_size)
    controls = {
        "random": {_unit(key): value for key, value in other.items()},
        "recent": _recent(text.numpy(), at, recent),
    }
    prompts = np.repeat(np.arange(len(text)), at.shape[1])
    features = {_unit(key): value for key, value in own.items()}
    found = linear_probe(features, y.ravel(), prompts, controls=controls, rng=generator, progress=progress, **options)
    where = {"layer": ("unit", [key[0] for key in own]), "head": ("unit", [key[1] for key in own])}
    inner = found.drop_vars("unit").assign_coords(where).set_index(unit=["layer", "head"])
    inner = inner.unstack("unit", fill_value={"discovery": False, "selective": False})
    names = {str(name): tuple(d for d in found[name].dims if d != "unit") for name in found.data_vars}
    for name, dims in names.items():
        order = [d for d in dims if d != "prompt"] + ["layer", "head"] + [d for d in dims if d == "prompt"]
        inner[name] = inner[name].transpose(*order)
    arguments = {"ids": text, "part": part, "layers": chosen, "positions": at, "recent": recent, "labels": y, **options}
    earlier = found.attrs
    inner.attrs = {
        **earlier,
        **provenance("state_probe", model=model, arguments=arguments, seed=seed),
        "checks": earlier["checks"],
        "part": part,
    }
    return units(inner, {name: (v.attrs["long_name"], v.attrs["units"]) for name, v in _described(found)})


def part_features(
    model: HybridLM | AdaptedLM, text: Tensor, part: str, layers: Iterable[int], at: np.ndarray, batch_size: int
) -> dict[tuple[int, int], np.ndarray]:
    """One part after the tokens ``at`` [prompts, m], by (layer, head): [prompts m, d], prompt by prompt."""
    device = next(model.parameters()).device
    layers = tuple(layers)
    kept: dict[tuple[int, int], dict[tuple[int, int], np.ndarray]] = {}
    with torch.no_grad():
        for first in range(0, len(text), batch_size):
            rows, where = text[first : first + batch_size].to(device), at[first : first + batch_size]
            memory, start = None, 0
            for stop in np.unique(where) + 1:
                memory = model(rows[:, start:stop], memory=memory).memory
                start = int(stop)
                for layer in layers:
                    value = by_head(memory.get(layer, part), part, layer, start - 1)
                    finite(value, f"values of part {part!r} of layer {layer}")
                    array = value.float().cpu().numpy()
                    for i, j in zip(*np.nonzero(where == stop - 1), strict=True):
                        for head in range(array.shape[1]):
                            kept.setdefault((layer, head), {})[first + int(i), int(j)] = array[i, head]
    out = {}
    for key, samples in kept.items():
        ordered = [samples[i, j] for i in range(at.shape[0]) for j in range(at.shape[1])]
        if len({len(each) for each in ordered}) > 1:
            raise ValueError(
                f"positions: part {part!r} of layer {key[0]} holds {min(map(len, ordered))} to "
                f"{max(map(len, ordered))} numbers a head at these positions; take one, or positions after which "
                "it is full"
            )
        out[key] = np.stack(ordered)
    return out


def by_head(value: Any, part: str, layer: int, time: int) -> Tensor:
    """The numbers that a part holds for each head, [prompts, heads, d]; one head where it has none."""
    fields = [value] if isinstance(value, Tensor) else [getattr(value, name) for name in fields_of(value)]
    axis = _HEADS.get(part)
    flat = [each.flatten(1)[:, None] if axis is None else each.movedim(axis, 1).flatten(2) for each in fields]
    joined = torch.cat(flat, -1)
    if not joined.shape[-1]:
        raise ValueError(f"positions: part {part!r} of layer {layer} is empty after token {time}; take a later one")
    return joined


def _recent(text: np.ndarray, at: np.ndarray, count: int) -> Any:
    """One-hot codes of the last tokens of every sample, sparse; before the text there is a token of its own."""
    padded = np.concatenate([np.full((len(text), count), -1), text], 1)
    rows = [padded[i, t + 1 : t + 1 + count] for i in range(len(at)) for t in at[i]]
    return OneHotEncoder().fit_transform(np.stack(rows))


def _positions(positions: Any, text: Tensor) -> np.ndarray:
    count, steps = text.shape
    value = np.asarray(positions.cpu() if isinstance(positions, Tensor) else positions)
    if value.dtype.kind not in "iu" or value.ndim > 2 or not value.size:
        raise ValueError(f"positions: expected whole numbers, [m] or [prompts, m], got {positions!r}")
    if value.ndim == 2 and len(value) != count:
        raise ValueError(f"positions: expected a row for each of {count} prompts, got {len(value)}")
    value = np.broadcast_to(np.atleast_1d(value), (count, value.shape[-1] if value.ndim else 1)).astype(np.int64)
    if value.min() < -steps or value.max() >= steps:
        raise ValueError(f"positions: expected tokens from {-steps} to {steps - 1}, got {value.min()} to {value.max()}")
    value = value % steps
    if any(len(np.unique(row)) < len(row) for row in value):
        raise ValueError("positions: expected each once a prompt")
    return value


def _layers(model: HybridLM | AdaptedLM, part: str, layers: Any) -> tuple[int, ...]:
    """The layers asked for, all of which have the part."""
    held = model.empty_memory().layers
    has = tuple(i for i, each in enumerate(held) if part in each)
    chosen = has if layers is None else as_layers(layers, len(held))
    lacking = [i for i in chosen if i not in has]
    if lacking or not chosen:
        known = sorted({name for each in held for name in each})
        where = f"layer {lacking[0]} has {list(held[lacking[0]])}" if lacking else f"the model has {known}"
        raise ValueError(f"part: expected a part that the layers have, got {part!r}; {where}")
    return chosen


def _unit(key: tuple[int, int]) -> str:
    return f"layer {key[0]} head {key[1]}"


def _described(found: xr.Dataset) -> list[tuple[str, xr.DataArray]]:
    return [(str(name), value) for name, value in found.data_vars.items() if "units" in value.attrs]
