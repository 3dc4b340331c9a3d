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

__all__ = ["composed", "ssd_cpu"]

# Exponents are kept in base 2: torch.exp is up to fifty times slower where its result underflows, exp2 is
# not.
_LOG2E = math.log2(math.e)


class _Layout:
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


def _segments(layout: _Layout, reset: Tensor | None) -> Tensor | None:
    """[B, n, Q] count of resets since the start of the chunk."""
    if reset is None:
        return None
    if layout.pad:
        reset = F.pad(reset, (0, layout.pad))
    return reset.reshape(layout.B, layout.n, layout.Q).to(torch.int32).cumsum(-1)


def _decays(layout: _Layout, dt: Tensor, A: Tensor, seg: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Running sums c [B, n, H, Q], in base 2, and the weights e, w [B, n, H, Q] and g [B, n, H]."""
    c = (layout.scalars(dt) * (A * _LOG2E).unsqueeze(-1)).cumsum(-1)
    e = c.exp2()
    w = (c[..., -1:] - c).clamp(max=0).exp2()
    if seg is not None:
        e = e * (seg == 0).unsqueeze(2)
        w = w * (seg == seg[..., -1:]).unsqueeze(2)
    return c, e, w, e[..., -1]


def _ceiling(layout: _Layout, like: Tensor, seg: Tensor | None) -> Tensor:
    """Largest exponent of L, to broadcast with [B, n, H, Q, Q]: 0 where s <= t in one segment, else -inf.

    In exact arithmetic no exponent exceeds 0; in floating point the minimum with this tensor clamps those
    that do, and removes what lies above the diagonal before it can overflow.
    """
    ceiling = like.new_full((layout.Q, layout.Q), -torch.inf).triu_(1)
    if seg is None:
        return ceiling
    apart = seg.unsqueeze(-1) != seg.unsqueeze(-2)
    return ceiling.masked_fill(apart.unsqueeze(2), -torch.inf)


def _scores(layout: _Layout, Bg: Tensor, Cg: Tensor) -> Tensor:
    """C B' [B, n, G, 1, Q, Q]."""
    scores = torch.bmm(Cg.flatten(0, 2), Bg.flatten(0, 2).transpose(1, 2))
    return scores.view(layout.B, layout.n, layout.G, 1, layout.Q, layout.Q)


def _tile(layout: _Layout, c: Tensor, seg: Tensor | None) -> Tensor:
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
) -> tuple[Tensor, Tensor]:
    """The chunked form in differentiable torch operations, for higher derivatives and forward mode.

    All arguments are in the compute dtype; returns y and the last state.
    """
    s = _Layout(x, B, C, chunk)
    if not s.T:
        return x, h0
    Bg, Cg, seg = s.groups(B, s.GB), s.groups(C, s.GC), _segments(s, reset)
    c, e, w, g = _decays(s, dt, A, seg)
    tile = torch.minimum(c.unsqueeze(-1) - c.unsqueeze(-2), _ceiling(s, c, seg)).exp2()
    mix = tile.unflatten(2, (s.G, s.R)) * _scores(s, Bg, Cg)
    u = (s.heads(x) * s.padded(dt).reshape(s.B, s.n, s.Q, s.G, s.R, 1)).permute(0, 1, 3, 4, 2, 5)
    wu = u * w.unflatten(2, (s.G, s.R)).unsqueeze(-1)
    writes = torch.matmul(wu.transpose(-1, -2), Bg.unsqueeze(3))  # [B, n, G, R, P, N]
    state, states = h0.unflatten(1, (s.G, s.R)), []
    for i in range(s.n):
        states.append(state)
        state = g[:, i].unflatten(1, (s.G, s.R))[..., None, None] * state + writes[:, i]
    carried = torch.matmul(Cg.unsqueeze(3), torch.stack(states, 1).transpose(-1, -2))
    y = torch.matmul(mix, u) + carried * e.unflatten(2, (s.G, s.R)).unsqueeze(-1)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(s.B, s.n * s.Q, s.H, s.P)[:, : s.T]
    return (y if D is None else y + D.unsqueeze(-1) * x), state.flatten(1, 2)


