"""Is a matrix nilpotent? A verdict with the distance it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ._html import table
from ._linalg import EPS, conjugate_partition, norm2, schur
from ._nilpotent_distance import nilpotent_lower_bound
from ._nilpotent_flag import LARGEST, nearest_flag
from ._results import Result
from ._staircase import Staircase, select, sweep_parts
from ._validate import Array
from .rounding import as_certifiable

__all__ = ["NilpotencyCertificate", "ToleranceRow", "nilpotency"]


@dataclass(frozen=True)
class ToleranceRow(Result):
    """One row of the table of structure against tolerance.

    Parameters
    ----------
    tolerance : float
        Singular values up to this were taken for zero.
    index : int
        Number of steps of the staircase.
    nil_order : int
        Dimension of the nilpotent part.
    weyr : tuple of int
        Weyr characteristic at the eigenvalue 0.
    discarded : float
        Spectral norm of what was taken for zero: a matrix this near has this structure exactly.
    kept : float
        Smallest singular value that was not: the structure changes beyond it.
    """

    tolerance: float
    index: int
    nil_order: int
    weyr: tuple[int, ...]
    discarded: float
    kept: float


def as_table(runs: list[Staircase]) -> tuple[ToleranceRow, ...]:
    """Turn staircase runs into the table of structure against tolerance."""
    return tuple(ToleranceRow(run.tau, run.index, run.nil_order, run.weyr, run.discarded, run.kept) for run in runs)


@dataclass(frozen=True, eq=False)
class NilpotencyCertificate(Result):
    """What can be said of the nilpotency of a matrix.

    Parameters
    ----------
    verdict : bool or None
        True: a nilpotent matrix lies within the uncertainty of A. False: none does. None: the bracket of the
        distance contains the uncertainty, so that the data do not decide.
    index : int
        Index of the eigenvalue 0: number of steps of the staircase (0 for an invertible matrix). The memory
        of ``x_t = A x_{t-1} + ...`` along these modes ends after so many steps.
    weyr : tuple of int
        Weyr characteristic at 0: dim ker A^k - dim ker A^(k-1), k = 1 .. index, of the most degenerate matrix
        that the widest gap points to.
    distance : tuple of float
        (lower, upper) bounds of the spectral-norm distance to the nearest nilpotent matrix.
    uncertainty : float
        Bound on the norm of the error of A that the verdict allows for.
    condition : float
        Norm of A over the smallest singular value counted as nonzero: large where the structure is near a
        change.
    core_order : int
        Dimension of the part that is left, invertible; 0 for a nilpotent matrix.
    table : tuple of ToleranceRow
        The structure against the tolerance.
    reason : str
        Why the verdict is what it is.
    """

    verdict: bool | None
    index: int
    weyr: tuple[int, ...]
    distance: tuple[float, float]
    uncertainty: float
    condition: float
    core_order: int
    table: tuple[ToleranceRow, ...]
    reason: str

    @property
    def jordan(self) -> tuple[int, ...]:
        """Sizes of the Jordan blocks at 0, largest first (the conjugate partition of the Weyr characteristic)."""
        return conjugate_partition(self.weyr)

    def __repr__(self) -> str:
        lower, upper = self.distance
        return (
            f"NilpotencyCertificate({self.verdict}, index={self.index}, distance=[{lower:.2g}, {upper:.2g}], "
            f"uncertainty={self.uncertainty:.2g})"
        )

    def _repr_html_(self) -> str:
        head = ("tolerance", "index", "nilpotent order", "discarded", "kept")
        rows = [
            (f"{r.tolerance:.2g}", str(r.index), str(r.nil_order), f"{r.discarded:.2g}", f"{r.kept:.2g}")
            for r in self.table
        ]
        return table(head, rows, caption=f"nilpotent: {self.verdict}. {self.reason}")


def _acyclic(a: Array) -> bool:
    """Whether the pattern of nonzeros is a graph without cycles: then A is nilpotent whatever its values."""
    pattern = csr_array(a != 0)
    count, _ = connected_components(pattern, directed=True, connection="strong")
    return bool(count == len(a) and not np.any(np.diagonal(a)))


def _nilpotent_upper(run: Staircase, norm: float) -> float:
    """Distance to the nilpotent matrix that keeps the staircase and the strict triangle of the core's Schur form."""
    d = run.nil_order
    defect = run.defect
    if d < len(run.form):
        defect = defect.astype(complex)
        triangular, turn = schur(run.form[d:, d:].astype(complex))
        defect[d:, d:] += turn @ np.diag(np.diag(triangular)) @ turn.conj().T
    return norm2(defect) + len(run.form) * EPS * norm


