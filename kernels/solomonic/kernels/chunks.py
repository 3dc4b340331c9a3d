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
    """Weights inside chunks: L [B, H, n, Q, Q], e and w [B, H, n, Q], and the whole chunk's decay [B, H, n]."""

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

    def cut(self, value: Tensor) -> Tensor:
        """[B, T, G, D] -> [B, G, n, Q, D]."""
        value = F.pad(value, (0, 0, 0, 0, 0, self.n * self.Q - self.T))
        return value.unflatten(1, (self.n, self.Q)).permute(0, 3, 1, 2, 4).contiguous()

    def cut_scalars(self, value: Tensor) -> Tensor:
        """[B, T, H] -> [B, H, n, Q]."""
        return self.cut(value.unsqueeze(-1)).squeeze(-1)

    def join(self, value: Tensor) -> Tensor:
        """[B, H, n, Q, D] -> [B, T, H, D]."""
        return value.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, : self.T]

    def decays(self, g: Tensor, reset: Tensor | None) -> Decays:
        """The weights for log decays g [B, T, H] (not positive) and resets [B, T]."""
        c = self.cut_scalars(g).cumsum(-1)
        exponent = c.unsqueeze(-1) - c.unsqueeze(-2)
        hidden = torch.ones(self.Q, self.Q, dtype=torch.bool, device=g.device).triu(1)
        e, w = c.exp(), (c[..., -1:] - c).clamp(max=0).exp()
        if reset is not None:
            padded = F.pad(reset, (0, self.n * self.Q - self.T)).unflatten(1, (self.n, self.Q))
            segment = padded.to(torch.int32).cumsum(-1).unsqueeze(1)  # [B, 1, n, Q]
            hidden = hidden | (segment.unsqueeze(-1) != segment.unsqueeze(-2))
            e, w = e * (segment == 0), w * (segment == segment[..., -1:])
        # Rounding may leave a sum of decays above 0; what lies above the diagonal would overflow.
        L = exponent.clamp(max=0).masked_fill(hidden, -torch.inf).exp()
        return Decays(L, e, w, e[..., -1])


def carry(state: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """S_{i+1} = a_i S_i + N_i over chunks: the states that enter them [B, H, n, K, V], and the last one [B, H, K, V].

    ``decay`` is [B, H, n] and ``write`` [B, H, n, K, V].
    """
    entering = []
    for i in range(write.shape[2]):
        entering.append(state)
        state = torch.addcmul(write[:, :, i], decay[:, :, i, None, None], state)
    return torch.stack(entering, 2), state
