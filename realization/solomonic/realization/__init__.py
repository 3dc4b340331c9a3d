"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from .time_varying import CutGramians, TimeVaryingSystem, shift_register

__all__ = [
    "CutGramians",
    "TimeVaryingSystem",
    "shift_register",
]
