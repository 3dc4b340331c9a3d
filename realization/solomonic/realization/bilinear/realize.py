"""Realization of bilinear systems from finitely many kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._linalg import EPS
from .._results import Result
from .._validate import Array, as_index, as_number, describe
from .hankel import block
from .system import BilinearSystem
from .words import Kernel, Word, as_kernel, as_word, words

__all__ = ["PartialRealization", "partial_realization"]


@dataclass(frozen=True, eq=False)
class PartialRealization(Result):
    """A bilinear system made from finitely many kernels.

    Parameters
    ----------
    system : BilinearSystem
        The realization (D = 0: kernels of words do not hold it).
    order : int
        Its dimension.
    singular_values : ndarray
        Of the (weighted) Hankel matrix for "svd"; the pivots, largest first, for "selection".
    residual : float
        Largest difference between kernels and those of the system, relative to the largest kernel: over all words of up
        to 2 L + 1 letters for "svd", over the chosen and the tried ones for "selection".
    kernels_read : int
        How many words the kernel was asked for.
    rows, columns : tuple
        For "svd" the words; for "selection" the chosen rows (word, output) and columns (word, input).
    extends : bool
        "svd": whether the Hankel matrix has room for a larger rank, and kernels of up to 2 L + 1 letters come out "
        "right; "selection": whether the words that
        were tried came out right. False: give a larger length.

    Examples
    --------
    >>> partial_realization(lambda word: [[0.5 ** len(word)]], inputs=1, outputs=1, length=1).order
    1
    """

    system: BilinearSystem
    order: int
    singular_values: Array
    residual: float
    kernels_read: int
    rows: tuple[Any, ...]
    columns: tuple[Any, ...]
    extends: bool

    def __repr__(self) -> str:
        return (
            f"PartialRealization(order={self.order}, residual={self.residual:.1e}, kernels_read={self.kernels_read}, "
            f"extends={self.extends})"
        )

    def _repr_html_(self) -> str:
        rows = [
            (str(k + 1), f"{s:.3g}", "kept" if k < self.order else "cut")
            for k, s in enumerate(self.singular_values[:20])
        ]
        return table(("", "singular value", ""), rows, caption=repr(self))


def partial_realization(
    kernel: Any,
    *,
    inputs: int | None = None,
    outputs: int | None = None,
    length: int,
    order: int | None = None,
    method: str = "svd",
    tol: float | None = None,
    rng: int | np.random.Generator | None = 0,
) -> PartialRealization:
    r"""Realize a bilinear system from the kernels of finitely many words.

    .. math:: H = O R, \qquad M_j = O^+ H^{(j)} R^+, \quad H^{(j)}_{v,w} = s(v\, j\, w), \qquad
              C = O_{\epsilon},\ B = R_{\epsilon}.

    Parameters
    ----------
    kernel : BilinearSystem, RationalSeries, callable or mapping
        s: from a word (tuple of letters 0 .. m, the last one acting first) to an array [p, m].
    inputs, outputs : int, optional
        m and p; needed beside a function.
    length : int
        L: rows and columns are words of up to L letters, so kernels of up to 2 L + 1 letters are read.
    order : int, optional
        The dimension; by default the numerical rank.
    method : str
        "svd": all words of up to L letters, :math:`(m+1)^L` of them. "selection": n rows and n columns, grown greedily
        by pivots among the words that extend a chosen one by a letter (a nice selection); then some longer words are
        tried, and one that the system gets wrong gives new candidates. It reads some :math:`(m+1) n^2` kernels.
    tol : float, optional
        Singular values (pivots) up to ``tol`` times the largest count as zero. Default: rounding for "svd", 1e-11 for
        "selection". For kernels with errors give their relative size.
    rng : int, numpy.random.Generator or None
        Source of the random words on which "selection" tries what it found (those of a mapping are tried all).

    Returns
    -------
    PartialRealization
        ``.system``, ``.order``, ``.singular_values``, ``.residual`` and whether the rank is settled (``.extends``).

    Raises
    ------
    TypeError
        No kernel, or unknown numbers of inputs and outputs.
    ValueError
        An order above the Hankel rank, letters that do not exist, kernels that are all zero, of a wrong shape or NaN.

    Notes
    -----
    Where kernels grow with the length of their words, word w is weighted by :math:`q^{|w|}`, q < 1; the weights cancel
    in
    the result. With exact kernels and L large enough for rank H to be n, the realization is exact and minimal, and
    unique up to a change of states. For "svd" it is balanced with respect to the words used.

    References
    ----------
    .. [1] A. Isidori, IEEE Trans. Autom. Control 18 (1973) 626.
    .. [2] M. Petreczky, J. H. van Schuppen, *Partial-realization theory for linear switched systems*, Automatica 47
       (2011) 2177.
    .. [3] M. Bastug, M. Petreczky, R. Wisniewski, J. Leth, *Model reduction by nice selections for linear switched
       systems*, IEEE Trans. Autom. Control 61 (2016) 3422.

    Examples
    --------
    >>> from solomonic.realization import BilinearSystem
    >>> system = BilinearSystem([[0.5, 0], [0, 0.2]], [[[0, 1], [1, 0]]], [[1], [0]], [[1, 1]])
    >>> found = partial_realization(system.kernel, inputs=1, outputs=1, length=2)
    >>> found.order, found.extends, found.system.equivalent(system).verdict
    (2, True, True)
    """
    read, m, p = as_kernel(kernel, inputs, outputs)
    length = as_index(length, "length", 0, 10**6)
    if order is not None:
        order = as_index(order, "order", 0, 10**6)
    if tol is not None:
        tol = as_number(tol, "tol", "a number of at least 0, relative", lambda x: x >= 0)
    seen: dict[Word, Array] = {}

    def counted(word: Word) -> Array:
        if word not in seen:
            seen[word] = read(word)
        return seen[word]

    if method == "svd":
        found = _by_svd(counted, m, p, length, order, tol)
    elif method == "selection":
        checks = _words_to_try(kernel, m, length, np.random.default_rng(rng))
        found = _by_selection(counted, m, p, length, order, 1e-11 if tol is None else tol, checks)
    else:
        raise ValueError(f"method: expected 'svd' or 'selection', got {describe(method)}")
    system, values, rows, columns, extends, residual = found
    return PartialRealization(system, system.order, values, residual, len(seen), rows, columns, extends)


def _above_rank(order: int, rank: int, values: Array) -> ValueError:
    shown = ", ".join(f"{x:.2g}" for x in values[: order + 1])
    return ValueError(
        f"order: expected at most {rank}, the rank of the Hankel matrix (singular values {shown}), got {order}; give a "
        f"larger length, a smaller tol, or order=None"
    )


def _by_svd(
    read: Kernel, m: int, p: int, length: int, order: int | None, tol: float | None
) -> tuple[BilinearSystem, Array, tuple, tuple, bool, float]:
    all_words = words(m + 1, length)
    sizes = np.array([len(word) for word in all_words])
    matrix = block(read, all_words, all_words)
    weight = _growth(read, all_words) ** sizes
    rows, columns = np.repeat(weight, p)[:, None], np.repeat(weight, m)[None]
    u, s, vh = np.linalg.svd(rows * matrix * columns, full_matrices=False)
    relative = 10 * EPS * max(matrix.shape) if tol is None else tol
    rank = int(np.sum(s > relative * s[0])) if s[0] > 0 else 0
    n = rank if order is None else order
    if n > rank:
        raise _above_rank(n, rank, s)
    root = np.sqrt(s[:n])
    see, reach = u[:, :n] * root, root[:, None] * vh[:n]  # weighted O and R
    left, right = (u[:, :n] / root).T, vh[:n].T / root
    middle = [block(read, all_words, all_words, (j,)) for j in range(m + 1)]
    letters = np.array([left @ (rows * h * columns) @ right for h in middle]).reshape(m + 1, n, n)
    system = BilinearSystem(letters[0], letters[1:], reach[:, :m], see[:p])
    # what the words of up to 2 L + 1 letters are, and what the system makes of them
    gap = max(
        float(np.abs(h - (see / rows) @ letter @ (reach / columns)).max())
        for h, letter in zip(middle, letters, strict=True)
    )
    largest = max(float(np.abs(matrix).max()), *(float(np.abs(h).max()) for h in middle))
    residual = gap / largest if largest > 0 else 0.0
    extends = n == rank and n < min(matrix.shape) and residual <= max(1e-9, 10 * relative)
    return system, s, tuple(all_words), tuple(all_words), extends, residual


def _growth(read: Kernel, all_words: list[Word]) -> float:
    """q <= 1 such that kernels weighted by q^|word| do not grow with the length of the words."""
    longest = len(all_words[-1])
    energy = np.zeros(longest + 1)
    for word in all_words:
        energy[len(word)] += float(np.sum(read(word) ** 2))
    first = float(energy.max(initial=0, where=np.arange(longest + 1) <= 0)) or float(
        energy[energy > 0].min(initial=1.0)
    )
    rates = [(energy[k] / first) ** (0.5 / k) for k in range(1, longest + 1)]
    return 1 / max(1.0, *rates) if rates else 1.0


def _by_selection(
    read: Kernel, m: int, p: int, length: int, order: int | None, tol: float, checks: list[Word]
) -> tuple[BilinearSystem, Array, tuple, tuple, bool, float]:
    """Cross approximation of the Hankel matrix: candidates extend chosen words, the largest residual is the pivot.

    When no candidate is left with a residual, the system made so far is tried on the words of ``checks``; one that it
    gets
    wrong gives new candidates, all its cuts, and the search goes on.
    """
    letters = range(m + 1)
    rows: list[tuple[Word, int]] = []
    columns: list[tuple[Word, int]] = []
    row_pool = [((), i) for i in range(p)]
    column_pool = [((), j) for j in range(m)]
    pivots: list[float] = []

    def table(left: list, right: list, middle: Word = ()) -> Array:
        whole = block(read, [w for w, _ in left], [w for w, _ in right], middle) if left and right else np.zeros((0, 0))
        at = np.arange(len(left)) * p + [i for _, i in left] if left else []
        to = np.arange(len(right)) * m + [j for _, j in right] if right else []
        return whole[np.ix_(at, to)] if left and right else np.zeros((len(left), len(right)))

    def add(pool: list, chosen: list, new: list) -> None:
        have = {*pool, *chosen}
        pool += [x for x in dict.fromkeys(new) if x not in have and len(x[0]) <= length]

    settled = False
    while order is None or len(rows) < order:
        rest = table(row_pool, column_pool)
        scale = max([*pivots, float(np.abs(rest).max(initial=0))])
        if rows and rest.size:
            rest = rest - table(row_pool, columns) @ np.linalg.solve(table(rows, columns), table(rows, column_pool))
        best = float(np.abs(rest).max(initial=0))
        if best > tol * scale:
            i, j = np.unravel_index(int(np.argmax(np.abs(rest))), rest.shape)
            row, column = row_pool.pop(int(i)), column_pool.pop(int(j))
            pivots.append(best)
            rows.append(row)
            columns.append(column)
            add(row_pool, rows, [((*row[0], a), row[1]) for a in letters])
            add(column_pool, columns, [((a, *column[0]), column[1]) for a in letters])
            continue
        system = _from_core(table, rows, columns, m, p)
        errors = [float(np.abs(read(word) - system.kernel(word)).max()) for word in checks]
        worst = int(np.argmax(errors)) if errors else 0
        settled = not errors or errors[worst] <= 1e3 * tol * max(
            scale, max(float(np.abs(read(w)).max()) for w in checks)
        )
        word = checks[worst] if errors else ()
        before = len(row_pool) + len(column_pool)
        add(row_pool, rows, [(word[:k], i) for k in range(len(word) + 1) for i in range(p)])
        add(column_pool, columns, [(word[k:], j) for k in range(len(word) + 1) for j in range(m)])
        if settled or len(row_pool) + len(column_pool) == before:
            break
    values = np.sort(np.array(pivots))[::-1]
    if order is not None and len(rows) < order:
        raise _above_rank(order, len(rows), values)
    system = _from_core(table, rows, columns, m, p)
    read_words = [(*v, *w) for v, _ in rows for w, _ in columns] + checks
    errors = [float(np.abs(read(word) - system.kernel(word)).max()) for word in read_words]
    largest = max((float(np.abs(read(word)).max()) for word in read_words), default=0.0)
    residual = max(errors, default=0.0) / largest if largest > 0 else 0.0
    return system, values, tuple(rows), tuple(columns), settled, residual


def _from_core(table: Any, rows: list, columns: list, m: int, p: int) -> BilinearSystem:
    """The system from chosen rows and columns: with H = U S V^T on them, M_j = S^-1/2 U^T H^(j) V S^-1/2."""
    n = len(rows)
    if n == 0:
        return BilinearSystem(np.zeros((0, 0)), np.zeros((m, 0, 0)), np.zeros((0, m)), np.zeros((p, 0)))
    u, s, vh = np.linalg.svd(table(rows, columns))
    left, right = u / np.sqrt(s), vh.T / np.sqrt(s)
    letters = np.array([left.T @ table(rows, columns, (j,)) @ right for j in range(m + 1)])
    b = left.T @ table(rows, [((), j) for j in range(m)])
    return BilinearSystem(letters[0], letters[1:], b, table([((), i) for i in range(p)], columns) @ right)


def _words_to_try(kernel: Any, m: int, length: int, rng: np.random.Generator) -> list[Word]:
    """Words on which a realization by selection is tried: those of a mapping, else repetitions and random ones."""
    longest = 2 * length + 1
    if isinstance(kernel, Mapping):
        return [as_word(word, m + 1) for word in kernel if len(as_word(word, m + 1)) <= longest]
    repeated = [(letter,) * k for k in range(longest + 1) for letter in range(m + 1)]
    return repeated + [tuple(rng.integers(0, m + 1, k).tolist()) for k in range(longest + 1) for _ in range(8)]
