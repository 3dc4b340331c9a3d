"""How late an input acts: delays by Akaike's criterion."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array, as_index
from ._horizons import log_det
from ._records import as_records, scaled
from ._windows import lagged

__all__ = ["estimate_delay"]


def estimate_delay(y: Any, u: Any, *, max_delay: int = 20, lags: int = 4, missing: str = "error") -> tuple[int, ...]:
    r"""Estimate the delay of each input, in samples.

    .. math:: y_t = \sum_{k=1}^{q} a_k y_{t-k} + \sum_j \sum_{k=0}^{q} b_{jk}\, u_{j,\,t-d_j-k} + e_t

    Parameters
    ----------
    y : array_like [T] or [T, p], or list of them
        Outputs.
    u : array_like [T] or [T, m], or list of them
        Inputs.
    max_delay : int
        Largest delay to try.
    lags : int
        q.
    missing : str
        What to do about NaN: "error", "trim" or "split".

    Returns
    -------
    tuple of int [m]
        The delays :math:`d_j` with the smallest Akaike criterion, each input in turn with the others as they are, twice
        over. 0 also where D acts at once; a strictly causal system without delay has 1, which a state holds anyway.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Records too short, constant or collinear channels, NaN.

    Notes
    -----
    All candidates are scored on the same samples. Cost: :math:`m\,d_{\max}` regressions, twice.

    References
    ----------
    .. [1] L. Ljung, *System Identification*, second edition, Prentice Hall 1999, section 4.6.

    Examples
    --------
    >>> import numpy as np
    >>> u = np.random.default_rng(0).standard_normal(300)
    >>> y = np.convolve(u, np.r_[np.zeros(7), 1.0, 0.5])[:300] + 0.01 * np.random.default_rng(1).standard_normal(300)
    >>> estimate_delay(y, u)
    (7,)
    """
    most, q = as_index(max_delay, "max_delay", 0, 10**6), as_index(lags, "lags", 1, 10**6)
    records, *_ = scaled(as_records(y, u, missing=missing), True)
    m, first = records.inputs, most + q
    usable = [(a, b) for a, b in zip(records.y, records.u, strict=True) if len(a) > first]
    unknowns = q * records.outputs + m * (q + 1)
    if sum(len(a) - first for a, _ in usable) <= unknowns:
        raise ValueError(
            f"y: expected more than {first + unknowns} samples for delays up to {most} and {q} lags, got records of "
            f"{[len(a) for a in records.y]}"
        )
    target = np.concatenate([a[first:] for a, _ in usable])
    own = np.concatenate([lagged(a, q)[first - q :] for a, _ in usable])

    def taps(j: int, delay: int) -> Array:
        columns = [np.stack([b[first - delay - k : len(b) - delay - k, j] for k in range(q + 1)], 1) for _, b in usable]
        return np.concatenate(columns)

    delays = [0] * m
    for _ in range(2):
        for j in range(m):
            rest = np.hstack([own, *(taps(i, delays[i]) for i in range(m) if i != j)])
            scores = []
            for d in range(most + 1):
                left = np.hstack([rest, taps(j, d)])
                errors = target - left @ np.linalg.lstsq(left, target, rcond=None)[0]
                scores.append(log_det(errors.T @ errors / len(errors)))
            # Among those as good as the best the largest, which leaves least to the state.
            best = min(scores)
            slack = 2.0 * records.outputs / len(target)
            delays[j] = max(d for d in range(most + 1) if scores[d] <= best + slack)
    return tuple(delays)
