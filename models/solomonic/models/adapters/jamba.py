"""Jamba: layers of Mamba and of attention without positions, with experts."""

from __future__ import annotations

from .attention_tap import ATTENTION_TAPS
from .family import Family
from .hybrid import mamba1_or_attention
from .scans import MAMBA1_TAPS

FAMILY = Family("jamba", ("JambaForCausalLM",), {**MAMBA1_TAPS, **ATTENTION_TAPS}, mamba1_or_attention)
