"""Canonical forms of MIMO systems, each with the conditioning of the road to it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._linalg import norm2
from ._results import Result
from ._systems import Matrices, as_matrices, to_statespace
from ._validate import Array, describe
from .forms import FORMS, Change

if TYPE_CHECKING:
    import control

__all__ = ["CanonicalForm", "IllConditionedWarning", "canonical_form"]

#: Beyond this condition number of T a form is returned with a warning that names a better one.
WARN_ABOVE = 1e8

_BETTER = {
    "controllable": "staircase (orthogonal) or balanced",
    "observable": "staircase of the transposed system, or balanced",
    "brunovsky": "staircase",
    "modal": "schur",
    "jordan": "schur, or modal with larger blocks",
    "balanced": "schur",
    "kalman": "staircase",
}


class IllConditionedWarning(UserWarning):
    """A change of basis so ill conditioned that another form serves better.

    Examples
    --------
    >>> issubclass(IllConditionedWarning, UserWarning)
    True
    """


@dataclass(frozen=True, eq=False)
class CanonicalForm(Result):
    r"""A system in canonical form: x = T z.

    Parameters
    ----------
    form : str
        Name of the form.
    system : control.StateSpace
        The system in the states z: A T = T A_z, B = T B_z, C T = C_z.
    transform : ndarray [n, r]
        T; r < n only where a form exists of a part of the system (balanced).
    condition : float
        Spectral condition number of T.
    residual : float
        Largest of ``|A T - T A_z| / (|A| |T|)``, ``|B - T B_z| / |B|`` and ``|C T - C_z| / (|C| |T|)``; with feedback
        A and B stand for A + B F and B G. Where r < n: bound of the largest change of the frequency response, relative
        to the largest Hankel singular value.
    indices : tuple of int
        Block sizes: controllability indices by input (controllable, brunovsky), observability indices by output
        (observable), Jordan or modal block sizes, ranks of the staircase, (kept, left out) for balanced, the four
        dimensions of the Kalman decomposition.
    feedback : ndarray [m, n] or None
        F of u = F x + G v (brunovsky).
    input_transform : ndarray [m, m] or None
        G.
    """

    form: str
    system: control.StateSpace
    transform: Array
    condition: float
    residual: float
    indices: tuple[int, ...]
    feedback: Array | None = None
    input_transform: Array | None = None

    def __repr__(self) -> str:
        return (
            f"CanonicalForm({self.form}, order={self.system.nstates}, indices={self.indices}, "
            f"condition={self.condition:.2g}, residual={self.residual:.1e})"
        )


def canonical_form(sys: Any, form: str) -> CanonicalForm:
    r"""Bring a MIMO system into a canonical form.

    .. math:: A T = T A_z, \qquad B = T B_z, \qquad C T = C_z.

    Parameters
    ----------
    sys : control.StateSpace or tuple of array_like
        The system, continuous or discrete, or its (A, B, C) or (A, B, C, D) in discrete time.
    form : str
        "controllable", "observable" (companion blocks by controllability or observability indices), "modal" (real
        blocks), "jordan" (real Jordan blocks), "brunovsky" (chains under feedback), "schur", "staircase" (both
        orthogonal), "balanced", "kalman".

    Returns
    -------
    CanonicalForm
        ``.system``, ``.transform``, ``.condition``, ``.residual``, ``.indices``.

    Raises
    ------
    TypeError
        Not a state-space system, or complex.
    ValueError
        An unknown form; an uncontrollable system where a companion form is asked for; an unstable one where the
        balanced form is.

    Warns
    -----
    IllConditionedWarning
        The condition number of T is above 1e8: the form is returned, and the warning names a better one.

    Notes
    -----
    schur and staircase are orthogonal and always safe. Companion forms of order above some 15 mostly are not; see
    the condition number. Ranks are decided on orthonormal vectors at 10 n eps times the norm of [A B].
    Cost: :math:`O(n^3)`, modal and jordan up to :math:`O(n^3)` a group of eigenvalues.

    References
    ----------
    .. [1] D. G. Luenberger, *Canonical forms for linear multivariable systems*, IEEE Trans. Autom. Control 12 (1967).
    .. [2] P. Brunovsky, *A classification of linear controllable systems*, Kybernetika 6 (1970).
    .. [3] A. J. Laub et al., *Computation of system balancing transformations and other applications of simultaneous
       diagonalization algorithms*, IEEE Trans. Autom. Control 32 (1987).

    Examples
    --------
    >>> import numpy as np
    >>> sys = (np.array([[0.5, 1.0], [0.0, 0.2]]), np.array([[1.0], [1.0]]), np.eye(2))
    >>> companion = canonical_form(sys, "controllable")
    >>> companion.system.A.round(9)
    array([[ 0. ,  1. ],
           [-0.1,  0.7]])
    >>> companion.indices
    (2,)
    """
    if not isinstance(form, str) or form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {describe(form)}")
    m = as_matrices(sys)
    change = FORMS[form](m)
    condition = float(np.linalg.cond(change.transform))
    if condition > WARN_ABOVE and form in _BETTER:
        warnings.warn(
            f"the {form} form of this system is reached through a transform of condition {condition:.1e}: some "
            f"{np.log10(condition):.0f} digits are lost on the way; a better form is {_BETTER[form]}",
            IllConditionedWarning,
            stacklevel=2,
        )
    return CanonicalForm(
        form,
        to_statespace(change.system),
        change.transform,
        condition,
        _residual(m, change) if change.residual is None else change.residual,
        change.indices,
        change.feedback,
        change.input_transform,
    )


def _residual(m: Matrices, change: Change) -> float:
    t, z = change.transform, change.system
    a = m.A if change.feedback is None else m.A + m.B @ change.feedback
    b = m.B if change.input_transform is None else m.B @ change.input_transform
    c = m.C if change.feedback is None else m.C + m.D @ change.feedback
    tiny = np.finfo(float).tiny
    parts = [
        norm2(a @ t - t @ z.A) / max((norm2(m.A) + norm2(a - m.A)) * norm2(t), tiny),
        norm2(c @ t - z.C) / max((norm2(m.C) + norm2(c - m.C)) * norm2(t), tiny),
    ]
    parts.append(norm2(b - t @ z.B) / max(norm2(b), tiny))
    return float(max(parts))
