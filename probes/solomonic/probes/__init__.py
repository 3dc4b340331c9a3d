"""Measuring and intervening: traces, retention, memory fading, structure, the split law; plots, reports, the command."""

from .labelled import load, save
from .statistics import KaplanMeier, bootstrap_interval, kaplan_meier
from .trace import Trace, trace

__all__ = [
    "KaplanMeier",
    "Trace",
    "bootstrap_interval",
    "kaplan_meier",
    "load",
    "save",
    "trace",
]
