"""First-order estimates of what patches do: one backward pass through a run with its memories held open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import Value, map_layers, tensors

from .causal_plan import ALL, Plan

__all__ = ["attribute"]


def attribute(
    model: HybridLM | AdaptedLM,
    ids: Tensor,
    two: Tensor,
    base: Mapping[int, Memory],
    donors: Mapping[int, Memory],
    plan: Plan,
) -> np.ndarray:
    """First-order estimates [prompts, part, layer, time]: the derivative of the base run times the change.

    ``two`` [prompts, 2] are the tokens of the logit difference; the memories are by time.
    """
    last, memory, begin = ids.shape[1] - 1, None, 0
    held: dict[int, list[dict[str, list[Tensor]]]] = {}
    out = None
    with torch.enable_grad():
        for stop in [*(plan.times + 1).tolist(), last + 1]:
            out = model(ids[:, begin:stop], memory=memory)
            memory, begin = out.memory, stop
            if stop <= last:
                memory, held[stop - 1] = _with_leaves(memory)
        assert out is not None
        logits = out.logits[:, -1].double().gather(-1, two)
        score = (logits[:, 0] - logits[:, 1]).sum()
        leaves = [z for layers in held.values() for layer in layers for fields in layer.values() for z in fields]
        grads = iter(torch.autograd.grad(score, leaves, allow_unused=True))
    estimate = np.full((len(ids), *plan.exists.shape), np.nan)
    for place, time in enumerate(plan.times.tolist()):
        for i, layer in enumerate(held[time]):
            each = {}
            for part, fields in layer.items():
                slopes = [next(grads) for _ in fields]
                each[part] = _products(base[time].layers[i][part], donors[time].layers[i][part], slopes)
            if i not in plan.layers or not each:
                continue
            column = plan.layers.index(i)
            for p, name in enumerate(plan.parts):
                if name == ALL:
                    estimate[:, p, column, place] = sum(each.values())
                elif name in each:
                    estimate[:, p, column, place] = each[name]
    return estimate


def _products(base: Value, donor: Value, slopes: Sequence[Tensor | None]) -> np.ndarray:
    """Sums of slope times change over all entries of a part [prompts]."""
    pairs = list(zip(tensors(base), tensors(donor), strict=True))
    total = np.zeros(len(pairs[0][0]))
    floats = [(a, b) for a, b in pairs if a.is_floating_point()]
    for (a, b), slope in zip(floats, slopes, strict=True):
        if slope is not None:
            change = torch.nan_to_num((b - a).double(), posinf=0.0, neginf=0.0)
            total += (change * slope.double()).flatten(1).sum(1).cpu().numpy()
    return total


def _with_leaves(memory: Memory) -> tuple[Memory, list[dict[str, list[Tensor]]]]:
    """The memory with zeros added to it that ask for gradients, and these."""
    layers, leaves = [], []
    for layer in memory.layers:
        zeros = {
            part: [torch.zeros_like(t, requires_grad=True) for t in tensors(value) if t.is_floating_point()]
            for part, value in layer.items()
        }
        each = iter([z for fields in zeros.values() for z in fields])
        layers.append(map_layers(lambda t, each=each: t + next(each) if t.is_floating_point() else t, layer))
        leaves.append(zeros)
    return Memory(tuple(layers), memory.position), leaves


def agreement(estimate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Pearson's and Spearman's correlation, the share of equal signs, and the slope of the exact effects."""
    known = np.isfinite(estimate) & np.isfinite(exact)
    a, b = estimate[known], exact[known]
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.full(4, np.nan)
    pearson, spearman = np.corrcoef(a, b)[0, 1], np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]
    return np.array([pearson, spearman, (np.sign(a) == np.sign(b)).mean(), (a @ b) / (a @ a)])
