"""The calls of `ssd` whose Triton kernels are compiled ahead of time (`solomonic.kernels.triton.aot`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["BUILDS"]

B, T, H = 1, 4096, 8


def _call(
    size: int,
    dtype: torch.dtype,
    *,
    tokens: int = T,
    groups: int = H,
    reset: bool = False,
    edit: bool = False,
    save: bool = False,
    backward: bool = False,
) -> None:
    """Forward, or forward and backward, of heads with `size` channels and states."""
    from solomonic.kernels.ssd.pieces import Edits
    from solomonic.kernels.ssd.triton_op import ssd_triton

    def new(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=backward)

    work = torch.float32
    rates = new(B, tokens, H, dtype=work), new(H, dtype=work)
    keys = new(B, tokens, groups, size), new(B, tokens, groups, size)
    D, h0 = new(H, dtype=work), new(B, H, size, size, dtype=work)
    cuts = torch.empty(B, tokens, dtype=torch.bool, device="meta") if reset else None
    edits: list[Edits | None] | None = None
    if edit:
        edits = [Edits((7, 100), new(B, 2, H, dtype=work), new(B, 2, H, size, size, dtype=work))]
    saves = (50, 200) if save else ()
    y, last, *_ = ssd_triton(new(B, tokens, H, size), *rates, *keys, D, h0, cuts, 64, edits, saves)
    if backward:
        torch.autograd.backward([y, last], [torch.empty_like(y), torch.empty_like(last)])


BUILDS: dict[str, Callable[[], None]] = {
    "bfloat16, head 64": partial(_call, 64, torch.bfloat16, backward=True),
    "bfloat16, head 128": partial(_call, 128, torch.bfloat16, backward=True),
    "float32, head 64": partial(_call, 64, torch.float32, backward=True),
    "float32, head 128": partial(_call, 128, torch.float32, backward=True),
    "bfloat16, head 64, saved states": partial(_call, 64, torch.bfloat16, save=True, backward=True),
    "bfloat16, head 64, edits and resets": partial(
        _call, 64, torch.bfloat16, reset=True, edit=True, save=True, backward=True
    ),
    "bfloat16, head 128, decode": partial(_call, 128, torch.bfloat16, tokens=1),
}
