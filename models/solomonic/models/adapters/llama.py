"""Llama: attention over all the past in every layer."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes


def layers(model: Any) -> list[Layer]:
    return [Layer("*", block, block.self_attn, attention_shapes(block.self_attn)) for block in model.model.layers]


FAMILY = Family("llama", ("LlamaForCausalLM",), ATTENTION_TAPS, layers)
