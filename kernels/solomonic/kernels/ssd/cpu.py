"""Fast path of `ssd`: the chunked matrix form, with its own backward pass.

Inside a chunk of Q tokens the recurrence is a masked attention without softmax,

    Y = (L * C B') U + diag(e) C h_in,      h_out = g h_in + U' diag(w) B,      U = diag(dt) X,

with the weights L, e, w and g of `solomonic.kernels.ssd.layout`. Only the chunk states h are passed on by a loop.

A call is done in pieces of a few chunks, whose intermediate results fit into a processor's cache and are written into
the same memory piece after piece. Views are made once for the whole call and cut into pieces: for one piece, making
them would take as long as computing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from solomonic.kernels.backends import transformed
from solomonic.kernels.ssd.composed import composed, gradients_of_composed, measured_alone
from solomonic.kernels.ssd.layout import Layout, ceiling_of, decays, narrow, segments, wide
from solomonic.kernels.ssd.statistics import measured

__all__ = ["scanned", "ssd_cpu"]

# Elements of one intermediate result of a piece, 1 MB in float32: a quarter and four times as many are slower.
_PIECE = 2**18


class _Cut:
    """The scalars and the B and C of one call, chunks first: a piece is a slice of chunks.

    Attributes
    ----------
    keys, queries : Tensor
        B and C [n B G, Q, N], contiguous.
    c, e, w, dts : Tensor
        Running log2 decays, weights and steps [n, B, H, Q].
    g : Tensor
        What chunks leave of the state [n, B, H].
    factors : Tensor
        g for every column of a wide state [n, B, G, 1, R P].
    ceiling : Tensor
        For L [n, B, 1, Q, Q], with strides of 0 if nothing is reset.
    """

    def __init__(self, s: Layout, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reset: Tensor | None) -> None:
        self.s = s
        seg = segments(s, reset)
        self.c, self.e, self.w, self.g = (v.transpose(0, 1) for v in decays(s, dt, A, seg))
        self.dts = s.scalars(dt).transpose(0, 1)
        self.keys = s.groups(B, s.GB).transpose(0, 1).reshape(-1, s.Q, s.N).contiguous()
        self.queries = s.groups(C, s.GC).transpose(0, 1).reshape(-1, s.Q, s.N).contiguous()
        self.factors = self.g.unsqueeze(-1).expand(-1, -1, -1, s.P).reshape(s.n, s.B, s.G, 1, s.R * s.P)
        self.ceiling = ceiling_of(s, dt, seg).expand(s.B, s.n, 1, s.Q, s.Q).transpose(0, 1)

    def pieces(
        self, like: Tensor, memories: int, backwards: bool = False
    ) -> Iterator[tuple[slice, slice, list[_Memory]]]:
        """Chunks that are done together, where they are among the n B G matrices of keys, and memory for them."""
        s, memory = self.s, []
        size = max(1, _PIECE // (s.B * s.H * max(s.Q * s.P, s.N * s.P, s.Q * s.Q)))
        starts = range(0, s.n, size)
        for i in reversed(starts) if backwards else starts:
            m = min(size, s.n - i)
            if not memory or memory[0].m != m:
                memory = [_Memory(self, m, like) for _ in range(memories)]
            yield slice(i, i + m), slice(i * s.B * s.G, (i + m) * s.B * s.G), memory

    def tile(self, k: slice, out: Tensor) -> None:
        """L for the chunks of a piece [m, B, H, Q, Q]."""
        c = self.c[k]
        torch.sub(c.unsqueeze(-1), c.unsqueeze(-2), out=out)
        torch.minimum(out, self.ceiling[k], out=out).exp2_()

    def tokens(self, padded: Tensor) -> Tensor:
        """[B, n Q, H, P] -> [n, B, Q, H P], a view of contiguous values."""
        s = self.s
        return padded.reshape(s.B, s.n, s.Q, s.H * s.P).transpose(0, 1)

    def by_head(self, tokens: Tensor) -> Tensor:
        """[n, B, Q, H P] -> [n, B, H, Q, P], a view."""
        return tokens.view(*tokens.shape[:3], self.s.H, self.s.P).transpose(2, 3)

    def by_group(self, tokens: Tensor) -> Tensor:
        """[n, B, Q, H P] -> [n, B, G, Q, R, P], a view."""
        return tokens.view(*tokens.shape[:3], self.s.G, self.s.R, self.s.P).transpose(2, 3)

    def of_groups(self, scalars: Tensor) -> Tensor:
        """[n, B, H, Q] -> [n, B, G, Q, R, 1], a view."""
        return scalars.view(*scalars.shape[:2], self.s.G, self.s.R, self.s.Q).transpose(3, 4).unsqueeze(-1)


class _Memory:
    """Memory for the intermediate results of a piece of m chunks, as views for products and for elementwise use.

    Attributes
    ----------
    wide, groups : Tensor
        What has the shape of x, by groups: [m B G, Q, R P] and [m, B, G, Q, R, P].
    narrow, heads : Tensor
        The same by heads: [m B H, Q, P] and [m, B, H, Q, P].
    more : Tensor
        More of the kind of `narrow`.
    scores, shared : Tensor
        C B' [m B G, Q, Q] and [m, B, G, 1, Q, Q].
    mix, tile, tiles : Tensor
        For each head: [m B H, Q, Q], [m, B, H, Q, Q] and [m, B, G, R, Q, Q].
    states : Tensor
        [m + 1, B, G, N, R P].
    """

    def __init__(self, cut: _Cut, m: int, like: Tensor) -> None:
        s = cut.s
        self.m = m
        self.groups = like.new_empty(m, s.B, s.G, s.Q, s.R, s.P)
        self.wide = self.groups.view(-1, s.Q, s.R * s.P)
        self.heads = like.new_empty(m, s.B, s.H, s.Q, s.P)
        self.narrow = self.heads.view(-1, s.Q, s.P)
        self.more = torch.empty_like(self.narrow)
        self.shared = like.new_empty(m, s.B, s.G, 1, s.Q, s.Q)
        self.scores = self.shared.view(-1, s.Q, s.Q)
        self.states = like.new_empty(m + 1, s.B, s.G, s.N, s.R * s.P)
        self.tile = like.new_empty(m, s.B, s.H, s.Q, s.Q)
        self.mix = self.tile.view(-1, s.Q, s.Q)
        self.tiles = self.tile.view(m, s.B, s.G, s.R, s.Q, s.Q)


def _pass_on(states: tuple[Tensor, ...], factors: tuple[Tensor, ...]) -> None:
    """Adds factors_i states_i to states_{i + 1}, in place and one after the other."""
    for before, after, factor in zip(states, states[1:], factors, strict=False):
        after.addcmul_(before, factor)


class _Chunked(torch.autograd.Function):
    """y, the last state and the states of all chunks, with a backward pass that recomputes the tiles.

    The states are [B, n + 1, G, N, R P]: the one that enters each chunk, and the last one; None without `keep`, where
    there is no backward pass. The rest are the statistics of `want`, without gradients.
    """

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, reset, chunk, want, keep):  # type: ignore[override]
        s = Layout(x, B, C, chunk)
        cut = _Cut(s, dt, A, B, C, reset)
        y = x.new_empty(s.B, s.n * s.Q, s.H, s.P)
        xs, ys = cut.tokens(s.padded(x)), cut.tokens(y)
        x_heads, x_groups, y_groups = cut.by_head(xs), cut.by_group(xs), cut.by_group(ys)
        steps, writing, e = cut.dts.unsqueeze(-1), cut.of_groups(cut.w * cut.dts), cut.of_groups(cut.e)
        direct = None if D is None else D.repeat_interleave(s.P)
        sums = x.new_empty(s.n, s.B, s.H, s.Q) if "row_sums" in want else None
        last = wide(s, h0)
        states = last.new_empty(s.n + 1, *last.shape) if keep else None
        for k, products, (memory,) in cut.pieces(x, 1):
            inner = memory.states if states is None else states[k.start : k.stop + 1]
            keys, queries = cut.keys[products].transpose(1, 2), cut.queries[products]

            # What chunks add to the state, then the states themselves, in the same memory.
            inner[0].copy_(last)
            torch.mul(x_groups[k], writing[k], out=memory.groups)
            torch.bmm(keys, memory.wide, out=inner[1:].flatten(0, 2))
            _pass_on(inner.unbind(), cut.factors[k].unbind())
            last = inner[-1]
            torch.bmm(queries, inner[:-1].flatten(0, 2), out=memory.wide)

            # Inside the chunks.
            torch.bmm(queries, keys, out=memory.scores)
            torch.mul(x_heads[k], steps[k], out=memory.heads)
            cut.tile(k, memory.tile)
            memory.tiles.mul_(memory.shared)
            inside = torch.bmm(memory.mix, memory.narrow, out=memory.more)
            inside = inside.view(memory.m, s.B, s.G, s.R, s.Q, s.P).transpose(3, 4)
            torch.addcmul(inside, memory.groups, e[k], out=y_groups[k])
            if sums is not None:
                torch.sum(memory.tile.mul_(steps[k].transpose(3, 4)), -1, out=sums[k])
            if direct is not None:
                ys[k].addcmul_(xs[k], direct)
        y = y[:, : s.T]
        found = ()
        if want:
            Bg, Cg = (v.view(s.n, s.B, s.G, s.Q, s.N).transpose(0, 1) for v in (cut.keys, cut.queries))
            c, e, w, g = (v.transpose(0, 1) for v in (cut.c, cut.e, cut.w, cut.g))
            sums = None if sums is None else sums.transpose(0, 1)
            found = measured(want, s, x, dt, D, y, reset, Bg, Cg, c, e, w, g, sums)
        ctx.save_for_backward(x, dt, A, B, C, D, h0, reset, y, states)
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*found)
        return y, narrow(s, last).clone(), None if states is None else states.transpose(0, 1), *found

    @staticmethod
    def backward(ctx: Any, dy, dh, dall, *_):  # type: ignore[override]
        x, dt, A, B, C, D, h0, reset, y, states = ctx.saved_tensors
        dy = torch.zeros_like(y) if dy is None else dy
        dh = h0.new_zeros(h0.shape) if dh is None else dh
        if torch.is_grad_enabled():
            return gradients_of_composed(ctx, (x, dt, A, B, C, D, h0), reset, dy, dh, dall)
        s = Layout(x, B, C, ctx.chunk)
        cut = _Cut(s, dt, A, B, C, reset)
        dx = x.new_empty(s.B, s.n * s.Q, s.H, s.P)
        xs, ys, dys = (cut.tokens(s.padded(v)) for v in (x, y, dy))
        dxs = cut.tokens(dx)
        x_heads, y_heads, dx_heads, dy_heads = (cut.by_head(v) for v in (xs, ys, dxs, dys))
        x_groups, dy_groups = cut.by_group(xs), cut.by_group(dys)
        steps, writing = cut.dts.unsqueeze(-1), cut.of_groups(cut.w * cut.dts)
        e, w = cut.of_groups(cut.e), cut.of_groups(cut.w)
        direct = None if D is None else D.repeat_interleave(s.P)
        dB, dC = torch.empty_like(cut.keys), torch.empty_like(cut.queries)
        xdu, dyy, dyx = x.new_empty(3, s.n, s.B, s.H, s.Q)
        ends = x.new_empty(s.n, s.B, s.H)
        dlast = wide(s, dh)
        if dall is not None:
            dall = dall.transpose(0, 1)
            dlast = dlast + dall[-1]
        for k, products, (memory, second) in cut.pieces(x, 2, backwards=True):
            m, dstates, du = memory.m, memory.states, memory.more
            keys, queries = cut.keys[products], cut.queries[products]

            # States, backwards: dstates[i] is the gradient of the state that enters chunk i of the piece.
            dstates[-1].copy_(dlast)
            torch.mul(dy_groups[k], e[k], out=memory.groups)
            torch.bmm(queries.transpose(1, 2), memory.wide, out=dstates[:-1].flatten(0, 2))
            if dall is not None:
                dstates[:-1].add_(dall[k])
            _pass_on(dstates.unbind()[::-1], cut.factors[k].unbind()[::-1])
            dlast = dstates[0].clone()
            inner = states[k.start : k.stop + 1]
            pairs = torch.mul(inner[1:], dstates[1:], out=second.states[1:])
            ends[k] = pairs.sum(3).view(m, s.B, s.H, s.P).sum(-1)

            # Inside the chunks.
            torch.bmm(queries, keys.transpose(1, 2), out=memory.scores)
            torch.mul(x_heads[k], steps[k], out=memory.heads)
            second.heads.copy_(dy_heads[k])
            cut.tile(k, memory.tile)
            torch.bmm(second.narrow, memory.narrow.transpose(1, 2), out=second.mix)
            second.tiles.mul_(memory.tiles)
            dscores = second.mix if s.R == 1 else torch.sum(second.tiles, 3, out=second.shared[:, :, :, 0])
            dscores = dscores.view(-1, s.Q, s.Q)
            memory.tiles.mul_(memory.shared)
            torch.bmm(memory.mix.transpose(1, 2), second.narrow, out=du)

            before, after = inner[:-1].flatten(0, 2), dstates[1:].flatten(0, 2)
            torch.bmm(memory.wide, before.transpose(1, 2), out=dC[products]).baddbmm_(dscores, keys)
            torch.mul(x_groups[k], writing[k], out=second.groups)
            torch.bmm(second.wide, after.transpose(1, 2), out=dB[products])
            dB[products].baddbmm_(dscores.transpose(1, 2), queries)
            torch.bmm(keys, after, out=memory.wide)
            du.view(m, s.B, s.G, s.R, s.Q, s.P).transpose(3, 4).addcmul_(memory.groups, w[k])

            du, room = du.view(m, s.B, s.H, s.Q, s.P), memory.heads
            torch.sum(torch.mul(du, x_heads[k], out=room), -1, out=xdu[k])
            torch.sum(torch.mul(dy_heads[k], y_heads[k], out=room), -1, out=dyy[k])
            torch.mul(du, steps[k], out=dx_heads[k])
            if direct is not None:
                torch.sum(torch.mul(dy_heads[k], x_heads[k], out=room), -1, out=dyx[k])
                dxs[k].addcmul_(dys[k], direct)

        # dc_t = dy_t y_t - u_t du_t, and at the end of a chunk <dh_out, h_out>: the pairs inside cancel.
        dD = None
        if D is not None:
            dD = dyx.sum((0, 1, 3))
            dyy.addcmul_(dyx, D.unsqueeze(-1), value=-1.0)
        dc = dyy.addcmul_(cut.dts, xdu, value=-1.0)
        dc[..., -1] += ends
        da = dc.flip(-1).cumsum(-1).flip(-1)
        da, xdu = (v.permute(1, 0, 3, 2).reshape(s.B, s.n * s.Q, s.H)[:, : s.T] for v in (da, xdu))
        ddt = torch.addcmul(xdu, da, A)
        dA = (da * dt).sum((0, 1))
        dB, dC = (v.view(s.n, s.B, s.G, s.Q, s.N).transpose(0, 1) for v in (dB, dC))
        return dx[:, : s.T], ddt, dA, s.ungroup(dB, s.GB), s.ungroup(dC, s.GC), dD, narrow(s, dlast), *[None] * 4


def _step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One token, as in decoding: the recurrence itself, without chunks."""
    H = x.shape[2]
    x, dt, B, C = x[:, 0], dt[:, 0], B[:, 0], C[:, 0]
    B, C = (v if v.shape[1] in (1, H) else v.repeat_interleave(H // v.shape[1], 1) for v in (B, C))
    decay = (dt * A).exp()
    if reset is not None:
        decay = decay.masked_fill(reset, 0.0)
    h = torch.addcmul(h0 * decay[..., None, None], (x * dt.unsqueeze(-1)).unsqueeze(-1), B.unsqueeze(2))
    y = torch.matmul(h, C.unsqueeze(-1)).squeeze(-1)
    if D is not None:
        y = torch.addcmul(y, x, D.unsqueeze(-1))
    return y.unsqueeze(1), h


def scanned(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor,
    reset: Tensor | None,
    chunk: int,
    want: tuple[str, ...] = (),
    keep: bool = True,
) -> tuple[Tensor, ...]:
    """y, the last state, the states of all chunks, and the statistics of `want`, by the chunked form.

    Without `keep`, the states of chunks are None where no gradient needs them.
    """
    if x.numel() == 0 or B.shape[3] == 0 or transformed(x, dt, A, B, C, D, h0):
        if want:
            with torch.no_grad():
                found = measured_alone(want, x, dt, A, B, C, D, h0, reset, chunk)
            return *composed(x, dt, A, B, C, D, h0, reset, chunk), *found
        return composed(x, dt, A, B, C, D, h0, reset, chunk)
    keep = keep or (torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in (x, dt, A, B, C, D, h0)))
    return _Chunked.apply(x, dt, A, B, C, D, h0, reset, chunk, want, keep)  # type: ignore[return-value]


def ssd_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Run the chunked form. Arguments are validated and in the compute dtype."""
    if h0 is None:
        h0 = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    if x.shape[1] == 1:
        return _step(x, dt, A, B, C, D, h0, reset)
    y, last, *_ = scanned(x, dt, A, B, C, D, h0, reset, chunk, keep=False)
    return y, last
