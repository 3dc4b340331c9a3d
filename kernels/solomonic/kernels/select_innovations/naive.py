"""The definition of `select_innovations`: Algorithm 1, one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from solomonic.kernels.select_innovations.plan import NEVER, Plan

__all__ = ["innovation_naive", "select_naive"]


def innovation_naive(y: Tensor, past: Tensor, span: int, relative: bool) -> Tensor:
    """Distance of each y_t from the mean of the outputs before it, as far as there are any."""
    history = list(past.double().unbind(1))
    scores = []
    for now in y.double().unbind(1):
        before = history[-span:]
        predicted = sum(before) / len(before) if before else torch.zeros_like(now)
        score = torch.linalg.vector_norm(now - predicted, dim=-1)
        if relative:
            score = score / torch.linalg.vector_norm(now, dim=-1).clamp(min=1e-12)
        scores.append(score)
        history.append(now)
    return torch.stack(scores, 1) if scores else y.double().sum(-1)


def select_naive(score: Tensor, position: Tensor, enter: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Walk through the tokens; at each refresh admit those that have left the window, strictly greater ones only."""
    rows = [_one(*each, plan) for each in zip(score.tolist(), position.tolist(), enter.tolist(), strict=True)]
    columns = plan.columns
    shapes = (columns, columns, plan.columns_after)
    flat = [[row[i] for row in rows] for i in range(3)]
    return tuple(
        torch.tensor(values, dtype=torch.int64, device=score.device).view(len(rows), width)
        for values, width in zip(flat, shapes, strict=True)
    )  # type: ignore[return-value]


def _one(score: list[float], position: list[int], enter: list[int], plan: Plan) -> tuple[list[int], ...]:
    def worth(column: int) -> bool:
        return score[column] > -torch.inf  # neither empty nor NaN

    first, last = [0] * len(score), [0] * len(score)
    memory = [c for c in range(plan.held) if worth(c)]  # in the order of admission
    for column in memory:
        first[column], last[column] = enter[column], NEVER
    waiting = list(range(plan.held, plan.columns))  # one after the other in time
    token = {column: plan.first_waiting + i for i, column in enumerate(waiting)}
    for boundary in range(plan.seen + 1, plan.end + 1):
        if boundary % plan.chunk:
            continue
        while waiting and token[waiting[0]] <= boundary - plan.window:
            column = waiting.pop(0)
            if not worth(column) or not plan.size:
                continue
            if len(memory) == plan.size:
                # Of several least ones the youngest goes.
                least = min(reversed(memory), key=lambda c: score[c])
                if not score[column] > score[least]:
                    continue
                memory.remove(least)
                last[least] = boundary
            memory.append(column)
            first[column], last[column] = boundary, NEVER
    for column in range(len(score)):
        if last[column] <= first[column]:
            first[column] = last[column] = 0
    kept = sorted(memory, key=lambda c: -score[c])
    kept += [-1] * (plan.held_after - len(kept)) + waiting
    return first, last, kept
