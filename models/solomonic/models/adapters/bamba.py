"""Bamba: layers of Mamba2 and of attention."""

from __future__ import annotations

from .attention_tap import ATTENTION_TAPS
from .family import Family
from .hybrid import mamba2_or_attention
from .scans import MAMBA2_TAPS

FAMILY = Family("bamba", ("BambaForCausalLM",), {**MAMBA2_TAPS, **ATTENTION_TAPS}, mamba2_or_attention)
