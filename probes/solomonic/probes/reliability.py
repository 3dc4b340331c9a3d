"""Is a model as often right as it says? Reliability by bins of confidence, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ratios import ratio_interval
from .statistics import bootstrap_interval

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
        Prompts redrawn; it inherits the bias of ``ece`` away from 0.
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
    ece = float(_ece(sums, 0))
    return Reliability(
        edges,
        count,
        mean,
        accuracy,
        ratio_interval(sums[:, 2], sums[:, 0], confidence=level, within=(0, 1)),
        ece,
        bootstrap_interval(sums, _ece, **options) if len(sums) > 1 else np.full(2, np.nan),
        float(drawn.mean()),
        float((1 + (drawn >= ece * (1 - 1e-10)).sum()) / (1 + resamples)),
    )


def _ece(sums: np.ndarray, axis: int) -> np.ndarray:
    """Expected calibration error from (count, confidence, correct) summed over prompts, [..., prompts, 3, bins]."""
    count, summed, hits = np.moveaxis(sums.sum(axis), -2, 0)
    return np.abs(hits - summed).sum(-1) / count.sum(-1)
