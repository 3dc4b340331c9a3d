"""Plots of what the probes measure, one a file: each takes ``ax=``, labels its axes with units and returns them."""

from .bits_by_position import bits_by_position
from .fading import fading
from .fading_mass import fading_mass
from .half_lives import half_lives
from .layer_influence import layer_influence
from .learning_curves import learning_curves
from .recall import recall
from .recall_study import recall_study
from .retention import retention
from .split_law import split_law
from .structure import structure

__all__ = [
    "bits_by_position",
    "fading",
    "fading_mass",
    "half_lives",
    "layer_influence",
    "learning_curves",
    "recall",
    "recall_study",
    "retention",
    "split_law",
    "structure",
]
