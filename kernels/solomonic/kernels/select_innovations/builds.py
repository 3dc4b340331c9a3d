"""The calls of `select_innovations` whose kernels are compiled ahead of time (`solomonic.kernels.triton.aot`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["BUILDS"]

B, T, C, SPAN, WINDOW = 1, 4096, 2048, 4, 512


def _call(dtype: torch.dtype, *, size: int, chunk: int, relative: bool = False) -> None:
    """Distances of a sequence, and the merges of all its refreshes."""
    from solomonic.kernels.select_innovations.plan import Plan
    from solomonic.kernels.select_innovations.triton_op import innovation_triton, select_triton

    def new(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    score = innovation_triton(new(B, T, C), new(B, 0, C), SPAN, relative)
    whole = new(B, T, dtype=torch.int64)
    select_triton(score, whole, whole, Plan(0, T, size, WINDOW, chunk))


BUILDS: dict[str, Callable[[], None]] = {
    "bfloat16, 64 of 64": partial(_call, torch.bfloat16, size=64, chunk=64),
    "bfloat16, 512 of 512": partial(_call, torch.bfloat16, size=512, chunk=512, relative=True),
}
