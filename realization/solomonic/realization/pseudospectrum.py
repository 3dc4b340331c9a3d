"""Pseudospectra: where the eigenvalues of all matrices near A lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from scipy.optimize import minimize_scalar

from ._linalg import schur
from ._resolvent import sigma_min
from ._results import Result
from ._validate import Array, as_array, as_index, as_number, as_scaled_square

__all__ = ["Pseudospectrum", "pseudospectrum"]


@dataclass(frozen=True, eq=False)
class Pseudospectrum(Result):
    r"""Values of sigma_min(A - zI) on a grid; the eps-pseudospectrum is where they are at most eps.

    Parameters
    ----------
    real : ndarray [nx]
        Real parts of the grid.
    imag : ndarray [ny]
        Imaginary parts of the grid.
    sigma : ndarray [ny, nx]
        :math:`\sigma_{\min}(A - zI)`, in the unit of A.
    eigenvalues : ndarray [n]
        The computed eigenvalues.
    schur : ndarray [n, n]
        Complex Schur form of A, from which more points are computed on request.

    Examples
    --------
    >>> portrait = pseudospectrum(np.diag([1.0, 3.0]), points=3)
    >>> portrait.refine(0.5).sigma.shape, round(portrait.radius(0.5), 6)
    ((5, 5), 3.5)
    """

    real: Array
    imag: Array
    sigma: Array
    eigenvalues: Array
    schur: Array

    def __repr__(self) -> str:
        box = f"[{self.real[0]:.3g}, {self.real[-1]:.3g}] x i[{self.imag[0]:.3g}, {self.imag[-1]:.3g}]"
        return f"Pseudospectrum(order={len(self.eigenvalues)}, {box}, {len(self.real)} x {len(self.imag)} points)"

    def refine(self, eps: float) -> Pseudospectrum:
        """Return the same box with twice the points a side; only those near the level ``eps`` are computed.

        Parameters
        ----------
        eps : float
            The level of interest, in the unit of A.

        Returns
        -------
        Pseudospectrum
            Away from the level the values are interpolated: sigma_min is 1-Lipschitz in z, so a point further
            from the level than the spacing lies on the same side of it as its neighbours.
        """
        eps = as_number(eps, "eps", "a positive level", lambda x: x > 0)
        real = np.linspace(self.real[0], self.real[-1], 2 * len(self.real) - 1)
        imag = np.linspace(self.imag[0], self.imag[-1], 2 * len(self.imag) - 1)
        sigma = np.empty((len(imag), len(real)))
        sigma[::2, ::2] = self.sigma
        sigma[::2, 1::2] = (self.sigma[:, 1:] + self.sigma[:, :-1]) / 2
        sigma[1::2] = (sigma[2::2] + sigma[:-2:2]) / 2
        spacing = 2 * np.hypot(real[1] - real[0], imag[1] - imag[0])
        new = np.ones(sigma.shape, bool)
        new[::2, ::2] = False
        near = new & (np.abs(sigma - eps) <= spacing)
        grid = real[None, :] + 1j * imag[:, None]
        sigma[near] = sigma_min(self.schur, grid[near])
        return Pseudospectrum(real, imag, sigma, self.eigenvalues, self.schur)

    def radius(self, eps: float) -> float:
        r"""Return the pseudospectral radius :math:`\max\{|z| : \sigma_{\min}(A - zI) \le \epsilon\}`.

        Parameters
        ----------
        eps : float
            The level, in the unit of A.

        Returns
        -------
        float
            The largest modulus that an eigenvalue of a matrix within ``eps`` of A can have.

        Notes
        -----
        Along a ray the crossings of the level are eigenvalues of a matrix of order 2n (exact); over the angle
        the maximum is taken on a grid and refined, so a peak narrower than the grid may be missed.

        References
        ----------
        .. [1] E. Mengi, M. L. Overton, *Algorithms for the computation of the pseudospectral radius and the
           numerical radius of a matrix*, IMA J. Numer. Anal. 25 (2005), section 2.
        """
        eps = as_number(eps, "eps", "a positive level", lambda x: x > 0)
        order = np.argsort(-np.abs(self.eigenvalues))
        angles = np.unique(
            np.concatenate([np.linspace(0, 2 * np.pi, 24, endpoint=False), np.angle(self.eigenvalues[order[:8]])])
        )
        values = [self._along(a, eps) for a in angles]
        best = int(np.argmax(values))
        width = 2 * np.pi / 24
        found = minimize_scalar(
            lambda a: -self._along(a, eps),
            bounds=(angles[best] - width, angles[best] + width),
            method="bounded",
            options={"xatol": 1e-8},
        )
        return float(max(values[best], -found.fun))  # pyright: ignore[reportAttributeAccessIssue]

    def _along(self, angle: float, eps: float) -> float:
        """Largest r with sigma_min(A - r e^(i angle) I) <= eps on one ray."""
        n = len(self.schur)
        turned = np.exp(-1j * angle) * self.schur
        eye = eps * np.eye(n)
        pencil = np.block([[1j * turned.conj().T, -eye], [eye, 1j * turned]])
        values = scipy.linalg.eigvals(pencil)
        radii = np.sort(np.imag(values)[np.abs(np.real(values)) <= 1e-7 * max(1.0, float(np.abs(values).max()))])[::-1]
        return float(radii[0]) if len(radii) and radii[0] > 0 else 0.0


def pseudospectrum(A: Any, *, box: Any = None, points: int = 41) -> Pseudospectrum:
    r"""Compute sigma_min(A - zI) on a grid in the complex plane.

    .. math:: \Lambda_\epsilon(A) = \{z : \sigma_{\min}(A - zI) \le \epsilon\}
              = \bigcup_{\|E\|_2 \le \epsilon} \Lambda(A + E).

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix.
    box : array_like [4], optional
        ``(real low, real high, imag low, imag high)``; by default the eigenvalues with a margin.
    points : int
        Points a side.

    Returns
    -------
    Pseudospectrum
        ``.real``, ``.imag``, ``.sigma``; ``.refine(eps)`` doubles the grid near a level, ``.radius(eps)``.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite; an empty box.

    Notes
    -----
    One Schur decomposition, then O(n^2) a point by inverse iteration with triangular solves (stacked SVDs up
    to order 48). The unit of sigma is that of A: compare it with ``rounding_uncertainty``.

    References
    ----------
    .. [1] L. N. Trefethen, M. Embree, *Spectra and Pseudospectra*, Princeton 2005, chapter 39.
    .. [2] S. H. Lui, *Computation of pseudospectra by continuation*, SIAM J. Sci. Comput. 18 (1997).

    Examples
    --------
    >>> import numpy as np
    >>> portrait = pseudospectrum(np.eye(16, k=1), points=5)
    >>> round(portrait.radius(1e-8), 3), round(1e-8 ** (1 / 16), 3)
    (0.318, 0.316)
    """
    a = as_scaled_square(A, "A")
    points = as_index(points, "points", 2, 10_000)
    t, _ = schur(a.astype(complex))
    values = np.diag(t).copy()
    if box is None:
        re, im = np.real(values), np.imag(values)
        centre = (re.max() + re.min()) / 2, (im.max() + im.min()) / 2
        spread = max(np.ptp(re), np.ptp(im), 0.2 * float(np.linalg.norm(a, 2)), 1e-300)
        half = 0.75 * spread
        edges = np.array([centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half])
    else:
        edges = as_array(box, "box", shape=(4,), real=True)
        if not (edges[0] < edges[1] and edges[2] < edges[3]):
            raise ValueError(f"box: expected low < high on both axes, got {edges.tolist()}")
    real, imag = np.linspace(edges[0], edges[1], points), np.linspace(edges[2], edges[3], points)
    sigma = sigma_min(t, real[None, :] + 1j * imag[:, None])
    return Pseudospectrum(real, imag, sigma, values, t)
