"""Fast path of `ssd`: the chunked matrix form, with its own backward pass.

Inside a chunk of Q tokens the recurrence is a masked attention without softmax,

    Y = (L * C B') U + diag(e) C h_in,      h_out = g h_in + U' diag(w) B,      U = diag(dt) X,

where L_ts = exp(c_t - c_s) for s <= t, e_t = exp(c_t), w_s = exp(c_Q - c_s), g = exp(c_Q) and c is the
running sum of dt A inside the chunk. A reset cuts a chunk into segments: L lives inside segments, e before
the first reset, w after the last one. Only the chunk states h are passed on by a loop.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from solomonic.kernels.backends import transformed
from solomonic.kernels.ssd.statistics import empty_statistics, measured

__all__ = ["Layout", "composed", "decays", "narrow", "scanned", "segments", "ssd_cpu", "wide"]

# Exponents are kept in base 2: torch.exp is up to fifty times slower where its result underflows, exp2 is
# not.
_LOG2E = math.log2(math.e)


class Layout:
    """How one call is cut up: B batch, n chunks of Q tokens, G groups of R heads, P channels, N state."""

    def __init__(self, x: Tensor, B: Tensor, C: Tensor, chunk: int) -> None:
        self.B, self.T, self.H, self.P = x.shape
        self.N = B.shape[3]
        self.GB, self.GC = B.shape[2], C.shape[2]
        # Heads are consecutive within a group, so the common refinement of both groupings serves them both.
        self.G = math.lcm(self.GB, self.GC)
        self.R = self.H // self.G
        self.Q = max(1, min(chunk, self.T))
        self.n = -(-self.T // self.Q)
        self.pad = self.n * self.Q - self.T

    def padded(self, value: Tensor) -> Tensor:
        """Zeros after the last token: dt = 0 there, so they neither decay nor write."""
        if not self.pad:
            return value
        return F.pad(value, (0, 0) * (value.dim() - 2) + (0, self.pad))

    def groups(self, value: Tensor, count: int) -> Tensor:
        """[B, T, count, N] -> [B, n, G, Q, N]; a view where groups are shared by all heads."""
        value = self.padded(value)
        if count != self.G:
            value = value.repeat_interleave(self.G // count, 2)
        return value.reshape(self.B, self.n, self.Q, self.G, self.N).transpose(2, 3)

    def ungroup(self, grad: Tensor, count: int) -> Tensor:
        """The adjoint of `groups`."""
        grad = grad.transpose(2, 3).reshape(self.B, self.n * self.Q, self.G, self.N)
        if count != self.G:
            grad = grad.unflatten(2, (count, self.G // count)).sum(3)
        return grad[:, : self.T]

    def heads(self, value: Tensor) -> Tensor:
        """[B, T, H, P] -> [B, n, Q, G, R, P], a view but for the padding."""
        return self.padded(value).reshape(self.B, self.n, self.Q, self.G, self.R, self.P)

    def scalars(self, value: Tensor) -> Tensor:
        """[B, T, H] -> [B, n, H, Q]."""
        return self.padded(value).reshape(self.B, self.n, self.Q, self.H).transpose(2, 3).contiguous()


def segments(layout: Layout, reset: Tensor | None) -> Tensor | None:
    """[B, n, Q] count of resets since the start of the chunk."""
    if reset is None:
        return None
    if layout.pad:
        reset = F.pad(reset, (0, layout.pad))
    return reset.reshape(layout.B, layout.n, layout.Q).to(torch.int32).cumsum(-1)


def decays(layout: Layout, dt: Tensor, A: Tensor, seg: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Running sums c [B, n, H, Q], in base 2, and the weights e, w [B, n, H, Q] and g [B, n, H]."""
    c = (layout.scalars(dt) * (A * _LOG2E).unsqueeze(-1)).cumsum(-1)
    e = c.exp2()
    w = (c[..., -1:] - c).clamp(max=0).exp2()
    if seg is not None:
        e = e * (seg == 0).unsqueeze(2)
        w = w * (seg == seg[..., -1:]).unsqueeze(2)
    return c, e, w, e[..., -1]


