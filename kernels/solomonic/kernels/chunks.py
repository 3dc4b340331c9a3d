"""Sequences cut into chunks, and the decays between the tokens of one: what linear recurrences share.

A chunk of Q tokens turns a recurrence with a scalar decay ``exp(g_t)`` into matrix products. With c the running sum
of g inside the chunk, token s counts at token t with weight ``L_ts = exp(c_t - c_s)``, the state that enters the chunk
with ``e_t = exp(c_t)``, and token s in the state that leaves it with ``w_s = exp(c_Q - c_s)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Chunks", "Decays", "carry"]


class Decays(NamedTuple):
    """Weights inside chunks: L [n, B, H, Q, Q], e and w [n, B, H, Q], and the whole chunk's decay [n, B, H]."""

    L: Tensor
    e: Tensor
    w: Tensor
    total: Tensor


@dataclass(frozen=True)
class Chunks:
    """T tokens cut into n chunks of Q; the last one is padded with zeros."""

    T: int
    Q: int

    @property
    def n(self) -> int:
        return -(-self.T // self.Q)

    def cut(self, value: Tensor, repeat: int = 1) -> Tensor:
        """[B, T, G, D] -> [n, B, G repeat, Q, D], each head repeated: chunks lie in memory one after the other."""
        value = F.pad(value, (0, 0, 0, 0, 0, self.n * self.Q - self.T))
        value = value.unflatten(1, (self.n, self.Q)).permute(1, 0, 3, 2, 4)
        return value.contiguous() if repeat == 1 else value.repeat_interleave(repeat, 2)

    def cut_scalars(self, value: Tensor) -> Tensor:
        """[B, T, H] -> [n, B, H, Q]."""
        return self.cut(value.unsqueeze(-1)).squeeze(-1)

    def join(self, value: Tensor) -> Tensor:
        """[n, B, H, Q, D] -> [B, T, H, D]."""
        return value.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, : self.T]

    def decays(self, g: Tensor, reset: Tensor | None) -> Decays:
        """The weights for log decays g [B, T, H] (not positive) and resets [B, T]."""
        c = self.cut_scalars(g).cumsum(-1)
        exponent = c.unsqueeze(-1) - c.unsqueeze(-2)
        hidden = torch.ones(self.Q, self.Q, dtype=torch.bool, device=g.device).triu(1)
        e, w = c.exp(), (c[..., -1:] - c).clamp(max=0).exp()
        if reset is not None:
            padded = F.pad(reset, (0, self.n * self.Q - self.T)).unflatten(1, (self.n, self.Q))
            segment = padded.to(torch.int32).cumsum(-1).transpose(0, 1).unsqueeze(2)  # [n, B, 1, Q]
            hidden = hidden | (segment.unsqueeze(-1) != segment.unsqueeze(-2))
            e, w = e * (segment == 0), w * (segment == segment[..., -1:])
        # Rounding may leave a sum of decays above 0; what lies above the diagonal would overflow.
        L = exponent.clamp(max=0).masked_fill(hidden, -torch.inf).exp()
        return Decays(L, e, w, e[..., -1])


def carry(state: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """S_{i+1} = a_i S_i + N_i over chunks: the states that enter them [n, B, H, K, V], and the last one [B, H, K, V].

    ``decay`` is [n, B, H] and ``write`` [n, B, H, K, V].
    """
    entering = []
    for a, new in zip(decay[..., None, None], write, strict=True):
        entering.append(state)
        state = torch.addcmul(new, a, state)
    return torch.stack(entering), state
