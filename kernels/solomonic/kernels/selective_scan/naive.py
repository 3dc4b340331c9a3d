"""The definition of `selective_scan`: one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["selective_scan_naive"]


def selective_scan_naive(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Decay the state, write into it, read it out."""
    x, dt, A, B, C = (each.double() for each in (x, dt, A, B, C))
    h = x.new_zeros(x.shape[0], *A.shape) if h0 is None else h0.double()
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], torch.zeros_like(h), h)
        step = dt[:, t, :, None]
        h = torch.exp(step * A) * h + step * x[:, t, :, None] * B[:, t, None]
        y = torch.einsum("ben,bn->be", h, C[:, t])
        outputs.append(y if D is None else y + D.double() * x[:, t])
    return torch.stack(outputs, 1) if outputs else x, h
