"""Realization theory: systems, certificates, canonical forms, identification.

NumPy arrays and `control.StateSpace` in and out, float64, discrete time unless the system says otherwise.
"""

from . import gallery, plots
from ._clusters import EigenvalueCluster
from ._repair import RepairWarning
from .canonical import CanonicalForm, IllConditionedWarning, canonical_form
from .companion import CompanionSystem, companion_from_diagonal
from .diagonalizability import DiagonalizabilityCertificate, diagonalizability
from .equivalence import Equivalence, equivalent
from .fitting import FittingSplit, ImpulseSplit, fitting
from .gramians import Gramians, gramians, hankel_singular_values
from .identification import (
    OKID,
    HoKalman,
    IdentificationReport,
    InnovationModel,
    OrderEvidence,
    Whiteness,
    estimate_delay,
    ho_kalman,
    identify,
    okid,
    whiteness,
)
from .jordan_structure import JordanStructure, jordan_structure
from .kreiss import KreissConstant, kreiss_constant
from .minimal import minimal
from .nilpotency import NilpotencyCertificate, ToleranceRow, nilpotency
from .normality import NumericalRadius, departure_from_normality, numerical_radius
from .pseudospectrum import Pseudospectrum, pseudospectrum
from .residual import (
    Changes,
    LinearLayer,
    ResidualStack,
    SeasonalLayer,
    TrendLayer,
    find_changes,
)
from .rounding import rounding_uncertainty
from .shift_register import shift_register
from .stochastic import (
    Covariances,
    FaurreInterval,
    Filtered,
    PositiveReal,
    ReverseKernel,
    Simulation,
    Smoothed,
    SpectralFactor,
    StochasticModel,
    backward_model,
    canonical_correlations,
    faurre,
    forward_model,
    kalman_filter,
    kalman_smoother,
    mutual_information,
    positive_real,
    reverse_kernel,
    sample_canonical_correlations,
    sample_covariances,
    spectral_factor,
    time_reverse,
)
from .textures import (
    FILMS,
    DynamicTexture,
    film,
    save_animation,
)
from .time_varying import CutGramians, TimeVaryingSystem
from .weyr import WeyrCharacteristic, weyr_characteristic

__all__ = [
    "FILMS",
    "OKID",
    "CanonicalForm",
    "Changes",
    "CompanionSystem",
    "Covariances",
    "CutGramians",
    "DiagonalizabilityCertificate",
    "DynamicTexture",
    "EigenvalueCluster",
    "Equivalence",
    "FaurreInterval",
    "Filtered",
    "FittingSplit",
    "Gramians",
    "HoKalman",
    "IdentificationReport",
    "IllConditionedWarning",
    "ImpulseSplit",
    "InnovationModel",
    "JordanStructure",
    "KreissConstant",
    "LinearLayer",
    "NilpotencyCertificate",
    "NumericalRadius",
    "OrderEvidence",
    "PositiveReal",
    "Pseudospectrum",
    "RepairWarning",
    "ResidualStack",
    "ReverseKernel",
    "SeasonalLayer",
    "Simulation",
    "Smoothed",
    "SpectralFactor",
    "StochasticModel",
    "TimeVaryingSystem",
    "ToleranceRow",
    "TrendLayer",
    "WeyrCharacteristic",
    "Whiteness",
    "backward_model",
    "canonical_correlations",
    "canonical_form",
    "companion_from_diagonal",
    "departure_from_normality",
    "diagonalizability",
    "equivalent",
    "estimate_delay",
    "faurre",
    "film",
    "find_changes",
    "fitting",
    "forward_model",
    "gallery",
    "gramians",
    "hankel_singular_values",
    "ho_kalman",
    "identify",
    "jordan_structure",
    "kalman_filter",
    "kalman_smoother",
    "kreiss_constant",
    "minimal",
    "mutual_information",
    "nilpotency",
    "numerical_radius",
    "okid",
    "plots",
    "positive_real",
    "pseudospectrum",
    "reverse_kernel",
    "rounding_uncertainty",
    "sample_canonical_correlations",
    "sample_covariances",
    "save_animation",
    "shift_register",
    "spectral_factor",
    "time_reverse",
    "weyr_characteristic",
    "whiteness",
]
