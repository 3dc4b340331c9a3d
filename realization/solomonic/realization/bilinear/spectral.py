"""Spectral learning of rational series from strings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .._validate import Array, as_index, describe
from .series import RationalSeries
from .words import Word, as_word

__all__ = ["read_strings", "spectral_learning"]


def read_strings(path: str | Path) -> tuple[list[Word], int]:
    """Read strings in the PAutomaC (Abbadingo) format.

    Parameters
    ----------
    path : str or Path
        The file: a line with the numbers of strings and letters, then for each string its length and its letters.

    Returns
    -------
    list of tuple of int
        The strings.
    int
        The number of letters.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A line that does not hold as many letters as it says, or letters that do not exist.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "strings.txt"
    >>> _ = path.write_text("2 3\\n2 0 1\\n0\\n")
    >>> read_strings(path)
    ([(0, 1), ()], 3)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file with strings, got {path}, which does not exist")
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        count, letters = (int(x) for x in lines[0].split()[:2])
    except ValueError as error:
        raise ValueError(f"path: {path}, line 1: expected 'strings letters', got {lines[0][:60]!r}") from error
    out: list[Word] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        length, *word = (int(x) for x in line.split())
        if length != len(word):
            raise ValueError(f"path: {path}, line {number}: expected {length} letters, got {len(word)}")
        out.append(as_word(word, letters, f"path: {path}, line {number}"))
    if len(out) != count:
        raise ValueError(f"path: expected {count} strings in {path}, got {len(out)}")
    return out, letters


def spectral_learning(
    strings: Iterable[Any],
    order: int,
    *,
    letters: int,
    statistic: str = "factor",
    rows: int = 1000,
    columns: int = 1000,
    longest: int = 6,
    smoothing: float = 10.0,
) -> RationalSeries:
    r"""Learn the distribution of strings: partial realization from empirical frequencies.

    .. math:: \hat H_{v,w} = \hat g(v w), \quad D_r \hat H D_c \approx U S V^T, \quad
              M_j = S^{-1/2} U^T D_r \hat H^{(j)} D_c V S^{-1/2}.

    Parameters
    ----------
    strings : iterable of sequences of int
        The sample.
    order : int
        States n.
    letters : int
        Size of the alphabet.
    statistic : str
        Which function g of words is counted. "string": how often the word is the string. "prefix": how often a string
        begins with it. "factor": how often it occurs in a string, at any place: most data a word.
    rows, columns : int
        The most frequent words (prefixes and suffixes of what is counted) to use.
    longest : int
        Their greatest length.
    smoothing : float
        Rows and columns are divided by the square root of their counts plus this number, so that the noise of all
        entries is alike; rare words, of which the count is uncertain too, then weigh less.

    Returns
    -------
    RationalSeries
        An estimate of the probability of strings; it may be slightly negative for rare ones.

    Raises
    ------
    TypeError
        Not strings of integers.
    ValueError
        Letters that do not exist, no strings, or an order above the rank of what was counted.

    Notes
    -----
    g is realized, then turned into the distribution: prefix weights are sums over continuations, so the final vector is
    :math:`(I - M) \omega` with :math:`M = \sum_j M_j`; factor weights are also sums over beginnings, so the
    initial one is :math:`(I - M)^T \alpha`. Cost: one truncated SVD.

    References
    ----------
    .. [1] D. Hsu, S. Kakade, T. Zhang, *A spectral algorithm for learning hidden Markov models*, J. Comput. Syst.
       Sci. 78 (2012) 1460.
    .. [2] B. Balle, X. Carreras, F. Luque, A. Quattoni, *Spectral learning of weighted automata*, Machine Learning 96
       (2014) 33.
    .. [3] R. Bailly, *Quadratic weighted automata: spectral algorithm and likelihood maximization*, ACML 2011.

    Examples
    --------
    >>> import numpy as np
    >>> truth = RationalSeries([1.0, 0], [[[0, 0.5], [0, 0]], [[0, 0], [0.5, 0]]], [0.5, 0.5])
    >>> found = spectral_learning(truth.sample(10000, rng=0), 2, letters=2)
    >>> bool(np.abs(found.evaluate([(), (0, 1)]) - truth.evaluate([(), (0, 1)])).max() < 0.01)
    True
    """
    letters = as_index(letters, "letters", 1, 10**6)
    order = as_index(order, "order", 1, 10**6)
    longest = as_index(longest, "longest", 0, 1000)
    sample = Counter(as_word(word, letters, "strings") for word in strings)
    total = sum(sample.values())
    if total == 0:
        raise ValueError("strings: expected at least one string, got none")
    counts, left, right = _count(sample, statistic, 2 * longest + 1, longest)
    v = [w for w, _ in left.most_common(as_index(rows, "rows", 1, 10**6))]
    w = [w for w, _ in right.most_common(as_index(columns, "columns", 1, 10**6))]
    v, w = ([()] + [x for x in names if x] for names in (v, w))
    table = {word: value / total for word, value in counts.items()}

    def block(middle: Word = ()) -> Array:
        return np.array([[table.get(a + middle + b, 0.0) for b in w] for a in v])

    scale_rows = 1 / np.sqrt(np.array([left[a] for a in v]) / total + smoothing / total)[:, None]
    scale_columns = 1 / np.sqrt(np.array([right[b] for b in w]) / total + smoothing / total)[None]
    whole = block()
    u, s, vh = np.linalg.svd(scale_rows * whole * scale_columns, full_matrices=False)
    rank = int(np.sum(s > s[0] * max(whole.shape) * 1e-15))
    if order > rank:
        raise ValueError(
            f"order: expected at most {rank}, the rank of what was counted, got {order}; count longer words"
        )
    root = np.sqrt(s[:order])
    before, after = (u[:, :order] / root).T * scale_rows.T, scale_columns.T * (vh[:order].T / root)
    transitions = np.array([before @ block((j,)) @ after for j in range(letters)])
    alpha, omega = (whole[0] @ after), (before @ whole[:, 0])
    rest = np.eye(order) - transitions.sum(0)
    if statistic in ("prefix", "factor"):
        omega = rest @ omega
    if statistic == "factor":
        alpha = alpha @ rest
    return RationalSeries(alpha, transitions, omega)


def _count(
    sample: Counter[Word], statistic: str, most: int, longest: int
) -> tuple[dict[Word, int], Counter[Word], Counter[Word]]:
    """Counts of words of up to ``most`` letters, and of beginnings and ends of up to ``longest``."""
    counts: Counter[Word] = Counter()
    if statistic == "string":
        counts.update(sample)
    elif statistic == "prefix":
        for word, times in sample.items():
            for k in range(min(len(word), most) + 1):
                counts[word[:k]] += times
    elif statistic == "factor":
        for word, times in sample.items():
            for i in range(len(word) + 1):
                for k in range(i, min(len(word), i + most) + 1):
                    counts[word[i:k]] += times
    else:
        raise ValueError(f"statistic: expected 'string', 'prefix' or 'factor', got {describe(statistic)}")
    left: Counter[Word] = Counter()
    right: Counter[Word] = Counter()
    if statistic == "factor":
        for word, times in counts.items():
            if len(word) <= longest:
                left[word] = right[word] = times
        return counts, left, right
    for word, times in sample.items():
        for k in range(min(len(word), longest) + 1):
            left[word[:k]] += times
            if statistic == "string":
                right[word[len(word) - k :]] += times
            else:
                for i in range(len(word) - k + 1):
                    right[word[i : i + k]] += times
    return counts, left, right
