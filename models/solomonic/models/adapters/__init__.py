"""Adapters: models of transformers with an explicit memory and with taps, one family a file."""

from .adapted import AdaptedConfig, AdaptedLM, adapt
from .families import FAMILIES

__all__ = ["FAMILIES", "AdaptedConfig", "AdaptedLM", "adapt"]
