"""Rotary positions (Su et al., arXiv 2104.09864), in the half-split layout of the published checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .config import HybridConfig


class Rotary(NamedTuple):
    """Where tokens stand: the first one's ``position``, and ``cos`` and ``sin`` [T, rotary_dim / 2] of all of them."""

    cos: Tensor
    sin: Tensor
    position: int


def rotary_tables(config: HybridConfig, position: int, length: int, like: Tensor) -> Rotary:
    """cos and sin of the angles for positions ``position .. position + length - 1``: [T, rotary_dim / 2] each.

    Angles are computed in float64 and rounded once to the dtype of ``like``, as the published code rounds them to the
    model's dtype.
    """
    half = config.rotary_dim // 2
    frequency = config.rope_theta ** (-torch.arange(half, dtype=torch.float64, device=like.device) / half)
    positions = torch.arange(position, position + length, dtype=torch.float64, device=like.device)
    angle = torch.outer(positions / config.rope_scaling, frequency)
    return Rotary(angle.cos().to(like.dtype), angle.sin().to(like.dtype), position)


def rotate(x: Tensor, tables: Rotary) -> Tensor:
    """Rotate the first channels of every head: x is [B, T, H, D], the tables are [T, rotary_dim / 2]."""
    cos, sin = tables.cos[:, None, :], tables.sin[:, None, :]
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)
