"""The orthogonal staircase: dimensions of the null spaces of A, A^2, ... by rank decisions on A alone.

At a tolerance tau the unitary Q makes Q^H A Q block upper triangular: diagonal blocks of sizes nu_1 >= nu_2
>= ... that are zero up to what was discarded (singular values up to tau), and a last block, the core, that is
left. Where all blocks above the diagonal have full column rank, nu is exactly the Weyr characteristic, at the
eigenvalue 0, of the matrix without the discarded part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._linalg import EPS, norm2, smallest_singular_value
from ._normal_modes import NormalModes, split_normal_modes
from ._validate import Array

__all__ = ["Staircase", "select", "staircase", "sweep", "sweep_parts"]


@dataclass(frozen=True, eq=False)
class Staircase:
    """One run at one tolerance.

    Parameters
    ----------
    tau : float
        The tolerance.
    weyr : tuple of int
        Sizes of the null blocks.
    basis : ndarray [n, n]
        The unitary Q; its first sum(weyr) columns span the null space of a power of the nearby matrix.
    form : ndarray [n, n]
        Q^H A Q with nothing discarded.
    defect : ndarray [n, n]
        What must be subtracted from ``form`` to have the structure exactly.
    discarded : float
        Spectral norm of ``defect``.
    kept : float
        Smallest singular value that was counted as nonzero: of the blocks above the diagonal, and of the
        core.
    """

    tau: float
    weyr: tuple[int, ...]
    basis: Array
    form: Array
    defect: Array
    discarded: float
    kept: float

    @property
    def nil_order(self) -> int:
        """Dimension of the nilpotent part."""
        return sum(self.weyr)

    @property
    def index(self) -> int:
        """Number of steps: the index of the eigenvalue 0."""
        return len(self.weyr)

    @property
    def gap(self) -> float:
        """Ratio of the smallest kept to the largest discarded singular value."""
        floor = EPS * float(np.linalg.norm(self.form))
        return float(self.kept / max(self.discarded, floor)) if floor else np.inf


def _chain(block: Array, tau: float, nu: int, svd: tuple[Array, Array, Array]) -> tuple[Array, list[int]]:
    """Null space of ``block`` and the steps above it while all nu chains go on: one SVD for the whole run.

    With W_j the newest vectors, the next ones are W_{j+1} = A^+ W_j made orthogonal to all before; they go on
    as long as the left null space U_0 does not see W_j. The quantity compared with tau is |U_0^H W_j| /
    |W_{j+1} before normalisation|, in the unit of A. Returns the vectors as rows, orthonormal, and the sizes.
    """
    u, s, vh = svd
    m = len(s)
    rows = np.empty((m, m), block.dtype)
    rows[:nu] = vh[m - nu :].conj()
    rows[:nu] = rows[:nu].conj()  # rows hold v^H: products below stay contiguous
    left, right, inverse = u[:, m - nu :], vh[: m - nu], 1 / s[: m - nu]
    keep = u[:, : m - nu]
    newest, k, sizes = vh[m - nu :].conj().T, nu, [nu]
    while k + nu <= m and nu < m:
        seen = norm2(left.conj().T @ newest)
        if seen > 0.9:
            break
        x = right.conj().T @ (inverse[:, None] * (keep.conj().T @ newest))
        for _ in range(2):
            x -= rows[:k].conj().T @ (rows[:k] @ x)
        if nu == 1:
            size = float(np.linalg.norm(x))
            new = x / size if size else x
        else:
            new, r = np.linalg.qr(x)
            size = float(np.linalg.svd(r, compute_uv=False)[-1])
        if size == 0 or seen > tau * size:
            break
        new -= rows[:k].conj().T @ (rows[:k] @ new)
        new = new / np.linalg.norm(new) if nu == 1 else np.linalg.qr(new)[0]
        rows[k : k + nu] = new.conj().T
        newest = new
        k += nu
        sizes.append(nu)
    return rows[:k], sizes


def staircase(
    a: Array, tau: float, first: tuple[Array, Array, Array] | None = None, modes: NormalModes | None = None
) -> Staircase:
    """Run the staircase at tolerance ``tau``; ``first`` may hold the SVD (u, s, vh) of ``a``.

    With ``modes``, an orthogonal direct sum, those of modulus above ``tau`` go to the core and take no part in the
    steps. Cost: O(n^3) for each change of the block size, so O(n^3) on a single long chain.
    """
    n = part = len(a)
    basis, rest = np.eye(n, dtype=a.dtype), a
    if modes is not None:
        part -= int(np.sum(modes.moduli > tau))
        basis = modes.basis.copy()
        rest = basis[:, :part].conj().T @ a @ basis[:, :part]
    done, sizes = 0, []
    while done < part:
        known = first is not None and done == 0 and len(first[1]) == part
        u, s, vh = first if known and first is not None else np.linalg.svd(rest)
        nu = int(np.sum(s <= tau))
        if sizes:
            nu = min(nu, sizes[-1])
        if nu == 0:
            break
        rows, steps = _chain(rest, tau, nu, (u, s, vh))
        k = len(rows)
        turn = np.linalg.qr(rows.conj().T, mode="complete")[0]
        turn[:, :k] = rows.conj().T
        basis[:, done:part] = basis[:, done:part] @ turn
        rest = turn[:, k:].conj().T @ rest @ turn[:, k:]
        sizes += steps
        done += k
    form = basis.conj().T @ a @ basis
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    defect = np.zeros_like(form)
    kept = [np.inf]
    for i in range(len(sizes)):
        lo, hi = edges[i], edges[i + 1]
        defect[lo:, lo:hi] = form[lo:, lo:hi]
        if i + 1 < len(sizes):
            above = form[lo:hi, hi : edges[i + 2]]
            single = above.shape[1] == 1
            kept.append(float(np.linalg.norm(above) if single else smallest_singular_value(above)))
    if done < n:
        kept.append(smallest_singular_value(form[done:, done:]))
    return Staircase(float(tau), tuple(sizes), basis, form, defect, norm2(defect), float(min(kept)))


def sweep(
    a: Array, norm: float, uncertainty: float, *, max_runs: int = 8, modes: NormalModes | None = None
) -> list[Staircase]:
    """Run the staircase at the tolerances where its answer can change, smallest first.

    The first run is at max(uncertainty, n eps |A|). From there upwards each next tolerance is the smallest
    singular value that the last run kept; downwards, to the rounding of A, only where the first run left no
    clear gap.
    """
    n = len(a)
    first = None
    if modes is None:
        u, s, vh = np.linalg.svd(a)
        first = (u, s, vh)
    floor = n * EPS * norm
    runs = [staircase(a, max(uncertainty, floor), first, modes)]
    tau = runs[0].tau
    while runs[0].gap < 1e6 and tau > 4 * EPS * norm and len(runs) < max_runs // 2:
        tau = max(tau / 16, 2 * EPS * norm)
        runs.insert(0, staircase(a, tau, first, modes))
        if runs[0].gap > 1e8:
            break
    while len(runs) < max_runs:
        last = runs[-1]
        tau = max(last.kept * (1 + 1e-6), last.tau * 2)
        if not np.isfinite(last.kept) or tau > 0.25 * norm:
            break
        runs.append(staircase(a, tau, first, modes))
    return runs


def sweep_parts(a: Array, norm: float, uncertainty: float) -> list[Staircase]:
    """``sweep``, after the normal modes have been split off where a first sweep leaves a core.

    Within the rounding of A such modes are an orthogonal direct sum with the rest: the rest alone is asked for chains,
    and a chain cannot take up a mode whose k-th power drowns in the rounding.
    """
    runs = sweep(a, norm, uncertainty)
    if (runs[0].index <= 1 or runs[0].nil_order == len(a)) and runs[0].gap > 1e6:
        return runs
    modes = split_normal_modes(a, norm, max(uncertainty, len(a) * EPS * norm))
    return runs if modes is None else sweep(a, norm, uncertainty, modes=modes)


def select(runs: list[Staircase], uncertainty: float, *, stated: bool = False) -> Staircase:
    """Choose the run with the widest gap among those whose kept singular values exceed the uncertainty.

    What discards more than the uncertainty must show a clear gap, of 1e6. It may then discard as much as the gap
    allows where the uncertainty is the default one, because A may have been through arithmetic that the default knows
    nothing of; where the caller has stated one, 10 n times as much, because errors grow over the steps, and no more
    null vectors than A has singular values within the uncertainty.
    """
    clear = 1e6
    sure = [run for run in runs if run.kept > uncertainty] or runs
    if stated:
        most = 10 * len(runs[0].form) * uncertainty
        null = max((run.weyr[:1] for run in runs if run.tau <= uncertainty), default=runs[0].weyr[:1])
        near = [run for run in sure if run.discarded <= most and run.gap > clear and run.weyr[:1] <= null]
        sure = [run for run in sure if run.discarded <= uncertainty or run in near] or sure
    best = sure[0]
    for run in sure[1:]:
        if run.gap > 10 * best.gap and (run.discarded <= uncertainty or run.gap > clear):
            best = run
    return best
