"""Tasks for recall: rows of tokens, what is asked where, and how far back the answer lies. One family a file.

To add one, write a function that returns :class:`TaskRows`, and add its line to ``TASKS``.
"""

from collections.abc import Callable

from .copying import induction_heads, selective_copying
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
    "TaskRows",
    "fuzzy_recall",
    "induction_heads",
    "mqar",
    "noisy_mqar",
    "parity",
    "selective_copying",
    "word_problem",
]
