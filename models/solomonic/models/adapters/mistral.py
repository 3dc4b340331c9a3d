"""Mistral: attention over a sliding window, or over all the past where the configuration has none."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes


def layers(model: Any) -> list[Layer]:
    window = model.config.sliding_window
    if window is not None and window < 2:
        raise ValueError(f"model: expected a sliding window of at least 2 tokens, got {window}: its cache keeps all")
    symbol = "*" if window is None else "SWA"
    return [
        Layer(symbol, block, block.self_attn, attention_shapes(block.self_attn, window), window)
        for block in model.model.layers
    ]


FAMILY = Family("mistral", ("MistralForCausalLM",), ATTENTION_TAPS, layers)
