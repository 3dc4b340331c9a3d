"""Measuring the memory of trained models and intervening on it.

Traces, retention, memory fading, structure and the split law; figures, reports and the command.
"""

from . import plots
from .belief_states import belief_states
from .bend import bend
from .causal_trace import causal_trace
from .compress import compress, compression
from .conformance import conformance, conformance_table
from .controllability import controllability, steer
from .decay_law import decay_law
from .distinguishability import distinguishability
from .edit import EditResult, edit, editing
from .edits import Edit
from .effective_state import effective_state
from .empirical_gramians import empirical_gramians
from .eviction import eviction
from .extra_information import extra_information
from .fading import default_lags, fading, reach
from .fading_by_memory import fading_by_memory
from .fisher_information import fisher_information
from .fisher_path import fisher_path
from .head_operator import hidden_attention, receptive_field
from .held_out_tests import held_out_interval, held_out_test, shuffle_test
from .influence import layer_influence
from .innovations import innovations
from .inputs import NothingToMeasure
from .interchange import interchange_subspace
from .labelled import load_dataset, save_dataset
from .linear_probe import linear_probe
from .lyapunov import lyapunov
from .memory_curve import memory_curve
from .observability import observability
from .ratios import ratio_interval
from .recall_table import recall_markdown, recall_table
from .report import report
from .retention import retention
from .sensitivity import sensitivity
from .significance import discoveries, group_test, paired_test, prompts_needed
from .split_law import split_law
from .state_probe import state_probe
from .statistics import KaplanMeier, bootstrap_interval, kaplan_meier
from .structure import structure
from .structures import structures
from .sufficiency import sufficiency
from .trace import Trace, trace
from .transplant import ChimeraWarning, Transplant, transplant
from .unsaid import unsaid
from .white import WhitenessTests, whiteness_tests

__all__ = [
    "ChimeraWarning",
    "Edit",
    "EditResult",
    "KaplanMeier",
    "NothingToMeasure",
    "Trace",
    "Transplant",
    "WhitenessTests",
    "belief_states",
    "bend",
    "bootstrap_interval",
    "causal_trace",
    "compress",
    "compression",
    "conformance",
    "conformance_table",
    "controllability",
    "decay_law",
    "default_lags",
    "discoveries",
    "distinguishability",
    "edit",
    "editing",
    "effective_state",
    "empirical_gramians",
    "eviction",
    "extra_information",
    "fading",
    "fading_by_memory",
    "fisher_information",
    "fisher_path",
    "group_test",
    "held_out_interval",
    "held_out_test",
    "hidden_attention",
    "innovations",
    "interchange_subspace",
    "kaplan_meier",
    "layer_influence",
    "linear_probe",
    "load_dataset",
    "lyapunov",
    "memory_curve",
    "observability",
    "paired_test",
    "plots",
    "prompts_needed",
    "ratio_interval",
    "reach",
    "recall_markdown",
    "recall_table",
    "receptive_field",
    "report",
    "retention",
    "save_dataset",
    "sensitivity",
    "shuffle_test",
    "split_law",
    "state_probe",
    "steer",
    "structure",
    "structures",
    "sufficiency",
    "trace",
    "transplant",
    "unsaid",
    "whiteness_tests",
]
