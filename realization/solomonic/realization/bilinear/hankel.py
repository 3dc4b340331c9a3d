"""The generalized Hankel matrix: kernels of words, cut in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._linalg import EPS
from .._validate import Array, as_number
from .words import Word, as_kernel, as_words

__all__ = ["GeneralizedHankel", "generalized_hankel"]


@dataclass(frozen=True, eq=False)
class GeneralizedHankel:
    r"""A generalized Hankel matrix.

    Parameters
    ----------
    matrix : ndarray [rows * p, columns * m]
        Block (v, w) is the kernel of the word v w.
    rows, columns : tuple of tuple of int
        The words v and w.
    singular_values : ndarray
        Largest first.

    Examples
    --------
    >>> generalized_hankel(lambda word: [[0.5 ** len(word)]], inputs=1, outputs=1, rows=1)
    GeneralizedHankel(3 x 3 words, rank=1)
    """

    matrix: Array
    rows: tuple[Word, ...]
    columns: tuple[Word, ...]
    singular_values: Array

    def rank(self, tol: float | None = None) -> int:
        """Return the number of singular values above ``tol`` times the largest (default: rounding): the least order."""
        s = self.singular_values
        relative = 10 * EPS * max(self.matrix.shape)
        if tol is not None:
            relative = as_number(tol, "tol", "a number of at least 0, relative", lambda x: x >= 0)
        return int(np.sum(s > relative * s[0])) if s.size and s[0] > 0 else 0

    def __repr__(self) -> str:
        return f"GeneralizedHankel({len(self.rows)} x {len(self.columns)} words, rank={self.rank()})"

    def _repr_html_(self) -> str:
        rows = [(str(k + 1), f"{s:.3g}") for k, s in enumerate(self.singular_values[:20])]
        return table(("", "singular value"), rows, caption=repr(self))


def generalized_hankel(
    kernel: Any, *, inputs: int | None = None, outputs: int | None = None, rows: Any = 2, columns: Any = None
) -> GeneralizedHankel:
    r"""Arrange kernels of words in a Hankel matrix, the rank of which is the least state dimension.

    .. math:: H_{v, w} = s(v w) = (C M_v)(M_w B), \qquad \operatorname{rank} H = n_{\min}.

    Parameters
    ----------
    kernel : BilinearSystem, RationalSeries, callable or mapping
        s: from a word (tuple of letters 0 .. m) to an array [p, m].
    inputs, outputs : int, optional
        m and p; needed beside a function.
    rows, columns : int or list of words
        The words v and w; a number stands for all words of up to so many letters. Columns are the rows by default.

    Returns
    -------
    GeneralizedHankel
        ``.matrix``, ``.singular_values``, ``.rank()``.

    Raises
    ------
    TypeError
        No kernel, or no words.
    ValueError
        Letters that do not exist, kernels of a wrong shape, NaN, or a word that a mapping lacks.

    Notes
    -----
    The rank of a finite part is a lower bound of the least dimension; with words of up to n - 1 letters it is the
    dimension. There are :math:`(m + 1)^L` words of L letters: give short words, or a selection.

    References
    ----------
    .. [1] A. Isidori, *Direct construction of minimal bilinear realizations from nonlinear input-output maps*, IEEE
       Trans. Autom. Control 18 (1973) 626.
    .. [2] M. Fliess, *Matrices de Hankel*, J. Math. Pures Appl. 53 (1974) 197.

    Examples
    --------
    >>> from solomonic.realization import BilinearSystem
    >>> system = BilinearSystem([[0.5, 0], [0, 0.2]], [[[0, 1], [1, 0]]], [[1], [0]], [[1, 1]])
    >>> generalized_hankel(system, rows=2)
    GeneralizedHankel(7 x 7 words, rank=2)
    """
    read, m, _ = as_kernel(kernel, inputs, outputs)
    left = as_words(rows, m + 1, "rows")
    right = left if columns is None else as_words(columns, m + 1, "columns")
    matrix = block(read, left, right)
    return GeneralizedHankel(matrix, tuple(left), tuple(right), np.linalg.svd(matrix, compute_uv=False))


def block(read: Any, left: list[Word], right: list[Word], middle: Word = ()) -> Array:
    """[len(left) p, len(right) m] of the kernels of v, middle, w."""
    places: dict[Word, int] = {}
    joined = [[places.setdefault(v + middle + w, len(places)) for w in right] for v in left]
    values = np.array([read(word) for word in places])  # each word once, though many cuts make it
    return values[np.array(joined)].transpose(0, 2, 1, 3).reshape(len(left) * values.shape[1], -1)
