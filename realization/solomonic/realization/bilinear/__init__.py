"""Bilinear systems: realization, identification, reduction.

x+ = A x + sum_j u_j N_j x + B u, y = C x + D u, in discrete time. Weighted automata are the same object.
"""

from .carleman import Bilinearization, carleman
from .fit import BilinearFit, FitWarning, fit_bilinear
from .from_data import WordKernels, word_kernels
from .hankel import GeneralizedHankel, generalized_hankel
from .layer import LayerFit, OrderRow, fit_layer
from .low_rank import LowRankGramians, low_rank_gramians
from .realize import PartialRealization, partial_realization
from .selective import SelectiveLayer, from_selective
from .series import RationalSeries
from .spectral import read_strings, spectral_learning
from .system import BilinearSystem
from .truncation import Truncation
from .words import words

__all__ = [
    "BilinearFit",
    "BilinearSystem",
    "Bilinearization",
    "FitWarning",
    "GeneralizedHankel",
    "LayerFit",
    "LowRankGramians",
    "OrderRow",
    "PartialRealization",
    "RationalSeries",
    "SelectiveLayer",
    "Truncation",
    "WordKernels",
    "carleman",
    "fit_bilinear",
    "fit_layer",
    "from_selective",
    "generalized_hankel",
    "low_rank_gramians",
    "partial_realization",
    "read_strings",
    "spectral_learning",
    "word_kernels",
    "words",
]
