"""Kernels of words from measured inputs and outputs, by least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array, as_array, as_index, as_number
from .words import Word, words

__all__ = ["WordKernels", "as_runs", "word_kernels"]


class WordKernels(dict[Word, Array]):
    """Kernels by word, as :func:`word_kernels` estimates them; a mapping that :func:`partial_realization` takes.

    Attributes
    ----------
    feedthrough : ndarray [p, m]
        The estimate of D.
    residual : float
        Root mean square of what the kernels leave of the outputs, relative to that of the outputs.
    condition : float
        Condition number of the regression.

    Examples
    --------
    >>> import numpy as np
    >>> u = np.random.default_rng(0).standard_normal((40, 3, 1))
    >>> found = word_kernels(np.cumsum(u, 1), u, length=1)
    >>> found.feedthrough.round(6)
    array([[1.]])
    """

    feedthrough: Array
    residual: float
    condition: float

    def __repr__(self) -> str:
        return f"WordKernels({len(self)} words, residual={self.residual:.1e}, condition={self.condition:.1e})"


def as_runs(y: Any, u: Any) -> tuple[Array, Array]:
    """Outputs [R, T, p] and inputs [R, T, m] of one run or several, checked against each other."""
    y = as_array(y, "y", ndim=(1, 2, 3), real=True)
    u = as_array(u, "u", ndim=(1, 2, 3), real=True)
    y, u = (x[None, :, None] if x.ndim == 1 else x[None] if x.ndim == 2 else x for x in (y, u))
    if y.shape[:2] != u.shape[:2]:
        raise ValueError(
            f"y, u: expected as many runs and steps in both, got {list(y.shape[:2])} in y and {list(u.shape[:2])} in u"
        )
    return y, u


def products(u: Array, length: int) -> Array:
    r"""Products of past inputs that multiply the kernels of all words: [R, T, columns].

    Column (w, j), w of k letters, at step t is :math:`u_{t-k-1,j} \prod_i z_{t-i, w_i}` with z = (1, u); entries that
    would
    need inputs before the run are zero (the state was 0 there).
    """
    runs, steps, m = u.shape
    z = np.concatenate([np.ones((runs, steps, 1)), u], 2)

    def back(x: Array, k: int) -> Array:
        out = np.zeros_like(x)
        out[:, k:] = x[:, : steps - k] if k < steps else 0
        return out

    # level k: [R, T, words of k letters, m]; the word grows at its left, by the letter that acts last
    level = back(u, 1)[:, :, None, :]
    out = [level.reshape(runs, steps, -1)]
    for _ in range(length):
        older = back(level, 1)
        level = (back(z, 1)[:, :, :, None, None] * older[:, :, None]).reshape(runs, steps, -1, m)
        out.append(level.reshape(runs, steps, -1))
    return np.concatenate(out, 2)


def word_kernels(y: Any, u: Any, *, length: int, ridge: float = 0.0) -> WordKernels:
    r"""Estimate the kernels of all words of up to ``length`` letters from input-output data.

    .. math:: y_t = D u_t + \sum_{k \ge 0} \sum_{|w| = k} \sum_j s_j(w)\; z_{t-1,w_1} \cdots z_{t-k,w_k}\, u_{t-k-1,j},
              \qquad z = (1, u).

    Parameters
    ----------
    y : array_like [T], [T, p] or [runs, T, p]
        Outputs.
    u : array_like [T], [T, m] or [runs, T, m]
        Inputs. Every run starts from the state 0.
    length : int
        L, the longest word. Runs of up to L + 2 steps are explained exactly; in longer ones the kernels of longer words
        are left out, so the system must have forgotten after L + 1 steps.
    ridge : float
        Penalty on the squared kernels, relative to the mean square of the regressors.

    Returns
    -------
    WordKernels
        From words to arrays [p, m], with ``.feedthrough``, ``.residual`` and ``.condition``.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        Lengths that differ, NaN, data shorter than the horizon, or (with ridge 0) inputs that do not excite all
        products.

    Notes
    -----
    There are :math:`m (m + 1)^k` columns for the words of k letters. Cost: that of one least-squares problem.

    References
    ----------
    .. [1] W. J. Rugh, *Nonlinear System Theory: The Volterra/Wiener Approach*, 1981, chapters 5 and 7.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.realization import BilinearSystem, partial_realization
    >>> system = BilinearSystem([[0.5, 0], [0, 0.2]], [[[0, 1], [1, 0]]], [[1], [0]], [[1, 1]])
    >>> u = np.random.default_rng(0).standard_normal((40, 7, 1))
    >>> found = partial_realization(word_kernels(system.simulate(u), u, length=5), length=2, tol=1e-9)
    >>> found.order, found.system.equivalent(system).verdict
    (2, True)
    """
    y, u = as_runs(y, u)
    runs, steps, m = u.shape
    p = y.shape[2]
    length = as_index(length, "length", 0, 60)
    ridge = as_number(ridge, "ridge", "a number of at least 0", lambda x: x >= 0)
    names = words(m + 1, length)
    if steps < length + 2:
        raise ValueError(
            f"y, u: expected runs of at least length + 2 = {length + 2} steps, got {steps}; take shorter words or "
            f"longer runs"
        )
    count = m * (len(names) + 1)
    if runs * steps < count and ridge == 0:
        raise ValueError(
            f"y, u: expected at least as many steps as kernel entries, {count} a row of C, got {runs} runs of "
            f"{steps}; take "
            f"shorter words, more data, or ridge > 0"
        )
    regressors = np.concatenate([u, products(u, length)], 2).reshape(runs * steps, -1)
    target = y.reshape(runs * steps, p)
    scale = np.sqrt(np.mean(regressors**2, 0))
    scale[scale == 0] = 1
    left, s, right = np.linalg.svd(regressors / scale, full_matrices=False)
    condition = float(s[0] / s[-1]) if s[-1] > 0 else np.inf
    if ridge == 0 and (s[-1] <= s[0] * 1e-13):
        raise ValueError(
            f"u: expected inputs that excite all products of up to {length + 1} steps, got a regression of condition "
            f"{condition:.1e}; use richer inputs (more levels than two for products of powers), shorter words, or "
            f"ridge > 0"
        )
    shrunk = s / (s**2 + ridge * runs * steps)
    weights = (right.T * shrunk) @ (left.T @ target) / scale[:, None]
    rest = target - regressors @ weights
    found = WordKernels()
    values = weights[m:].reshape(len(names), m, p)
    for word, value in zip(names, values, strict=True):
        found[word] = np.ascontiguousarray(value.T)
    found.feedthrough = weights[:m].T
    size = float(np.sqrt(np.mean(target**2)))
    found.residual = float(np.sqrt(np.mean(rest**2))) / size if size > 0 else 0.0
    found.condition = condition
    return found
