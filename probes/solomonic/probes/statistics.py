"""Intervals: the bootstrap over independent samples, and Kaplan-Meier for durations that are cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from .inputs import as_count, as_level, as_rng

__all__ = ["KaplanMeier", "bootstrap_interval", "kaplan_meier"]

#: Numbers that one step of the bootstrap may hold at once.
_HELD = 1 << 23
#: How much further out the tails of studentized intervals are taken for skewed samples; 0 is Hall's interval. Chosen by
#: simulation (benchmarks/calibration.py): what is left of the error of coverage is of the order skewness^2 / n.
_WIDER = 6.0


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis)


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """The median; infinities are allowed, and the mean of two equal middle values is that value."""
    n = values.shape[axis]
    middle = np.sort(values, axis).take([(n - 1) // 2, n // 2], axis)
    low, high = middle.take(0, axis), middle.take(1, axis)
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, 0.5 * (low + high))


_STATISTICS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"mean": _mean, "median": _median}


def bootstrap_interval(
    values: Any,
    statistic: str | Callable[[np.ndarray, int], np.ndarray] = "mean",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    method: str = "auto",
    within: tuple[float, float] = (-np.inf, np.inf),
    rng: int | np.random.Generator | None = None,
) -> np.ndarray:
    r"""Confidence interval of a statistic over independent samples, by resampling them with replacement.

    .. math:: [\hat G^{-1}(\alpha'), \hat G^{-1}(1 - \alpha')], \qquad
              \alpha' = \Phi\bigl(-\sqrt{n/(n-1)}\; t_{n-1, 1-\alpha/2}\bigr)

    with :math:`\hat G` the distribution of the statistic over the resamples. The widened level
    :math:`\alpha'` makes up for what the plain percentile interval of a mean is too narrow by.

    Parameters
    ----------
    values : array_like [n, ...]
        Samples along the first axis. The other axes are resampled together (paired).
    statistic : {"mean", "median"} or callable
        A callable takes an array and the axis to reduce.
    confidence : float, default 0.95
        Nominal coverage, between 0 and 1.
    resamples : int, default 2000
        How often the samples are redrawn.
    method : {"auto", "percentile", "bca", "studentized"}, default "auto"
        ``"studentized"`` (means only) resamples (mean - estimate) / standard error, and covers best where the samples
        are few and skewed. ``"bca"`` corrects for bias and skewness of the statistic; not for medians. ``"auto"`` is
        "studentized" for means and "percentile" for everything else.
    within : (float, float), optional
        Range that every sample lies in by its nature, and so do the bounds: (0, 1) for shares, (0, inf) for
        divergences. Samples that are all at one of two finite ends, such as 0 and 1, are counts of a binomial: their
        mean has the interval of the score test, which has some width for all 0 or all 1 too. Bools are. Samples of one
        value between two finite ends have one too: others may be at the ends as seldom as that test does not exclude.
    rng : int, numpy.random.Generator or None
        Source of the resamples.

    Returns
    -------
    ndarray [2, ...]
        Lower and upper bound; NaN where there is one sample only.

    Raises
    ------
    ValueError
        If there are no samples, or an argument is out of its range.

    Notes
    -----
    Costs O(n resamples) for each of the other entries. How often nominal 95 % intervals cover, by law, n and method,
    stands in *Intervals, tests and how many prompts* of the documentation. Three things differ from the textbook's
    studentized interval, whose error of coverage is of the order skewness^2 / n: tails are taken at
    :math:`\frac{\alpha}{2} e^{-6 g^2 / n}`, g the sample's skewness (the 6 was chosen by simulation); resamples of one
    value count with 1 / n of the sample's variance, so that bounds are finite; and where more than half of the samples
    are tied, or there are two different values, the interval is not shorter than Student's and that of the score test.
    No interval for a mean covers for all laws (Bahadur and Savage 1956): where few samples hold most of the sum, look
    at medians.

    References
    ----------
    Efron, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82 (1987), equation 2.3 (bca);
    Hesterberg, "What teachers should know about the bootstrap" (arXiv:1411.5279), section 5.3 (widened level);
    Hall, "Theoretical comparison of bootstrap confidence intervals" (1988), section 2 (studentized);
    Wilson, J. Am. Stat. Assoc. 22 (1927), for the score test; Bahadur and Savage, Ann. Math. Stat. 27 (1956).

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import bootstrap_interval
    >>> bootstrap_interval(np.arange(20.0), rng=0).round(1)
    array([ 6.9, 12.4])
    """
    values = np.asarray(values)
    within = (0.0, 1.0) if values.dtype == bool else (float(within[0]), float(within[1]))
    values = values.astype(np.float64)
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(f"values: expected samples along the first axis, got shape {values.shape}")
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    if isinstance(statistic, str):
        if statistic not in _STATISTICS:
            raise ValueError(f"statistic: expected 'mean', 'median' or a callable, got {statistic!r}")
        function = _STATISTICS[statistic]
    else:
        function = statistic
    if method not in ("auto", "percentile", "bca", "studentized"):
        raise ValueError(f"method: expected 'auto', 'percentile', 'bca' or 'studentized', got {method!r}")
    if method == "auto":
        method = "studentized" if function is _mean else "percentile"
    if method == "studentized" and function is not _mean:
        raise ValueError("method: 'studentized' knows the standard error of a mean only; take 'percentile' or 'bca'")
    if not within[0] < within[1]:
        raise ValueError(f"within: expected a lower and a larger upper end, got {within!r}")
    if function in (_mean, _median) and ((values < within[0]) | (values > within[1])).any():
        raise ValueError(
            f"values: expected numbers within {within}, got {np.nanmin(values):g} to {np.nanmax(values):g}"
        )
    generator, _ = as_rng(rng)
    n = values.shape[0]
    estimate = function(values, 0)
    if n == 1:
        return np.full((2, *np.shape(estimate)), np.nan)
    index = generator.integers(n, size=(resamples, n))
    if method == "studentized":
        flat = values.reshape(n, -1)
        step = max(1, _HELD // resamples)
        parts = [_studentized(flat[:, i : i + step], index, confidence, within) for i in range(0, flat.shape[1], step)]
        bounds = np.concatenate([np.empty((2, 0)), *parts], 1).reshape(2, *values.shape[1:])
        return np.clip(bounds, *within)
    drawn = _resampled(values, function, index)
    level = float(norm.cdf(-np.sqrt(n / (n - 1)) * student.ppf((1 + confidence) / 2, n - 1)))
    if method == "percentile":
        bounds = np.quantile(drawn, [level, 1 - level], axis=0)
    else:
        bounds = _bca(values, function, estimate, drawn, level)
    return np.clip(bounds, *within)


def _resampled(values: np.ndarray, function: Any, index: np.ndarray) -> np.ndarray:
    """The statistic [resamples, ...] of the samples that each row of ``index`` names."""
    resamples, n = index.shape
    if function is _mean:
        counts = np.zeros((resamples, n))
        np.add.at(counts, (np.arange(resamples)[:, None], index), 1.0)
        flat = counts @ values.reshape(n, -1) / n
        return flat.reshape(resamples, *values.shape[1:])
    step = max(1, _HELD // max(1, values.size))
    parts = [function(values[index[i : i + step]], 1) for i in range(0, resamples, step)]
    return np.concatenate(parts)


def _studentized(values: np.ndarray, index: np.ndarray, confidence: float, within: tuple[float, float]) -> np.ndarray:
    """Bounds of the mean from the resampled t ratios; of samples at two ends, those of the score test."""
    n, resamples, estimate = len(values), len(index), values.mean(0)
    centred = values - estimate
    spread = (centred**2).mean(0)
    shift = _resampled(centred, _mean, index)
    # Without a floor, resamples of one value would give infinite ratios. It seldom binds elsewhere.
    variance = np.maximum(_resampled(centred**2, _mean, index) - shift**2, spread / n)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal samples: an interval of no width
        ratio = np.sort(np.where(shift == 0, 0.0, shift / np.sqrt(variance / (n - 1))), 0)
    tail = (1 - confidence) / 2 * np.exp(-_WIDER * skewness(values) ** 2 / n)
    place = np.clip(np.ceil(tail * resamples).astype(np.int64) - 1, 0, resamples - 1)[None]
    error = np.sqrt(spread / (n - 1))
    low, high = (np.take_along_axis(ratio, at, 0)[0] for at in (place, resamples - 1 - place))
    # Where one value is most of the samples, resamples fall on few points: never less than Student's interval there.
    tied = (values == np.median(values, 0)).mean(0) > 0.5
    normal = float(student.ppf((1 + confidence) / 2, n - 1))
    low, high = np.where(tied, np.minimum(low, -normal), low), np.where(tied, np.maximum(high, normal), high)
    bounds = [estimate - np.where(error > 0, reach * error, 0.0) for reach in (high, low)]
    least, most = values.min(0), values.max(0)
    # Of two different values: what the score test does not reject, too, were there no others.
    two = ((values == least) | (values == most)).all(0) & (least < most) & (n > 2)
    range_ = np.where(two, most - least, 1.0)
    score = [
        least + share * range_ for share in _wilson(np.where(two, (estimate - least) / range_, 0.0), n, confidence)
    ]
    bounds = [np.where(two, hull(b, s), b) for b, s, hull in zip(bounds, score, (np.minimum, np.maximum), strict=True)]
    low, high = within
    if np.isfinite(within).all():
        sure = ((values == low) | (values == high)).all(0)
        score = _wilson(np.where(sure, (estimate - low) / (high - low), 0.0), n, confidence)
        # Samples of one value between the ends: how often there is another, and that it may be an end.
        seldom = float(_wilson(np.zeros(()), n, confidence)[1])
        bounds = [
            np.where(least == most, least + seldom * (end - least), b) for b, end in zip(bounds, within, strict=True)
        ]
        bounds = [np.where(sure, low + s * (high - low), b) for b, s in zip(bounds, score, strict=True)]
    return np.stack(bounds)


def skewness(values: np.ndarray) -> np.ndarray:
    """Skewness over the first axis, corrected for the count; 0 of equal samples."""
    n, centred = len(values), values - values.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ((centred / centred.std(0)) ** 3).mean(0)
    # Samples that are equal up to rounding may have a spread of 0 beside deviations that are not.
    return np.where(np.isfinite(found), found, 0.0) * np.sqrt(n * (n - 1)) / max(n - 2, 1)


def _wilson(share: np.ndarray, n: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares that the score test does not reject."""
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    middle, width = share + z2 / (2 * n), np.sqrt(z2 * np.maximum(share * (1 - share), 0.0) / n + (z2 / (2 * n)) ** 2)
    return np.maximum(middle - width, 0.0) / (1 + z2 / n), np.minimum((middle + width) / (1 + z2 / n), 1.0)


