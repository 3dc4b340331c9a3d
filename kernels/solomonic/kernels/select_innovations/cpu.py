"""Fast path of `select_innovations`: innovations in a few passes, then one small merge per refresh of the memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from solomonic.kernels.select_innovations.plan import NEVER, Plan

__all__ = ["innovation_cpu", "select_cpu"]


def innovation_cpu(y: Tensor, past: Tensor, span: int, relative: bool) -> Tensor:
    """Distance of each y_t from the mean of the last `span` outputs before it, as far as there are any.

    Every sum is taken in an order that depends on the channels alone, so that a token has the same bits however
    the sequence is cut.
    """
    T, known = y.shape[1], past.shape[1]
    padded = F.pad(torch.cat([past, y], 1), (0, 0, span - known, 0))
    total = padded[:, span - 1 : span - 1 + T].clone()
    for back in range(2, span + 1):
        total += padded[:, span - back : span - back + T]
    count = torch.arange(known, known + T, device=y.device).clamp(1, span)
    distance = _norm(y - total / count.to(y.dtype).unsqueeze(-1))
    return distance / _norm(y).clamp(min=1e-12) if relative else distance


def _norm(value: Tensor) -> Tensor:
    """Root of the sum of squares over the last dimension, by halving."""
    if not value.shape[-1]:
        return value.sum(-1)
    value = value.square()
    while (width := value.shape[-1]) > 1:
        half = (width + 1) // 2
        head = value[..., :half].contiguous()
        head[..., : width - half] += value[..., half:]
        value = head
    return value.squeeze(-1).sqrt()


def select_cpu(score: Tensor, position: Tensor, enter: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals and the columns that stay, from scores [B, columns]; `position` is not needed.

    The stored tokens are kept in order of their scores, the older first among equal ones. New ones come behind
    them, so that a stable sort gives a token its place among all.
    """
    B, columns = score.shape
    nobody = columns  # the column of an empty slot
    score = torch.where(score > -torch.inf, score, -torch.inf)  # NaN is never stored
    first = score.new_zeros(B, columns + 1, dtype=torch.int64)
    last = torch.zeros_like(first)
    size = min(plan.size, max(plan.held, plan.first_waiting_after))
    best = F.pad(score[:, : plan.held], (0, size - plan.held), value=-torch.inf)
    best, order = best.sort(dim=1, descending=True, stable=True)
    column = torch.where(best > -torch.inf, order, nobody)
    first[:, : plan.held] = enter[:, : plan.held]
    boundaries = list(plan.refreshes) if size else []
    if boundaries:
        scores, candidates = _candidates(score, plan, len(boundaries), min(size, plan.chunk))
        for i, boundary in enumerate(boundaries):
            last.scatter_(1, column, boundary)
            best, order = torch.cat([best, scores[:, i]], 1).sort(dim=1, descending=True, stable=True)
            best = best[:, :size]
            column = torch.cat([column, candidates[:, i]], 1).gather(1, order[:, :size])
        entry = torch.tensor(boundaries, device=score.device).view(1, -1, 1).expand_as(candidates)
        first.scatter_(1, candidates.flatten(1), entry.flatten(1))
    last.scatter_(1, column, NEVER)
    first, last = first[:, :nobody], last[:, :nobody]
    readable = last > first
    waiting = torch.arange(columns - (plan.end - plan.first_waiting_after), columns, device=score.device)
    stored = torch.where(column < nobody, column, -1)[:, : plan.held_after]
    return first * readable, last * readable, torch.cat([stored, waiting.expand(B, -1)], 1)


def _candidates(score: Tensor, plan: Plan, blocks: int, best: int) -> tuple[Tensor, Tensor]:
    """The `best` tokens among those that each refresh considers for the first time, [B, blocks, best], in order."""
    B, columns = score.shape
    gone = plan.refreshes[0] - plan.chunk - plan.window + 1  # position of the first token of the first block
    missing = plan.first_waiting - gone
    length = blocks * plan.chunk
    waiting = score[:, plan.held : plan.held + length - missing]
    waiting = F.pad(waiting, (missing, length - missing - waiting.shape[1]), value=-torch.inf)
    scores, order = waiting.view(B, blocks, plan.chunk).sort(dim=2, descending=True, stable=True)
    scores, order = scores[..., :best], order[..., :best]
    start = plan.held - missing + plan.chunk * torch.arange(blocks, device=score.device).view(1, -1, 1)
    return scores, torch.where(scores > -torch.inf, order + start, columns)
