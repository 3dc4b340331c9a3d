"""Fast path of `memory_attention`: blocks of queries against spans of keys, recomputed in the backward pass.

Queries are cut into blocks of b, and a block needs one matrix product per source. The window and the fading tokens
are read at lags ``shift .. shift + width - 1`` behind the query: the keys that a block can see are one slice of
b (m + 1) positions, and every block has the same banded mask. Eidetic tokens are gathered block by block. Only the
log-sum-exp of each source is kept for the backward pass:

    P = exp(S - lse_source),  a = exp(lse_source - lse),  dS = P (a (dO V' - rowsum(dO O)) + dlse_source).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from solomonic.kernels.backends import transformed
from solomonic.kernels.memory_attention.sources import (
    HIDDEN,
    LN2,
    LOG2E,
    Band,
    BandBlocks,
    IntervalBlocks,
    Intervals,
    Queries,
    band,
    cut,
)
from solomonic.kernels.validate import compute_dtype

__all__ = ["composed", "memory_attention_cpu"]

Source = Band | Intervals

# Scores of one group of blocks: large enough to hide the interpreter, small enough for the cache.
_GROUP = 1 << 17


def _block_size(T: int, plan: list[Source], block: int | None) -> int:
    width = max(source.width for source in plan if isinstance(source, Band))
    if block is None:
        block = 64 if width <= 128 else 128
    return max(1, min(block, T))


def _groups(n: int, per_block: int):
    g = max(1, _GROUP // max(1, per_block))
    return [(i, min(i + g, n)) for i in range(0, n, g)]


class _Blockwise(torch.autograd.Function):
    """Output and log-sum-exp per source. Sources come flat as q, k, v; a query of None is the first one's."""

    @staticmethod
    def forward(ctx: Any, plan, scale, block, *tensors):  # type: ignore[override]
        q, k, v = tensors[:3]
        B, T, H, _ = q.shape
        G, V = k.shape[2], v.shape[3]
        b = _block_size(T, plan, block)
        cutter = Queries(B, T, H, G, b)
        queries, blocks = _cut(cutter, plan, scale, tensors)
        rows = (cutter.n, B * G, (H // G) * b)
        out = q.new_empty(*rows, V)
        lses = [q.new_empty(rows) for _ in plan]
        per_block = B * H * b * max(s.span for s in blocks)
        for i0, i1 in _groups(cutter.n, per_block):
            tops, sums, reads = [], [], []
            for query, keys in zip(queries, blocks, strict=True):
                skip = keys.skip(i1 - 1)
                p = keys.scores(query[i0:i1], i0, skip)
                top = p.amax(-1, keepdim=True)
                p.sub_(top).exp2_()
                tops.append(top)
                sums.append(p.sum(-1, keepdim=True))
                reads.append(keys.read(p, i0, skip))
            for top, mass, lse in zip(tops, sums, lses, strict=True):
                lse[i0:i1] = (top + mass.log2()).squeeze(-1)
            read, total = reads[0], sums[0]
            if len(plan) > 1:
                best = functools.reduce(torch.maximum, tops)
                shares = [(top - best).exp2_() for top in tops]
                read = read.mul_(shares[0])
                for other, share in zip(reads[1:], shares[1:], strict=True):
                    read.addcmul_(other, share)
                total = functools.reduce(torch.add, (m * share for m, share in zip(sums, shares, strict=True)))
            torch.div(read, total, out=out[i0:i1])
        out = cutter.join(out)
        lses = [cutter.join(lse).squeeze(-1) for lse in lses]
        for lse in lses:
            lse.masked_fill_(lse < 0.5 * HIDDEN, -torch.inf).mul_(LN2)
        ctx.save_for_backward(*tensors, out, *lses)
        ctx.plan, ctx.scale, ctx.block = plan, scale, block
        ctx.set_materialize_grads(False)
        return (out, *lses)

    @staticmethod
    def backward(ctx: Any, dout, *dlses):  # type: ignore[override]
        count = 3 * len(ctx.plan)
        tensors, out, lses = (
            ctx.saved_tensors[:count],
            ctx.saved_tensors[count],
            ctx.saved_tensors[count + 1 :],
        )
        if torch.is_grad_enabled():
            return (None, None, None, *_backward_of_composed(ctx, tensors, dout, dlses))
        if dout is None and all(d is None for d in dlses):
            return (None,) * (3 + count)
        plan, scale = ctx.plan, ctx.scale
        q, k = tensors[0], tensors[1]
        B, T, H, _ = q.shape
        b = _block_size(T, plan, ctx.block)
        cutter = Queries(B, T, H, k.shape[2], b)
        dout = torch.zeros_like(out) if dout is None else dout
        total = lses[0] if len(lses) == 1 else torch.logsumexp(torch.stack(lses), 0)
        delta = (dout * out).sum(-1)
        grads: list[Tensor | None] = [None] * count
        queries, blocks = _cut(cutter, plan, scale, tensors)
        grads[0] = torch.zeros_like(q)
        for j, (query, keys, lse, dlse) in enumerate(zip(queries, blocks, lses, dlses, strict=True)):
            unseen = lse == -torch.inf
            share = (lse - total).exp()
            shift = -share * delta
            if dlse is not None:
                shift = shift + dlse.masked_fill(unseen, 0.0)
            shift = cutter.cut(shift.unsqueeze(-1))
            offset = cutter.cut(lse.masked_fill(unseen, 0.0).unsqueeze(-1), -LOG2E)
            weighted = cutter.cut(dout * share.unsqueeze(-1))
            dquery = torch.empty_like(query)
            keys.start_gradients()
            per_block = B * H * b * keys.span
            for i0, i1 in _groups(cutter.n, per_block):
                skip = keys.skip(i1 - 1)
                p = keys.scores(query[i0:i1], i0, skip, offset[i0:i1]).exp2_()
                ds = torch.empty_like(p)
                ds.copy_(shift[i0:i1])
                keys.back_values(p, weighted[i0:i1], ds, i0, skip)
                ds.mul_(p)
                keys.back_keys(ds, query[i0:i1], dquery[i0:i1], i0, skip)
            dquery = cutter.join(dquery.mul_(scale))
            if j == 0 or tensors[3 * j] is None:
                grads[0] += dquery
            else:
                grads[3 * j] = dquery
            grads[3 * j + 1], grads[3 * j + 2] = keys.gradients()
        return (None, None, None, *grads)


def _cut(
    cutter: Queries, plan: list[Source], scale: float, tensors: tuple[Any, ...]
) -> tuple[list[Tensor], list[BandBlocks | IntervalBlocks]]:
    """The queries and the keys of each source in blocks, queries scaled for base 2."""
    first = cutter.cut(tensors[0], scale * LOG2E)
    queries, blocks = [], []
    for j, source in enumerate(plan):
        q, k, v = tensors[3 * j : 3 * j + 3]
        queries.append(first if j == 0 or q is None else cutter.cut(q, scale * LOG2E))
        blocks.append(cut(source, k, v, cutter.T, cutter.b, cutter.R))
    return queries, blocks


def composed(plan: list[Source], scale: float, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """The same on whole score matrices, differentiable: one token, or higher derivatives."""
    q = tensors[0]
    assert q is not None
    B, T, H, K = q.shape
    scores, values, seen = [], [], []
    for j, source in enumerate(plan):
        query, k, v = tensors[3 * j : 3 * j + 3]
        query = q if query is None else query
        assert k is not None
        assert v is not None
        G = k.shape[2]
        hidden = None
        if isinstance(source, Band):
            lo = max(source.first - source.shift - source.width + 1, 0)
            hi = source.first - source.shift + T
            k, v = k[:, lo:hi], v[:, lo:hi]
            if T > 1:
                lag = torch.arange(T, device=q.device).unsqueeze(1) + source.first
                lag = lag - torch.arange(lo, hi, device=q.device)
                hidden = (lag < source.shift) | (lag >= source.shift + source.width)
        else:
            hidden = source.hidden(T).unsqueeze(1)
            # Values that nobody reads may be anything.
            unread = hidden.all(2).squeeze(1)[..., None, None]
            k, v = k.masked_fill(unread, 0.0), v.masked_fill(unread, 0.0)
        rows = (query * scale).reshape(B, T, G, H // G, K).permute(0, 2, 3, 1, 4).reshape(B, G, (H // G) * T, K)
        score = torch.matmul(rows, k.permute(0, 2, 3, 1)).reshape(B, H, T, k.shape[1])
        if hidden is not None:
            score = score.masked_fill(hidden, HIDDEN)
        seen.append(None if hidden is None else ~hidden.all(-1))
        scores.append(score)
        values.append(v.transpose(1, 2))
    lses = [torch.logsumexp(score, -1) for score in scores]
    # Not logaddexp, whose second derivative is NaN where one of the two is far below the other.
    total = lses[0] if len(lses) == 1 else torch.logsumexp(torch.stack(lses), 0)
    out: Tensor | None = None
    for score, v in zip(scores, values, strict=True):
        weights = ((score - total.unsqueeze(-1)) * LOG2E).exp2()
        G = v.shape[1]
        read = torch.matmul(weights.reshape(B, G, (H // G) * T, v.shape[2]), v).reshape(B, H, T, v.shape[3])
        out = read if out is None else out + read
    assert out is not None
    lses = [
        (lse if rows is None else lse.masked_fill(~rows, -torch.inf)).transpose(1, 2)
        for lse, rows in zip(lses, seen, strict=True)
    ]
    return (out.transpose(1, 2), *lses)


def _backward_of_composed(ctx: Any, tensors: tuple[Tensor | None, ...], dout: Any, dlses: tuple[Any, ...]):
    """Gradients that can be differentiated again (``create_graph=True``)."""
    needs = ctx.needs_input_grad[3:]
    with torch.enable_grad():
        results = composed(ctx.plan, ctx.scale, tensors)
        pairs = [(r, g) for r, g in zip(results, (dout, *dlses), strict=True) if g is not None]
        wanted = [t for t, need in zip(tensors, needs, strict=True) if need and t is not None]
        found = torch.autograd.grad(
            [r for r, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
    grads = iter(found)
    return tuple(next(grads) if need else None for need in needs)


def memory_attention_cpu(
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
    """Run the blockwise form, in the compute dtype. Arguments are validated."""
    work = compute_dtype(q.dtype)
    q, k, v = q.to(work), k.to(work), v.to(work)
    qf, kf, vf, qe, ke, ve = (None if each is None else each.to(work) for each in (qf, kf, vf, qe, ke, ve))
    B, T, H, _ = q.shape
    near = band(T, k.shape[1], 0, window)
    nothing = q.new_full((B, T, H), -torch.inf)
    lse_fading = None if kf is None else nothing
    lse_eidetic = None if ke is None else nothing
    if near is None or B * H == 0:
        return q.new_zeros(B, T, H, v.shape[3]), q.new_zeros(B, T, H), lse_fading, lse_eidetic
    plan: list[Source] = [near]
    tensors: list[Tensor | None] = [q, k, v]
    if kf is not None:
        assert window is not None
        far = band(T, kf.shape[1], window, window)
        if far is not None:
            plan.append(far)
            tensors += [qf, kf, vf]
    if ke is not None and ke.shape[1]:
        assert intervals is not None
        plan.append(Intervals(*intervals))
        tensors += [qe, ke, ve]
    if T == 1 or q.shape[3] * v.shape[3] == 0 or transformed(*tensors):
        out, *lses = composed(plan, scale, tuple(tensors))
    else:
        out, *lses = _Blockwise.apply(plan, scale, block, *tensors)
    for source, lse in zip(plan[1:], lses[1:], strict=True):
        if isinstance(source, Band):
            lse_fading = lse
        else:
            lse_eidetic = lse
    return out, lses[0], lse_fading, lse_eidetic
