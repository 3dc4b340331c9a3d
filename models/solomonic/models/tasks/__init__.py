"""Tasks for recall: rows of tokens, what is asked where, and how far back the answer lies. One family a file.

To add one, write a function that returns :class:`TaskRows`, and add its line to ``TASKS``. Beside them stand
hidden Markov models, of which the best prediction and the state of the one who makes it are known.
"""

from collections.abc import Callable

from .copying import induction_heads, selective_copying
from .hidden_markov import HiddenMarkov, HiddenMarkovRows, mess3
from .recall import fuzzy_recall, mqar, noisy_mqar
from .rows import IGNORED, TaskRows
from .words import parity, word_problem

#: Name -> generator.
TASKS: dict[str, Callable[..., TaskRows]] = {
    "mqar": mqar,
    "noisy_mqar": noisy_mqar,
    "fuzzy_recall": fuzzy_recall,
    "selective_copying": selective_copying,
    "induction_heads": induction_heads,
    "parity": parity,
    "word_problem": word_problem,
}

__all__ = [
    "IGNORED",
    "TASKS",
    "HiddenMarkov",
    "HiddenMarkovRows",
    "TaskRows",
    "fuzzy_recall",
    "induction_heads",
    "mess3",
    "mqar",
    "noisy_mqar",
    "parity",
    "selective_copying",
    "word_problem",
]