def _bca(values: np.ndarray, function: Any, estimate: Any, drawn: np.ndarray, level: float) -> np.ndarray:
    """Bias-corrected and accelerated bounds, entry by entry."""
    n, resamples = values.shape[0], drawn.shape[0]
    estimate = np.asarray(estimate)
    below = ((drawn < estimate).sum(0) + 0.5 * (drawn == estimate).sum(0)) / resamples
    bias = norm.ppf(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    left_out = np.stack([function(np.delete(values, i, 0), 0) for i in range(n)])
    deviation = left_out.mean(0) - left_out
    spread = (deviation**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = np.where(spread > 0, (deviation**3).sum(0) / (6 * spread**1.5), 0.0)
    out = np.empty((2, *estimate.shape))
    ordered = np.sort(drawn, 0)
    z_low = norm.ppf(level)  # its mirror image, since 1 - level rounds to 1 for two samples
    for row, z in enumerate((z_low, -z_low)):
        shifted = bias + z
        share = norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-3))
        place = np.clip(share * (resamples - 1), 0, resamples - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, resamples - 1)
        weight = place - low
        at_low = np.take_along_axis(ordered, low[None], 0)[0]
        at_high = np.take_along_axis(ordered, high[None], 0)[0]
        out[row] = np.where(at_low == at_high, at_low, (1 - weight) * at_low + weight * at_high)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class KaplanMeier:
    """The survival curve of durations, some of which were cut off before their end.

    Parameters
    ----------
    times : ndarray [k]
        The distinct durations at which something ended, ascending.
    survival : ndarray [k]
        Share that lasts longer than each of ``times``.
    variance : ndarray [k]
        Greenwood's variance of ``survival``.
    lower, upper : ndarray [k]
        Pointwise confidence limits on the scale of log(-log survival).
    confidence : float
        Nominal coverage of the limits.
    count : int
        Number of durations.
    censored : float
        Share of the durations that were cut off.

    Examples
    --------
    >>> from solomonic.probes import kaplan_meier
    >>> kaplan_meier([1, 2, 3, 4], [True, True, False, True]).survival
    array([0.75, 0.5 , 0.  ])
    """

    times: np.ndarray
    survival: np.ndarray
    variance: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    confidence: float
    count: int
    censored: float

    def __repr__(self) -> str:
        median = self.quantile(0.5)[0]
        return f"KaplanMeier({self.count} durations, {self.censored:.1%} cut off, median {median:g})"

    def quantile(self, p: float) -> tuple[float, float, float]:
        """When a share ``p`` has ended: the estimate, and its lower and upper confidence limit.

        The estimate is the first time at which the survival is at most 1 - p; it is infinite where that is not
        reached, and so is the upper limit.
        """
        p = as_level(p, "p")
        reached = np.flatnonzero(self.survival <= 1 - p + 1e-12)
        estimate = float(self.times[reached[0]]) if reached.size else np.inf
        # Limits of Brookmeyer and Crowley: the times whose survival could be 1 - p.
        if not self.times.size:
            return np.inf, 0.0, np.inf
        possible = np.flatnonzero((self.lower <= 1 - p) & (self.upper >= 1 - p) & (self.survival > 0))
        if not possible.size:
            low = high = estimate
            return estimate, low, high
        low = float(self.times[possible[0]])
        after = possible[-1] + 1
        high = float(self.times[after]) if after < self.times.size else np.inf
        return estimate, min(low, estimate), max(high, estimate)

    def at(self, times: Any) -> np.ndarray:
        """The survival at any ``times``: the share that lasts longer than each."""
        place = np.searchsorted(self.times, np.asarray(times), side="right")
        return np.concatenate([[1.0], self.survival])[place]


