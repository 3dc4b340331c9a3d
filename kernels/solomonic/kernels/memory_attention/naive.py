"""The definition of `memory_attention`: one query after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["memory_attention_naive"]


def memory_attention_naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qf: Tensor | None,
    kf: Tensor | None,
    vf: Tensor | None,
    qe: Tensor | None,
    ke: Tensor | None,
    ve: Tensor | None,
    intervals: tuple[Tensor, Tensor] | None,
    window: int | None,
    scale: float,
    block: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """For each query, collect what it may read and take one softmax. `block` is not used."""
    batch, time, heads, _ = q.shape
    repeat = heads // k.shape[2]
    enter, leave = (q, q) if intervals is None else intervals
    q, k, v = q.double(), *(each.double().repeat_interleave(repeat, dim=2) for each in (k, v))
    if kf is not None and vf is not None:
        qf = q if qf is None else qf.double()
        kf, vf = (each.double().repeat_interleave(repeat, dim=2) for each in (kf, vf))
    if ke is not None and ve is not None:
        qe = q if qe is None else qe.double()
        assert intervals is not None
        # What no query reads may be anything.
        unread = (enter.ge(leave) | enter.ge(time) | leave.le(0))[..., None, None]
        ke, ve = (each.double().masked_fill(unread, 0.0).repeat_interleave(repeat, dim=2) for each in (ke, ve))
    outputs, lse_window, lse_fading, lse_eidetic = [], [], [], []
    for t in range(time):
        here = k.shape[1] - time + t  # position of the query among the keys
        oldest = 0 if window is None else max(0, here - window + 1)
        scores = scale * torch.einsum("bhk,bshk->bhs", q[:, t], k[:, oldest : here + 1])
        values = v[:, oldest : here + 1]
        lse_window.append(torch.logsumexp(scores, dim=-1))
        if kf is not None and vf is not None:
            assert window is not None
            assert qf is not None
            here = kf.shape[1] - time + t  # and among the fading keys
            newest, oldest = max(0, here - window + 1), max(0, here - 2 * window + 1)
            far = scale * torch.einsum("bhk,bshk->bhs", qf[:, t], kf[:, oldest:newest])
            if newest > oldest:
                lse_fading.append(torch.logsumexp(far, dim=-1))
            else:
                lse_fading.append(torch.full_like(lse_window[-1], -torch.inf))
            scores = torch.cat([scores, far], dim=-1)
            values = torch.cat([values, vf[:, oldest:newest]], dim=1)
        if ke is not None and ve is not None:
            assert qe is not None
            readable = (enter.le(t) & leave.gt(t)).unsqueeze(1)
            stored = scale * torch.einsum("bhk,bshk->bhs", qe[:, t], ke)
            stored = torch.where(readable, stored, -torch.inf)
            lse_eidetic.append(_lse(stored))
            scores = torch.cat([scores, stored], dim=-1)
            values = torch.cat([values, ve], dim=1)
        outputs.append(torch.einsum("bhs,bshv->bhv", torch.softmax(scores, dim=-1), values))
    if not outputs:
        empty = q.new_zeros(batch, 0, heads)
        sources = [None if keys is None else empty for keys in (kf, ke)]
        return q.new_zeros(batch, 0, heads, v.shape[3]), empty, sources[0], sources[1]
    fading = torch.stack(lse_fading, dim=1) if kf is not None else None
    eidetic = torch.stack(lse_eidetic, dim=1) if ke is not None else None
    return torch.stack(outputs, dim=1), torch.stack(lse_window, dim=1), fading, eidetic


def _lse(scores: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension; minus infinity, without a gradient, where all scores are that."""
    nothing = (scores == -torch.inf).all(dim=-1)
    lse = torch.logsumexp(scores.masked_fill(nothing.unsqueeze(-1), 0.0), dim=-1) if scores.shape[-1] else nothing * 0.0
    return torch.where(nothing, -torch.inf, lse)
