"""What a form returns to ``canonical_form``."""

from __future__ import annotations

from typing import NamedTuple

from .._systems import Matrices
from .._validate import Array


class Change(NamedTuple):
    """A change of states x = T z (with feedback u = F x + G v where the form needs it).

    Parameters
    ----------
    system : Matrices
        The system in the new states.
    transform : ndarray [n, r]
        T.
    indices : tuple of int
        Block sizes; their meaning belongs to the form.
    feedback, input_transform : ndarray or None
        F [m, n] and G [m, m].
    residual : float or None
        Where the equations of T do not say how good the form is, what does.
    """

    system: Matrices
    transform: Array
    indices: tuple[int, ...]
    feedback: Array | None = None
    input_transform: Array | None = None
    residual: float | None = None
