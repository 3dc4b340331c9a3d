"""Bilinear systems: realization, identification, reduction.

x+ = A x + sum_j u_j N_j x + B u, y = C x + D u, in discrete time. Weighted automata are the same object.
"""

from .from_data import WordKernels, word_kernels
from .hankel import GeneralizedHankel, generalized_hankel
from .realize import PartialRealization, partial_realization
from .system import BilinearSystem
from .truncation import Truncation
from .words import words

__all__ = [
    "BilinearSystem",
    "GeneralizedHankel",
    "PartialRealization",
    "Truncation",
    "WordKernels",
    "generalized_hankel",
    "partial_realization",
    "word_kernels",
    "words",
]
