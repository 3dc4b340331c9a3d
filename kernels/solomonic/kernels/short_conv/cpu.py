"""Fast path of `short_conv`: taps are shifted views in [B, T, C] layout, so nothing is transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from solomonic.kernels.backends import transformed
from solomonic.kernels.validate import compute_dtype

__all__ = ["composed", "register", "short_conv_cpu"]


def composed(padded: Tensor, weight: Tensor, bias: Tensor | None, reset: Tensor | None, silu: bool) -> Tensor:
    """Sum of k shifted products in differentiable torch operations.

    `padded` is the register and the input [B, k - 1 + T, C].
    """
    k = weight.shape[1]
    T = padded.shape[1] - (k - 1)
    rows = weight.t()
    y = padded[:, k - 1 :] * rows[k - 1]
    hidden = None
    for back in range(1, k):
        tap = padded[:, k - 1 - back : k - 1 - back + T]
        if reset is not None:
            # A reset hides an input from a token if it lies after the input, at or before the token.
            late = F.pad(reset, (back - 1, 0))[:, :T]
            hidden = late if hidden is None else hidden | late
            tap = tap.masked_fill(hidden.unsqueeze(-1), 0.0)
        y = torch.addcmul(y, tap, rows[k - 1 - back])
    if bias is not None:
        y = y + bias
    return F.silu(y) if silu else y


def _correlate(padded: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Depthwise correlation along time, with `padding` zeros at both ends."""
    k, T = weight.shape[1], padded.shape[1]
    if padded.dtype == torch.float32:
        # Read as an image of one row in channels-last layout, this is oneDNN's fast path: a single pass.
        image = padded.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(image, weight[:, None, None, :], bias, padding=(0, padding), groups=weight.shape[0])
        return y.squeeze(2).transpose(1, 2)
    padded = F.pad(padded, (0, 0, padding, padding))
    T = padded.shape[1] - (k - 1)
    rows = weight.t().contiguous()
    y = padded[:, :T] * rows[0]
    for j in range(1, k):
        y.addcmul_(padded[:, j : j + T], rows[j])
    return y if bias is None else y.add_(bias)


class _Correlation(torch.autograd.Function):
    """`composed` without resets: forward and input gradient are one correlation each."""

    @staticmethod
    def forward(ctx: Any, padded, weight, bias, silu):  # type: ignore[override]
        z = _correlate(padded, weight, bias, 0)
        y = F.silu(z) if silu else z
        ctx.save_for_backward(padded, weight, bias, z if silu else None)
        ctx.silu = silu
        return y

    @staticmethod
    def backward(ctx: Any, dy):  # type: ignore[override]
        padded, weight, bias, z = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            inputs = [t for t, need in zip((padded, weight, bias), needs, strict=False) if need]
            y = composed(padded, weight, bias, None, ctx.silu)
            grads = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
            return (*(next(grads) if need else None for need in needs[:3]), None)
        if ctx.silu:
            dy = torch.ops.aten.silu_backward(dy, z)
        dy = dy.contiguous()
        k, T = weight.shape[1], dy.shape[1]
        dpadded = _correlate(dy, weight.flip(1), None, k - 1) if needs[0] else None
        dweight = dbias = None
        if needs[1]:
            product = torch.empty_like(dy)
            columns = [torch.mul(dy, padded[:, j : j + T], out=product).sum((0, 1)) for j in range(k)]
            dweight = torch.stack(columns, 1)
        if needs[2]:
            dbias = dy.sum((0, 1))
        return dpadded, dweight, dbias, None


def register(padded: Tensor, taps: int, reset: Tensor | None) -> Tensor:
    """The last `taps` inputs, with those before the last reset hidden."""
    tail = padded[:, padded.shape[1] - taps :]
    if reset is None or not taps:
        return tail.clone()
    flags = F.pad(reset, (taps, 0))[:, reset.shape[1] :].to(torch.int32)
    # Input j of the register is hidden if any later token was reset.
    later = flags.flip(1).cumsum(1).flip(1) - flags
    return tail.masked_fill((later > 0).unsqueeze(-1), 0.0)


def short_conv_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    """Run the fast path, in the compute dtype. Arguments are validated; `state` is never None."""
    work = compute_dtype(x.dtype)
    x, weight, state = x.to(work), weight.to(work), state.to(work)
    bias = None if bias is None else bias.to(work)
    taps = weight.shape[1] - 1
    padded = torch.cat([state, x], 1) if taps else x
    silu = activation == "silu"
    if reset is not None or x.shape[1] <= 1 or x.numel() == 0 or transformed(x, weight, bias, state):
        y = composed(padded, weight, bias, reset, silu)
    else:
        y = _Correlation.apply(padded, weight, bias, silu)
    return y, register(padded, taps, reset)
