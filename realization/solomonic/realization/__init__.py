"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from . import gallery, plots
from ._clusters import EigenvalueCluster
from .bilinear import (
    BilinearFit,
    Bilinearization,
    BilinearSystem,
    FitWarning,
    GeneralizedHankel,
    LayerFit,
    OrderRow,
    PartialRealization,
    RationalSeries,
    SelectiveLayer,
    Truncation,
    WordKernels,
    carleman,
    fit_bilinear,
    fit_layer,
    from_selective,
    generalized_hankel,
    partial_realization,
    read_strings,
    spectral_learning,
    word_kernels,
    words,
)
from .canonical import CanonicalForm, IllConditionedWarning, canonical_form
from .companion import CompanionSystem, companion_from_diagonal
from .diagonalizability import DiagonalizabilityCertificate, diagonalizability
from .equivalence import Equivalence, equivalent
from .fitting import FittingSplit, ImpulseSplit, fitting
from .gramians import Gramians, gramians, hankel_singular_values
from .jordan_structure import JordanStructure, jordan_structure
from .kreiss import KreissConstant, kreiss_constant
from .minimal import minimal
from .nilpotency import NilpotencyCertificate, ToleranceRow, nilpotency
from .normality import NumericalRadius, departure_from_normality, numerical_radius
from .pseudospectrum import Pseudospectrum, pseudospectrum
from .rounding import rounding_uncertainty
from .shift_register import shift_register
from .time_varying import CutGramians, TimeVaryingSystem
from .weyr import WeyrCharacteristic, weyr_characteristic

__all__ = [
    "BilinearFit",
    "BilinearSystem",
    "Bilinearization",
    "CanonicalForm",
    "CompanionSystem",
    "CutGramians",
    "DiagonalizabilityCertificate",
    "EigenvalueCluster",
    "Equivalence",
    "FitWarning",
    "FittingSplit",
    "GeneralizedHankel",
    "Gramians",
    "IllConditionedWarning",
    "ImpulseSplit",
    "JordanStructure",
    "KreissConstant",
    "LayerFit",
    "NilpotencyCertificate",
    "NumericalRadius",
    "OrderRow",
    "PartialRealization",
    "Pseudospectrum",
    "RationalSeries",
    "SelectiveLayer",
    "TimeVaryingSystem",
    "ToleranceRow",
    "Truncation",
    "WeyrCharacteristic",
    "WordKernels",
    "canonical_form",
    "carleman",
    "companion_from_diagonal",
    "departure_from_normality",
    "diagonalizability",
    "equivalent",
    "fit_bilinear",
    "fit_layer",
    "fitting",
    "from_selective",
    "gallery",
    "generalized_hankel",
    "gramians",
    "hankel_singular_values",
    "jordan_structure",
    "kreiss_constant",
    "minimal",
    "nilpotency",
    "numerical_radius",
    "partial_realization",
    "plots",
    "pseudospectrum",
    "read_strings",
    "rounding_uncertainty",
    "shift_register",
    "spectral_learning",
    "weyr_characteristic",
    "word_kernels",
    "words",
]
