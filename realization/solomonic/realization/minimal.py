"""Minimal realizations: what is both controllable and observable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._systems import Matrices, as_matrices, scale_states, size_of, to_statespace
from ._validate import as_number
from .forms._reach import reach_staircase

if TYPE_CHECKING:
    import control

__all__ = ["minimal"]


def minimal(sys: Any, *, tol: float | None = None) -> control.StateSpace:
    r"""Remove the uncontrollable and then the unobservable part of a system.

    .. math:: C A^k B = C_m A_m^k B_m \quad \text{for all } k, \qquad \text{with as few states as possible.}

    Parameters
    ----------
    sys : control.StateSpace or tuple of array_like
        The system, continuous or discrete.
    tol : float, optional
        Singular values up to ``tol`` times the norm of the (scaled) [A B] count as zero in the staircases; default
        ``1000 n eps``.

    Returns
    -------
    control.StateSpace
        A minimal realization of the same impulse response, with the same time base.

    Raises
    ------
    TypeError
        Not a state-space system, or complex.
    ValueError
        Wrong shapes, NaN or infinite; a negative tolerance.

    Notes
    -----
    States are scaled by powers of two first, then two orthogonal staircases cut. Minimality is not a continuous
    property: a mode that is uncontrollable up to the tolerance is removed, and the impulse response changes by as
    much. The default leaves room for rounding made before, as in a transfer function with cancelling factors, which
    each step of a staircase divides by what the steps before it kept. For an approximation with an error bound, see the
    balanced form. Cost: :math:`O(n^3)` a step.

    References
    ----------
    .. [1] P. Van Dooren, *The generalized eigenstructure problem in linear system theory*, IEEE Trans. Autom. Control
       26 (1981).

    Examples
    --------
    >>> import numpy as np
    >>> minimal((np.diag([0.5, 0.2]), np.array([[1.0], [0.0]]), np.ones((1, 2)))).A
    array([[0.5]])
    """
    m = as_matrices(sys)
    relative = 1000 * m.order * float(np.finfo(float).eps)
    if tol is not None:
        relative = as_number(tol, "tol", "a number of at least 0, relative", lambda x: x >= 0)
    scaled, _ = scale_states(m)
    part = _controllable(scaled, relative)
    part = _controllable(part.dual(), relative).dual()
    return to_statespace(part)


def _controllable(m: Matrices, relative: float) -> Matrices:
    if m.order == 0:
        return m
    q, ranks = reach_staircase(m, relative * size_of(m))
    basis = q[:, : sum(ranks)]
    return m.changed(basis, basis.T)
