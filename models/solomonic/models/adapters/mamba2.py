"""Mamba2 (Dao and Gu, arXiv:2405.21060): a scan in every layer."""

from __future__ import annotations

from typing import Any

from .family import Family, Layer, mamba2_shapes
from .scans import MAMBA2_TAPS


def layers(model: Any) -> list[Layer]:
    return [Layer("M2", block, block.mixer, mamba2_shapes(block.mixer)) for block in model.backbone.layers]


FAMILY = Family("mamba2", ("Mamba2ForCausalLM",), MAMBA2_TAPS, layers, cache="cache_params")
