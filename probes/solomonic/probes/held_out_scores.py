"""Scores of linear read-outs, prompt by prompt, for many labellings of the same features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

__all__ = ["HeldOutScores"]


class HeldOutScores:
    """Held-out scores a prompt, with all that is the same for every unit; counts fits that did not converge.

    Parameters
    ----------
    task : {"classify", "regress"}
        Logistic regression scored by accuracy, or ridge regression scored by the share of the variance.
    strength : float
        Of the L2 penalty.
    splits : list of (train, test)
        Indices of the samples of each fold.
    groups : ndarray of int [n]
        The prompt of each sample, from 0.
    """

    def __init__(self, task: str, strength: float, splits: list[tuple[np.ndarray, np.ndarray]], groups: np.ndarray):
        self.task, self.strength, self.splits, self.groups = task, strength, splits, groups
        self.count = self.failed = 0

    def __call__(self, x: Any, labellings: Sequence[np.ndarray]) -> np.ndarray:
        """Scores [labellings, prompts] of features [n, d], with labels [n] each."""
        labels = np.stack(labellings)
        value, base = np.empty(labels.shape), np.empty(labels.shape)
        for train, test in self.splits:
            a, b = _standardized(x[train], x[test])
            y, truth = labels[:, train], labels[:, test]
            self.count += len(labels)
            if self.task == "classify":
                value[:, test] = [self._classified(a, b, each) for each in y] == truth
            else:
                base[:, test] = (truth - y.mean(1, keepdims=True)) ** 2
                value[:, test] = base[:, test] - (truth - self._regressed(a, b, y)) ** 2
        if self.task == "regress":
            value = value / base.mean(1, keepdims=True)
        size = np.bincount(self.groups)
        return np.stack([np.bincount(self.groups, each) / size for each in value])

    def _classified(self, a: Any, b: Any, y: np.ndarray) -> np.ndarray:
        if (y == y[0]).all():
            return np.full(b.shape[0], y[0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            said = LogisticRegression(C=1 / self.strength, max_iter=500).fit(a, y).predict(b)
        self.failed += any(issubclass(each.category, ConvergenceWarning) for each in caught)
        return said

    def _regressed(self, a: Any, b: Any, y: np.ndarray) -> np.ndarray:
        """Predictions [labellings, test]: one factorization serves every labelling."""
        if issparse(a):
            return Ridge(alpha=self.strength).fit(a, y.T).predict(b).reshape(b.shape[0], -1).T
        level = y.mean(1)
        normal = a.T @ a + self.strength * np.eye(a.shape[1])  # features have mean 0
        return level[:, None] + (b @ np.linalg.solve(normal, a.T @ (y.T - level))).T


def _standardized(train: Any, test: Any) -> tuple[Any, Any]:
    """Features by mean and spread of the fit, in at most as many coordinates as it has samples; sparse ones as is.

    A rotation changes neither the penalty nor the fit, which lies in the span of the samples.
    """
    if issparse(train):
        return train, test
    mean, spread = train.mean(0), train.std(0)
    spread = np.where(spread > len(train) * np.finfo(float).eps * np.abs(mean), spread, 1.0)
    a, b = (train - mean) / spread, (test - mean) / spread
    if a.shape[1] <= a.shape[0]:
        return a, b
    u, s, v = np.linalg.svd(a, full_matrices=False)
    return u * s, b @ v.T


def exchanged(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order of the samples in which the labels of whole prompts lie end to end, the prompts in random order.

    Prompts of one size change places as they are; others cover parts of each other's neighbours.
    """
    members = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    order = np.empty(len(groups), np.int64)
    order[members] = np.concatenate(
        [members[starts[i] : starts[i] + sizes[i]] for i in generator.permutation(len(sizes))]
    )
    return order