def _to_heads(layout: _Layout, value: Tensor, scale: Tensor | None = None) -> Tensor:
    """[B, n, Q, G, R, P] times scale [B, n, H, Q] -> contiguous [B n H, Q, P]."""
    s = layout
    out = value.new_empty(s.B, s.n, s.H, s.Q, s.P)
    source = value.reshape(s.B, s.n, s.Q, s.H, s.P).transpose(2, 3)
    if scale is None:
        out.copy_(source)
    else:
        torch.mul(source, scale.unsqueeze(-1), out=out)
    return out.view(-1, s.Q, s.P)


def _to_groups(layout: _Layout, value: Tensor, scale: Tensor) -> Tensor:
    """[B, n, Q, G, R, P] times scale [B, n, H, Q] -> contiguous [B n G, Q, R P]."""
    s = layout
    out = value.new_empty(s.B, s.n, s.G, s.Q, s.R, s.P)
    weights = scale.unflatten(2, (s.G, s.R)).transpose(3, 4).unsqueeze(-1)
    torch.mul(value.transpose(2, 3), weights, out=out)
    return out.view(-1, s.Q, s.R * s.P)


def _from_groups(layout: _Layout, value: Tensor, scale: Tensor, other: Tensor) -> Tensor:
    """scale * value + other as [B, n, Q, H, P], for value [B n G, Q, R P] and other [B n H, Q, P]."""
    s = layout
    value = value.view(s.B, s.n, s.G, s.Q, s.R, s.P)
    weights = scale.unflatten(2, (s.G, s.R)).transpose(3, 4).unsqueeze(-1)
    out = value.new_empty(s.B, s.n, s.Q, s.H, s.P)
    view = out.view(s.B, s.n, s.Q, s.G, s.R, s.P).permute(0, 1, 3, 2, 4, 5)
    terms = other.view(s.B, s.n, s.G, s.R, s.Q, s.P).transpose(3, 4)
    torch.addcmul(terms, value, weights, out=view)
    return out


def _repeat_p(layout: _Layout, g: Tensor) -> Tensor:
    """g [B, n, H] -> [B, n, G, 1, R P], to scale states kept as [N, R P]."""
    s = layout
    return g.unsqueeze(-1).expand(-1, -1, -1, s.P).reshape(s.B, s.n, s.G, 1, s.R * s.P)


def _wide(layout: _Layout, h: Tensor) -> Tensor:
    """A state [B, H, P, N] -> [B, G, N, R P]."""
    s = layout
    return h.reshape(s.B, s.G, s.R * s.P, s.N).transpose(2, 3)


def _narrow(layout: _Layout, h: Tensor) -> Tensor:
    """The inverse of `_wide`."""
    s = layout
    return h.transpose(2, 3).reshape(s.B, s.H, s.P, s.N)


