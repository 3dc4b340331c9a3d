"""The calls of `memory_attention` whose Triton kernels are compiled ahead of time (`solomonic.kernels.triton.aot`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["BUILDS"]

B, T, H, G, W, M = 1, 4096, 8, 2, 512, 512


def _call(size: int, dtype: torch.dtype, *, queries: int = T, backward: bool = False) -> None:
    """Forward, or forward and backward, of heads with `size` channels that read all three sources."""
    from solomonic.kernels.memory_attention.triton_op import memory_attention_triton

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=backward)

    q, k, v = new(B, queries, H, size), new(B, T, G, size), new(B, T, G, size)
    kf, vf = new(B, T, G, size), new(B, T, G, size)
    ke, ve = new(B, M, G, size), new(B, M, G, size)
    spans = torch.empty(2, B, M, dtype=torch.int64, device="meta")
    results = memory_attention_triton(
        q, k, v, None, kf, vf, None, ke, ve, (spans[0], spans[1]), W, size**-0.5, None
    )  # fmt: skip
    if backward:
        found = [each for each in results if each is not None]
        torch.autograd.backward(found, [torch.empty_like(each) for each in found])


BUILDS: dict[str, Callable[[], None]] = {
    "bfloat16, head 64": partial(_call, 64, torch.bfloat16, backward=True),
    "bfloat16, head 128": partial(_call, 128, torch.bfloat16, backward=True),
    "bfloat16, head 128, one query": partial(_call, 128, torch.bfloat16, queries=1),
}
