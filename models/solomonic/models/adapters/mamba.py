"""Mamba (Gu and Dao, arXiv:2312.00752): a scan with a decay a channel and state in every layer."""

from __future__ import annotations

from typing import Any

from .family import Family, Layer, mamba1_shapes
from .scans import MAMBA1_TAPS


def layers(model: Any) -> list[Layer]:
    return [Layer("M1", block, block.mixer, mamba1_shapes(block.mixer)) for block in model.backbone.layers]


FAMILY = Family("mamba", ("MambaForCausalLM",), MAMBA1_TAPS, layers, cache="cache_params")
