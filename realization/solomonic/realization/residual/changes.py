"""Where a white series changes its mean or its variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._results import Result
from .._validate import Array, as_array, as_index, as_number, frozen

__all__ = ["Changes", "find_changes"]


@dataclass(frozen=True, eq=False)
class Changes(Result):
    """Scores of change, and the places that stand out.

    Parameters
    ----------
    score : ndarray [T]
        Log-likelihood ratio, in nats, of two Gaussian laws before and after sample t against one; 0 within a window of
        the ends.
    threshold : float
        What the largest score of an unchanging series exceeds with probability ``level``.
    places : tuple of int
        First samples after a change: peaks above the threshold, at least a window apart.
    p_value : float
        Share of unchanging series whose largest score is at least the one seen.
    window : int
        Samples on each side.
    """

    score: Array
    threshold: float
    places: tuple[int, ...]
    p_value: float
    window: int

    def __repr__(self) -> str:
        return f"Changes(places={list(self.places)}, p={self.p_value:.3g}, window={self.window})"

    def _repr_html_(self) -> str:
        rows = [[str(t), f"{self.score[t]:.4g}"] for t in self.places]
        return table(["change at sample", f"score (threshold {self.threshold:.4g})"], rows, caption=repr(self))


def _scores(series: Array, window: int) -> Array:
    """Generalised likelihood ratio of a Gaussian with new mean and variance, along the last axis."""
    steps = series.shape[-1]
    zero = np.zeros((*series.shape[:-1], 1))
    one = np.concatenate([zero, np.cumsum(series, -1)], -1)
    two = np.concatenate([zero, np.cumsum(series**2, -1)], -1)
    t = np.arange(window, steps - window + 1)

    def variance(low: Array, high: Array) -> Array:
        count = high - low
        mean = (one[..., high] - one[..., low]) / count
        return np.maximum((two[..., high] - two[..., low]) / count - mean**2, 1e-12)

    whole = np.log(variance(t - window, t + window))
    halves = np.log(variance(t - window, t)) + np.log(variance(t, t + window))
    out = np.zeros((*series.shape[:-1], steps))
    out[..., t[t < steps]] = (window * whole - 0.5 * window * halves)[..., t < steps]
    return out


def find_changes(
    series: Any,
    *,
    window: int = 20,
    level: float = 0.05,
    simulations: int = 199,
    rng: int | np.random.Generator | None = 0,
) -> Changes:
    r"""Find changes of mean or variance in a series that is white until it changes.

    .. math:: S_t = w \log \hat\sigma^2_{[t-w,\,t+w)} - \tfrac w2 \log \hat\sigma^2_{[t-w,\,t)}
              - \tfrac w2 \log \hat\sigma^2_{[t,\,t+w)} .

    Parameters
    ----------
    series : array_like [T]
        Such as the last innovations of a stack.
    window : int
        Samples w before and after, at least 4.
    level : float
        Probability of a false alarm anywhere in the series.
    simulations : int
        Simulated unchanging series that set the threshold.
    rng : int or numpy.random.Generator, optional
        Source of the simulated series.

    Returns
    -------
    Changes
        ``.places``, ``.score``, ``.threshold``, ``.p_value``.

    Raises
    ------
    ValueError
        A series shorter than two windows, or constant; NaN.

    Notes
    -----
    The score does not depend on the mean and the scale of the series, so its largest value under no change has one law
    for all Gaussian series of this length: the threshold is its quantile over simulated ones. Heavy tails raise more
    alarms than ``level``. Cost: :math:`O(T)` a simulated series.

    References
    ----------
    .. [1] M. Basseville, I. V. Nikiforov, *Detection of Abrupt Changes*, Prentice Hall 1993, section 2.4.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(300)
    >>> noise[200:] += 3
    >>> abs(find_changes(noise).places[0] - 200) < 5
    True
    """
    e = as_array(series, "series", ndim=1, real=True)
    w = as_index(window, "window", 4, 10**9)
    share = as_number(level, "level", "a probability between 0 and 1", lambda x: 0 < x < 1)
    if len(e) < 2 * w:
        raise ValueError(f"series: expected at least two windows ({2 * w} samples), got {len(e)}; lower window=")
    spread = float(e.std())
    if spread == 0:
        raise ValueError("series: expected a series that varies, got a constant one")
    unit = (e - e.mean()) / spread
    source = np.random.default_rng(rng)
    count = as_index(simulations, "simulations", 1, 10**6)
    largest = _scores(source.standard_normal((count, len(e))), w).max(1)
    score = _scores(unit, w)
    threshold = float(np.quantile(largest, 1 - share))
    places, left = [], score.copy()
    while left.max() > threshold:
        t = int(left.argmax())
        places.append(t)
        left[max(0, t - w) : t + w] = 0.0
    p_value = float((1 + np.sum(largest >= score.max())) / (1 + count))
    return Changes(frozen(score), threshold, tuple(sorted(places)), p_value, w)