def _ceiling(layout: Layout, like: Tensor, seg: Tensor | None) -> Tensor:
    """Largest exponent of L, to broadcast with [B, n, H, Q, Q]: 0 where s <= t in one segment, else -inf.

    In exact arithmetic no exponent exceeds 0; in floating point the minimum with this tensor clamps those
    that do, and removes what lies above the diagonal before it can overflow.
    """
    ceiling = like.new_full((layout.Q, layout.Q), -torch.inf).triu_(1)
    if seg is None:
        return ceiling
    apart = seg.unsqueeze(-1) != seg.unsqueeze(-2)
    return ceiling.masked_fill(apart.unsqueeze(2), -torch.inf)


def scores_of(layout: Layout, Bg: Tensor, Cg: Tensor) -> Tensor:
    """C B' [B, n, G, 1, Q, Q]."""
    scores = torch.bmm(Cg.flatten(0, 2), Bg.flatten(0, 2).transpose(1, 2))
    return scores.view(layout.B, layout.n, layout.G, 1, layout.Q, layout.Q)


def _tile(layout: Layout, c: Tensor, seg: Tensor | None) -> Tensor:
    """L = exp2(c_t - c_s) [B, n, H, Q, Q], zero above the diagonal and between segments."""
    tile = c.unsqueeze(-1) - c.unsqueeze(-2)
    return torch.minimum(tile, _ceiling(layout, c, seg), out=tile).exp2_()


