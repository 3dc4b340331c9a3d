"""Decoder layers that hold a scan, ``mamba``, or attention, ``self_attn``."""

from __future__ import annotations

from typing import Any

from .family import Layer, attention_shapes, mamba1_shapes, mamba2_shapes


def mamba2_or_attention(model: Any) -> list[Layer]:
    """Layers of Mamba2 and of attention."""
    return [
        Layer("*", block, block.self_attn, attention_shapes(block.self_attn))
        if getattr(block, "mamba", None) is None
        else Layer("M2", block, block.mamba, mamba2_shapes(block.mamba))
        for block in model.model.layers
    ]


def mamba1_or_attention(model: Any) -> list[Layer]:
    """Layers of Mamba and of attention."""
    return [
        Layer("*", block, block.self_attn, attention_shapes(block.self_attn))
        if getattr(block, "mamba", None) is None
        else Layer("M1", block, block.mamba, mamba1_shapes(block.mamba))
        for block in model.model.layers
    ]
