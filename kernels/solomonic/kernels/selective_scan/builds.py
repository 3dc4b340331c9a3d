"""The calls of `selective_scan` whose Triton kernels are compiled ahead of time (`solomonic.kernels.triton.aot`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["BUILDS"]

B, T, E = 1, 4096, 1024


def _call(N: int, dtype: torch.dtype, *, tokens: int = T, backward: bool = False) -> None:
    """Forward, or forward and backward, with `N` states a channel."""
    from solomonic.kernels.selective_scan.triton_op import selective_scan_triton

    def new(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=backward)

    work = torch.float32
    x, dt, keys = new(B, tokens, E), new(B, tokens, E), (new(B, tokens, N), new(B, tokens, N))
    rates, D, h0 = new(E, N, dtype=work), new(E, dtype=work), new(B, E, N, dtype=work)
    y, last = selective_scan_triton(x, dt, rates, *keys, D, h0, None)
    if backward:
        torch.autograd.backward([y, last], [torch.empty_like(y), torch.empty_like(last)])


BUILDS: dict[str, Callable[[], None]] = {
    "bfloat16, 16 states": partial(_call, 16, torch.bfloat16, backward=True),
    "bfloat16, 64 states": partial(_call, 64, torch.bfloat16, backward=True),
    "bfloat16, 16 states, one token": partial(_call, 16, torch.bfloat16, tokens=1),
}