def composed(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor,
    reset: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The chunked form in differentiable torch operations, for higher derivatives and forward mode.

    All arguments are in the compute dtype; returns y, the last state and the states of all chunks.
    """
    s = Layout(x, B, C, chunk)
    if not s.T:
        return x, h0, wide(s, h0).unsqueeze(1)
    Bg, Cg, seg = s.groups(B, s.GB), s.groups(C, s.GC), segments(s, reset)
    c, e, w, g = decays(s, dt, A, seg)
    tile = torch.minimum(c.unsqueeze(-1) - c.unsqueeze(-2), _ceiling(s, c, seg)).exp2()
    mix = tile.unflatten(2, (s.G, s.R)) * scores_of(s, Bg, Cg)
    u = (s.heads(x) * s.padded(dt).reshape(s.B, s.n, s.Q, s.G, s.R, 1)).permute(0, 1, 3, 4, 2, 5)
    wu = u * w.unflatten(2, (s.G, s.R)).unsqueeze(-1)
    writes = torch.matmul(wu.transpose(-1, -2), Bg.unsqueeze(3))  # [B, n, G, R, P, N]
    state, states = h0.unflatten(1, (s.G, s.R)), []
    for i in range(s.n):
        states.append(state)
        state = g[:, i].unflatten(1, (s.G, s.R))[..., None, None] * state + writes[:, i]
    states.append(state)
    entering = torch.stack(states, 1)  # [B, n + 1, G, R, P, N]
    carried = torch.matmul(Cg.unsqueeze(3), entering[:, :-1].transpose(-1, -2))
    y = torch.matmul(mix, u) + carried * e.unflatten(2, (s.G, s.R)).unsqueeze(-1)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(s.B, s.n * s.Q, s.H, s.P)[:, : s.T]
    entering = entering.flatten(3, 4).transpose(-1, -2)
    return (y if D is None else y + D.unsqueeze(-1) * x), state.flatten(1, 2), entering


def _to_heads(layout: Layout, value: Tensor, scale: Tensor | None = None) -> Tensor:
    """[B, n, Q, G, R, P] times scale [B, n, H, Q] -> contiguous [B n H, Q, P]."""
    s = layout
    out = value.new_empty(s.B, s.n, s.H, s.Q, s.P)
    source = value.reshape(s.B, s.n, s.Q, s.H, s.P).transpose(2, 3)
    if scale is None:
        out.copy_(source)
    else:
        torch.mul(source, scale.unsqueeze(-1), out=out)
    return out.view(-1, s.Q, s.P)


def _to_groups(layout: Layout, value: Tensor, scale: Tensor) -> Tensor:
    """[B, n, Q, G, R, P] times scale [B, n, H, Q] -> contiguous [B n G, Q, R P]."""
    s = layout
    out = value.new_empty(s.B, s.n, s.G, s.Q, s.R, s.P)
    weights = scale.unflatten(2, (s.G, s.R)).transpose(3, 4).unsqueeze(-1)
    torch.mul(value.transpose(2, 3), weights, out=out)
    return out.view(-1, s.Q, s.R * s.P)


def _from_groups(layout: Layout, value: Tensor, scale: Tensor, other: Tensor) -> Tensor:
    """scale * value + other as [B, n, Q, H, P], for value [B n G, Q, R P] and other [B n H, Q, P]."""
    s = layout
    value = value.view(s.B, s.n, s.G, s.Q, s.R, s.P)
    weights = scale.unflatten(2, (s.G, s.R)).transpose(3, 4).unsqueeze(-1)
    out = value.new_empty(s.B, s.n, s.Q, s.H, s.P)
    view = out.view(s.B, s.n, s.Q, s.G, s.R, s.P).permute(0, 1, 3, 2, 4, 5)
    terms = other.view(s.B, s.n, s.G, s.R, s.Q, s.P).transpose(3, 4)
    torch.addcmul(terms, value, weights, out=view)
    return out


def _repeat_p(layout: Layout, g: Tensor) -> Tensor:
    """g [B, n, H] -> [B, n, G, 1, R P], to scale states kept as [N, R P]."""
    s = layout
    return g.unsqueeze(-1).expand(-1, -1, -1, s.P).reshape(s.B, s.n, s.G, 1, s.R * s.P)


def wide(layout: Layout, h: Tensor) -> Tensor:
    """A state [B, H, P, N] -> [B, G, N, R P]."""
    s = layout
    return h.reshape(s.B, s.G, s.R * s.P, s.N).transpose(2, 3)


def narrow(layout: Layout, h: Tensor) -> Tensor:
    """The inverse of `wide`."""
    s = layout
    return h.transpose(2, 3).reshape(s.B, s.H, s.P, s.N)


class _Chunked(torch.autograd.Function):
    """y, the last state and the states of all chunks, with a backward pass that recomputes the tiles.

    The states are [B, n + 1, G, N, R P]: the one that enters each chunk, and the last one. The rest are the statistics
    of `want`, without gradients.
    """

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, reset, chunk, want):  # type: ignore[override]
        s = Layout(x, B, C, chunk)
        xs, seg = s.heads(x), segments(s, reset)
        Bg, Cg = s.groups(B, s.GB).contiguous(), s.groups(C, s.GC).contiguous()
        c, e, w, g = decays(s, dt, A, seg)
        dts = s.scalars(dt)
        mix = _tile(s, c, seg)
        mix.view(s.B, s.n, s.G, s.R, s.Q, s.Q).mul_(scores_of(s, Bg, Cg))
        inside = torch.bmm(mix.view(-1, s.Q, s.Q), _to_heads(s, xs, dts))
        sums = torch.einsum("bnhts,bnhs->bnht", mix, dts) if "row_sums" in want else None
        del mix
        Bf, Cf = Bg.view(-1, s.Q, s.N), Cg.view(-1, s.Q, s.N)
        writes = torch.bmm(Bf.transpose(1, 2), _to_groups(s, xs, w * dts))
        writes = writes.view(s.B, s.n, s.G, s.N, s.R * s.P)
        scale = _repeat_p(s, g)
        states = writes.new_empty(s.B, s.n + 1, s.G, s.N, s.R * s.P)
        states[:, 0].copy_(wide(s, h0))
        for i in range(s.n):
            torch.addcmul(writes[:, i], states[:, i], scale[:, i], out=states[:, i + 1])
        entering = states[:, :-1].reshape(-1, s.N, s.R * s.P)
        y = _from_groups(s, torch.bmm(Cf, entering), e, inside)
        y = y.view(s.B, s.n * s.Q, s.H, s.P)[:, : s.T]
        if D is not None:
            y.addcmul_(x, D.unsqueeze(-1))
        last = narrow(s, states[:, -1]).clone()
        found = measured(want, s, x, dt, D, y, reset, Bg, Cg, c, e, w, g, sums) if want else ()
        ctx.save_for_backward(x, dt, A, B, C, D, h0, reset, y, states)
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*found)
        return y, last, states, *found

    @staticmethod
    def backward(ctx: Any, dy, dh, dall, *_):  # type: ignore[override]
        x, dt, A, B, C, D, h0, reset, y, states = ctx.saved_tensors
        dy = torch.zeros_like(y) if dy is None else dy
        dh = h0.new_zeros(h0.shape) if dh is None else dh
        if torch.is_grad_enabled():
            return _backward_of_composed(ctx, (x, dt, A, B, C, D, h0), reset, dy, dh, dall)
        s = Layout(x, B, C, ctx.chunk)
        xs, dys, seg = s.heads(x), s.heads(dy), segments(s, reset)
        Bg, Cg = s.groups(B, s.GB).contiguous(), s.groups(C, s.GC).contiguous()
        Bf, Cf = Bg.view(-1, s.Q, s.N), Cg.view(-1, s.Q, s.N)
        c, e, w, g = decays(s, dt, A, seg)
        dts = s.scalars(dt)

        # States, backwards: dstates[i] is the gradient of the state that enters chunk i.
        dy_wide = _to_groups(s, dys, e)
        scale = _repeat_p(s, g)
        reads = torch.bmm(Cf.transpose(1, 2), dy_wide).view(s.B, s.n, s.G, s.N, s.R * s.P)
        dstates = torch.empty_like(states)
        dstates[:, -1].copy_(wide(s, dh))
        if dall is not None:
            dstates[:, -1].add_(dall[:, -1])
            reads += dall[:, :-1]
        for i in reversed(range(s.n)):
            torch.addcmul(reads[:, i], dstates[:, i + 1], scale[:, i], out=dstates[:, i])
        entering = states[:, :-1].reshape(-1, s.N, s.R * s.P)
        leaving = dstates[:, 1:].reshape(-1, s.N, s.R * s.P)

        # Inside chunks.
        u, dyh = _to_heads(s, xs, dts), _to_heads(s, dys)
        tile = _tile(s, c, seg).view(s.B, s.n, s.G, s.R, s.Q, s.Q)
        dmix = torch.bmm(dyh, u.transpose(1, 2)).view(tile.shape).mul_(tile)
        dscores = (dmix.sum(3) if s.R > 1 else dmix).view(-1, s.Q, s.Q)
        tile.mul_(scores_of(s, Bg, Cg))
        du_inside = torch.bmm(tile.view(-1, s.Q, s.Q).transpose(1, 2), dyh)
        del tile

        x_wide = _to_groups(s, xs, w * dts)
        du = _from_groups(s, torch.bmm(Bf, leaving), w, du_inside)
        dC = torch.bmm(dy_wide, entering.transpose(1, 2)).baddbmm_(dscores, Bf)
        dB = torch.bmm(x_wide, leaving.transpose(1, 2)).baddbmm_(dscores.transpose(1, 2), Cf)

        # dc_t = dy_t y_t - u_t du_t, and at the end of a chunk <dh_out, h_out>: the pairs inside cancel.
        xdu = torch.mul(du.view(s.B, s.n * s.Q, s.H, s.P), s.padded(x)).sum(-1)
        dyy = torch.mul(dy, y).sum(-1)
        dD = None
        if D is not None:
            direct = torch.mul(dy, x).sum(-1)
            dD = direct.sum((0, 1))
            dyy = torch.addcmul(dyy, direct, D, value=-1.0)
        ends = (states[:, 1:] * dstates[:, 1:]).sum(3).view(s.B, s.n, s.H, s.P).sum(-1)
        dc = (s.padded(dyy) - s.padded(dt) * xdu).view(s.B, s.n, s.Q, s.H)
        dc[:, :, -1] += ends
        da = dc.flip(2).cumsum(2).flip(2).reshape(s.B, s.n * s.Q, s.H)[:, : s.T]
        ddt = torch.addcmul(xdu[:, : s.T], da, A)
        dA = (da * dt).sum((0, 1))
        dx = du.mul_(s.padded(dt).view(s.B, s.n, s.Q, s.H, 1)).view(s.B, s.n * s.Q, s.H, s.P)[:, : s.T]
        if D is not None:
            dx.addcmul_(dy, D.unsqueeze(-1))
        dB = s.ungroup(dB.view(s.B, s.n, s.G, s.Q, s.N), s.GB)
        dC = s.ungroup(dC.view(s.B, s.n, s.G, s.Q, s.N), s.GC)
        return dx, ddt, dA, dB, dC, dD, narrow(s, dstates[:, 0]), None, None, None


def _backward_of_composed(
    ctx: Any, inputs: tuple[Any, ...], reset: Tensor | None, dy: Tensor, dh: Tensor, dall: Tensor | None
):
    """Gradients that can be differentiated again (``create_graph=True``)."""
    needs = ctx.needs_input_grad[:7]
    with torch.enable_grad():
        x, dt, A, B, C, D, h0 = inputs
        results = composed(x, dt, A, B, C, D, h0, reset, ctx.chunk)
        wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
        given = [(result, grad) for result, grad in zip(results, (dy, dh, dall), strict=True) if grad is not None]
        found, along = zip(*given, strict=True)
        grads = iter(torch.autograd.grad(found, wanted, along, create_graph=True, allow_unused=True))
    return (*(next(grads) if need else None for need in needs), None, None, None)


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
) -> tuple[Tensor, ...]:
    """y, the last state, the states of all chunks, and the statistics of `want`, by the chunked form."""
    if x.numel() == 0 or B.shape[3] == 0 or transformed(x, dt, A, B, C, D, h0):
        if want:
            with torch.no_grad():
                found = _measured_alone(want, x, dt, A, B, C, D, h0, reset, chunk)
            return *composed(x, dt, A, B, C, D, h0, reset, chunk), *found
        return composed(x, dt, A, B, C, D, h0, reset, chunk)
    return _Chunked.apply(x, dt, A, B, C, D, h0, reset, chunk, want)  # type: ignore[return-value]


def _measured_alone(
    want: tuple[str, ...], x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, h0: Any, reset: Any, chunk: int
) -> tuple[Tensor, ...]:
    """The statistics by the composed form, for empty tensors and function transforms."""
    y = composed(x, dt, A, B, C, D, h0, reset, chunk)[0]
    if not x.shape[1]:
        return empty_statistics(want, x, B, chunk)
    s = Layout(x, B, C, chunk)
    Bg, Cg = s.groups(B, s.GB), s.groups(C, s.GC)
    c, e, w, g = decays(s, dt, A, segments(s, reset))
    mix = _tile(s, c, segments(s, reset)).unflatten(2, (s.G, s.R)) * scores_of(s, Bg, Cg)
    sums = torch.matmul(mix.flatten(2, 3), s.scalars(dt).unsqueeze(-1)).squeeze(-1)
    return measured(want, s, x, dt, D, y, reset, Bg, Cg, c, e, w, g, sums)


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
    y, last, *_ = scanned(x, dt, A, B, C, D, h0, reset, chunk)
    return y, last
