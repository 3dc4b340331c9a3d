"""The chunked form of `ssd` in differentiable torch operations, for what the fast path has no derivative of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solomonic.kernels.ssd.layout import Layout, ceiling_of, decays, segments, wide
from solomonic.kernels.ssd.statistics import empty_statistics, measured

__all__ = ["composed", "gradients_of_composed", "measured_alone"]


def _tile(layout: Layout, c: Tensor, seg: Tensor | None) -> Tensor:
    """L = exp2(c_t - c_s) [B, n, H, Q, Q], zero above the diagonal and between segments."""
    return torch.minimum(c.unsqueeze(-1) - c.unsqueeze(-2), ceiling_of(layout, c, seg)).exp2()


def _scores(layout: Layout, Bg: Tensor, Cg: Tensor) -> Tensor:
    """C B' [B, n, G, 1, Q, Q]."""
    scores = torch.bmm(Cg.flatten(0, 2), Bg.flatten(0, 2).transpose(1, 2))
    return scores.view(layout.B, layout.n, layout.G, 1, layout.Q, layout.Q)


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
    mix = _tile(s, c, seg).unflatten(2, (s.G, s.R)) * _scores(s, Bg, Cg)
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


def gradients_of_composed(
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
    return (*(next(grads) if need else None for need in needs), None, None, None, None)


def measured_alone(
    want: tuple[str, ...], x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, h0: Any, reset: Any, chunk: int
) -> tuple[Tensor, ...]:
    """The statistics by the composed form, for empty tensors and function transforms."""
    y = composed(x, dt, A, B, C, D, h0, reset, chunk)[0]
    if not x.shape[1]:
        return empty_statistics(want, x, B, chunk)
    s = Layout(x, B, C, chunk)
    Bg, Cg, seg = s.groups(B, s.GB), s.groups(C, s.GC), segments(s, reset)
    c, e, w, g = decays(s, dt, A, seg)
    mix = _tile(s, c, seg).unflatten(2, (s.G, s.R)) * _scores(s, Bg, Cg)
    sums = torch.matmul(mix.flatten(2, 3), s.scalars(dt).unsqueeze(-1)).squeeze(-1)
    return measured(want, s, x, dt, D, y, reset, Bg, Cg, c, e, w, g, sums)
