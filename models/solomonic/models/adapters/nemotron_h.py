"""Nemotron-H: layers of Mamba2, of attention without positions, and of a MLP or experts alone."""

from __future__ import annotations

from typing import Any

from .attention_tap import ATTENTION_TAPS
from .family import Family, Layer, attention_shapes, mamba2_shapes
from .scans import MAMBA2_TAPS


def layers(model: Any) -> list[Layer]:
    found = []
    for block in model.model.layers:
        mixer = block.mixer
        if block.block_type == "linear_attention":
            found.append(Layer("M2", block, mixer, mamba2_shapes(mixer)))
        elif block.block_type == "full_attention":
            found.append(Layer("*", block, mixer, attention_shapes(mixer)))
        else:
            found.append(Layer("MLP", block, mixer, {}))
    return found


FAMILY = Family("nemotron_h", ("NemotronHForCausalLM",), {**MAMBA2_TAPS, **ATTENTION_TAPS}, layers)
