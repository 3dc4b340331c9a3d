"""The definition of `ssd`: one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ssd_naive"]


def ssd_naive(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t', y_t = h_t C_t + D x_t. `chunk` is not used."""
    batch, time, heads, channels = x.shape
    x, dt, A = x.double(), dt.double(), A.double()
    B = B.double().repeat_interleave(heads // B.shape[2], dim=2)
    C = C.double().repeat_interleave(heads // C.shape[2], dim=2)
    h = x.new_zeros(batch, heads, channels, B.shape[3]) if h0 is None else h0.double()
    outputs = []
    for t in range(time):
        if reset is not None:
            h = torch.where(reset[:, t, None, None, None], torch.zeros_like(h), h)
        decay = torch.exp(dt[:, t] * A)
        write = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        h = decay[:, :, None, None] * h + write
        y = torch.einsum("bhpn,bhn->bhp", h, C[:, t])
        if D is not None:
            y = y + D.double()[:, None] * x[:, t]
        outputs.append(y)
    return (torch.stack(outputs, dim=1) if outputs else x), h
