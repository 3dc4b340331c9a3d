"""Plots of what the probes measure, one a file: each takes ``ax=``, labels its axes with units and returns them."""

from .bits_by_position import bits_by_position
from .causal_trace import causal_trace
from .compression import compression
from .effective_state import effective_state
from .fading import fading
from .fading_by_memory import fading_by_memory
from .fading_mass import fading_mass
from .half_lives import half_lives
from .layer_influence import layer_influence
from .learning_curves import learning_curves
from .observability import observability
from .recall import recall
from .recall_study import recall_study
from .retention import retention
from .split_law import split_law
from .structure import structure
from .unsaid import unsaid

__all__ = [
    "bits_by_position",
    "causal_trace",
    "compression",
    "effective_state",
    "fading",
    "fading_by_memory",
    "fading_mass",
    "half_lives",
    "layer_influence",
    "learning_curves",
    "observability",
    "recall",
    "recall_study",
    "retention",
    "split_law",
    "structure",
    "unsaid",
]
