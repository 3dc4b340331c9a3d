"""Confidence intervals of ratios of means over independent samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import t as student

from .inputs import as_level

__all__ = ["ratio_interval"]


def ratio_interval(
    numerator: Any,
    denominator: Any,
    *,
    confidence: float = 0.95,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> np.ndarray:
    r"""Confidence interval of a ratio of means of paired samples: the ratios that a t-test does not reject.

    .. math:: \Bigl\{\theta : \frac{|\bar a - \theta \bar b|}{\hat\sigma(a - \theta b) / \sqrt n} \le
              t_{n-1, (1+c)/2}\Bigr\}

    Parameters
    ----------
    numerator, denominator : array_like [n, ...]
        a and b, paired samples along the first axis.
    confidence : float, default 0.95
        c, the nominal coverage.
    within : (float, float), optional
        Range that the ratio lies in by its nature; the bounds are clipped to it.

    Returns
    -------
    ndarray [2, ...]
        Lower and upper bound. All of ``within`` where the mean of b cannot be told from 0 at this level; NaN where it
        is 0, or there is one sample only; the ratio itself where every sample has the same.

    Raises
    ------
    ValueError
        If there are no samples, shapes differ, or an argument is out of its range.

    Notes
    -----
    Exact for normal samples of any size, and no bootstrap: ratios of few samples are biased and skewed, which resamples
    of the ratio hide from themselves. Costs O(n).

    References
    ----------
    Fieller, "Some problems in interval estimation" (J. R. Stat. Soc. B 16, 1954), section 2.

    Examples
    --------
    >>> from solomonic.probes import ratio_interval
    >>> ratio_interval([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 7.0, 8.0]).round(3)
    array([0.379, 0.641])
    """
    top, under = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if top.ndim == 0 or not len(top):
        raise ValueError(f"numerator: expected samples along the first axis, got shape {top.shape}")
    if top.shape != under.shape:
        raise ValueError(f"denominator: expected shape {top.shape} as numerator has, got {under.shape}")
    low, high = float(within[0]), float(within[1])
    if not low < high:
        raise ValueError(f"within: expected a lower and a larger upper end, got {within!r}")
    share, n = (1 + as_level(confidence, "confidence")) / 2, len(top)
    if n == 1:
        return np.full((2, *top.shape[1:]), np.nan)
    a, b = top.mean(0), under.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(b != 0, a / b, np.nan)  # the estimate: what is left is solved around it, free of cancellation
        left, under_off = (top - scale * under) - (a - scale * b), under - b
        q = float(student.ppf(share, n - 1)) ** 2 / (n * (n - 1))
        # (delta b)^2 = q |left - delta off|^2, delta the distance from the estimate
        square = b**2 - q * (under_off**2).sum(0)
        half = -q * (left * under_off).sum(0)
        free = -q * (left**2).sum(0)
        root = np.sqrt(np.maximum(half**2 - square * free, 0.0))
        bounds = np.stack([scale + (half - root) / square, scale + (half + root) / square])
        bounds = np.where(square > 0, bounds, np.array([low, high]).reshape(2, *[1] * a.ndim))
        exact = (left**2).sum(0) <= 1e-20 * (top**2).sum(0)  # every sample has the same ratio
        bounds = np.where(exact, scale, bounds)
    return np.where(np.isnan(scale), np.nan, np.clip(bounds, low, high))
