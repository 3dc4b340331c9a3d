"""Zamba2: layers of Mamba2, some behind a block of attention whose weights layers share."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes, mamba2_shapes
from .scans import MAMBA2_TAPS


def layers(model: Any) -> list[Layer]:
    found = []
    for block in model.model.layers:
        if hasattr(block, "shared_transformer"):
            mixer, attention = block.mamba_decoder.mamba, block.shared_transformer.self_attn
            found.append(Layer("*>M2", block, None, {**mamba2_shapes(mixer), **attention_shapes(attention)}))
        else:
            found.append(Layer("M2", block, block.mamba, mamba2_shapes(block.mamba)))
    return found


FAMILY = Family("zamba2", ("Zamba2ForCausalLM",), {**MAMBA2_TAPS, **ATTENTION_TAPS}, layers)
