"""Tests by permutation, false discoveries over heads and layers, and how many prompts an interval needs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from .inputs import as_count, as_level, as_rng
from .statistics import skewness

__all__ = ["discoveries", "group_test", "paired_test", "prompts_needed"]

#: Up to this many pairs every one of the 2^n assignments of signs is tried.
_EXACT = 12
#: Numbers that one step may hold at once.
_HELD = 1 << 22
#: Skewness^2 / n above which a few samples dominate a mean: it is at most about 1, for one outlier.
_DOMINATED = 0.5
#: Sums that differ by less than this, relative to the largest possible one, are ties.
_TIE = 1e-12


def paired_test(
    difference: Any, *, resamples: int = 5000, rng: int | np.random.Generator | None = None
) -> np.ndarray | float:
    r"""p-value of a paired difference: its mean against those with the signs of the pairs flipped at random.

    .. math:: p = \frac{1 + \#\{b : |\sum_i s_i^b d_i| \ge |\sum_i d_i|\}}{1 + B}, \qquad s_i^b = \pm 1

    Parameters
    ----------
    difference : array_like [n, ...]
        Differences, one a prompt, along the first axis; the other axes are tested one by one with the same flips.
    resamples : int, default 5000
        B, the number of flips. Up to 12 pairs all 2^n are tried and the p-value is exact.
    rng : int, numpy.random.Generator or None
        Source of the flips.

    Returns
    -------
    ndarray [...] or float
        Two-sided p-values; never 0.

    Raises
    ------
    ValueError
        If there is no pair, or a difference is not finite.

    Notes
    -----
    Holds its level in finite samples where the differences are symmetric about 0 under the hypothesis. Costs
    O(n resamples) for each of the other entries.

    References
    ----------
    Phipson and Smyth, "Permutation p-values should never be zero" (2010), equation 2.

    Examples
    --------
    >>> from solomonic.probes import paired_test
    >>> paired_test([0.3, 0.1, 0.4, 0.2, 0.5, 0.2])
    0.03125
    """
    values = _samples(difference, "difference")
    resamples, (generator, _) = as_count(resamples, "resamples"), as_rng(rng)
    n = len(values)
    flat = values.reshape(n, -1)
    seen, slack = np.abs(flat.sum(0)), _TIE * np.abs(flat).sum(0)
    if n <= _EXACT:
        signs = 1.0 - 2.0 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        p = (np.abs(signs @ flat) >= seen - slack).mean(0)
    else:
        extreme = np.zeros(flat.shape[1])
        for count in _portions(resamples, max(n, flat.shape[1])):
            signs = 1.0 - 2.0 * generator.integers(2, size=(count, n))
            extreme += (np.abs(signs @ flat) >= seen - slack).sum(0)
        p = (1 + extreme) / (1 + resamples)
    return _shaped(p, values.shape[1:])


def group_test(
    first: Any, second: Any, *, resamples: int = 5000, rng: int | np.random.Generator | None = None
) -> np.ndarray | float:
    r"""p-value of the difference between the means of two groups, by permuting who belongs to which.

    Parameters
    ----------
    first : array_like [n, ...]
        Samples of the first group along the first axis.
    second : array_like [m, ...]
        Those of the second; the other axes are those of ``first``.
    resamples : int, default 5000
        Number of permutations.
    rng : int, numpy.random.Generator or None
        Source of the permutations.

    Returns
    -------
    ndarray [...] or float
        Two-sided p-values, (1 + as extreme) / (1 + resamples).

    Raises
    ------
    ValueError
        If a group is empty, a value is not finite, or the other axes differ.

    Notes
    -----
    The hypothesis is that both groups have one distribution. Where they only share the mean, and differ in spread and
    size, the level does not hold.

    References
    ----------
    Phipson and Smyth, "Permutation p-values should never be zero" (2010), equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import group_test
    >>> group_test(np.arange(20.0), np.arange(20.0) + 30, rng=0) < 0.001
    True
    """
    one, two = _samples(first, "first"), _samples(second, "second")
    if one.shape[1:] != two.shape[1:]:
        raise ValueError(f"second: expected samples of shape {one.shape[1:]} as first has, got {two.shape[1:]}")
    resamples, (generator, _) = as_count(resamples, "resamples"), as_rng(rng)
    both = np.concatenate([one, two]).reshape(len(one) + len(two), -1)
    both = both - both.mean(0)
    weight = np.concatenate([np.full(len(one), 1 / len(one)), np.full(len(two), -1 / len(two))])
    seen, slack = np.abs(weight @ both), _TIE * (np.abs(weight) @ np.abs(both))
    extreme = np.zeros(both.shape[1])
    for count in _portions(resamples, max(both.shape)):
        drawn = generator.permuted(np.broadcast_to(weight, (count, len(weight))), axis=1)
        extreme += (np.abs(drawn @ both) >= seen - slack).sum(0)
    return _shaped((1 + extreme) / (1 + resamples), one.shape[1:])


def discoveries(p: Any, *, level: float = 0.05, method: str = "bh") -> np.ndarray:
    """Which of many tests are discoveries, with the expected share of false ones kept at a level.

    Parameters
    ----------
    p : array_like
        p-values of any shape, (layer, head) say; all are one family of tests.
    level : float, default 0.05
        Largest expected share of false ones among the discoveries.
    method : {"bh", "by"}, default "bh"
        Benjamini-Hochberg, for independent or positively dependent tests, or Benjamini-Yekutieli, for any dependence.

    Returns
    -------
    ndarray of bool
        As ``p``.

    Raises
    ------
    ValueError
        If a value is no p-value, there is none, or the method is unknown.

    References
    ----------
    Benjamini and Hochberg (1995), theorem 1; Benjamini and Yekutieli (2001), theorem 1.3.

    Examples
    --------
    >>> from solomonic.probes import discoveries
    >>> discoveries([[0.001, 0.2], [0.02, 0.9]])
    array([[ True, False],
           [ True, False]])
    """
    value = np.asarray(p, dtype=np.float64)
    if value.size == 0 or not ((value >= 0) & (value <= 1)).all():
        raise ValueError("p: expected p-values from 0 to 1, at least one; leave out tests that were not made")
    if method not in ("bh", "by"):
        raise ValueError(f"method: expected 'bh' or 'by', got {method!r}")
    level = as_level(level, "level")
    return false_discovery_control(value.ravel(), method=method).reshape(value.shape) <= level


def prompts_needed(pilot: Any, half_width: float, *, confidence: float = 0.95) -> int:
    r"""How many prompts a mean needs for an interval of a given half width, from a pilot.

    .. math:: \min \{n : t_{n-1, (1+c)/2}\; s / \sqrt{n} \le w\}

    Parameters
    ----------
    pilot : array_like [n]
        What a few prompts gave; for a paired comparison, the differences.
    half_width : float
        w, in the unit of the pilot.
    confidence : float, default 0.95
        c, the nominal coverage.

    Returns
    -------
    int
        At least 2.

    Raises
    ------
    ValueError
        If the pilot has fewer than two values, or the half width is not positive and finite.

    Notes
    -----
    The spread s is the pilot's: from 10 prompts it is off by a quarter, and the advice by half. Where one or two
    prompts hold most of the spread, a UserWarning says so: others like them may be missing from the pilot, and no
    interval for the mean holds for all laws (Bahadur and Savage 1956).

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import prompts_needed
    >>> prompts_needed(np.random.default_rng(0).normal(size=30), 0.2)
    68
    """
    values = _samples(pilot, "pilot")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"pilot: expected at least two values [n], got shape {values.shape}")
    if isinstance(half_width, bool) or not np.isfinite(half_width) or not half_width > 0:
        raise ValueError(f"half_width: expected a positive number, got {half_width!r}")
    if skewness(values) ** 2 > _DOMINATED * len(values):
        warnings.warn(
            f"pilot: one or two of the {len(values)} prompts hold most of the spread; the mean may need many more "
            "prompts than this says. Take a larger pilot, or look at medians",
            UserWarning,
            stacklevel=2,
        )
    share, ratio = (1 + as_level(confidence, "confidence")) / 2, float(values.std(ddof=1)) / half_width

    def enough(n: int) -> bool:
        return float(student.ppf(share, n - 1)) * ratio <= np.sqrt(n)

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _samples(values: Any, name: str) -> np.ndarray:
    value = np.asarray(values, dtype=np.float64)
    if value.ndim == 0 or len(value) == 0:
        raise ValueError(f"{name}: expected samples along the first axis, got shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; leave those prompts out first")
    return value


def _portions(total: int, width: int) -> list[int]:
    step = max(1, _HELD // width)
    return [min(step, total - i) for i in range(0, total, step)]


def _shaped(p: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | float:
    return p.reshape(shape) if shape else float(p[0])
