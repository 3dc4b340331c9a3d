"""Tests of held-out scores: beside shuffled labels, and beside other features that were fitted to the same labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import t as student

from .inputs import as_count, as_level

__all__ = ["held_out_interval", "held_out_test", "shuffle_test"]

#: From this many shuffles on the rank alone gives the p-value.
_RANKS = 99


def shuffle_test(score: Any, shuffled: Any) -> np.ndarray | float:
    r"""p-value of a score that is no higher than those of shuffled labels, each with fits of its own.

    .. math:: p = \frac{1 + \#\{k : s_k \ge s\}}{K + 1} \quad (K \ge 99), \qquad
              p = P\Bigl(t_{K-1} \ge \frac{s - \bar s_k}{\hat\sigma \sqrt{1 + 1/K}}\Bigr) \quad \text{otherwise}

    with :math:`\bar s_k` and :math:`\hat\sigma` the mean and the standard deviation of the K scores.

    Parameters
    ----------
    score : array_like [...]
        Mean held-out score with the labels as they are, one for each test.
    shuffled : array_like [K, ...]
        Those with labels exchanged between independent samples, everything else alike.

    Returns
    -------
    ndarray [...] or float
        One-sided p-values; never 0 from ranks.

    Raises
    ------
    ValueError
        If there are no shuffles, shapes differ, or a score is not finite.

    Notes
    -----
    Where labels and features are independent, s and the K others are exchangeable, and the rank is exact for any K;
    but it cannot be below 1 / (K + 1). With fewer than 99 the p-value is that of one more draw from a normal
    distribution of unknown mean and variance; p-values far below 1 / K rest on that shape. Scores that do not vary
    over the shuffles, and a single shuffle, are ranked.

    References
    ----------
    Ojala and Garriga, "Permutation tests for studying classifier performance" (JMLR 11, 2010), definition 1 and test 1;
    Phipson and Smyth (2010), equation 2.

    Examples
    --------
    >>> from solomonic.probes import shuffle_test
    >>> round(shuffle_test(0.8, [0.5, 0.45, 0.55, 0.6, 0.5, 0.4]), 4)
    0.0055
    """
    value, null = _finite(score, "score"), _finite(shuffled, "shuffled")
    if null.ndim == 0 or not len(null) or null.shape[1:] != value.shape:
        raise ValueError(f"shuffled: expected scores [K, ...] of shape {value.shape} each, got shape {null.shape}")
    count = len(null)
    slack = 1e-12 * np.abs(null).max(0)  # scores that differ by rounding are ties
    p = (1 + (null >= value - slack).sum(0)) / (count + 1)
    if 1 < count < _RANKS:
        spread = null.std(0, ddof=1)
        varies = spread > slack
        ratio = (value - null.mean(0)) / np.where(varies, spread, 1.0) / np.sqrt(1 + 1 / count)
        p = np.where(varies, student.sf(ratio, count - 1), p)
    return p if value.shape else float(p)


def held_out_test(difference: Any, *, folds: int) -> np.ndarray | float:
    r"""p-value of features that predict no better than others, from paired held-out scores of a cross-validation.

    .. math:: p = P\Bigl(t_{n-1} \ge \frac{\bar d}{\hat\sigma_d \sqrt{1/n + 1/n'}}\Bigr), \qquad n' = n \frac{k-1}{k}

    with :math:`d` the differences of n prompts, each held out once, and n' how many prompts a fit has seen.

    Parameters
    ----------
    difference : array_like [n, ...]
        Score less that of the control, one a prompt, along the first axis.
    folds : int
        k, parts of the cross-validation.

    Returns
    -------
    ndarray [...] or float
        One-sided p-values.

    Raises
    ------
    ValueError
        If there are fewer prompts than folds, or a difference is not finite.

    Notes
    -----
    Prompts share the fits, whose luck does not average out over them: tests that flip signs or redraw prompts (a term
    1/n alone) find one of two noisy copies of the same features ahead in up to 12 % of comparisons at 5 %. The term
    1/n' is that of Nadeau and Bengio, written for prompts in the place of folds; it is too large where the fits hardly
    depend on who was in them, and the test is then conservative (0 to 3 % in simulation).
    Differences that are all alike have the p-value of n signs.

    References
    ----------
    Nadeau and Bengio, "Inference for the generalization error" (Machine Learning 52, 2003), section 3, the corrected
    resampled t-test; Bengio and Grandvalet (JMLR 5, 2004), theorem 1, for why no estimate of the variance is unbiased.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import held_out_test
    >>> rng = np.random.default_rng(0)
    >>> held_out_test(rng.normal(0.5, 1, 40), folds=5) < 0.05
    True
    """
    values, error = _paired(difference, folds)
    mean = values.mean(0)
    flat = np.ptp(values, 0) <= 1e-12 * np.abs(values).max(0)
    ratio = mean / np.where(flat, 1.0, error)
    p = np.where(flat, np.where(mean > 0, 0.5 ** len(values), 1.0), student.sf(ratio, len(values) - 1))
    return p if values.ndim > 1 else float(p)


def held_out_interval(difference: Any, *, folds: int, confidence: float = 0.95) -> np.ndarray:
    r"""Confidence interval of a mean difference of held-out scores, with the error of :func:`held_out_test`.

    .. math:: \bar d \pm t_{n-1, (1+c)/2}\; \hat\sigma_d \sqrt{1/n + 1/n'}

    Parameters
    ----------
    difference : array_like [n, ...]
        Score less that of the control, one a prompt, along the first axis.
    folds : int
        Parts of the cross-validation.
    confidence : float, default 0.95
        c, the nominal coverage.

    Returns
    -------
    ndarray [2, ...]
        Lower and upper bound of what other prompts, for the fits and for the scores, would give on average.

    Raises
    ------
    ValueError
        If there are fewer prompts than folds, a difference is not finite, or the confidence is out of its range.

    References
    ----------
    Nadeau and Bengio (2003), section 3.

    Examples
    --------
    >>> from solomonic.probes import held_out_interval
    >>> held_out_interval([0.0, 1.0, 0.0, 1.0, 1.0, 0.0], folds=3).round(2)
    array([-0.41,  1.41])
    """
    values, error = _paired(difference, folds)
    width = student.ppf((1 + as_level(confidence, "confidence")) / 2, len(values) - 1) * error
    return np.stack([values.mean(0) - width, values.mean(0) + width])


def _paired(difference: Any, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """The differences, and the standard error of their mean."""
    values, folds = _finite(difference, "difference"), as_count(folds, "folds", 2)
    if values.ndim == 0 or len(values) < folds:
        raise ValueError(f"difference: expected at least {folds} prompts, one a fold, got shape {values.shape}")
    return values, values.std(0, ddof=1) * np.sqrt((1 + folds / (folds - 1)) / len(values))


def _finite(values: Any, name: str) -> np.ndarray:
    value = np.asarray(values, dtype=np.float64)
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; leave those out first")
    return value
