"""Stochastic realization: all models of one process, forward and backward in time.

==========================  ======================================================================
module                      what
==========================  ======================================================================
``covariances``             (A, C, Cbar, L0), and sample covariances
``positive_real``           does (A, C, Cbar, L0) belong to a process, and the repair
``faurre``                  P- and P+, and the set between them
``model``                   forward and backward models, simulation, time reversal
``reverse_kernel``          one step back in time, also of a process that is not stationary
``spectral_factor``         minimum and maximum phase
``canonical_correlations``  how much the past tells of the future
``kalman``                  filter and smoother
==========================  ======================================================================
"""

from .canonical_correlations import canonical_correlations, mutual_information, sample_canonical_correlations
from .covariances import Covariances, sample_covariances
from .faurre import FaurreInterval, faurre
from .kalman import Filtered, Smoothed, kalman_filter, kalman_smoother
from .model import Simulation, StochasticModel, backward_model, forward_model, time_reverse
from .positive_real import PositiveReal, positive_real
from .reverse_kernel import ReverseKernel, reverse_kernel
from .spectral_factor import SpectralFactor, spectral_factor

__all__ = [
    "Covariances",
    "FaurreInterval",
    "Filtered",
    "PositiveReal",
    "ReverseKernel",
    "Simulation",
    "Smoothed",
    "SpectralFactor",
    "StochasticModel",
    "backward_model",
    "canonical_correlations",
    "faurre",
    "forward_model",
    "kalman_filter",
    "kalman_smoother",
    "mutual_information",
    "positive_real",
    "reverse_kernel",
    "sample_canonical_correlations",
    "sample_covariances",
    "spectral_factor",
    "time_reverse",
]
