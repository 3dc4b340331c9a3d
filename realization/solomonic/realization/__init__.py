"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from ._clusters import EigenvalueCluster
from .diagonalizability import DiagonalizabilityCertificate, diagonalizability
from .fitting import FittingSplit, ImpulseSplit, fitting
from .jordan_structure import JordanStructure, jordan_structure
from .kreiss import KreissConstant, kreiss_constant
from .nilpotency import NilpotencyCertificate, ToleranceRow, nilpotency
from .normality import NumericalRadius, departure_from_normality, numerical_radius
from .pseudospectrum import Pseudospectrum, pseudospectrum
from .rounding import rounding_uncertainty
from .time_varying import CutGramians, TimeVaryingSystem, shift_register
from .weyr import WeyrCharacteristic, weyr_characteristic

__all__ = [
    "CutGramians",
    "DiagonalizabilityCertificate",
    "EigenvalueCluster",
    "FittingSplit",
    "ImpulseSplit",
    "JordanStructure",
    "KreissConstant",
    "NilpotencyCertificate",
    "NumericalRadius",
    "Pseudospectrum",
    "TimeVaryingSystem",
    "ToleranceRow",
    "WeyrCharacteristic",
    "departure_from_normality",
    "diagonalizability",
    "fitting",
    "jordan_structure",
    "kreiss_constant",
    "nilpotency",
    "numerical_radius",
    "pseudospectrum",
    "rounding_uncertainty",
    "shift_register",
    "weyr_characteristic",
]
