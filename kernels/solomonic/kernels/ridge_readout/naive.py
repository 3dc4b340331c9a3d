"""The definition of `ridge_readout`: one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from solomonic.kernels.ridge_readout.chebyshev import chebyshev, positive_norm

__all__ = ["ridge_readout_naive", "ridge_readout_step"]


def ridge_readout_step(
    gram: Tensor,
    content: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    alpha: Tensor,
    ridge: float,
    iterations: int,
    decay_gram: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One token: gram [B, H, K, K], content [B, H, K, V], q and k [B, H, K], v [B, H, V], g and alpha [B, H]."""
    decay = g.exp()[..., None, None]
    gram = (decay * gram if decay_gram else gram) + k.unsqueeze(-1) * k.unsqueeze(-2)
    content = decay * content + k.unsqueeze(-1) * v.unsqueeze(-2)
    if iterations:
        norm = positive_norm(gram.square().sum((-1, -2))).unsqueeze(-1)
        solved = chebyshev(lambda x: (gram @ x.unsqueeze(-1)).squeeze(-1), q, norm, ridge, iterations)
        q = q + alpha.unsqueeze(-1) * (solved - q)
    return (q.unsqueeze(-2) @ content).squeeze(-2), gram, content


def ridge_readout_naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    alpha: Tensor,
    gram: Tensor | None,
    content: Tensor | None,
    reset: Tensor | None,
    ridge: float,
    iterations: int,
    decay_gram: bool,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The equations of `ridge_readout` in a loop. `chunk` is not used."""
    batch, time, heads, width = q.shape
    q, g, alpha = q.double(), g.double(), alpha.double()
    k, v = (each.double().repeat_interleave(heads // each.shape[2], dim=2) for each in (k, v))
    H = q.new_zeros(batch, heads, width, width) if gram is None else gram.double()
    U = q.new_zeros(batch, heads, width, v.shape[3]) if content is None else content.double()
    outputs = []
    for t in range(time):
        if reset is not None:
            keep = ~reset[:, t, None, None, None]
            H, U = torch.where(keep, H, 0.0), torch.where(keep, U, 0.0)
        token = (q[:, t], k[:, t], v[:, t], g[:, t], alpha[:, t])
        out, H, U = ridge_readout_step(H, U, *token, ridge, iterations, decay_gram)
        outputs.append(scale * out)
    return (torch.stack(outputs, dim=1) if outputs else q.new_zeros(batch, 0, heads, v.shape[3])), H, U
