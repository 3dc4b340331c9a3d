"""The Weyr characteristic of one eigenvalue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._linalg import conjugate_partition, norm2
from ._results import Result
from ._staircase import select, sweep_parts
from ._validate import as_array
from .nilpotency import ToleranceRow, as_table
from .rounding import as_certifiable

__all__ = ["WeyrCharacteristic", "weyr_characteristic"]


@dataclass(frozen=True, eq=False)
class WeyrCharacteristic(Result):
    """Null-space growth of the powers of A - cI.

    Parameters
    ----------
    verdict : bool or None
        True: a matrix with exactly this structure lies within the uncertainty, and none that is more
        degenerate along this staircase does. None: no such tolerance was found; see the table.
    eigenvalue : complex
        The point c.
    weyr : tuple of int
        dim ker (A - cI)^k - dim ker (A - cI)^(k-1), k = 1, 2, ...; empty where c is no eigenvalue.
    discarded, kept : float
        Distance to a matrix of exactly this structure, and smallest singular value counted as nonzero.
    uncertainty : float
        Bound on the norm of the error of A.
    table : tuple of ToleranceRow
        The structure against the tolerance.
    """

    verdict: bool | None
    eigenvalue: complex
    weyr: tuple[int, ...]
    discarded: float
    kept: float
    uncertainty: float
    table: tuple[ToleranceRow, ...]

    @property
    def index(self) -> int:
        """Index of the eigenvalue: the size of its largest Jordan block."""
        return len(self.weyr)

    @property
    def jordan(self) -> tuple[int, ...]:
        """Sizes of the Jordan blocks, largest first."""
        return conjugate_partition(self.weyr)

    def __repr__(self) -> str:
        return f"WeyrCharacteristic({self.verdict}, {self.weyr}, at {self.eigenvalue:.6g}, kept={self.kept:.2g})"


def weyr_characteristic(A: Any, eigenvalue: complex = 0.0, *, uncertainty: float | None = None) -> WeyrCharacteristic:
    r"""Compute the Weyr characteristic of an eigenvalue by an orthogonal staircase.

    .. math:: \nu_k = \dim\ker (A - cI)^k - \dim\ker (A - cI)^{k-1}, \qquad \nu_1 \ge \nu_2 \ge \dots

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix.
    eigenvalue : complex
        The point c, 0 by default; give the exact value or the mean of a cluster.
    uncertainty : float, optional
        Bound on the spectral norm of the error of A; default ``8 n eps |A|``.

    Returns
    -------
    WeyrCharacteristic
        ``.weyr``, ``.jordan`` (its conjugate partition), ``.index`` and the table against the tolerance.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; or a negative uncertainty.

    Notes
    -----
    Ranks are decided by gaps in singular values of unitary compressions of A - cI, never of its powers; normal
    modes (eigenvectors of A and of :math:`A^*`) are split off before. The
    answer is the most degenerate structure a gap supports: less degenerate ones are always within any
    uncertainty. Cost: :math:`O(n^3)` for each distinct block size.

    References
    ----------
    .. [1] N. Guglielmi, M. L. Overton, G. W. Stewart, *An efficient algorithm for computing the generalized
       null space decomposition*, SIAM J. Matrix Anal. Appl. 36 (2015).

    Examples
    --------
    >>> import numpy as np
    >>> A = 2 * np.eye(4) + np.diag([1.0, 0.0, 1.0], k=1)
    >>> found = weyr_characteristic(A, 2.0)
    >>> found.weyr, found.jordan
    ((2, 2), (2, 2))
    """
    a, _, allowed = as_certifiable(A, uncertainty)
    c = complex(as_array(eigenvalue, "eigenvalue", ndim=0))
    shifted = a - (c.real if c.imag == 0 else c) * np.eye(len(a))
    if not np.any(shifted):
        n = len(a)
        row = ToleranceRow(0.0, 1, n, (n,), 0.0, np.inf)
        return WeyrCharacteristic(True, c, (n,), 0.0, np.inf, allowed, (row,))
    runs = sweep_parts(shifted, norm2(shifted), allowed)
    best = select(runs, allowed, stated=uncertainty is not None)
    verdict = True if best.discarded <= allowed < best.kept else None
    return WeyrCharacteristic(verdict, c, best.weyr, best.discarded, best.kept, allowed, as_table(runs))
