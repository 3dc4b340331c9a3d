"""How a call of `ssd` is cut into chunks, and the weights inside them.

With c the running sum of dt A inside a chunk of Q tokens, in base 2: token s counts at token t with
L_ts = 2^(c_t - c_s), the state that enters with e_t = 2^c_t, and token s in the state that leaves with
w_s = 2^(c_Q - c_s); g = e_Q is left of the state that entered. A reset cuts a chunk into segments: L lives inside
segments, e before the first reset, w after the last one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Layout", "ceiling_of", "decays", "narrow", "segments", "wide"]

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


def ceiling_of(layout: Layout, like: Tensor, seg: Tensor | None) -> Tensor:
    """Largest exponent of L, to broadcast with [B, n, H, Q, Q]: 0 where s <= t in one segment, else -inf.

    In exact arithmetic no exponent exceeds 0; in floating point the minimum with this tensor clamps those
    that do, and removes what lies above the diagonal before it can overflow.
    """
    ceiling = like.new_full((layout.Q, layout.Q), -torch.inf).triu_(1)
    if seg is None:
        return ceiling
    apart = seg.unsqueeze(-1) != seg.unsqueeze(-2)
    return ceiling.masked_fill(apart.unsqueeze(2), -torch.inf)


def wide(layout: Layout, h: Tensor) -> Tensor:
    """A state [B, H, P, N] -> [B, G, N, R P]."""
    s = layout
    return h.reshape(s.B, s.G, s.R * s.P, s.N).transpose(2, 3)


def narrow(layout: Layout, h: Tensor) -> Tensor:
    """The inverse of `wide`."""
    s = layout
    return h.transpose(2, 3).reshape(s.B, s.H, s.P, s.N)
