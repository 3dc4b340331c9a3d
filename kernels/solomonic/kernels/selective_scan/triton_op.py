"""`selective_scan` by Triton kernels: starts them, and joins them into one differentiable operation."""

from __future__ import annotations

import os
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from solomonic.kernels.selective_scan.configs import config
from solomonic.kernels.selective_scan.triton_backward import backward_kernel
from solomonic.kernels.selective_scan.triton_forward import forward_kernel, step_kernel
from solomonic.kernels.triton.launch import launch
from solomonic.kernels.validate import compute_dtype

__all__ = ["selective_scan_triton"]

# Channels of a program where there is a single token.
_STEP = 64


def _constants(x: Tensor, N: int) -> dict[str, Any]:
    raised = x.dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET", "0") != "0"
    return {
        "N": N,
        "BN": max(1, 1 << (N - 1).bit_length()),
        "UP": tl.float32 if raised else None,  # the interpreter cannot compute in bfloat16
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, reset):  # type: ignore[override]
        batch, T, E = x.shape
        N = A.shape[1]
        work = compute_dtype(x.dtype)
        needs = any(ctx.needs_input_grad)
        Q, BE, warps = config("backward" if needs else "forward", N)
        if needs:
            BE, warps = config("forward", N)[1:]  # the chunks are those of the backward pass
        chunks = -(-T // Q)
        y, last = torch.empty_like(x), x.new_empty(batch, E, N, dtype=work)
        starts = x.new_empty(batch, chunks, E, N, dtype=work) if needs else None
        launch(
            forward_kernel,
            (-(-E // BE), batch),
            *(x, dt, A, B, C, D, h0, reset, y, last, starts, T, E, chunks),
            Q=Q,
            BE=BE,
            DIRECT=D is not None,
            INITIAL=h0 is not None,
            RESET=reset is not None,
            STARTS=needs,
            num_warps=warps,
            num_stages=1,
            **_constants(x, N),
        )
        ctx.save_for_backward(x, dt, A, B, C, D, h0, reset, starts)
        return y, last

    @staticmethod
    def backward(ctx: Any, dy, dlast):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise NotImplementedError("backend 'triton' has no second derivatives: use backend='cpu' for them")
        x, dt, A, B, C, D, h0, reset, starts = ctx.saved_tensors
        batch, T, E = x.shape
        N = A.shape[1]
        work = starts.dtype
        Q, BE, warps = config("backward", N)
        programs = -(-E // BE)
        dx, ddt, dh0 = torch.empty_like(x), torch.empty_like(dt), torch.empty_like(starts[:, 0])
        dA, dD = torch.empty_like(dh0), x.new_empty(batch, E, dtype=work)
        dB, dC = (x.new_empty(batch, programs, T, N, dtype=work) for _ in range(2))
        launch(
            backward_kernel,
            (programs, batch),
            *(x, dt, A, B, C, D, reset, dy.contiguous(), starts, dlast.contiguous()),
            *(dx, ddt, dA, dB, dC, dD, dh0, T, E, starts.shape[1]),
            Q=Q,
            BE=BE,
            DIRECT=D is not None,
            RESET=reset is not None,
            num_warps=warps,
            num_stages=1,
            **_constants(x, N),
        )
        dB, dC = dB.sum(1).to(B.dtype), dC.sum(1).to(C.dtype)
        dD = None if D is None else dD.sum(0).to(D.dtype)
        dh0 = None if h0 is None else dh0.to(h0.dtype)
        return dx, ddt, dA.sum(0).to(A.dtype), dB, dC, dD, dh0, None


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, h0: Any, reset: Any) -> tuple[Tensor, Tensor]:
    batch, _, E = x.shape
    y, last = torch.empty_like(x), x.new_empty(batch, *A.shape, dtype=compute_dtype(x.dtype))
    launch(
        step_kernel,
        (-(-E // _STEP), batch),
        *(x, dt, A, B, C, D, h0, reset, y, last, E),
        BE=_STEP,
        DIRECT=D is not None,
        INITIAL=h0 is not None,
        RESET=reset is not None,
        num_warps=4,
        num_stages=1,
        **_constants(x, A.shape[1]),
    )
    return y, last


def selective_scan_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Start the kernels. Arguments are validated and in their own dtype; those that are not contiguous are copied."""
    inputs = tuple(None if each is None else each.contiguous() for each in (x, dt, A, B, C, D, h0))
    reset = None if reset is None else reset.contiguous()
    first = inputs[0]
    assert first is not None
    batch, T, E = first.shape
    N = A.shape[1]
    if batch * T * E * N == 0:
        start = first.new_zeros(batch, E, N, dtype=compute_dtype(x.dtype)) if h0 is None else h0
        y = first.new_zeros(batch, T, E) if D is None else first * D.to(first.dtype)
        return y, start.clone()
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if T == 1 and not grad:
        return _step(*inputs, reset)  # type: ignore[arg-type]
    return _Scan.apply(*inputs, reset)