class _Chunked(torch.autograd.Function):
    """y and the last state, with a backward pass that recomputes the tiles."""

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, reset, chunk):  # type: ignore[override]
        s = _Layout(x, B, C, chunk)
        xs, seg = s.heads(x), _segments(s, reset)
        Bg, Cg = s.groups(B, s.GB).contiguous(), s.groups(C, s.GC).contiguous()
        c, e, w, g = _decays(s, dt, A, seg)
        dts = s.scalars(dt)
        mix = _tile(s, c, seg)
        mix.view(s.B, s.n, s.G, s.R, s.Q, s.Q).mul_(_scores(s, Bg, Cg))
        inside = torch.bmm(mix.view(-1, s.Q, s.Q), _to_heads(s, xs, dts))
        del mix
        Bf, Cf = Bg.view(-1, s.Q, s.N), Cg.view(-1, s.Q, s.N)
        writes = torch.bmm(Bf.transpose(1, 2), _to_groups(s, xs, w * dts))
        writes = writes.view(s.B, s.n, s.G, s.N, s.R * s.P)
        scale = _repeat_p(s, g)
        states = writes.new_empty(s.B, s.n + 1, s.G, s.N, s.R * s.P)
        states[:, 0].copy_(_wide(s, h0))
        for i in range(s.n):
            torch.addcmul(writes[:, i], states[:, i], scale[:, i], out=states[:, i + 1])
        entering = states[:, :-1].reshape(-1, s.N, s.R * s.P)
        y = _from_groups(s, torch.bmm(Cf, entering), e, inside)
        y = y.view(s.B, s.n * s.Q, s.H, s.P)[:, : s.T]
        if D is not None:
            y.addcmul_(x, D.unsqueeze(-1))
        last = _narrow(s, states[:, -1]).clone()
        ctx.save_for_backward(x, dt, A, B, C, D, h0, reset, y, states)
        ctx.chunk = chunk
        return y, last

    @staticmethod
    def backward(ctx: Any, dy, dh):  # type: ignore[override]
        x, dt, A, B, C, D, h0, reset, y, states = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _backward_of_composed(ctx, (x, dt, A, B, C, D, h0), reset, dy, dh)
        s = _Layout(x, B, C, ctx.chunk)
        xs, dys, seg = s.heads(x), s.heads(dy), _segments(s, reset)
        Bg, Cg = s.groups(B, s.GB).contiguous(), s.groups(C, s.GC).contiguous()
        Bf, Cf = Bg.view(-1, s.Q, s.N), Cg.view(-1, s.Q, s.N)
        c, e, w, g = _decays(s, dt, A, seg)
        dts = s.scalars(dt)

        # States, backwards: dstates[i] is the gradient of the state that enters chunk i.
        dy_wide = _to_groups(s, dys, e)
        scale = _repeat_p(s, g)
        reads = torch.bmm(Cf.transpose(1, 2), dy_wide).view(s.B, s.n, s.G, s.N, s.R * s.P)
        dstates = torch.empty_like(states)
        dstates[:, -1].copy_(_wide(s, dh))
        for i in reversed(range(s.n)):
            torch.addcmul(reads[:, i], dstates[:, i + 1], scale[:, i], out=dstates[:, i])
        entering = states[:, :-1].reshape(-1, s.N, s.R * s.P)
        leaving = dstates[:, 1:].reshape(-1, s.N, s.R * s.P)

        # Inside chunks.
        u, dyh = _to_heads(s, xs, dts), _to_heads(s, dys)
        tile = _tile(s, c, seg).view(s.B, s.n, s.G, s.R, s.Q, s.Q)
        dmix = torch.bmm(dyh, u.transpose(1, 2)).view(tile.shape).mul_(tile)
        dscores = (dmix.sum(3) if s.R > 1 else dmix).view(-1, s.Q, s.Q)
        tile.mul_(_scores(s, Bg, Cg))
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
        return dx, ddt, dA, dB, dC, dD, _narrow(s, dstates[:, 0]), None, None


def _backward_of_composed(ctx: Any, inputs: tuple[Any, ...], reset: Tensor | None, dy: Tensor, dh: Tensor):
    """Gradients that can be differentiated again (``create_graph=True``)."""
    needs = ctx.needs_input_grad[:7]
    with torch.enable_grad():
        x, dt, A, B, C, D, h0 = inputs
        results = composed(x, dt, A, B, C, D, h0, reset, ctx.chunk)
        wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
        grads = iter(torch.autograd.grad(results, wanted, (dy, dh), create_graph=True, allow_unused=True))
    return (*(next(grads) if need else None for need in needs), None, None)


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
    if x.numel() == 0 or B.shape[3] == 0 or transformed(x, dt, A, B, C, D, h0):
        return composed(x, dt, A, B, C, D, h0, reset, chunk)
    return _Chunked.apply(x, dt, A, B, C, D, h0, reset, chunk)
