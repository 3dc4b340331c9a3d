"""The Fitting split: every matrix is a nilpotent part (eidetic memory) beside an invertible one (fading memory)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from ._linalg import norm2
from ._results import Result
from ._staircase import select, sweep_parts
from ._sylvester import separation, solve_triangular_sylvester
from ._validate import Array, as_array, as_index
from .rounding import as_certifiable

__all__ = ["FittingSplit", "ImpulseSplit", "fitting"]


class ImpulseSplit(NamedTuple):
    """An impulse response as the sum of a part that ends and a part that fades.

    Parameters
    ----------
    finite : ndarray [steps, p, m]
        The part through the nilpotent block: zero from lag ``index`` on.
    fading : ndarray [steps, p, m]
        The part through the core.
    """

    finite: Array
    fading: Array


@dataclass(frozen=True, eq=False)
class FittingSplit(Result):
    r"""A matrix as a nilpotent part beside an invertible core.

    .. math:: A = T \begin{pmatrix} N & 0 \\ 0 & R \end{pmatrix} T^{-1}, \qquad N^{\text{index}} = 0.

    Parameters
    ----------
    verdict : bool or None
        True: every matrix within the uncertainty splits into parts of the same dimensions. None: the split is
        one of several that the uncertainty allows (``reason`` says which modes are in doubt).
    transform : ndarray [n, n]
        T; its first columns span the nilpotent part.
    nilpotent : ndarray [d, d]
        N, strictly upper triangular.
    core : ndarray [n - d, n - d]
        R, invertible.
    index : int
        Index of nilpotency of N, 0 where there is none.
    weyr : tuple of int
        Weyr characteristic of A at 0.
    sep : float
        Smallest singular value of the map Z -> N Z - Z R: how far the two spectra are, in the sense that
        matters.
    projector_norm : float
        Spectral norm of the projector onto the nilpotent part along the core; 1 for orthogonal parts.
    residual : float
        ``|A T - T diag(N, R)| / (|A| |T|)``.
    condition : float
        Spectral condition number of T.
    ambiguity : float
        Radius of the band in which a fading mode cannot be told from an eidetic one.
    ambiguous : ndarray
        Eigenvalues of the core inside that band.
    uncertainty : float
        Bound on the norm of the error of A.
    basis : ndarray [n, n]
        Unitary Q with Q^H A Q = [[N, X], [0, R]]: the split that is always well conditioned.
    coupling : ndarray [d, n - d]
        X of that form.
    reason : str
        Why the verdict is what it is.

    Examples
    --------
    >>> split = fitting(np.diag([0.0, 0.5]))
    >>> split.nil_order, split.drazin_inverse().round(9).tolist()
    (1, [[0.0, 0.0], [0.0, 2.0]])
    """

    verdict: bool | None
    transform: Array
    nilpotent: Array
    core: Array
    index: int
    weyr: tuple[int, ...]
    sep: float
    projector_norm: float
    residual: float
    condition: float
    ambiguity: float
    ambiguous: Array
    uncertainty: float
    basis: Array
    coupling: Array
    reason: str

    @property
    def nil_order(self) -> int:
        """Dimension d of the nilpotent part."""
        return len(self.nilpotent)

    def __repr__(self) -> str:
        return (
            f"FittingSplit({self.verdict}, nilpotent={self.nil_order} (index {self.index}), "
            f"core={len(self.core)}, sep={self.sep:.2g}, condition={self.condition:.2g})"
        )

    def impulse_response(self, B: Any, C: Any, steps: int) -> ImpulseSplit:
        r"""Split the impulse response into what ends after ``index`` steps and what fades.

        .. math:: C A^k B = C_N N^k B_N + C_R R^k B_R, \qquad k = 0, \dots, \text{steps} - 1.

        Parameters
        ----------
        B : array_like [n, m]
            Input map.
        C : array_like [p, n]
            Read-out.
        steps : int
            Number of lags.

        Returns
        -------
        ImpulseSplit
            ``.finite`` (zero from lag ``index`` on) and ``.fading``, both [steps, p, m]; their sum is the
            response. Entry k belongs to lag k of ``x_t = A x_{t-1} + B u_t, y_t = C x_t``, or to lag k + 1
            where the state is read before the input enters.
        """
        n, d = len(self.transform), self.nil_order
        b = as_array(B, "B", shape=(n, "m"))
        c = as_array(C, "C", shape=("p", n))
        steps = as_index(steps, "steps", 1, 10**7)
        new_b, new_c = np.linalg.solve(self.transform, b), c @ self.transform
        finite = _powers(self.nilpotent, new_b[:d], new_c[:, :d], steps, stop=self.index)
        fading = _powers(self.core, new_b[d:], new_c[:, d:], steps)
        return ImpulseSplit(finite, fading)

    def drazin_inverse(self) -> Array:
        r"""Return the Drazin inverse :math:`T\, \mathrm{diag}(0, R^{-1})\, T^{-1}`: it inverts the fading
        part only.

        Returns
        -------
        ndarray [n, n]
            The Drazin inverse of A.
        """
        d = self.nil_order
        middle = np.zeros_like(self.transform)
        if d < len(middle):
            middle[d:, d:] = np.linalg.inv(self.core)
        return np.linalg.solve(self.transform.T, (self.transform @ middle).T).T


def _powers(a: Array, b: Array, c: Array, steps: int, stop: int | None = None) -> Array:
    out = np.zeros((steps, c.shape[0], b.shape[1]), np.result_type(a, b, c))
    for k in range(steps if stop is None else min(steps, stop)):
        out[k] = c @ b
        b = a @ b
    return out


def fitting(A: Any, *, uncertainty: float | None = None) -> FittingSplit:
    r"""Split a matrix into its nilpotent part and its invertible core.

    .. math:: A = T\, \mathrm{diag}(N, R)\, T^{-1}, \qquad
              C A^k B = \underbrace{C_N N^k B_N}_{0 \text{ from } k = \text{index}} + C_R R^k B_R.

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix, real or complex.
    uncertainty : float, optional
        Bound on the spectral norm of the error of A; default ``8 n eps |A|``.

    Returns
    -------
    FittingSplit
        ``.transform``, ``.nilpotent``, ``.core``, ``.index``, ``.sep``, ``.projector_norm``, ``.residual``
        and the ambiguity band.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; or a negative uncertainty.

    Notes
    -----
    The dimension comes from the staircase, not from eigenvalues, after normal modes (eigenvectors of A and of
    :math:`A^*`) have been split off as a direct sum. The staircase basis gives
    :math:`Q^H A Q = [[N, X], [0, R]]`; the Sylvester equation :math:`N Z - Z R = -X` gives
    :math:`T = Q [[I, Z], [0, I]]`. The projector has norm :math:`\sqrt{1 + \|Z\|^2}`. A fading mode with
    :math:`|\lambda| < \|N\| (\text{uncertainty} / \|N\|)^{1/\text{index}}` cannot be told from an eidetic
    one. The verdict is True where :math:`4 \sqrt{k}\, e\, (\|X\| + e) < (\mathrm{sep} - 2 e)^2`, e being the
    uncertainty and what the staircase discarded, k the order of the smaller part: each matrix within the
    uncertainty then has an invariant subspace of this dimension near this one. Cost: :math:`O(n^3)`.

    References
    ----------
    .. [1] G. W. Stewart, *Error and perturbation bounds for subspaces associated with certain eigenvalue
       problems*, SIAM Review 15 (1973), Theorem 4.1.
    .. [2] J. W. Demmel, *Computing stable eigendecompositions of matrices*, Linear Algebra Appl. 79 (1986).

    Examples
    --------
    >>> import numpy as np
    >>> split = fitting(np.block([[np.eye(3, k=1), np.ones((3, 1))], [np.zeros((1, 3)), 0.5 * np.eye(1)]]))
    >>> split.index, split.core.round(12), split.verdict
    (3, array([[0.5]]), True)
    >>> finite, fading = split.impulse_response(np.ones((4, 1)), np.ones((1, 4)), 5)
    >>> finite.ravel().round(9), fading.ravel().round(9)
    (array([-19.,  -6.,  -1.,   0.,   0.]), array([23.    , 11.5   ,  5.75  ,  2.875 ,  1.4375]))
    """
    a, norm, allowed = as_certifiable(A, uncertainty)
    n = len(a)
    if norm == 0:
        empty = np.zeros((0, 0))
        eye = np.eye(n)
        return FittingSplit(
            True, eye, np.zeros((n, n)), empty, 1, (n,), np.inf, 1.0, 0.0, 1.0, 0.0, np.zeros(0), allowed, eye,
            np.zeros((n, 0)), "A is zero.",
        )  # fmt: skip
    run = select(sweep_parts(a, norm, allowed), allowed, stated=uncertainty is not None)
    d = run.nil_order
    exact = run.form - run.defect
    exact[d:, :d] = 0
    nil, coupling, core = exact[:d, :d], exact[:d, d:], exact[d:, d:]
    z, projector, sep = np.zeros((d, n - d), a.dtype), 1.0, np.inf
    if 0 < d < n:
        z = solve_triangular_sylvester(nil, core, -coupling)
        projector = float(np.hypot(1, norm2(z))) if np.max(np.abs(z), initial=0) < 1e150 else np.inf
        sep = separation(nil, core)
    transform = run.basis.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        transform[:, d:] += run.basis[:, :d] @ z
    size = norm2(nil)
    band = size * (allowed / size) ** (1 / run.index) if size > allowed and run.index else allowed
    modes = np.linalg.eigvals(core) if d < n else np.zeros(0)
    inside = modes[np.abs(modes) <= band] if d else modes[:0]
    finite = np.isfinite(projector)
    condition = float(np.linalg.cond(transform)) if finite else np.inf
    residual = np.inf
    if finite:
        block = scipy.linalg.block_diag(nil, core) if 0 < d < n else exact
        residual = norm2(a @ transform - transform @ block) / (norm * norm2(transform))
    error = allowed + run.discarded
    apart = 0.9 * sep - 2 * error  # sep is an estimate within a few per cent
    least = 2 * np.sqrt(np.sqrt(min(d, n - d)) * error * (norm2(coupling) + error))
    verdict, reason = _judge(error, sep, apart > least, band, len(inside), d)
    return FittingSplit(
        verdict, transform, nil, core, run.index, run.weyr, sep, projector, residual, condition, band, inside,
        allowed, run.basis, coupling, reason,
    )  # fmt: skip


def _judge(error: float, sep: float, apart: bool, band: float, count: int, d: int) -> tuple[bool | None, str]:
    if d == 0:
        return True, "No singular value stands at zero: there is no nilpotent part."
    if apart:
        return True, f"The parts are apart: sep {sep:.2g} against an error of {error:.2g}."
    return None, (
        f"Undecidable: at sep {sep:.2g} and with the coupling between the parts, an error of {error:.2g} could let "
        f"them exchange modes. {count} fading modes lie below modulus {band:.2g}, where they cannot be told from "
        f"eidetic ones."
    )
