"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from .fitting import FittingSplit, ImpulseSplit, fitting
from .nilpotency import NilpotencyCertificate, ToleranceRow, nilpotency
from .rounding import rounding_uncertainty
from .time_varying import CutGramians, TimeVaryingSystem, shift_register
from .weyr import WeyrCharacteristic, weyr_characteristic

__all__ = [
    "CutGramians",
    "FittingSplit",
    "ImpulseSplit",
    "NilpotencyCertificate",
    "TimeVaryingSystem",
    "ToleranceRow",
    "WeyrCharacteristic",
    "fitting",
    "nilpotency",
    "rounding_uncertainty",
    "shift_register",
    "weyr_characteristic",
]
