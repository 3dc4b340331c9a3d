"""Is a model as often right as it says? Reliability by bins of confidence, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from .ratios import ratio_interval

#: Numbers that one step may hold at once.
_HELD = 1 << 22


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability of the top prediction; NaN where a bin is empty.

    Parameters
    ----------
    edges : ndarray [bins + 1]
        Of the bins of confidence.
    count : ndarray [bins]
        Predictions of a bin.
    confidence, accuracy : ndarray [bins]
        Their means.
    accuracy_interval : ndarray [2, bins]
        Prompts redrawn.
    ece : float
        Expected calibration error: the mean of abs(accuracy - confidence) over bins, weighted by ``count``.
    ece_interval : ndarray [2]
        Errors of which ``ece`` is a likely value, see :func:`ece_interval`; 0 is in it where a calibrated model is.
    ece_calibrated : float
        The mean of ``ece`` for a calibrated model with these confidences.
    ece_p_value : float
        Share of calibrated models with an ``ece`` as large.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    accuracy_interval: np.ndarray
    ece: float
    ece_interval: np.ndarray
    ece_calibrated: float
    ece_p_value: float


def reliability(
    confidence: np.ndarray,
    correct: np.ndarray,
    *,
    bins: int,
    level: float,
    resamples: int,
    generator: np.random.Generator,
) -> Reliability:
    r"""Compare confidences with what came, [prompts, T] both.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \Bigl|\frac1{n_b} \sum_{t \in b} (a_t - c_t)\Bigr|

    with bins of equal width. A calibrated model has :math:`a_t \sim \mathrm{Bernoulli}(c_t)` given the past, which
    gives the law of its ECE: it is not 0.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    member = (place[..., None] == np.arange(bins)).astype(np.float64)  # [prompts, T, bins]
    sums = np.stack([member.sum(1), *(np.einsum("ptb,pt->pb", member, v) for v in (confidence, correct))], 1)
    count, summed, hits = sums.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, accuracy = summed / count, hits / count
    options = {"confidence": level, "resamples": resamples, "rng": generator}
    flat, chance = place.ravel(), confidence.ravel()
    drawn = np.empty(resamples)
    step = max(1, _HELD // flat.size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        gap = (generator.random((rows, flat.size)) < chance) - chance
        index = flat + bins * np.arange(rows)[:, None]
        by_bin = np.bincount(index.ravel(), gap.ravel(), rows * bins).reshape(rows, bins)
        drawn[start : start + rows] = np.abs(by_bin).sum(1) / flat.size
    ece = float(np.abs(hits - summed).sum() / count.sum())
    return Reliability(
        edges,
        count,
        mean,
        accuracy,
        ratio_interval(sums[:, 2], sums[:, 0], confidence=level, within=(0, 1)),
        ece,
        ece_interval(sums, **options),
        float(drawn.mean()),
        float((1 + (drawn >= ece * (1 - 1e-10)).sum()) / (1 + resamples)),
    )


def ece_interval(
    sums: np.ndarray, *, confidence: float, resamples: int, rng: np.random.Generator, steps: int = 30
) -> np.ndarray:
    r"""Interval [2] of the calibration error of more data, from (count, confidence, correct) summed [prompts, 3, bins].

    .. math:: \{e : q_{\alpha/2}(e) \le \mathrm{ECE} \le q_{1-\alpha/2}(e)\}, \qquad
              q(e) \text{ the quantiles of } \sum_b \bigl|e\, d_b + \varepsilon_b\bigr|

    with :math:`\varepsilon` the error of the mean gaps of the bins, prompts redrawn, and d the share of the error that
    lies in each bin: that of the gaps that were seen, or of these shrunken towards 0 by their errors (James and Stein),
    as where most bins are right; the interval holds both. Gaps add up without their signs, so that noise alone gives
    an error above 0; resampling the error itself adds the noise a second time, and its interval hardly ever holds a
    calibrated model's 0.
    """
    prompts = len(sums)
    if prompts < 2:
        return np.full(2, np.nan)
    count, gap = sums[:, 0].sum(1), sums[:, 2] - sums[:, 1]
    mean = gap.sum(0) / count.sum()
    ece = np.abs(mean).sum()
    weight = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    # As of means: the bootstrap's spread is too small by n / (n - 1), its tails are those of the normal law.
    tail = (1 + confidence) / 2
    wider = np.sqrt(prompts / (prompts - 1)) * student.ppf(tail, prompts - 1) / norm.ppf(tail)
    noise = wider * ((weight @ gap) / (weight @ count)[:, None] - mean)
    shrunken = mean * np.maximum(0.0, 1 - noise.var(0) / np.where(mean == 0, 1.0, mean**2))

    def reaching(direction: np.ndarray, share: float) -> float:
        """The error from which on this quantile reaches what was seen."""

        def quantile(error: float) -> float:
            return float(np.quantile(np.abs(error * direction + noise).sum(1), share))

        low, high = 0.0, float(ece + np.abs(noise).sum(1).max())
        if quantile(low) >= ece:
            return low
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (low, middle) if quantile(middle) >= ece else (middle, high)
        return high

    directions = [d / np.abs(d).sum() for d in (mean, shrunken) if d.any()]
    if not directions:  # right in every bin, to the last prediction
        return np.array([0.0, np.quantile(np.abs(noise).sum(1), confidence)])
    bounds = np.array([[reaching(d, tail), reaching(d, 1 - tail)] for d in directions])
    return np.array([bounds[:, 0].min(), bounds[:, 1].max()])
