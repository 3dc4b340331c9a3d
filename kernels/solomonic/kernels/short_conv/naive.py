"""The definition of `short_conv`: one token after the other through a shift register, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["short_conv_naive"]


def short_conv_naive(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    """Shift x_t into the register, then read it out: y_t = sum_j weight[:, j] register_j + bias."""
    x, weight, register = x.double(), weight.double(), state.double()
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            register = torch.where(reset[:, t, None, None], torch.zeros_like(register), register)
        taps = torch.cat([register, x[:, t : t + 1]], dim=1)
        y = torch.einsum("bkc,ck->bc", taps, weight)
        if bias is not None:
            y = y + bias.double()
        if activation == "silu":
            y = y * torch.sigmoid(y)
        outputs.append(y)
        register = taps[:, 1:]
    return (torch.stack(outputs, dim=1) if outputs else x), register
