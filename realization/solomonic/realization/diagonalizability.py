"""Is a matrix diagonalizable? A verdict with the distance it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._clusters import EigenvalueCluster, analyse_cluster, clusters_table, find_clusters
from ._defective_distance import defective_lower_bound, defective_upper_bound
from ._linalg import EPS, schur, smallest_singular_value
from ._results import Result
from .rounding import as_certifiable

__all__ = ["DiagonalizabilityCertificate", "diagonalizability"]


@dataclass(frozen=True, eq=False)
class DiagonalizabilityCertificate(Result):
    """What can be said of the diagonalizability of a matrix.

    Parameters
    ----------
    verdict : bool or None
        True: no defective matrix lies within the uncertainty, or those eigenvalues that it joins have full
        eigenspaces within it (as in the identity). False: a defective matrix lies within the uncertainty and
        its eigenspace is not full within it. None: the bracket of the distance contains the uncertainty.
    distance : tuple of float
        (lower, upper) bounds of the spectral-norm distance to the nearest defective matrix: an infimum, 0 for
        any multiple eigenvalue, the identity's included.
    condition : float
        Condition number of the matrix of unit eigenvectors; 1 for a normal matrix, infinite for a defective
        one.
    clusters : tuple of EigenvalueCluster
        The eigenvalues, joined where the uncertainty joins them, each with its structure.
    index : int
        Size of the largest Jordan block over the clusters (1 for a diagonalizable structure).
    uncertainty : float
        Bound on the norm of the error of A that the verdict allows for.
    reason : str
        Why the verdict is what it is.
    """

    verdict: bool | None
    distance: tuple[float, float]
    condition: float
    clusters: tuple[EigenvalueCluster, ...]
    index: int
    uncertainty: float
    reason: str

    @property
    def weyr(self) -> tuple[tuple[int, ...], ...]:
        """Weyr characteristic of each cluster."""
        return tuple(cluster.weyr for cluster in self.clusters)

    def __repr__(self) -> str:
        lower, upper = self.distance
        return (
            f"DiagonalizabilityCertificate({self.verdict}, distance=[{lower:.2g}, {upper:.2g}], "
            f"condition={self.condition:.2g}, clusters={len(self.clusters)})"
        )

    def _repr_html_(self) -> str:
        return clusters_table(self.clusters, f"diagonalizable: {self.verdict}. {self.reason}")


def diagonalizability(A: Any, *, uncertainty: float | None = None) -> DiagonalizabilityCertificate:
    r"""Decide whether a matrix is diagonalizable over the complex numbers, within what is known of it.

    .. math:: w(A) = \inf\{\|A - B\|_2 : B \text{ defective}\}, \qquad \mathrm{lower} \le w(A) \le
              \mathrm{upper}.

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix, real or complex.
    uncertainty : float, optional
        Bound on the spectral norm of the error of A, in the unit of A; default ``8 n eps |A|``.

    Returns
    -------
    DiagonalizabilityCertificate
        ``.verdict``, ``.distance``, ``.condition``, ``.clusters``, ``.index``, ``.reason``.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; or a negative uncertainty.

    Notes
    -----
    Lower bound: Bauer-Fike discs, or Stewart's bound for each eigenvalue in turn. Upper bound: two
    eigenvalues merged inside a unitary compression, saddle points of :math:`\sigma_{\min}(A - zI)` (at such a
    point the change :math:`\sigma u v^*` makes z multiple), and the staircases of clusters. Both count
    rounding as :math:`n \epsilon \|A\|_2`. The nearest defective matrix may be complex for a real A.

    A multiple eigenvalue has defective matrices arbitrarily near: the identity is diagonalizable and its
    distance is 0. So the verdict looks at each cluster: where its block less its mean is within the
    uncertainty of zero, a matrix with a full eigenspace is as good an explanation of the data as any. Cost:
    :math:`O(n^3)` up to order 60, some :math:`O(n^4)` beyond for the lower bound (a triangular inverse for
    each eigenvalue).

    References
    ----------
    .. [1] R. Alam, S. Bora, R. Byers, M. L. Overton, *Characterization and construction of the nearest
       defective matrix via coalescence of pseudospectral components*, Linear Algebra Appl. 435 (2011).
    .. [2] G. W. Stewart, *Error and perturbation bounds for subspaces associated with certain eigenvalue
       problems*, SIAM Review 15 (1973), Theorem 4.1.
    .. [3] J. H. Wilkinson, *On neighbouring matrices with quadratic elementary divisors*, Numer. Math. 44
       (1984).

    Examples
    --------
    >>> import numpy as np
    >>> diagonalizability(np.diag([1.0, 2.0, 4.0]))
    DiagonalizabilityCertificate(True, distance=[0.5, 0.5], condition=1, clusters=3)
    >>> diagonalizability(np.array([[1.0, 1.0], [0.0, 1.0]])).verdict
    False
    >>> diagonalizability(np.eye(3)).verdict, diagonalizability(np.eye(3)).distance[0]
    (True, 0.0)
    """
    a, norm, allowed = as_certifiable(A, uncertainty)
    n = len(a)
    t, z = schur(a.astype(complex))
    groups = find_clusters(t, allowed)
    clusters = tuple(analyse_cluster(t, z, members, allowed) for members in groups)
    clusters = tuple(sorted(clusters, key=lambda c: (-abs(c.centre), c.centre.real, c.centre.imag)))
    values, vectors = np.linalg.eig(a)
    smallest = smallest_singular_value(vectors)
    condition = float(np.linalg.norm(vectors, 2) / smallest) if smallest > 0 else np.inf
    if n == 1:
        reason = "A number: diagonal, and no matrix of order 1 is defective."
        return DiagonalizabilityCertificate(True, (np.inf, np.inf), 1.0, clusters, 1, allowed, reason)
    if norm == 0:
        reason = "A is zero: a multiple eigenvalue with a full eigenspace, so at distance 0 from defective matrices."
        return DiagonalizabilityCertificate(True, (0.0, 0.0), 1.0, clusters, 1, allowed, reason)
    centres = [(c.centre, float(np.ptp(np.abs(c.eigenvalues - c.centre)))) for c in clusters if c.size > 1]
    saddle, _, second = defective_upper_bound(t, z, norm, centres)
    joined = [c for c in clusters if c.size > 1]
    upper = min([saddle, *(c.discarded + n * EPS * norm for c in joined)])
    if any(c.semisimple and c.discarded == 0 for c in joined):
        upper = 0.0
    lower = min(defective_lower_bound(t, z, norm, vectors, values, a), upper)
    full = all(c.semisimple and c.discarded <= allowed for c in joined)
    blocks = [c for c in joined if c.index > 1 and c.discarded <= allowed and c.kept > 2 * allowed]
    index = max(c.index for c in clusters)
    if lower > allowed:
        verdict = True
        reason = f"No defective matrix lies nearer than {lower:.2g}; the uncertainty is {allowed:.2g}."
    elif upper <= allowed and (blocks or (saddle <= allowed and 2 * allowed < second < np.inf)):
        verdict = False
        rest = f"blocks of size up to {max(c.index for c in blocks)}" if blocks else f"a singular value of {second:.2g}"
        reason = (
            f"A defective matrix lies at {upper:.2g}, within the uncertainty {allowed:.2g}, and its eigenspace is not "
            f"full: {rest} stands out of the uncertainty where a full eigenspace has zeros."
        )
    elif joined and full:
        verdict = True
        reason = (
            f"{len(joined)} multiple eigenvalue(s), each with a full eigenspace within the uncertainty {allowed:.2g}. "
            f"The distance to a defective matrix is at most {upper:.2g}, as it is for every multiple eigenvalue, the "
            f"identity's too: an arbitrarily small change can make a Jordan block of it."
        )
    else:
        verdict = None
        reason = (
            f"Undecidable: the nearest defective matrix lies between {lower:.2g} and {upper:.2g}, and the uncertainty "
            f"is {allowed:.2g}. A smaller uncertainty, or a more exact A, would decide."
        )
    return DiagonalizabilityCertificate(verdict, (lower, upper), condition, clusters, index, allowed, reason)
