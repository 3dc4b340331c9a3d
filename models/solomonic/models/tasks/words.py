"""Products of group elements: what a state must follow, and no stored token answers."""

from __future__ import annotations

import itertools
import re
from functools import cache

import numpy as np

from .rows import TaskRows, blank, positive, rows


def parity(batch: int, *, length: int = 128, rng: int | np.random.Generator | None = None) -> TaskRows:
    """Bits; at every position the sum so far modulo 2 is asked for: the word problem of Z2.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows

    Examples
    --------
    >>> from solomonic.models.tasks import parity
    >>> row = parity(1, length=6, rng=0)
    >>> row.ids[0].tolist(), row.targets[0].tolist()
    ([1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 1])
    """
    return word_problem(batch, length=length, group="Z2", rng=rng)


def word_problem(
    batch: int, *, length: int = 128, group: str = "S5", rng: int | np.random.Generator | None = None
) -> TaskRows:
    """Elements of a group; at every position the product of all so far is asked for.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    group : str
        ``"Zn"`` (cyclic), ``"Sn"`` (all permutations of n) or ``"An"`` (the even ones), of at most 720 elements.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows
        Tokens are the elements, 0 the unit; the lag is 0, since the whole past counts.

    Raises
    ------
    ValueError
        If the group is unknown or too large.

    Notes
    -----
    S5 and A5 are not solvable: their word problem is complete for NC1, and no fixed number of layers with diagonal
    transitions solves it at every length.

    References
    ----------
    Merrill, Petty and Sabharwal, "The illusion of state in state-space models" (arXiv 2404.08819).

    Examples
    --------
    >>> from solomonic.models.tasks import word_problem
    >>> row = word_problem(1, length=5, group="S3", rng=0)
    >>> row.ids[0].tolist(), row.targets[0].tolist()
    ([5, 3, 3, 1, 1], [5, 2, 1, 0, 1])
    """
    positive(batch=batch, length=length)
    table = _table(group)
    ids = np.random.default_rng(rng).integers(len(table), size=(batch, length))
    targets, lags = blank(batch, length)
    product = np.zeros(batch, dtype=np.int64)
    for t in range(length):
        product = table[product, ids[:, t]]
        targets[:, t] = product
    lags[:] = 0
    return rows(ids, targets, lags, len(table))


@cache
def _table(group: str) -> np.ndarray:
    """Products of elements [n, n], the unit first."""
    match = re.fullmatch(r"([ZSA])(\d+)", group) if isinstance(group, str) else None
    size = int(match[2]) if match else 0
    if not match or size < 1 or (match[1] == "Z" and size > 720) or (match[1] != "Z" and size > 6):
        raise ValueError(f"group: expected Zn with n up to 720, or Sn or An with n up to 6, got {group!r}")
    if match[1] == "Z":
        return np.add.outer(np.arange(size), np.arange(size)) % size
    elements = [p for p in itertools.permutations(range(size)) if match[1] == "S" or _even(p)]
    index = {p: i for i, p in enumerate(elements)}
    return np.array([[index[tuple(a[i] for i in b)] for b in elements] for a in elements])


def _even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0
