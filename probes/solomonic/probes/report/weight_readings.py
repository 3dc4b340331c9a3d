"""What the figure about the information in the weights says, in sentences that carry the measured numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..statistics import bootstrap_interval
from .say import count, share, small

#: Kinds of parameters that are one thing to the reader; all others are the mixer's.
_GROUPS = {"MLP": "MLP", "norm": "norms", "embedding": "embedding", "head": "head"}

HEAD = ("Parameters", "How many", "Share of the trace", "Effective number", "Share of them")


def groups(data: xr.Dataset) -> Mapping[str, np.ndarray]:
    """The blocks of each row of the table: mixer, MLP and norms layer by layer, then what is in no layer."""
    layers, kinds = data["layer"].to_numpy(), data["kind"].to_numpy()
    found: dict[str, list[int]] = {}
    for i, (layer, kind) in enumerate(zip(layers, kinds, strict=True)):
        what = _GROUPS.get(str(kind), "mixer" if layer >= 0 else str(kind))
        found.setdefault(what if layer < 0 else f"layer {layer}, {what}", []).append(i)
    return {name: np.array(blocks) for name, blocks in found.items()}


def trace_share(data: xr.Dataset, blocks: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of some blocks in the trace, and its interval over windows (NaN for one)."""
    fisher = data["fisher"].transpose("prompt", "block").to_numpy()
    both = np.stack([fisher[:, blocks].sum(1), fisher.sum(1)], 1)
    return float(_ratio(both, 0)[()]), bootstrap_interval(both, _ratio, rng=0)


def effective(data: xr.Dataset, blocks: np.ndarray) -> tuple[float, np.ndarray]:
    """The effective number of the parameters of some blocks, and its interval by the jackknife's pseudo-values."""
    row = data.sizes["lambda"] // 2
    value = float(data["effective"].isel({"lambda": row}).to_numpy()[blocks].sum())
    pseudo = data["effective_pseudo"].isel({"lambda": row}).transpose("prompt", "block").to_numpy()[:, blocks].sum(1)
    bounds = bootstrap_interval(pseudo - pseudo.mean() + value, method="studentized", rng=0)
    return value, np.clip(bounds, 0, float(data["size"].to_numpy()[blocks].sum()))


def rows(data: xr.Dataset) -> list[list[str]]:
    """The table: shares of the trace and effective numbers of parameters."""
    every = {**groups(data), "all": np.arange(data.sizes["block"])}
    out = []
    for name, blocks in every.items():
        size = int(data["size"].to_numpy()[blocks].sum())
        number, bounds = effective(data, blocks)
        part, part_bounds = trace_share(data, blocks)
        out.append(
            [
                name,
                f"{size:,}",
                "100\u00a0%" if name == "all" else _bounded(part, part_bounds, share),
                _bounded(number, bounds, lambda value: f"{value:,.0f}"),
                share(number / size),
            ]
        )
    return out


def largest(data: xr.Dataset) -> str:
    """Where most of the trace lies, and how many parameters count."""
    kinds = {"the mixers": [], "the MLPs": [], "embedding and head": [], "norms": []}
    for name, blocks in groups(data).items():
        what = name.rpartition(", ")[2]
        key = {"mixer": "the mixers", "MLP": "the MLPs", "norms": "norms"}.get(what, "embedding and head")
        kinds[key].extend(blocks.tolist())
    told = []
    for what, blocks in kinds.items():
        if blocks:
            value, bounds = trace_share(data, np.array(blocks))
            told.append((value, f"{what} {_bounded(value, bounds, share)}"))
    ordered = ", ".join(text for _, text in sorted(told, reverse=True))
    number, bounds = effective(data, np.arange(data.sizes["block"]))
    size = int(data["size"].sum())
    strength = float(data["lambda"][data.sizes["lambda"] // 2])
    return (
        f"Of the trace of the Fisher information, {small(float(data['fisher_mean'].sum()))} nat a token, lie in: "
        f"{ordered}. Against a prior of the precision λ = {small(strength)} its effective number of parameters is "
        f"{_bounded(number, bounds, lambda value: f'{value:,.0f}')} of {size:,}."
    )


def what_it_is(data: xr.Dataset) -> str:
    """What was computed, and on what."""
    return (
        "The Fisher information of a parameter says how much the predictions change when it is moved: the curvature of "
        f"the model's own predictions over the beginnings of {count(data.sizes['prompt'], 'window')}. Targets are "
        "drawn from the model, not taken from the text (the true Fisher information, not the “empirical” one)."
    )


def limits() -> str:
    """What these numbers are not."""
    return (
        "Only the diagonal is taken, block by block: what parameters share is left out, and all of it depends on how "
        "they are written down (scale one by a, and its information goes with 1/a²). So the numbers are proxies: "
        "compare blocks of one kind, or models of one architecture. Few windows make effective numbers low."
    )


def _ratio(values: np.ndarray, axis: int) -> np.ndarray:
    """Sum over sum; the two stand on the axis after the samples."""
    total = values.sum(axis)
    part, whole = np.take(total, 0, axis), np.take(total, 1, axis)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _bounded(value: float, bounds: np.ndarray, shown) -> str:
    if not np.isfinite(bounds).all():
        return shown(value)
    return f"{shown(value)} ({shown(float(bounds[0]))} to {shown(float(bounds[1]))})"
