"""Qwen3-Next: layers of Gated DeltaNet and of gated attention, with experts."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes, delta_shapes
from .scans import DELTA_TAPS


def layers(model: Any) -> list[Layer]:
    return [
        Layer("GDN", block, block.linear_attn, delta_shapes(block.linear_attn))
        if hasattr(block, "linear_attn")
        else Layer("*", block, block.self_attn, attention_shapes(block.self_attn))
        for block in model.model.layers
    ]


FAMILY = Family("qwen3_next", ("Qwen3NextForCausalLM",), {**DELTA_TAPS, **ATTENTION_TAPS}, layers)
