"""Fast path of `selective_scan`: decays and inputs of a block of tokens at once, then one operation a token.

With a_t = exp(dt_t A) and b_t = dt_t x_t B_t', both [batch, channels, states], the recurrence h_t = a_t h_{t-1} + b_t
is a single fused multiply and add in place. The backward pass computes the states of a block again from the one at
its start, and walks back through g_t = dy_t C_t' + a_{t+1} g_{t+1}.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from solomonic.kernels.backends import transformed
from solomonic.kernels.validate import compute_dtype

__all__ = ["composed", "selective_scan_cpu"]

_LOG2E = math.log2(math.e)
# Numbers in the decays of one block: they stay in the cache of a core.
_BLOCK = 1 << 18


def _blocks(x: Tensor, A: Tensor) -> list[tuple[int, int]]:
    T = x.shape[1]
    size = max(1, _BLOCK // max(1, x.shape[0] * A.numel()))
    return [(t, min(t + size, T)) for t in range(0, T, size)]


def _coefficients(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, reset: Tensor | None, part: slice
) -> tuple[Tensor, Tensor]:
    """Decays and inputs of a block [q, B, E, N]."""
    step = dt[:, part].transpose(0, 1).unsqueeze(-1)
    a = torch.exp2(step * (A * _LOG2E))
    if reset is not None:
        a.masked_fill_(reset[:, part].t()[..., None, None], 0.0)
    u = (step * x[:, part].transpose(0, 1).unsqueeze(-1)) * B[:, part].transpose(0, 1).unsqueeze(2)
    return a, u


def _states(a: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Turn the inputs of a block into its states, in place; gives the last one."""
    for decay, state in zip(a.unbind(), u.unbind(), strict=True):
        h = state.addcmul_(decay, h)
    return h


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, reset):  # type: ignore[override]
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        h, starts = h0, []
        for lo, hi in _blocks(x, A):
            part = slice(lo, hi)
            starts.append(h)
            a, u = _coefficients(x, dt, A, B, reset, part)
            h = _states(a, u, h).clone()
            y[:, part] = torch.matmul(u, C[:, part].transpose(0, 1).unsqueeze(-1)).squeeze(-1).transpose(0, 1)
        if D is not None:
            y.addcmul_(x, D)
        ctx.save_for_backward(x, dt, A, B, C, D, h0, reset, *starts)
        ctx.set_materialize_grads(False)
        return y, h if starts else h0.clone()

    @staticmethod
    def backward(ctx: Any, dy, dlast):  # type: ignore[override]
        x, dt, A, B, C, D, h0, reset, *starts = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_backward_of_composed(ctx.needs_input_grad, (x, dt, A, B, C, D, h0), reset, dy, dlast), None)
        dy = torch.zeros_like(x) if dy is None else dy
        carry = torch.zeros_like(h0) if dlast is None else dlast.clone()
        dx, ddt, dB, dC = (torch.empty_like(each) for each in (x, dt, B, C))
        dA = torch.zeros_like(A)
        for (lo, hi), start in zip(reversed(_blocks(x, A)), reversed(starts), strict=True):
            part = slice(lo, hi)
            a, u = _coefficients(x, dt, A, B, reset, part)
            _states(a, u, start)
            dout = dy[:, part].transpose(0, 1).unsqueeze(-1)
            g = dout * C[:, part].transpose(0, 1).unsqueeze(2)
            for t in range(hi - lo - 1, -1, -1):
                g[t].add_(carry)
                carry = a[t] * g[t]
            dC[:, part] = torch.matmul(dout.transpose(2, 3), u).squeeze(2).transpose(0, 1)
            step, value = (v[:, part].transpose(0, 1).unsqueeze(-1) for v in (dt, x))
            dB[:, part] = torch.matmul((step * value).transpose(2, 3), g).squeeze(2).transpose(0, 1)
            write = torch.matmul(g, B[:, part].transpose(0, 1).unsqueeze(-1))
            # The gradient of dt A: g_t a_t h_{t-1}.
            g.mul_(a)
            g[1:].mul_(u[:-1])
            g[0].mul_(start)
            dA += (g * step).sum((0, 1))
            dx[:, part] = (write * step).squeeze(-1).transpose(0, 1)
            ddt[:, part] = ((g * A).sum(-1) + (write * value).squeeze(-1)).transpose(0, 1)
        dD = None
        if D is not None:
            dx.addcmul_(dy, D)
            dD = (dy * x).sum((0, 1))
        return dx, ddt, dA, dB, dC, dD, carry, None


def composed(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, h0: Tensor, reset: Tensor | None):
    """The same in differentiable operations, for derivatives of second order and function transforms."""
    h, outputs = h0, []
    for t in range(x.shape[1]):
        step = dt[:, t].unsqueeze(-1)
        a = torch.exp(step * A)
        if reset is not None:
            a = a.masked_fill(reset[:, t, None, None], 0.0)
        h = a * h + step * x[:, t].unsqueeze(-1) * B[:, t].unsqueeze(1)
        outputs.append((h * C[:, t].unsqueeze(1)).sum(-1))
    y = torch.stack(outputs, 1) if outputs else torch.zeros_like(x)
    return (y if D is None else y + D * x), h


def _backward_of_composed(needs: Any, tensors: Any, reset: Tensor | None, dy: Any, dlast: Any):
    """Gradients that can be differentiated again (``create_graph=True``)."""
    wanted = [t for t, need in zip(tensors, needs, strict=False) if need and t is not None]
    with torch.enable_grad():
        x, dt, A, B, C, D, h0 = tensors
        results = composed(x, dt, A, B, C, D, h0, reset)
        pairs = [(r, g) for r, g in zip(results, (dy, dlast), strict=True) if g is not None]
        found = iter(
            torch.autograd.grad(
                [r for r, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True
            )
        )
    return tuple(next(found) if need and t is not None else None for t, need in zip(tensors, needs, strict=False))


def selective_scan_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the blocked form, in the compute dtype. Arguments are validated."""
    work = compute_dtype(x.dtype)
    x, dt, A, B, C = (each.to(work) for each in (x, dt, A, B, C))
    D = None if D is None else D.to(work)
    h0 = x.new_zeros(x.shape[0], *A.shape) if h0 is None else h0.to(work)
    if x.shape[1] <= 1 or x.numel() * A.numel() == 0 or transformed(x, dt, A, B, C, D, h0):
        return composed(x, dt, A, B, C, D, h0, reset)
    return _Scan.apply(x, dt, A, B, C, D, h0, reset)
