"""Second-order descriptions of a stationary process: (A, C, Cbar, L0), and covariances from data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft

from .._linalg import norm2
from .._results import held
from .._validate import Array, as_array, as_index, as_square

__all__ = ["Covariances", "as_covariances", "sample_covariances"]


@held
class Covariances(NamedTuple):
    r"""Covariances of a stationary process: :math:`\Lambda_k = E y_{t+k} y_t^T = C A^{k-1} \bar C^T` for k > 0.

    Parameters
    ----------
    A : ndarray [n, n]
        Transition, stable.
    C : ndarray [p, n]
        Read-out of the forward model.
    Cbar : ndarray [p, n]
        Read-out of the backward model.
    L0 : ndarray [p, p]
        Variance of y, positive definite.

    Examples
    --------
    >>> process = Covariances(np.array([[0.5]]), np.eye(1), np.eye(1), 2 * np.eye(1))
    >>> process.sequence(2).ravel().tolist()
    [2.0, 1.0, 0.5]
    """

    A: Array
    C: Array
    Cbar: Array
    L0: Array

    def sequence(self, lags: int) -> Array:
        """Covariances [lags + 1, p, p] of the lags 0 .. ``lags``."""
        out = np.empty((as_index(lags, "lags", 0, 10**9) + 1, *self.L0.shape))
        out[0], column = self.L0, self.Cbar.T
        for k in range(1, len(out)):
            out[k] = self.C @ column
            column = self.A @ column
        return out

    def spectrum(self, frequencies: Any) -> Array:
        """Spectral density [F, p, p], the sum of covariances times exp(-i w k), at angles ``frequencies`` [F]."""
        w = as_array(frequencies, "frequencies", ndim=1, real=True)
        z = np.exp(1j * w)[:, None, None]
        half = self.C @ np.linalg.solve(
            z * np.eye(len(self.A)) - self.A, np.broadcast_to(self.Cbar.T, (len(w), *self.Cbar.T.shape))
        )
        return self.L0 + half + half.conj().transpose(0, 2, 1)


def as_covariances(A: Any, C: Any, Cbar: Any, L0: Any) -> Covariances:
    """Check (A, C, Cbar, L0): shapes, a stable A, a symmetric positive definite L0."""
    a = as_square(A, "A", real=True)
    n = len(a)
    c = as_array(C, "C", shape=("p", n), real=True)
    cbar = as_array(Cbar, "Cbar", shape=(len(c), n), real=True)
    l0 = as_array(L0, "L0", shape=(len(c), len(c)), real=True)
    if norm2(l0 - l0.T) > 1e-8 * norm2(l0):
        raise ValueError("L0: expected a symmetric matrix, got one that differs from its transpose by "
                         f"{norm2(l0 - l0.T):.3g}")  # fmt: skip
    l0 = (l0 + l0.T) / 2
    least = np.linalg.eigvalsh(l0)[0]
    if least <= 1e-14 * norm2(l0):
        raise ValueError(f"L0: expected a positive definite matrix, got smallest eigenvalue {least:.3g}; leave out "
                         f"channels that are constant or combinations of others")  # fmt: skip
    radius = float(np.abs(np.linalg.eigvals(a)).max())
    if radius >= 1:
        raise ValueError(f"A: expected a stable matrix (spectral radius below 1), got {radius:.6g}; a process with "
                         f"these dynamics is not stationary")  # fmt: skip
    return Covariances(a, c, cbar, l0)


def sample_covariances(y: Any, lags: int, *, center: bool = True) -> Array:
    r"""Estimate covariances from a series.

    .. math:: \hat\Lambda_k = \frac1T \sum_t (y_{t+k} - \bar y)(y_t - \bar y)^T .

    Parameters
    ----------
    y : array_like [T] or [T, p]
        The series.
    lags : int
        Largest lag.
    center : bool
        Take out the mean.

    Returns
    -------
    ndarray [lags + 1, p, p]
        Covariances of the lags 0 .. ``lags``; the sequence, continued by zeros, is positive semidefinite.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        NaN or infinite, or as many lags as samples.

    Notes
    -----
    By FFT. :func:`ho_kalman` of this sequence gives (A, C, Cbar, L0); truncation to an order can make it lose
    positivity, which :func:`positive_real` tests and repairs.

    References
    ----------
    .. [1] A. Dahlen, A. Lindquist, J. Mari, *Experimental evidence showing that stochastic subspace identification
       methods may fail*, Systems & Control Letters 34 (1998).

    Examples
    --------
    >>> sample_covariances([1.0, -1.0, 1.0, -1.0], 1).ravel().tolist()
    [1.0, -0.75]
    """
    series = as_array(y, "y", ndim=(1, 2), real=True)
    series = series[:, None] if series.ndim == 1 else series
    steps = len(series)
    last = as_index(lags, "lags", 0, steps - 1)
    series = series - series.mean(0) if center else series
    length = scipy.fft.next_fast_len(steps + last, real=True)
    f = np.fft.rfft(series, length, axis=0)
    return np.fft.irfft(f[:, :, None] * np.conj(f[:, None, :]), length, axis=0)[: last + 1] / steps
