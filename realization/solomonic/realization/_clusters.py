"""Clusters of eigenvalues that an uncertainty cannot keep apart, and their structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from ._html import table
from ._linalg import EPS, conjugate_partition, norm2
from ._resolvent import sigma_min
from ._results import Result
from ._staircase import Staircase, sweep
from ._validate import Array

__all__ = ["EigenvalueCluster", "analyse_cluster", "clusters_table", "find_clusters", "reorder"]


@dataclass(frozen=True, eq=False)
class EigenvalueCluster(Result):
    """Eigenvalues that the uncertainty joins, and the structure they have together.

    Parameters
    ----------
    centre : complex
        Mean of the eigenvalues: the eigenvalue of the nearby matrix that has the structure exactly.
    eigenvalues : ndarray
        The computed eigenvalues of the cluster.
    weyr : tuple of int
        Weyr characteristic at the centre; (1,) for a simple eigenvalue, (k,) for k equal ones with a full
        eigenspace.
    discarded : float
        A change of A of this norm gives the cluster exactly this structure, at the centre.
    kept : float
        Smallest singular value counted as nonzero in that structure: infinite for full eigenspaces.
    condition : float
        Norm of the spectral projector of the cluster: what an error of A is multiplied with in its mean
        eigenvalue.
    """

    centre: complex
    eigenvalues: Array
    weyr: tuple[int, ...]
    discarded: float
    kept: float
    condition: float

    @property
    def size(self) -> int:
        """Algebraic multiplicity."""
        return len(self.eigenvalues)

    @property
    def index(self) -> int:
        """Size of the largest Jordan block."""
        return len(self.weyr)

    @property
    def jordan(self) -> tuple[int, ...]:
        """Sizes of the Jordan blocks, largest first."""
        return conjugate_partition(self.weyr)

    @property
    def semisimple(self) -> bool:
        """Whether the eigenspace is full: no Jordan block larger than 1."""
        return self.index <= 1

    def __repr__(self) -> str:
        return (
            f"EigenvalueCluster({self.centre:.6g}, size={self.size}, jordan={self.jordan}, "
            f"discarded={self.discarded:.2g})"
        )


def clusters_table(clusters: tuple[EigenvalueCluster, ...], caption: str) -> str:
    """The clusters as an HTML table."""
    head = ("eigenvalue", "size", "Jordan blocks", "discarded", "condition")
    rows = [
        (f"{c.centre:.6g}", str(c.size), str(c.jordan), f"{c.discarded:.2g}", f"{c.condition:.2g}") for c in clusters
    ]
    return table(head, rows, caption=caption)


def reorder(t: Array, z: Array, members: Array) -> tuple[Array, Array]:
    """Reorder a complex Schur form so that the diagonal entries ``members`` (booleans) come first."""
    work = scipy.linalg.get_lapack_funcs(("trsen",), (t,))[0]
    out = work(members.astype(np.int32), t, z, job=b"N")
    return out[0], out[1]


def find_clusters(t: Array, allowed: float) -> list[Array]:
    """Join eigenvalues that lie in one component of the pseudospectrum at the level ``allowed``.

    Neighbours along the shortest spanning tree are joined where sigma_min(T - zI) stays at or below the level
    at five points of the segment between them. Returns arrays of positions on the diagonal of ``t``.
    """
    values = np.diag(t)
    n = len(values)
    if n == 1:
        return [np.array([0])]
    distance = np.abs(values[:, None] - values[None, :])
    scale = distance.max()
    if scale == 0:
        return [np.arange(n)]
    tree = minimum_spanning_tree(1 + distance / scale).tocoo()  # small weights would count as no edge
    fractions = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    first, second = values[tree.row], values[tree.col]
    points = first[:, None] + fractions[None, :] * (second - first)[:, None]
    joined = sigma_min(t, points).max(axis=1) <= allowed + n * EPS * norm2(t)
    joined |= np.abs(second - first) <= allowed
    graph = scipy.sparse.csr_array((np.ones(int(joined.sum())), (tree.row[joined], tree.col[joined])), shape=(n, n))
    count, labels = connected_components(graph, directed=False)
    return [np.flatnonzero(labels == k) for k in range(count)]


def _full(runs: list[Staircase], allowed: float) -> Staircase | None:
    """The run that makes the whole cluster one eigenvalue with the widest gap, kept values above the uncertainty."""
    whole = [run for run in runs if run.nil_order == len(run.form)]
    sure = [run for run in whole if run.kept > allowed] or whole
    if not sure:
        return None
    best = sure[0]
    for run in sure[1:]:
        if run.gap > 10 * best.gap or (best.discarded > allowed and run.discarded < best.discarded):
            best = run
    return best


def analyse_cluster(t: Array, z: Array, members: Array, allowed: float) -> EigenvalueCluster:
    """Find the structure of one cluster: the staircase of its block of the Schur form, less the mean eigenvalue.

    The block is a unitary compression, so a change of it is a change of A of the same norm.
    """
    n, k = len(t), len(members)
    mask = np.zeros(n, bool)
    mask[members] = True
    ordered, _ = reorder(t, z, mask)
    block, rest, coupling = ordered[:k, :k], ordered[k:, k:], ordered[:k, k:]
    values = np.diag(block).copy()
    centre = complex(values.mean())
    condition = 1.0
    if k < n:
        (trsyl,) = scipy.linalg.get_lapack_funcs(("trsyl",), (block,))
        x, scale, _ = trsyl(block, rest, -coupling, isgn=-1)
        size = norm2(x) / scale if scale > 0 and np.all(np.isfinite(x)) else np.inf
        condition = float(np.hypot(1, size)) if size < 1e150 else np.inf
    if k == 1:
        return EigenvalueCluster(centre, values, (1,), 0.0, np.inf, condition)
    shifted = block - centre * np.eye(k)
    size = norm2(shifted)
    if size <= allowed or size == 0:
        return EigenvalueCluster(centre, values, (k,), size, np.inf, condition)
    run = _full(sweep(shifted, size, max(allowed, n * EPS * norm2(t))), allowed)
    if run is None:
        triangle = Staircase(size, (k,), np.eye(k), shifted, shifted, size, np.inf)
        return EigenvalueCluster(centre, values, triangle.weyr, size, np.inf, condition)
    return EigenvalueCluster(centre, values, run.weyr, run.discarded, run.kept, condition)
