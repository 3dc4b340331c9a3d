"""From data to a state: realization of responses, and subspace identification.

===================  ==========================================================================
module               what
===================  ==========================================================================
``ho_kalman``        Markov parameters to (A, B, C, D), balanced, for long responses too
``okid``             inputs and outputs to Markov parameters, through an observer
``identify``         inputs and outputs to an innovation model: MOESP, N4SID, CVA
``model``            the innovation model: predict, simulate, whiteness, save
``order``            how many states the data show
``delay``            how late the inputs act
``whiteness``        Ljung-Box and its permutation version
===================  ==========================================================================
"""

from .delay import estimate_delay
from .ho_kalman import HoKalman, ho_kalman
from .identify import identify
from .model import IdentificationReport, InnovationModel
from .okid import OKID, okid
from .order import OrderEvidence
from .whiteness import Whiteness, whiteness

__all__ = [
    "OKID",
    "HoKalman",
    "IdentificationReport",
    "InnovationModel",
    "OrderEvidence",
    "Whiteness",
    "estimate_delay",
    "ho_kalman",
    "identify",
    "okid",
    "whiteness",
]
