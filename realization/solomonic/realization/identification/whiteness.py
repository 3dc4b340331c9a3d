"""Is the innovation white? The portmanteau test of Ljung and Box, and the same statistic under permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.special

from .._html import table
from .._results import Result
from .._validate import Array, as_array, as_index, frozen

__all__ = ["Whiteness", "whiteness"]


@dataclass(frozen=True, eq=False)
class Whiteness(Result):
    r"""Autocorrelations of a series and two tests of whiteness.

    Parameters
    ----------
    autocorrelation : ndarray [lags + 1, p, p]
        Of the series, each channel to unit variance; lag 0 first.
    samples : int
        T.
    statistic : float
        :math:`Q = T^2 \sum_{k=1}^{h} \operatorname{tr}(C_k^T C_0^{-1} C_k C_0^{-1}) / (T - k)`.
    degrees_of_freedom : int
        :math:`p^2 h` less the parameters that were fitted.
    p_value : float
        Of Q under the chi-squared law: right for large T and finite fourth moments.
    permutation_p_value : float
        Share of random orders of the series with a Q at least as large (the observed one counted): exact for
        exchangeable samples whatever their law. NaN without permutations.
    permutations : int
        Number of random orders.
    """

    autocorrelation: Array
    samples: int
    statistic: float
    degrees_of_freedom: int
    p_value: float
    permutation_p_value: float
    permutations: int

    @property
    def lags(self) -> int:
        """Number of lags tested."""
        return len(self.autocorrelation) - 1

    def __repr__(self) -> str:
        return (
            f"Whiteness(lags={self.lags}, statistic={self.statistic:.4g} on {self.degrees_of_freedom} df, "
            f"p={self.p_value:.3g}, permutation p={self.permutation_p_value:.3g})"
        )

    def _repr_html_(self) -> str:
        rows = [
            [
                "Ljung-Box",
                f"{self.statistic:.4g}",
                f"{self.degrees_of_freedom} degrees of freedom",
                f"{self.p_value:.3g}",
            ],
            [
                "by permutation",
                f"{self.statistic:.4g}",
                f"{self.permutations} orders",
                f"{self.permutation_p_value:.3g}",
            ],
        ]
        return table(["test", "statistic", "against", "p"], rows, caption=f"{self.samples} samples, {self.lags} lags")


def _whitened(series: Array) -> Array:
    """Centre and whiten: C_0 = 1."""
    centred = series - series.mean(0)
    covariance = centred.T @ centred / len(centred)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= 1e-14 * values[-1]:
        raise ValueError(
            f"series: expected channels with a covariance of full rank, got eigenvalues {values.tolist()}; leave out "
            f"channels that are constant or combinations of others"
        )
    return centred @ (vectors / np.sqrt(values))


def _correlations(white: Array, lags: int) -> Array:
    """C_k = sum_t e_t e_{t-k}^T / T for k = 0 .. lags, by FFT over [T, p] or [R, T, p]."""
    steps = white.shape[-2]
    length = scipy.fft.next_fast_len(steps + lags, real=True)
    f = np.fft.rfft(white, length, axis=-2)
    product = f[..., :, None] * np.conj(f[..., None, :])
    return np.fft.irfft(product, length, axis=-3)[..., : lags + 1, :, :] / steps


def _statistic(correlations: Array, steps: int) -> Array:
    lags = correlations.shape[-3] - 1
    weight = steps**2 / (steps - np.arange(1, lags + 1))
    return np.sum(np.sum(correlations[..., 1:, :, :] ** 2, axis=(-1, -2)) * weight, axis=-1)


def whiteness(
    series: Any,
    *,
    lags: int | None = None,
    fitted: int = 0,
    permutations: int = 499,
    rng: int | np.random.Generator | None = 0,
) -> Whiteness:
    r"""Test a series for whiteness: multivariate Ljung-Box (Hosking), and its permutation version.

    .. math:: Q = T^2 \sum_{k=1}^{h} \frac{1}{T - k} \operatorname{tr}(C_k^T C_0^{-1} C_k C_0^{-1}),
              \qquad C_k = \frac1T \sum_t e_t e_{t-k}^T .

    Parameters
    ----------
    series : array_like [T] or [T, p]
        The series, such as innovations.
    lags : int, optional
        h; by default ``min(20, T // 5)``.
    fitted : int
        Parameters that were fitted to make the series; they are taken off the degrees of freedom, which stay at
        least ``p**2``.
    permutations : int
        Random orders of the series; 0 for none.
    rng : int or numpy.random.Generator, optional
        Source of the permutations.

    Returns
    -------
    Whiteness
        ``.statistic``, ``.p_value``, ``.permutation_p_value``, ``.autocorrelation``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        NaN or infinite, a constant channel, as many lags as samples.

    Notes
    -----
    The permutation version needs no law for large T and no fourth moments, but knows nothing of fitted parameters,
    whose residuals are a little whiter than noise: it is conservative then. Cost: an FFT of the series for each order.

    References
    ----------
    .. [1] G. M. Ljung, G. E. P. Box, *On a measure of lack of fit in time series models*, Biometrika 65 (1978).
    .. [2] J. R. M. Hosking, *The multivariate portmanteau statistic*, J. Am. Stat. Assoc. 75 (1980), equation 10.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal(500)
    >>> whiteness(noise, rng=0).p_value > 0.01, whiteness(np.cumsum(noise), rng=0).p_value < 1e-6
    (True, True)
    """
    e = as_array(series, "series", ndim=(1, 2), real=True)
    e = e[:, None] if e.ndim == 1 else e
    steps, p = e.shape
    if steps < 3:
        raise ValueError(f"series: expected at least 3 samples, got {steps}")
    h = max(1, min(20, steps // 5)) if lags is None else as_index(lags, "lags", 1, steps - 1)
    count = as_index(permutations, "permutations", 0, 10**6)
    white = _whitened(e)
    observed = float(_statistic(_correlations(white, h), steps))
    df = max(p * p * h - as_index(fitted, "fitted", 0, 10**9), p * p)
    source = np.random.default_rng(rng)
    above, done = 0, 0
    batch = max(1, 2_000_000 // (steps * p * p))
    while done < count:
        size = min(batch, count - done)
        orders = source.permuted(np.broadcast_to(np.arange(steps), (size, steps)), axis=1)
        above += int(np.sum(_statistic(_correlations(white[orders], h), steps) >= observed * (1 - 1e-12)))
        done += size
    unit = (e - e.mean(0)) / e.std(0)
    return Whiteness(
        frozen(_correlations(unit, h)),
        steps,
        observed,
        df,
        float(scipy.special.chdtrc(df, observed)),
        (1 + above) / (1 + count) if count else float("nan"),
        count,
    )
