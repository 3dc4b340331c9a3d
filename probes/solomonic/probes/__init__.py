"""Measuring the memory of trained models and intervening on it.

Traces, retention, memory fading, structure and the split law; figures, reports and the command.
"""

from .fading import default_lags, fading, reach
from .labelled import load, save
from .retention import retention
from .statistics import KaplanMeier, bootstrap_interval, kaplan_meier
from .trace import Trace, trace

__all__ = [
    "KaplanMeier",
    "Trace",
    "bootstrap_interval",
    "default_lags",
    "fading",
    "kaplan_meier",
    "load",
    "reach",
    "retention",
    "save",
    "trace",
]
