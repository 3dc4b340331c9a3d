"""Plots of what the probes measure, one a file: each takes ``ax=``, labels its axes with units and returns them."""

from .belief_states import belief_states
from .bits_by_position import bits_by_position
from .causal_trace import causal_trace
from .compression import compression
from .controllability import controllability
from .decay_law import decay_law
from .distinguishability import distinguishability
from .edit import edit
from .effective_state import effective_state
from .empirical_gramians import empirical_gramians
from .eviction import eviction
from .extra_information import extra_information
from .fading import fading
from .fading_by_memory import fading_by_memory
from .fading_mass import fading_mass
from .fisher_information import fisher_information
from .half_lives import half_lives
from .innovations import innovations
from .interchange import interchange
from .layer_influence import layer_influence
from .learning_curves import learning_curves
from .linear_probe import linear_probe
from .lyapunov import lyapunov
from .memory_curve import memory_curve
from .observability import observability
from .recall import recall
from .recall_study import recall_study
from .receptive_field import receptive_field
from .retention import retention
from .sensitivity import sensitivity
from .split_law import split_law
from .steer import steer
from .structure import structure
from .sufficiency import sufficiency
from .transplant import transplant
from .unsaid import unsaid

__all__ = [
    "belief_states",
    "bits_by_position",
    "causal_trace",
    "compression",
    "controllability",
    "decay_law",
    "distinguishability",
    "edit",
    "effective_state",
    "empirical_gramians",
    "eviction",
    "extra_information",
    "fading",
    "fading_by_memory",
    "fading_mass",
    "fisher_information",
    "half_lives",
    "innovations",
    "interchange",
    "layer_influence",
    "learning_curves",
    "linear_probe",
    "lyapunov",
    "memory_curve",
    "observability",
    "recall",
    "recall_study",
    "receptive_field",
    "retention",
    "sensitivity",
    "split_law",
    "steer",
    "structure",
    "sufficiency",
    "transplant",
    "unsaid",
]
