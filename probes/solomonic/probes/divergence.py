"""The Kullback-Leibler divergence of two predictions, in float64 and exactly 0 where the logits are the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["kl_bits"]

_SMALL = 1e-2


def kl_bits(clean: Tensor, other: Tensor) -> Tensor:
    r"""KL(p || q) in bits from logits [..., vocabulary], without a floor.

    With d = log q - log p it is summed as :math:`\sum_i p_i (e^{d_i} - 1 - d_i)`, which equals
    :math:`-\sum_i p_i d_i` since p and q sum to 1. No term is negative, so nothing cancels between terms, and a
    divergence of 1e-20 keeps its leading digits. Equal logits give exactly 0.
    """
    log_p = torch.log_softmax(clean.double(), -1)
    log_q = torch.log_softmax(other.double(), -1)
    d = log_q - log_p
    p, q = log_p.exp(), log_q.exp()
    series = p * d * d * (0.5 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d / 720))))
    terms = torch.where(d.abs() < _SMALL, series, q - p - p * d)
    return terms.sum(-1).clamp_min(0.0) / math.log(2)
