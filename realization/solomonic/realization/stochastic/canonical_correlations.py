"""How much the past tells of the future: canonical correlations, of a model and of data."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array, as_array
from ..identification._horizons import choose_horizons
from ..identification._records import as_records, scaled
from ..identification._subspace import subspace
from ..identification._windows import compress
from .faurre import faurre

__all__ = ["canonical_correlations", "mutual_information", "sample_canonical_correlations"]


def canonical_correlations(A: Any, C: Any, Cbar: Any, L0: Any) -> Array:
    r"""Compute the canonical correlations between the whole past and the whole future of a process.

    .. math:: \sigma_k = \sqrt{\lambda_k(P_- P_+^{-1})} .

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

    Returns
    -------
    ndarray [n]
        Correlations from 0 to 1, largest first.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, or covariances that are not positive real.

    Notes
    -----
    The state of the innovation model (covariance P-) and that of the backward one (covariance P+^-1 in dual
    coordinates) are the canonical variables up to a change of basis; the mutual information of past and future is
    :func:`mutual_information` of the result. Cost: that of :func:`faurre`.

    References
    ----------
    .. [1] H. Akaike, *Markovian representation of stochastic processes by canonical variables*, SIAM J. Control 13
       (1975).
    .. [2] U. B. Desai, D. Pal, R. D. Kirkpatrick, *A realization approach to stochastic model reduction*, Int. J.
       Control 42 (1985), equation 3.9.

    Examples
    --------
    >>> canonical_correlations([[0.8]], [[1.0]], [[0.8]], [[1.0]]).round(9).tolist()      # an autoregression
    [0.8]
    """
    found = faurre(A, C, Cbar, L0)
    lower = np.linalg.cholesky(found.P_minus)
    upper = np.linalg.cholesky(np.linalg.inv(found.P_plus))
    return np.minimum(np.linalg.svd(upper.T @ lower, compute_uv=False), 1.0)


def sample_canonical_correlations(
    y: Any, *, past: int | None = None, future: int | None = None, missing: str = "error"
) -> Array:
    r"""Estimate the canonical correlations between past and future from a series.

    .. math:: \hat\sigma = \text{singular values of } \hat L_+^{-1} \hat H \hat L_-^{-T}

    with the Cholesky factors of the sample covariances of future and past and their cross-covariance H.

    Parameters
    ----------
    y : array_like [T] or [T, p], or list of them
        The series; a list holds one array a record.
    past : int, optional
        Samples of the past; by default twice the order of the best autoregression.
    future : int, optional
        Samples of the future; by default as many as of the past.
    missing : str
        What to do about NaN: "error", "trim" or "split".

    Returns
    -------
    ndarray
        Correlations, largest first; those that are zero in truth come out at about
        :math:`(\sqrt{q_+} + \sqrt{q_-}) / \sqrt T` for windows of :math:`q_\pm` numbers.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Series shorter than the horizons need, NaN, constant or collinear channels.

    Notes
    -----
    Whitened by QR, so the covariances are never formed. Standard error of a single one:
    :math:`(1 - \sigma^2) / \sqrt T` times a factor for the serial correlation. Cost: :math:`O(T (q p)^2)`.

    References
    ----------
    .. [1] W. E. Larimore, *Canonical variate analysis in identification, filtering, and adaptive control*, CDC 1990.

    Examples
    --------
    >>> rng, y = np.random.default_rng(0), np.zeros(5000)
    >>> for t in range(1, 5000):
    ...     y[t] = 0.8 * y[t - 1] + rng.standard_normal()
    >>> sample_canonical_correlations(y, past=3).round(1).tolist()
    [0.8, 0.0, 0.0]
    """
    records, *_ = scaled(as_records(y, missing=missing), True)
    past, future = choose_horizons(records, None, past, past if future is None else future)
    factor, samples = compress(records, past, future)
    return subspace(factor, samples, past, future, 0, records.outputs, "cva").singular_values


def mutual_information(correlations: Any) -> float:
    r"""Return the information, in nats, that two Gaussian vectors with these canonical correlations share.

    .. math:: I = -\tfrac12 \sum_k \log(1 - \sigma_k^2) .

    Parameters
    ----------
    correlations : array_like [n]
        Canonical correlations, from 0 to below 1.

    Returns
    -------
    float
        Nats; infinite where a correlation is 1 (a part of the future is known exactly).

    Raises
    ------
    ValueError
        Numbers outside 0 to 1.

    Notes
    -----
    Of past and future: what any state must carry (the predictive information of the process).

    References
    ----------
    .. [1] I. M. Gelfand, A. M. Yaglom, *Calculation of the amount of information about a random function contained in
       another such function*, 1957.

    Examples
    --------
    >>> round(mutual_information([0.8]), 4)
    0.5108
    """
    s = as_array(correlations, "correlations", ndim=1, real=True, allow_empty=True)
    if s.size and (s.min() < 0 or s.max() > 1):
        raise ValueError(f"correlations: expected numbers from 0 to 1, got {s.min():.4g} to {s.max():.4g}")
    with np.errstate(divide="ignore"):
        return float(-0.5 * np.sum(np.log1p(-(s**2))))
