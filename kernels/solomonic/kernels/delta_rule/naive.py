"""The definition of `delta_rule`: one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["delta_rule_naive", "delta_rule_step"]


def delta_rule_step(S: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """One token: S [B, H, K, V], q and k [B, H, K], v [B, H, V], g and beta [B, H]. Returns S' q and the new S."""
    S = g.exp()[..., None, None] * S
    held = torch.einsum("bhkv,bhk->bhv", S, k)
    S = S + torch.einsum("bhk,bhv->bhkv", k, beta.unsqueeze(-1) * (v - held))
    return torch.einsum("bhkv,bhk->bhv", S, q), S


def delta_rule_naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None,
    reset: Tensor | None,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t) (I - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t', o_t = scale S_t' q_t. `chunk` is not used."""
    batch, time, heads, width = q.shape
    q, g, beta = q.double(), g.double(), beta.double()
    k, v = (each.double().repeat_interleave(heads // each.shape[2], dim=2) for each in (k, v))
    S = q.new_zeros(batch, heads, width, v.shape[3]) if state is None else state.double()
    outputs = []
    for t in range(time):
        if reset is not None:
            S = torch.where(reset[:, t, None, None, None], torch.zeros_like(S), S)
        out, S = delta_rule_step(S, q[:, t], k[:, t], v[:, t], g[:, t], beta[:, t])
        outputs.append(scale * out)
    return (torch.stack(outputs, dim=1) if outputs else q.new_zeros(batch, 0, heads, v.shape[3])), S
