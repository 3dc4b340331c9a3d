"""Does a checkpoint do what every probe takes for granted? Steps, chunks, batches, padding, positions, edits, taps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, load
from solomonic.models.adapters.adapted import is_of_transformers

from .conformance_runs import Explicit, Published, Read, Runner
from .inputs import as_ids, as_model
from .labelled import provenance, units
from .split_law import TOLERANCE
from .taps import layer_window
from .trace import trace

__all__ = ["conformance", "conformance_table"]

_UNITS = {
    "size": ("largest deviation relative to the largest output; of an edit, the least effect", "1"),
    "size_by_layer": ("the same by layer", "1"),
    "layer_of_failure": ("the first layer that is over the tolerance; -1 where it is no layer's", "1"),
    "position": ("token at which the deviation is largest; -1 where it is no token's", "token"),
}


@dataclass
class _Found:
    """One check: its outcome, the size of the failure, where it is, and a word about it."""

    status: str
    size: float = np.nan
    layer: int = -1
    position: int = -1
    detail: str = ""
    by_layer: np.ndarray | None = None


def conformance(model: Any, ids: Any = None, *, tolerance: float | None = None, progress: bool = False) -> xr.Dataset:
    r"""Check what every probe takes for granted of a checkpoint, and say where it fails and by how much.

    Parameters
    ----------
    model : HybridLM, AdaptedLM, model of transformers, str or path
        The model, a checkpoint folder or a name of the zoo. A model of transformers is checked **as published**, on its
        own cache; ``adapt(model)`` is checked through its adapter.
    ids : array_like of int, optional
        Token ids [T] or [prompts, T], T at least 8; by default two random prompts, longer than every window.
    tolerance : float, optional
        Largest error that counts as rounding; by default that of :func:`split_law`.
    progress : bool, default False
        Whether to show progress bars: of the checks, and of the parts that are edited.

    Returns
    -------
    xarray.Dataset
        Dims check, layer. ``status`` (check) is "pass", "FAIL" or "n/a", ``size`` (check) the largest relative
        deviation, ``layer_of_failure`` and ``position`` where it is, ``detail`` a word about it, ``size_by_layer``
        (check, layer). Attributes: ``holds`` ("yes" or "no"), ``failures`` (how many), ``tolerance``, ``subject``.

        - ``chunk``: a text read in two pieces is the text read at once.
        - ``step``: half a text read at once and the rest token by token is the text read at once.
        - ``batch``: every prompt alone is that prompt in the batch.
        - ``left padding``: a padded prompt under its mask is the prompt alone (transformers only).
        - ``positions``: the count goes on after a piece; in transformers, default positions are those given.
        - ``edit, chunk`` and ``edit, step``: noise in each part of the memory changes what comes after.
        - ``taps``: every tap fires, and a trace reconstructs what ran.

    Raises
    ------
    TypeError, ValueError
        If it is no model, or ids are no tokens of it.

    Notes
    -----
    Costs a pass over half the text for every part of the memory, by chunk and by step.

    References
    ----------
    Kalman, Falb and Arbib, "Topics in mathematical system theory" (1969), chapter 1: the state as what composes.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import conformance
    >>> model = HybridLM(HybridConfig(pattern="BMF-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=3, swa_window=4), rng=0)
    >>> found = conformance(model)
    >>> found.attrs["holds"], found.status.sel(check="step").item()
    ('yes', 'pass')
    """
    subject = load(model) if isinstance(model, str | Path) else model
    published = is_of_transformers(subject)
    explicit = as_model(subject)
    runner: Runner = Published(subject) if published else Explicit(explicit)
    first = next(explicit.parameters())
    limit = TOLERANCE.get(first.dtype, 1e-2) if tolerance is None else tolerance
    if isinstance(limit, bool) or not limit > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    given = as_ids(_default_ids(explicit) if ids is None else ids, explicit, least=8)
    tokens = given.to(first.device)
    whole, _ = runner.read(tokens)
    checks: dict[str, Callable[[], _Found]] = {
        "chunk": lambda: _chunk(runner, tokens, whole, limit),
        "step": lambda: _step(runner, tokens, whole, limit),
        "batch": lambda: _batch(runner, tokens, whole, limit),
        "left padding": lambda: _padding(runner, tokens, whole, limit),
        "positions": lambda: _positions(runner, tokens, limit),
        "edit, chunk": lambda: _edits(runner, tokens, by_step=False, progress=progress),
        "edit, step": lambda: _edits(runner, tokens, by_step=True, progress=progress),
        "taps": lambda: _taps(explicit, tokens),
    }
    found = {}
    for name, check in tqdm(checks.items(), disable=not progress, unit="check", desc="conformance"):
        found[name] = _tried(check)
    layers = len(explicit.config.pattern)
    by_layer = np.full((len(found), layers), np.nan)
    for row, each in enumerate(found.values()):
        if each.by_layer is not None:
            by_layer[row] = each.by_layer
    failures = [name for name, each in found.items() if each.status == "FAIL"]
    dataset = xr.Dataset(
        {
            "status": ("check", [each.status for each in found.values()]),
            "size": ("check", [each.size for each in found.values()]),
            "layer_of_failure": ("check", [each.layer for each in found.values()]),
            "position": ("check", [each.position for each in found.values()]),
            "detail": ("check", [each.detail for each in found.values()]),
            "size_by_layer": (("check", "layer"), by_layer),
        },
        coords={"check": list(found), "layer": np.arange(layers), "symbol": ("layer", list(explicit.config.pattern))},
        attrs={
            **provenance("conformance", model=explicit, arguments={"ids": given, "tolerance": tolerance}),
            "holds": "no" if failures else "yes",
            "failures": len(failures),
            "tolerance": float(limit),
            "subject": f"{type(subject).__name__}{', as published' if published else ''}",
        },
    )
    return units(dataset, _UNITS)


def conformance_table(found: xr.Dataset) -> str:
    """What :func:`conformance` found, as text in columns.

    Parameters
    ----------
    found : xarray.Dataset
        What it returned.

    Returns
    -------
    str
        One line a check: its outcome, layer, position and size.

    Raises
    ------
    ValueError
        If it is no such Dataset.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import conformance, conformance_table
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> print(conformance_table(conformance(model)).splitlines()[0])
    check         status  layer  position  size      detail
    """
    if not isinstance(found, xr.Dataset) or found.attrs.get("probe") != "conformance":
        raise ValueError("found: expected what conformance returned")
    rows = [("check", "status", "layer", "position", "size", "detail")]
    for name in found.check.values:
        one = found.sel(check=name)
        layer, place = ("" if int(one[key]) < 0 else str(int(one[key])) for key in ("layer_of_failure", "position"))
        size = "" if np.isnan(float(one["size"])) else f"{float(one['size']):.1e}"
        rows.append((str(name), str(one.status.item()), layer, place, size, str(one.detail.item())))
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    widths[4] = max(widths[4], 10)
    return "\n".join("".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _tried(check: Callable[[], _Found]) -> _Found:
    """A check that cannot be made on a model is a failure of the model, with its error told."""
    try:
        return check()
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        return _Found("FAIL", detail=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _default_ids(model: HybridLM | AdaptedLM) -> Tensor:
    widths = [layer_window(model.config, i) or 0 for i in range(len(model.config.pattern))]
    length = min(max(24, 4 * max(widths) + 8), 512)
    return torch.randint(model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))


def _compare(got: Read, whole: Read, start: int, limit: float, rows: slice = slice(None)) -> _Found:
    """Outputs from a token on against those of the whole text; NaN is larger than anything."""
    sizes, places = [], []
    for mine, full in zip([*got[0], got[1]], [*whole[0], whole[1]], strict=True):
        scale = float(full.abs().max()) or 1.0
        deviation = (mine - full[rows, start:]).abs().amax((0, 2)) / scale
        deviation = torch.nan_to_num(deviation, nan=torch.inf, posinf=torch.inf)
        places.append(start + int(deviation.argmax()))
        sizes.append(float(deviation.max()))
    over = [i for i, size in enumerate(sizes) if size > limit]
    layer = over[0] if over else -1
    at = layer if over else int(np.argmax(sizes))
    return _Found(
        "FAIL" if over else "pass", max(sizes), -1 if layer == len(sizes) - 1 else layer,
        places[at] if over else -1, by_layer=np.array(sizes[:-1]),
    )  # fmt: skip


def _worst(found: list[_Found]) -> _Found:
    worst = max(found, key=lambda each: each.size)
    stacked = [each.by_layer for each in found if each.by_layer is not None]
    worst.by_layer = np.max(stacked, 0) if stacked else None
    return worst


def _chunk(runner: Runner, ids: Tensor, whole: Read, limit: float) -> _Found:
    length, found = ids.shape[1], []
    for split in sorted({1, length // 3, length // 2, length - 2}):
        _, memory = runner.read(ids[:, :split])
        each = _compare(runner.read(ids[:, split:], memory)[0], whole, split, limit)
        each.detail = f"split after {split} tokens" if each.status == "FAIL" else ""
        found.append(each)
    return _worst(found)


def _step(runner: Runner, ids: Tensor, whole: Read, limit: float) -> _Found:
    half = ids.shape[1] // 2
    _, memory = runner.read(ids[:, :half])
    found = _compare(_stepped(runner, ids[:, half:], memory), whole, half, limit)
    found.detail = f"steps from token {half}" if found.status == "FAIL" else ""
    return found


def _stepped(runner: Runner, ids: Tensor, memory: Any) -> Read:
    hidden: list[list[Tensor]] = []
    logits = []
    for t in range(ids.shape[1]):
        out, memory = runner.read(ids[:, t : t + 1], memory)
        hidden.append(out[0])
        logits.append(out[1])
    return [torch.cat(layer, 1) for layer in zip(*hidden, strict=True)], torch.cat(logits, 1)


def _batch(runner: Runner, ids: Tensor, whole: Read, limit: float) -> _Found:
    if len(ids) < 2:
        return _Found("n/a", detail="one prompt was given")
    rows = [slice(i, i + 1) for i in range(len(ids))]
    return _worst([_compare(runner.read(ids[row])[0], whole, 0, limit, row) for row in rows])


def _padding(runner: Runner, ids: Tensor, whole: Read, limit: float) -> _Found:
    if not isinstance(runner, Published):
        return _Found("n/a", detail="takes no padding")
    pad = 3
    mask = torch.cat([torch.zeros_like(ids[:, :pad]), torch.ones_like(ids)], 1)
    options: dict[str, Any] = {"attention_mask": mask}
    if runner.takes_positions:
        options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    got, _ = runner.read(torch.cat([ids[:, :pad] * 0, ids], 1), **options)
    return _compare(([h[:, pad:] for h in got[0]], got[1][:, pad:]), whole, 0, limit)


def _positions(runner: Runner, ids: Tensor, limit: float) -> _Found:
    half = ids.shape[1] // 2
    _, memory = runner.read(ids[:, :half])
    if isinstance(runner, Published):
        if not runner.takes_positions:
            return _Found("n/a", detail="takes no positions")
        places = torch.arange(half, ids.shape[1], device=ids.device).expand(len(ids), -1)
        given, _ = runner.read(ids[:, half:], memory, position_ids=places)
        default, _ = runner.read(ids[:, half:], memory)
        padded = ([_after(h, half) for h in given[0]], _after(given[1], half))
        found = _compare(default, padded, half, limit)
        found.detail = "default position_ids differ from those given" if found.status == "FAIL" else ""
        return found
    counts = [memory.position, runner.read(ids[:, half:], memory)[1].position]
    right = counts == [half, ids.shape[1]]
    return _Found("pass" if right else "FAIL", float(np.abs(np.subtract(counts, [half, ids.shape[1]])).max()),
                  detail="" if right else f"positions {counts} after {half} and {ids.shape[1]} tokens")  # fmt: skip


def _after(value: Tensor, start: int) -> Tensor:
    """The value with tokens before it that nothing reads."""
    return torch.cat([value.new_zeros(value.shape[0], start, value.shape[2]), value], 1)


def _edits(runner: Runner, ids: Tensor, *, by_step: bool, progress: bool) -> _Found:
    half = ids.shape[1] // 2
    _, memory = runner.read(ids[:, :half])

    def rest(start: Any) -> Tensor:
        out = _stepped(runner, ids[:, half:], start) if by_step else runner.read(ids[:, half:], start)[0]
        return out[1]

    base, generator = rest(memory), torch.Generator().manual_seed(0)
    effects: dict[tuple[int, str], float] = {}
    name = f"edit, {'step' if by_step else 'chunk'}"
    for layer, part in tqdm(runner.parts(memory), disable=not progress, unit="part", desc=name, leave=False):
        other = runner.changed(memory, layer, part, generator)
        if other is not None:
            effects[layer, part] = float((rest(other) - base).abs().max() / (base.abs().max() or 1.0))
    if not effects:
        return _Found("n/a", detail="the memory holds nothing to edit")
    dead = [key for key, effect in effects.items() if not effect > 0]
    layer = dead[0][0] if dead else -1
    names = ", ".join(f"{part} of layer {i}" for i, part in dead)
    return _Found("FAIL" if dead else "pass", min(effects.values()), layer, half if dead else -1,
                  f"no effect: {names}" if dead else "")  # fmt: skip


def _taps(model: HybridLM | AdaptedLM, ids: Tensor) -> _Found:
    run = trace(model, ids.cpu(), attention=True)
    bad = not run.error <= run.tolerance
    if not bad:
        return _Found("pass", run.error)
    worst = {i: e for name in ("state_error", "attention_error") for i, e in run.checks[name].items()
             if not e <= run.tolerance}  # fmt: skip
    return _Found("FAIL", run.error, min(worst, default=-1), detail="the taps are not the system that ran")