def kaplan_meier(durations: Any, observed: Any, *, confidence: float = 0.95) -> KaplanMeier:
    r"""Survival of durations of which some were cut off (right-censored).

    .. math:: \hat S(\tau) = \prod_{\tau_i \le \tau} \Bigl(1 - \frac{d_i}{n_i}\Bigr), \qquad
              \widehat{\mathrm{var}}\, \hat S = \hat S^2 \sum_{\tau_i \le \tau} \frac{d_i}{n_i (n_i - d_i)}

    with :math:`d_i` ends at :math:`\tau_i` and :math:`n_i` durations of at least :math:`\tau_i`.

    Parameters
    ----------
    durations : array_like [n]
        Durations, not negative, in any unit. What is cut off at a time counts as still there at that time.
    observed : array_like of bool [n]
        Whether the end was seen; False where the duration was cut off.
    confidence : float, default 0.95
        Nominal coverage of the limits, between 0 and 1.

    Returns
    -------
    KaplanMeier
        ``.times``, ``.survival``, ``.lower`` and ``.upper``; ``.quantile(0.5)`` is the median with its limits.

    Raises
    ------
    ValueError
        If the durations are empty, negative or not finite, or the lengths differ.

    Notes
    -----
    The limits hold for independent durations. The limit of log(-log S) keeps them inside [0, 1]; where the
    survival is 0 they are 0 and the last upper limit.

    References
    ----------
    Kaplan and Meier, J. Am. Stat. Assoc. 53 (1958), equation 2a; Greenwood's variance in Kalbfleisch and Prentice,
    "The statistical analysis of failure time data" (2002), section 1.4; Brookmeyer and Crowley, Biometrics 38
    (1982), for the limits of the median.

    Examples
    --------
    >>> from solomonic.probes import kaplan_meier
    >>> kaplan_meier([3, 3, 5, 7, 8], [True, True, False, True, True]).quantile(0.5)
    (7.0, 3.0, 8.0)
    """
    durations = np.asarray(durations, dtype=np.float64)
    observed = np.asarray(observed, dtype=bool)
    confidence = as_level(confidence, "confidence")
    if durations.ndim != 1 or durations.size == 0:
        raise ValueError(f"durations: expected one axis with at least one duration, got shape {durations.shape}")
    if observed.shape != durations.shape:
        raise ValueError(f"observed: expected shape {durations.shape} as durations has, got {observed.shape}")
    if not np.isfinite(durations).all() or durations.min() < 0:
        raise ValueError("durations: expected finite durations of at least 0")
    times, ends = np.unique(durations[observed], return_counts=True)
    at_risk = durations.size - np.searchsorted(np.sort(durations), times, side="left")
    survival = np.cumprod(1 - ends / at_risk) if times.size else np.empty(0)
    if times.size and ends[-1] == at_risk[-1]:
        survival[-1] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.cumsum(ends / (at_risk * (at_risk - ends)))
        variance = np.where(survival > 0, survival**2 * terms, 0.0)
        width = norm.ppf((1 + confidence) / 2) * np.sqrt(terms) / np.abs(np.log(survival))
        lower, upper = survival ** np.exp(width), survival ** np.exp(-width)
    ended = survival == 0
    if ended.any():
        lower[ended] = 0.0
        upper[ended] = upper[~ended][-1] if (~ended).any() else 1.0
    return KaplanMeier(times, survival, variance, lower, upper, confidence, durations.size, float(1 - observed.mean()))
