"""Falcon-H1: Mamba2 and attention side by side in every layer."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes, mamba2_shapes
from .scans import MAMBA2_TAPS


def layers(model: Any) -> list[Layer]:
    return [
        Layer("M2+*", block, None, {**mamba2_shapes(block.mamba), **attention_shapes(block.self_attn)})
        for block in model.model.layers
    ]


FAMILY = Family("falcon_h1", ("FalconH1ForCausalLM",), {**MAMBA2_TAPS, **ATTENTION_TAPS}, layers)
