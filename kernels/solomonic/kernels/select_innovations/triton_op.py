"""`select_innovations` by Triton kernels: the distances, a sort of the scores, and the merges."""

from __future__ import annotations

import os

import torch
import triton.language as tl
from torch import Tensor

from solomonic.kernels.select_innovations.configs import INNOVATION, merge_warps
from solomonic.kernels.select_innovations.plan import NEVER, Plan, merge_length
from solomonic.kernels.select_innovations.triton_kernels import innovation_kernel, select_kernel
from solomonic.kernels.triton.launch import launch

__all__ = ["innovation_triton", "select_triton"]


def innovation_triton(y: Tensor, past: Tensor, span: int, relative: bool) -> Tensor:
    """Distance of each y_t from the mean of the last `span` outputs before it, as far as there are any."""
    y, past = y.contiguous(), past.contiguous()
    B, T, C = y.shape
    interpreted = os.environ.get("TRITON_INTERPRET", "0") != "0"
    score = y.new_empty(B, T, dtype=torch.promote_types(y.dtype, torch.float32))
    launch(
        innovation_kernel,
        (-(-T // INNOVATION.BT), B),
        *(y, past, score, T, C, past.shape[1]),
        SPAN=span,
        RELATIVE=relative,
        BT=INNOVATION.BT,
        BC=INNOVATION.BC,
        UP=tl.float32 if interpreted and y.dtype == torch.bfloat16 else None,
        ACC=tl.float64 if y.dtype == torch.float64 else tl.float32,
        num_warps=INNOVATION.warps,
        num_stages=1,
    )
    return score


def select_triton(score: Tensor, position: Tensor, enter: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals and the columns that stay, from scores [B, columns]; `position` is not needed."""
    B, columns = score.shape
    worth = score > -torch.inf  # neither empty nor NaN
    token = torch.where(worth, score, -torch.inf).argsort(dim=1, descending=True, stable=True)
    place = torch.arange(columns - 1, -1, -1, device=score.device, dtype=torch.int32).expand(B, -1)
    rank = torch.full_like(token, -1, dtype=torch.int32).scatter_(1, token, place).masked_fill_(~worth, -1)
    first, last = torch.zeros_like(token), torch.zeros_like(token)
    first[:, : plan.held] = enter[:, : plan.held]
    kept = token.new_empty(B, plan.held_after)
    refreshes = plan.refreshes
    boundary = refreshes.start
    length = merge_length(plan)
    launch(
        select_kernel,
        (B,) if columns else (0,),
        *(rank, token, first, last, kept, columns, plan.held, plan.held_after, plan.size, boundary, len(refreshes)),
        *(plan.chunk, plan.held + boundary - plan.chunk - plan.window + 1 - plan.first_waiting, NEVER),
        L=length,
        num_warps=merge_warps(length),
        num_stages=1,
    )
    readable = last > first
    waiting = torch.arange(columns - (plan.end - plan.first_waiting_after), columns, device=score.device)
    return first * readable, last * readable, torch.cat([kept, waiting.expand(B, -1)], 1)
