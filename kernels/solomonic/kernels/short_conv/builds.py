"""The calls of `short_conv` whose Triton kernels are compiled ahead of time (`solomonic.kernels.triton.aot`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["BUILDS"]

B, T, C, TAPS = 1, 4096, 2048, 4


def _call(dtype: torch.dtype, *, tokens: int = T, reset: bool = False, backward: bool = False) -> None:
    """Forward, or forward and backward, of four taps with bias and SiLU."""
    from solomonic.kernels.short_conv.triton_op import short_conv_triton

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=backward)

    cuts = torch.empty(B, tokens, dtype=torch.bool, device="meta") if reset else None
    y, _ = short_conv_triton(new(B, tokens, C), new(C, TAPS), new(C), new(B, TAPS - 1, C), cuts, "silu")
    if backward:
        torch.autograd.backward(y, torch.empty_like(y))


BUILDS: dict[str, Callable[[], None]] = {
    "bfloat16, resets": partial(_call, torch.bfloat16, reset=True, backward=True),
    "bfloat16, one token": partial(_call, torch.bfloat16, tokens=1),
}
