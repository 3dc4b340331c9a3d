"""`short_conv` by Triton kernels: starts them, and joins them into one differentiable operation."""

from __future__ import annotations

import os
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from solomonic.kernels.short_conv.configs import config
from solomonic.kernels.short_conv.cpu import register
from solomonic.kernels.short_conv.triton_kernels import backward_kernel, forward_kernel, step_kernel
from solomonic.kernels.triton.launch import launch
from solomonic.kernels.validate import compute_dtype

__all__ = ["short_conv_triton"]


def _options(kernel: str, x: Tensor, weight: Tensor, bias: Any, reset: Any, silu: bool) -> dict[str, Any]:
    raised = x.dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET", "0") != "0"
    chosen = config(kernel)
    return {
        "TAPS": weight.shape[1] - 1,
        "BC": chosen.BC,
        "BIAS": bias is not None,
        "RESET": reset is not None,
        "SILU": silu,
        "UP": tl.float32 if raised else None,  # the interpreter cannot compute in bfloat16
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "num_warps": chosen.warps,
        "num_stages": 1,
    } | ({} if kernel == "step" else {"BT": chosen.BT})


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, state, reset, silu):  # type: ignore[override]
        B, T, C = x.shape
        y = torch.empty_like(x)
        named = _options("forward", x, weight, bias, reset, silu)
        launch(
            forward_kernel,
            (-(-T // named["BT"]), -(-C // named["BC"]), B),
            *(x, state, weight, bias, reset, y, T, C),
            **named,
        )
        ctx.save_for_backward(x, weight, bias, state, reset)
        ctx.silu = silu
        return y

    @staticmethod
    def backward(ctx: Any, dy):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise NotImplementedError("backend 'triton' has no second derivatives: use backend='cpu' for them")
        x, weight, bias, state, reset = ctx.saved_tensors
        B, T, C = x.shape
        taps = weight.shape[1] - 1
        named = _options("backward", x, weight, bias, reset, ctx.silu)
        blocks = -(-(T + taps) // named["BT"])
        dx, dstate = torch.empty_like(x), torch.empty_like(state)
        parts = x.new_empty(B, blocks, taps + 2, C, dtype=compute_dtype(x.dtype))
        launch(
            backward_kernel,
            (blocks, -(-C // named["BC"]), B),
            *(x, state, weight, bias, reset, dy.contiguous(), dx, dstate, parts, T, C),
            **named,
        )
        sums = parts.sum((0, 1))
        dbias = None if bias is None else sums[taps + 1].to(bias.dtype)
        return dx, sums[: taps + 1].t().to(weight.dtype), dbias, dstate, None, None


def _step(x: Tensor, weight: Tensor, bias: Any, state: Tensor, reset: Any, silu: bool) -> tuple[Tensor, Tensor]:
    B, _, C = x.shape
    y, after = torch.empty_like(x), torch.empty_like(state)
    named = _options("step", x, weight, bias, reset, silu)
    launch(step_kernel, (-(-C // named["BC"]), B), *(x, state, weight, bias, reset, y, after, C), **named)
    return y, after


def short_conv_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    """Start the kernels. Arguments are validated and in their own dtype; those that are not contiguous are copied."""
    x, weight, state = x.contiguous(), weight.contiguous(), state.contiguous()
    bias = None if bias is None else bias.contiguous()
    reset = None if reset is None else reset.contiguous()
    silu = activation == "silu"
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias, state))
    if x.shape[1] == 1 and x.numel() and not grad:
        return _step(x, weight, bias, state, reset, silu)
    taps = weight.shape[1] - 1
    tail = torch.cat([state, x[:, max(x.shape[1] - taps, 0) :]], 1) if taps else x
    y = _Convolution.apply(x, weight, bias, state, reset, silu) if x.numel() else x.clone()
    return y, register(tail, taps, reset)
