"""Falcon Mamba: Mamba with norms of B, C and the step."""

from __future__ import annotations

from .family import Family
from .mamba import layers
from .scans import MAMBA1_TAPS

FAMILY = Family("falcon_mamba", ("FalconMambaForCausalLM",), MAMBA1_TAPS, layers, cache="cache_params")
