"""Fast path of `memory_attention`: blocks of queries against spans of keys, recomputed in the backward pass.

A source (the window, the fading tokens) is read at lags ``shift .. shift + width - 1`` behind the query.
Queries are cut into blocks of b; the keys that a block can see are one slice of b (m + 1) positions, so that
a block needs one matrix product per source and every block has the same banded mask. Only the log-sum-exp of
each source is kept for the backward pass:

    P = exp(S - lse_source),  a = exp(lse_source - lse),  dS = P (a (dO V' - rowsum(dO O)) + dlse_source).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solomonic.kernels.backends import transformed

__all__ = ["composed", "memory_attention_cpu"]

# Exponents are kept in base 2: torch.exp is up to fifty times slower where its result underflows, exp2 is
# not.
_LOG2E, _LN2 = math.log2(math.e), math.log(2.0)
# Stands for minus infinity in scores: finite, so that a row that sees nothing has no NaN on its way to zero.
_HIDDEN = -1e30
# Scores of one group of blocks: large enough to hide the interpreter, small enough for the cache.
_GROUP = 1 << 17


@dataclass(frozen=True)
class _Source:
    """Where one source lies relative to the queries.

    Query t may read keys at positions ``t + first - lag`` of this source, lag in ``shift .. shift + width -
    1``, as far as they exist: ``first`` is the position of query 0.
    """

    first: int
    shift: int
    width: int


def _source(T: int, S: int, shift: int, width: int | None) -> _Source | None:
    """The part of a source of `S` keys that the last `T` positions can see, or None if that is nothing."""
    reachable = S - shift  # lags beyond the oldest key are never used
    width = reachable if width is None else min(width, reachable)
    return _Source(S - T, shift, width) if width > 0 and T > 0 else None


class _Blocks:
    """Keys and values of one source cut for blocks of b queries, and the mask of its scores."""

    def __init__(self, source: _Source, k: Tensor, v: Tensor, T: int, b: int, repeat: int) -> None:
        self.b = b
        self.n = -(-T // b)
        self.m = -(-(source.width - 1) // b)
        self.span = (self.m + 1) * b
        self.start = source.first - source.shift - self.m * b  # key position of the first slot of block 0
        self.S = k.shape[1]
        length = (self.m + self.n) * b
        lo, hi = max(self.start, 0), min(self.start + length, self.S)
        self.range = (lo, hi)
        self.k, self.v = self._slots(k, length), self._slots(v, length)
        lag = torch.arange(b).unsqueeze(1) + self.m * b - torch.arange(self.span)
        mask = torch.zeros(b, self.span, dtype=k.dtype).masked_fill_((lag < 0) | (lag >= source.width), _HIDDEN)
        self.mask = mask.repeat(repeat, 1).to(k.device)

    def _slots(self, value: Tensor, length: int) -> Tensor:
        """[B, S, G, D] -> [B G, length, D] from position `start` on, zeros where there is no key."""
        lo, hi = self.range
        batch, _, groups, width = value.shape
        slots = value.new_zeros(batch, groups, length, width)
        slots[:, :, lo - self.start : hi - self.start] = value[:, lo:hi].transpose(1, 2)
        return slots.view(batch * groups, length, width)

    def unslot(self, slots: Tensor, groups: int) -> Tensor:
        """The adjoint of `_slots`."""
        lo, hi = self.range
        _, length, width = slots.shape
        slots = slots.view(-1, groups, length, width)
        out = slots.new_zeros(slots.shape[0], self.S, groups, width)
        out[:, lo:hi] = slots[:, :, lo - self.start : hi - self.start].transpose(1, 2)
        return out

    def missing(self, i: int) -> int:
        """How many leading slots of block i lie before the first key."""
        return min(max(-(self.start + i * self.b), 0), self.span)

    def skip(self, last: int) -> int:
        """Leading slots, in whole blocks, that no block up to `last` can use."""
        return min(self.missing(last) // self.b, self.m) * self.b

    def scores(self, q: Tensor, i0: int, skip: int, offset: Tensor | None = None) -> Tensor:
        """Masked scores [g, B G, rows, span - skip] of the query blocks q [g, B G, rows, K], starting at i0.

        `offset` [g, B G, rows, 1] is added to the rows.
        """
        g, batch, rows, _ = q.shape
        out = q.new_empty(g, batch, rows, self.span - skip)
        if offset is None:
            out.copy_(self.mask[:, skip:])
        else:
            torch.add(self.mask[:, skip:], offset, out=out)
        for i in range(g):
            lo = (i0 + i) * self.b
            out[i].baddbmm_(q[i], self.k[:, lo + skip : lo + self.span].transpose(1, 2))
            gone = self.missing(i0 + i) - skip
            if gone > 0:
                out[i, :, :, :gone] = _HIDDEN
        return out


class _Queries:
    """[B, T, H, D] <-> blocks [n, B G, R b, D], the R query heads of a key head stacked as rows."""

    def __init__(self, B: int, T: int, H: int, G: int, b: int) -> None:
        self.B, self.T, self.H, self.G, self.R, self.b = B, T, H, G, H // G, b
        self.n = -(-T // b)
        self.pad = self.n * b - T

    def cut(self, value: Tensor, scale: float = 1.0) -> Tensor:
        if self.pad:
            value = torch.nn.functional.pad(value, (0, 0, 0, 0, 0, self.pad))
        blocks = value.reshape(self.B, self.n, self.b, self.G, self.R, -1).permute(1, 0, 3, 4, 2, 5)
        out = value.new_empty(blocks.shape)
        if scale == 1.0:
            out.copy_(blocks)
        else:
            torch.mul(blocks, scale, out=out)
        return out.view(self.n, self.B * self.G, self.R * self.b, -1)

    def join(self, blocks: Tensor) -> Tensor:
        value = blocks.view(self.n, self.B, self.G, self.R, self.b, -1).permute(1, 0, 4, 2, 3, 5)
        return value.reshape(self.B, self.n * self.b, self.H, -1)[:, : self.T]


def _block_size(T: int, width: int, block: int | None) -> int:
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
        b = _block_size(T, max(s.width for s in plan), block)
        cutter = _Queries(B, T, H, G, b)
        first = cutter.cut(q, scale * _LOG2E)
        own = [j > 0 and tensors[3 * j] is not None for j in range(len(plan))]
        queries = [cutter.cut(tensors[3 * j], scale * _LOG2E) if own[j] else first for j in range(len(plan))]
        blocks = [_Blocks(s, tensors[3 * i + 1], tensors[3 * i + 2], T, b, H // G) for i, s in enumerate(plan)]
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
                read = p.new_empty(*p.shape[:3], V)
                for i in range(i1 - i0):
                    lo = (i0 + i) * b
                    torch.bmm(p[i], keys.v[:, lo + skip : lo + keys.span], out=read[i])
                tops.append(top)
                sums.append(p.sum(-1, keepdim=True))
                reads.append(read)
            best = tops[0] if len(tops) == 1 else torch.maximum(tops[0], tops[1])
            total = 0
            for top, mass, read, lse in zip(tops, sums, reads, lses, strict=True):
                lse[i0:i1] = (top + mass.log2()).squeeze(-1)
                if len(plan) > 1:
                    share = (top - best).exp2_()
                    read.mul_(share)
                    total = total + mass * share
                else:
                    total = mass
            torch.div(reads[0] if len(plan) == 1 else reads[0].add_(reads[1]), total, out=out[i0:i1])
        out = cutter.join(out)
        lses = [cutter.join(lse).squeeze(-1) for lse in lses]
        for lse in lses:
            lse.masked_fill_(lse < 0.5 * _HIDDEN, -torch.inf).mul_(_LN2)
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
        G = k.shape[2]
        b = _block_size(T, max(s.width for s in plan), ctx.block)
        cutter = _Queries(B, T, H, G, b)
        dout = torch.zeros_like(out) if dout is None else dout
        total = lses[0] if len(lses) == 1 else torch.logaddexp(*lses)
        delta = (dout * out).sum(-1)
        shares = [(lse - total).exp() for lse in lses]
        grads: list[Tensor | None] = [None] * count
        dfirst = torch.zeros_like(q)
        first_query = cutter.cut(q, scale * _LOG2E)
        for j, source in enumerate(plan):
            own = j > 0 and tensors[3 * j] is not None
            query = cutter.cut(tensors[3 * j], scale * _LOG2E) if own else first_query
            keys = _Blocks(source, tensors[3 * j + 1], tensors[3 * j + 2], T, b, H // G)
            lse, share, dlse = lses[j], shares[j], dlses[j]
            unseen = lse == -torch.inf
            shift = -share * delta
            if dlse is not None:
                shift = shift + dlse.masked_fill(unseen, 0.0)
            shift = cutter.cut(shift.unsqueeze(-1))
            offset = cutter.cut(lse.masked_fill(unseen, 0.0).unsqueeze(-1), -_LOG2E)
            weighted = cutter.cut(dout * share.unsqueeze(-1))
            dquery = torch.empty_like(query)
            dk, dv = torch.zeros_like(keys.k), torch.zeros_like(keys.v)
            per_block = B * H * b * keys.span
            for i0, i1 in _groups(cutter.n, per_block):
                skip = keys.skip(i1 - 1)
                p = keys.scores(query[i0:i1], i0, skip, offset[i0:i1]).exp2_()
                ds = torch.empty_like(p)
                ds.copy_(shift[i0:i1])
                for i in range(i1 - i0):
                    lo = (i0 + i) * b
                    part = slice(lo + skip, lo + keys.span)
                    ds[i].baddbmm_(weighted[i0 + i], keys.v[:, part].transpose(1, 2))
                    dv[:, part] += torch.bmm(p[i].transpose(1, 2), weighted[i0 + i])
                ds.mul_(p)
                for i in range(i1 - i0):
                    lo = (i0 + i) * b
                    part = slice(lo + skip, lo + keys.span)
                    torch.bmm(ds[i], keys.k[:, part], out=dquery[i0 + i])
                    dk[:, part] += torch.bmm(ds[i].transpose(1, 2), query[i0 + i])
            dquery = cutter.join(dquery.mul_(scale))
            if own:
                grads[3 * j] = dquery
            else:
                dfirst += dquery
            grads[3 * j + 1], grads[3 * j + 2] = keys.unslot(dk.mul_(_LN2), G), keys.unslot(dv, G)
        grads[0] = dfirst
        return (None, None, None, *grads)


def composed(plan: list[_Source], scale: float, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
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
        lo = max(source.first - source.shift - source.width + 1, 0)
        hi = source.first - source.shift + T
        k, v = k[:, lo:hi], v[:, lo:hi]
        rows = (query * scale).reshape(B, T, G, H // G, K).permute(0, 2, 3, 1, 4).reshape(B, G, (H // G) * T, K)
        score = torch.matmul(rows, k.permute(0, 2, 3, 1)).reshape(B, H, T, hi - lo)
        if T > 1:
            lag = torch.arange(T, device=q.device).unsqueeze(1) + source.first
            lag = lag - torch.arange(lo, hi, device=q.device)
            hidden = (lag < source.shift) | (lag >= source.shift + source.width)
            score = score.masked_fill(hidden, _HIDDEN)
            seen.append(~hidden.all(-1))
        else:
            seen.append(None)
        scores.append(score)
        values.append(v.transpose(1, 2))
    lses = [torch.logsumexp(score, -1) for score in scores]
    # Not logaddexp, whose second derivative is NaN where one of the two is far below the other.
    total = lses[0] if len(lses) == 1 else torch.logsumexp(torch.stack(lses), 0)
    out: Tensor | None = None
    for score, v in zip(scores, values, strict=True):
        weights = ((score - total.unsqueeze(-1)) * _LOG2E).exp2()
        G = v.shape[1]
        read = torch.matmul(weights.reshape(B, G, (H // G) * T, v.shape[2]), v).reshape(B, H, T, v.shape[3])
        out = read if out is None else out + read
    assert out is not None
    lses = [
        lse.transpose(1, 2) if rows is None else lse.transpose(1, 2).masked_fill(~rows.unsqueeze(-1), -torch.inf)
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
    window: int | None,
    scale: float,
    block: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the blockwise form. Arguments are validated and in the compute dtype."""
    B, T, H, _ = q.shape
    near = _source(T, k.shape[1], 0, window)
    far = None
    if kf is not None:
        assert window is not None
        far = _source(T, kf.shape[1], window, window)
    nothing = q.new_full((B, T, H), -torch.inf) if kf is not None and far is None else None
    if near is None or B * H == 0:
        return q.new_zeros(B, T, H, v.shape[3]), q.new_zeros(B, T, H), nothing
    plan, tensors = [near], [q, k, v]
    if far is not None:
        plan.append(far)
        tensors += [qf, kf, vf]  # type: ignore[list-item]
    if T == 1 or q.shape[3] * v.shape[3] == 0 or transformed(*tensors):
        out, *lses = composed(plan, scale, tuple(tensors))
    else:
        out, *lses = _Blockwise.apply(plan, scale, block, *tensors)
    return out, lses[0], lses[1] if far is not None else nothing
