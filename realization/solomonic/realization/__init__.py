"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from . import gallery, plots
from ._clusters import EigenvalueCluster
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
    "CanonicalForm",
    "CompanionSystem",
    "CutGramians",
    "DiagonalizabilityCertificate",
    "EigenvalueCluster",
    "Equivalence",
    "FittingSplit",
    "Gramians",
    "IllConditionedWarning",
    "ImpulseSplit",
    "JordanStructure",
    "KreissConstant",
    "NilpotencyCertificate",
    "NumericalRadius",
    "Pseudospectrum",
    "TimeVaryingSystem",
    "ToleranceRow",
    "WeyrCharacteristic",
    "canonical_form",
    "companion_from_diagonal",
    "departure_from_normality",
    "diagonalizability",
    "equivalent",
    "fitting",
    "gallery",
    "gramians",
    "hankel_singular_values",
    "jordan_structure",
    "kreiss_constant",
    "minimal",
    "nilpotency",
    "numerical_radius",
    "plots",
    "pseudospectrum",
    "rounding_uncertainty",
    "shift_register",
    "weyr_characteristic",
]
