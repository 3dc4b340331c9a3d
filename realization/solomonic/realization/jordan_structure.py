"""The Jordan structure of a matrix, as far as its uncertainty lets it be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._clusters import EigenvalueCluster, analyse_cluster, clusters_table, find_clusters
from ._linalg import schur
from ._results import Result
from .rounding import as_certifiable

__all__ = ["JordanStructure", "jordan_structure"]


@dataclass(frozen=True, eq=False)
class JordanStructure(Result):
    """Eigenvalues and Jordan block sizes of a matrix within the uncertainty of A.

    Parameters
    ----------
    verdict : bool or None
        True: for every cluster a change of A within the uncertainty gives exactly the structure shown, and
        its blocks stand out of the uncertainty. None: some cluster does not resolve (its ``discarded`` is
        above, or its ``kept`` is below, the uncertainty).
    clusters : tuple of EigenvalueCluster
        Largest modulus first; simple eigenvalues are clusters of size 1.
    uncertainty : float
        Bound on the norm of the error of A.
    """

    verdict: bool | None
    clusters: tuple[EigenvalueCluster, ...]
    uncertainty: float

    @property
    def blocks(self) -> tuple[tuple[complex, tuple[int, ...]], ...]:
        """Pairs (eigenvalue, Jordan block sizes)."""
        return tuple((cluster.centre, cluster.jordan) for cluster in self.clusters)

    @property
    def weyr(self) -> tuple[tuple[int, ...], ...]:
        """Weyr characteristic of each cluster."""
        return tuple(cluster.weyr for cluster in self.clusters)

    @property
    def index(self) -> int:
        """Size of the largest block of all."""
        return max(cluster.index for cluster in self.clusters)

    def __repr__(self) -> str:
        parts = ", ".join(f"{centre:.4g}: {sizes}" for centre, sizes in self.blocks[:6])
        return f"JordanStructure({self.verdict}, {parts}{', ...' if len(self.clusters) > 6 else ''})"

    def _repr_html_(self) -> str:
        return clusters_table(self.clusters, f"Jordan structure within {self.uncertainty:.2g}: {self.verdict}")


def jordan_structure(A: Any, *, uncertainty: float | None = None) -> JordanStructure:
    r"""Find the Jordan structure of the most degenerate matrix within the uncertainty.

    .. math:: A + E \sim \bigoplus_k \bigoplus_j J_{n_{kj}}(c_k), \qquad \|E_k\|_2 \le \text{uncertainty}
              \text{ for each cluster } k.

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix, real or complex.
    uncertainty : float, optional
        Bound on the spectral norm of the error of A; default ``8 n eps |A|``.

    Returns
    -------
    JordanStructure
        ``.clusters`` with their centre, Weyr characteristic, Jordan sizes, discarded part and projector norm.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; or a negative uncertainty.

    Notes
    -----
    The Jordan form is not a continuous function of the matrix, so it is not computed: a generic change splits
    every block. What is computed are clusters (components of the pseudospectrum at the level of the
    uncertainty) and the staircase of each at its mean. Each E_k is a change inside one unitary compression;
    they are stated one by one, not jointly. Cost: :math:`O(n^3)` and a reordering for each cluster.

    References
    ----------
    .. [1] B. Kågström, A. Ruhe, *An algorithm for numerical computation of the Jordan normal form of a
       complex matrix*, ACM Trans. Math. Softw. 6 (1980).
    .. [2] Z. Zeng, T.-Y. Li, *A numerical method for computing the Jordan canonical form*, arXiv:2103.02086.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([2.0, 2.0, 2.0, 5.0]) + np.diag([1.0, 0.0, 0.0], k=1)
    >>> jordan_structure(A)
    JordanStructure(True, 5+0j: (1,), 2+0j: (2, 1))
    """
    a, _, allowed = as_certifiable(A, uncertainty)
    t, z = schur(a.astype(complex))
    clusters = [analyse_cluster(t, z, members, allowed) for members in find_clusters(t, allowed)]
    clusters.sort(key=lambda c: (-abs(c.centre), c.centre.real, c.centre.imag))
    resolved = all(c.size == 1 or c.discarded <= allowed < c.kept for c in clusters)
    return JordanStructure(True if resolved else None, tuple(clusters), allowed)
