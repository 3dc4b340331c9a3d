"""Attention layers: over all the past (``*``) or over a sliding window (``SWA``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from solomonic.kernels import memory_attention

from ..config import HybridConfig
from ..memory import KeyValue, Value, append, last
from ..norm import RMSNorm
from ..rope import Rotary, rotate
from .mixer import Record, part_nbytes


class Attention(nn.Module):
    """Softmax attention with grouped heads, normed queries and keys, and rotary positions.

    With a window W its memory is a shift register of the last W keys and values: eidetic, and gone W steps later.
    """

    def __init__(self, config: HybridConfig, symbol: str) -> None:
        super().__init__()
        d, heads, kv_heads, width = sizes(config)
        bias = config.attention_bias
        self.name = "swa" if symbol == "SWA" else "self_attn"
        self.window = config.swa_window if symbol == "SWA" else None
        self.part = "window" if symbol == "SWA" else "kv"
        self.config = config
        self.q_proj = nn.Linear(d, heads * width, bias=bias)
        self.k_proj = nn.Linear(d, kv_heads * width, bias=bias)
        self.v_proj = nn.Linear(d, kv_heads * width, bias=bias)
        self.o_proj = nn.Linear(heads * width, d, bias=bias)
        self.q_norm = RMSNorm(width, config.rms_norm_eps)
        self.k_norm = RMSNorm(width, config.rms_norm_eps)

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        return {self.part: empty_register(self.config, batch_size, like)}

    def sizes(self, tokens: int) -> dict[str, int]:
        kept = tokens if self.window is None else min(tokens, self.window)
        return {self.part: 2 * kept * self.config.num_key_value_heads * self.config.head_dim}

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        return part_nbytes(self.sizes(tokens), width)

    def forward(
        self, h: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        width = self.config.head_dim
        q = rotate(self.q_norm(self.q_proj(h).unflatten(-1, (-1, width))), tables)
        k = rotate(self.k_norm(self.k_proj(h).unflatten(-1, (-1, width))), tables)
        v = self.v_proj(h).unflatten(-1, (-1, width)).to(k.dtype)  # autocast may have made it narrower
        register = past[self.part]
        assert isinstance(register, KeyValue)
        register = append(register, k, v)
        read = memory_attention(q, register.key, register.value, window=self.window)
        if record is not None:
            record("q", q)
            record("k", register.key)
            record("v", register.value)
            record("read", read.out)
            record("lse_window", read.lse.window)
        kept = register if self.window is None else last(register, self.window)
        return self.o_proj(read.out.flatten(2)), {self.part: kept}


def sizes(config: HybridConfig) -> tuple[int, int, int, int]:
    """(d, H, Hkv, D)."""
    return config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim


def empty_register(config: HybridConfig, batch_size: int, like: Tensor) -> KeyValue:
    """A register with no tokens."""
    shape = (batch_size, 0, config.num_key_value_heads, config.head_dim)
    return KeyValue(like.new_zeros(shape), like.new_zeros(shape))


def init_projection(linear: nn.Linear, gain: float, rng: torch.Generator) -> None:
    """Normal weights of standard deviation gain / sqrt(fan in)."""
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features), generator=rng)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
