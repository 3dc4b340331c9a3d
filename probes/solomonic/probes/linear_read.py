"""Held-out linear read-outs: how much of a target an affine map of features tells, in prompts that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from .ratios import ratio_interval

#: Ridges that are tried, relative to the mean square of the features.
RIDGES = np.array([1e-12, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
#: Weights that are tried for each further block of features; with 0 it is left out.
WEIGHTS = (0.0, 0.1, 1.0, 10.0)


def compact(features: np.ndarray) -> np.ndarray:
    """Centred features [n, d] in at most n coordinates with the same inner products: a ridge sees no difference."""
    centred = features - features.mean(0)
    if centred.shape[1] <= centred.shape[0]:
        return centred
    values, vectors = np.linalg.eigh(centred @ centred.T)
    kept = values > values[-1] * 1e-14
    return vectors[:, kept] * np.sqrt(values[kept])


def held_out_errors(
    blocks: Sequence[np.ndarray], target: np.ndarray, prompt: np.ndarray, *, folds: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    r"""Squared errors of a ridge read-out, and of the mean, summed over each prompt that was held out.

    .. math:: \hat y = b + \sum_i w_i\, W_i x_i

    The ridge, and the weights :math:`w_i` of all blocks but the first, are chosen by a third of the prompts of the fit,
    which is then made again with all of them.

    Parameters
    ----------
    blocks : sequence of ndarray [n, d]
        Features; a block that does not vary says nothing.
    target : ndarray [n, k]
        What is read out.
    prompt : ndarray of int [n]
        The prompt of each sample, from 0.
    folds : int
        Parts into which the prompts are split; each is held out once.
    generator : numpy.random.Generator
        Splits the prompts.

    Returns
    -------
    errors, variations : ndarray [prompts]
        Sums of squares of target less prediction, and of target less the mean over the prompts of the fit.
    """
    count = int(prompt.max()) + 1
    order = generator.permutation(count)
    errors, variations = np.zeros(count), np.zeros(count)
    blocks = [compact(block) for block in blocks]
    for held in np.array_split(order, folds):
        rest = np.setdiff1d(order, held, assume_unique=True)
        rest = generator.permutation(rest)
        inner, kept = np.split(rest, [max(1, len(rest) // 3)])
        weights, ridge = _chosen(blocks, target, np.isin(prompt, kept), np.isin(prompt, inner))
        fit, test = np.isin(prompt, rest), np.isin(prompt, held)
        guess = _predictions(blocks, weights, target, fit, test, np.array([ridge]))[0]
        off, spread = target[test] - guess, target[test] - target[fit].mean(0)
        np.add.at(errors, prompt[test], (off**2).sum(1))
        np.add.at(variations, prompt[test], (spread**2).sum(1))
    return errors, variations


def explained(sums: np.ndarray, axis: int) -> np.ndarray:
    """1 less the first over the second of sums of squares [..., prompts, 2, ...] over prompts."""
    total = sums.sum(axis)
    error, variation = np.take(total, 0, axis), np.take(total, 1, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variation > 0, 1 - error / variation, np.nan)


def explained_interval(sums: np.ndarray, confidence: float) -> np.ndarray:
    """Bounds [2, ...] of :func:`explained`, from sums of squares [prompts, 2, ...]."""
    return 1 - ratio_interval(sums[:, 0], sums[:, 1], confidence=confidence, within=(0.0, np.inf))[::-1]


def gained_interval(less: np.ndarray, more: np.ndarray, confidence: float) -> np.ndarray:
    """Bounds [2, ...] of how much more is explained, from sums of squares [prompts, 2, ...] of one target."""
    return ratio_interval(less[:, 0] - more[:, 0], more[:, 1], confidence=confidence)


def _chosen(
    blocks: Sequence[np.ndarray], target: np.ndarray, fit: np.ndarray, test: np.ndarray
) -> tuple[tuple[float, ...], float]:
    """Weights and ridge with the least error on the samples ``test``."""
    best, choice = np.inf, ((1.0,) * len(blocks), float(RIDGES[-1]))
    for more in product(WEIGHTS, repeat=len(blocks) - 1):
        weights = (1.0, *more)
        off = _predictions(blocks, weights, target, fit, test, RIDGES) - target[test]
        error = (off**2).sum((1, 2))
        if error.min() < best:
            best, choice = float(error.min()), (weights, float(RIDGES[error.argmin()]))
    return choice


def _predictions(
    blocks: Sequence[np.ndarray],
    weights: Sequence[float],
    target: np.ndarray,
    fit: np.ndarray,
    test: np.ndarray,
    ridges: np.ndarray,
) -> np.ndarray:
    """Predictions [ridges, test, k] of a ridge regression on the samples ``fit``."""
    left, right = [], []
    for block, weight in zip(blocks, weights, strict=True):
        centre = block[fit].mean(0)
        size = np.sqrt(((block[fit] - centre) ** 2).sum(1).mean())
        if weight > 0 and size > 0:
            left.append((block[fit] - centre) * (weight / size))
            right.append((block[test] - centre) * (weight / size))
    mean = target[fit].mean(0)
    if not left:
        return np.broadcast_to(mean, (len(ridges), int(test.sum()), target.shape[1]))
    x, y = np.concatenate(left, 1), np.concatenate(right, 1)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    scores, inside = y @ v.T, u.T @ (target[fit] - mean)
    scale = (s**2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = np.where(s > 0, s / (s**2 + ridges[:, None] * scale), 0.0)
    return mean + np.einsum("tr,gr,rk->gtk", scores, gains, inside, optimize=True)