def nilpotency(A: Any, *, uncertainty: float | None = None) -> NilpotencyCertificate:
    r"""Decide whether a matrix is nilpotent, within what is known of it.

    .. math:: \mathrm{lower} \le \min_{N^n = 0} \|A - N\|_2 \le \mathrm{upper},
              \qquad \text{verdict} = \begin{cases} \text{True} & \text{upper} \le \text{uncertainty} \\
              \text{False} & \text{lower} > \text{uncertainty} \\ \text{None} & \text{else.} \end{cases}

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix, real or complex.
    uncertainty : float, optional
        Bound on the spectral norm of the error of A, in the unit of A (``rounding_uncertainty`` gives it for
        float32 and bfloat16 weights). Default: ``8 n eps |A|``, what backward stable float64 arithmetic
        leaves.

    Returns
    -------
    NilpotencyCertificate
        ``.verdict``, ``.index``, ``.weyr``, ``.distance``, ``.condition``, ``.table``, ``.reason``.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; or a negative uncertainty.

    Notes
    -----
    Eigenvalues do not answer the question: a rotated Jordan block of order 64 has computed eigenvalues of
    modulus 0.57. The staircase makes unitary rank decisions by gaps between singular values; what it discards
    is the upper bound. The lower bounds come from rank, trace and, the strongest, from determinants: for
    every z, :math:`|z|^n \le \prod_i (\sigma_i(zI - A) + \delta)`. Rounding is counted as :math:`n \epsilon
    \|A\|_2` on either side; a matrix whose pattern of nonzeros has no cycle is nilpotent exactly, and its
    distance is 0.

    ``index`` and ``weyr`` describe the most degenerate structure that a gap supports. Normal modes, which A and
    :math:`A^*` share, are split off before: no chain takes them up. A mode that is not normal, with
    :math:`|\lambda| < (\text{uncertainty} / \|A\|)^{1/\text{index}}`, may have been counted as nilpotent (see
    ``fitting``). Where no gap decides, an orthonormal basis is sought (up to order 128) in which A is nearly
    strictly triangular: what is left below the diagonal is an upper bound too. Cost: :math:`O(n^3)` on long
    chains too; an undecided matrix up to some seconds.

    References
    ----------
    .. [1] V. N. Kublanovskaya, *On a method of solving the complete eigenvalue problem for a degenerate
       matrix*, USSR Comput. Math. Math. Phys. 6 (1966).
    .. [2] G. H. Golub, J. H. Wilkinson, *Ill-conditioned eigensystems and the computation of the Jordan
       canonical form*, SIAM Review 18 (1976).
    .. [3] V. Noferini, F. Poloni, *Nearest Omega-stable matrix via Riemannian optimization*, Numer. Math. 148
       (2021): the distance as a minimum over unitary matrices.

    Examples
    --------
    >>> import numpy as np
    >>> shift = np.eye(64, k=1)
    >>> rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0]
    >>> certificate = nilpotency(rotation @ shift @ rotation.T)
    >>> certificate.verdict, certificate.index, certificate.jordan
    (True, 64, (64,))
    >>> nilpotency(np.diag([0.5, 0.1])).verdict
    False
    """
    a, norm, allowed = as_certifiable(A, uncertainty)
    n = len(a)
    if norm == 0:
        row = ToleranceRow(0.0, 1, n, (n,), 0.0, np.inf)
        return NilpotencyCertificate(
            True, 1, (n,), (0.0, 0.0), allowed, 0.0, 0, (row,), "A is zero: nilpotent of index 1."
        )
    runs = sweep_parts(a, norm, allowed)
    best = select(runs, allowed, stated=uncertainty is not None)
    if _acyclic(a):
        lower = upper = 0.0
    else:
        rounding = n * EPS * norm
        upper = min(_nilpotent_upper(run, norm) for run in runs if run.nil_order == n or run is best)
        lower = 0.0
        if upper > 4 * rounding:  # nearer than that, no bound stands out of the rounding
            eigenvalues = np.linalg.eigvals(a)
            upper = min(upper, float(np.max(np.abs(eigenvalues))) + rounding)
            lower = min(nilpotent_lower_bound(a, norm, eigenvalues, upper), upper)
        if lower <= allowed < upper and n <= LARGEST:  # undecided: no gap shows the way, so a flag is sought
            flag = nearest_flag(a, allowed / 4)
            upper = max(min(upper, flag.discarded + rounding), lower)
            runs = sorted([*runs, flag], key=lambda run: run.tau)
    if upper <= allowed and best.nil_order < n:
        best = max(runs, key=lambda run: (run.nil_order == n, run.kept > allowed, run.gap))
    verdict, reason = _judge(lower, upper, allowed)
    condition = norm / best.kept if np.isfinite(best.kept) else 1.0
    return NilpotencyCertificate(
        verdict,
        best.index,
        best.weyr,
        (lower, upper),
        allowed,
        condition,
        n - best.nil_order,
        as_table(runs),
        reason,
    )


def _judge(lower: float, upper: float, allowed: float) -> tuple[bool | None, str]:
    """Compare the bracket with the uncertainty, and say it in words."""
    if upper == 0:
        return True, "The pattern of nonzeros has no cycle: nilpotent exactly, whatever the values."
    if upper <= allowed:
        return True, f"A nilpotent matrix lies at {upper:.2g}, within the uncertainty {allowed:.2g}."
    if lower > allowed:
        return False, f"No nilpotent matrix lies nearer than {lower:.2g}; the uncertainty is {allowed:.2g}."
    return None, (
        f"Undecidable: the nearest nilpotent matrix lies between {lower:.2g} and {upper:.2g}, and the uncertainty "
        f"{allowed:.2g} falls in between. A smaller uncertainty, or a more exact A, would decide."
    )
