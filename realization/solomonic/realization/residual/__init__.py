"""Stacks of simple layers, each fed the prediction residual of the one before, and a detector of change at the end.

================  =====================================================
module            what
================  =====================================================
``layers``        trend, seasonal and linear layers
``stack``         the stack: fit, predict, innovations
``changes``       where the last innovations change
================  =====================================================
"""

from .changes import Changes, find_changes
from .layers import LinearLayer, SeasonalLayer, TrendLayer
from .stack import ResidualStack

__all__ = ["Changes", "LinearLayer", "ResidualStack", "SeasonalLayer", "TrendLayer", "find_changes"]
