"""Spectral factors: the stable filters that shape white noise into a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._html import table
from .._results import Result
from .._systems import Matrices, to_statespace
from .._validate import Array, frozen
from .covariances import as_covariances
from .faurre import faurre, innovation_gain

if TYPE_CHECKING:
    import control

__all__ = ["SpectralFactor", "spectral_factor"]

PHASES = ("minimum", "maximum")


@dataclass(frozen=True, eq=False)
class SpectralFactor(Result):
    r"""A stable square factor :math:`W(z) W(1/z)^T = \Phi(z)`, :math:`W(z) = (I + C (zI - A)^{-1} K) \Sigma^{1/2}`.

    Parameters
    ----------
    system : control.StateSpace
        W, from white noise of unit variance to the process.
    gain : ndarray [n, p]
        K.
    covariance : ndarray [p, p]
        :math:`\Sigma = W(\infty) W(\infty)^T`; for minimum phase, the one-step prediction error.
    zeros : ndarray of complex [n]
        Eigenvalues of A - K C: inside the unit circle (minimum phase) or outside (maximum phase).
    phase : str
        "minimum" or "maximum".
    """

    system: control.StateSpace
    gain: Array
    covariance: Array
    zeros: Array
    phase: str

    def __repr__(self) -> str:
        moduli = np.abs(self.zeros)
        span = f"{moduli.min():.4g} to {moduli.max():.4g}" if moduli.size else "none"
        return f"SpectralFactor({self.phase} phase, order={len(self.zeros)}, moduli of zeros {span})"

    def _repr_html_(self) -> str:
        rows = [[f"{zero:.4g}", f"{abs(zero):.4g}"] for zero in self.zeros]
        return table(["zero", "modulus"], rows, caption=repr(self))


def spectral_factor(A: Any, C: Any, Cbar: Any, L0: Any, *, phase: str = "minimum") -> SpectralFactor:
    r"""Factor a spectral density: all models of a process share it, two of them have all zeros on one side.

    .. math:: \Phi(z) = L_0 + C (zI - A)^{-1} \bar C^T + \bar C (z^{-1} I - A^T)^{-1} C^T = W(z) W(1/z)^T .

    Parameters
    ----------
    A : array_like [n, n]
        Transition, stable.
    C : array_like [p, n]
        Forward read-out.
    Cbar : array_like [p, n]
        Backward read-out.
    L0 : array_like [p, p]
        Variance.
    phase : str
        "minimum" (from P-: its inverse is stable, so it recovers the innovations) or "maximum" (from P+).

    Returns
    -------
    SpectralFactor
        ``.system``, ``.gain``, ``.covariance``, ``.zeros``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, covariances that are not positive real, or a process that the future determines exactly where
        the maximum phase factor is asked for (:math:`L_0 - C P_+ C^T` singular).

    Notes
    -----
    The factor of a polynomial density (a moving average) has a shift register for A, which is nilpotent. Cost: that of
    :func:`faurre`.

    References
    ----------
    .. [1] B. D. O. Anderson, *The inverse problem of stationary covariance generation*, J. Statistical Physics 1
       (1969).
    .. [2] A. Lindquist, G. Picci, *Linear Stochastic Systems*, Springer 2015, sections 6.5 and 9.2.

    Examples
    --------
    >>> factor = spectral_factor([[0.0]], [[1.0]], [[0.5]], [[1.25]])        # y = e + e_{-1} / 2
    >>> factor.zeros.real.round(9).tolist(), factor.covariance.round(9).tolist()
    ([-0.5], [[1.0]])
    >>> spectral_factor([[0.0]], [[1.0]], [[0.5]], [[1.25]], phase="maximum").zeros.real.round(9).tolist()
    [-2.0]
    """
    if phase not in PHASES:
        raise ValueError(f"phase: expected one of {', '.join(PHASES)}, got {phase!r}")
    cov = as_covariances(A, C, Cbar, L0)
    interval = faurre(*cov)
    p = interval.P_minus if phase == "minimum" else interval.P_plus
    values, vectors = np.linalg.eigh(cov.L0 - cov.C @ p @ cov.C.T)
    if values[0] <= 1e-12 * np.linalg.norm(cov.L0, 2):
        raise ValueError(
            f"A, C, Cbar, L0: expected a density with an invertible {phase} phase factor, got W(infinity) with "
            f"smallest squared singular value {values[0]:.1e}: A - Cbar^T L0^-1 C has eigenvalues at zero, and the "
            f"zeros of the factor lie at infinity"
        )
    gain, sigma = innovation_gain(cov, p)
    root = (vectors * np.sqrt(values)) @ vectors.T
    system = to_statespace(Matrices(cov.A, gain @ root, cov.C, root, True))
    zeros = np.linalg.eigvals(cov.A - gain @ cov.C)
    return SpectralFactor(system, frozen(gain), frozen(sigma), frozen(zeros), phase)
