"""Dynamic textures: a film as the output of a linear model with some twenty states."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from .._html import table
from .._repair import RepairWarning
from .._results import Result
from .._systems import Matrices
from .._validate import Array, as_array, as_index, as_number, frozen
from ..gramians import gramian_factors
from ..identification._noise import positive_part
from ..identification._scan import linear_states
from ..identification._stable import nearest_stable, spectral_radius
from ..stochastic.reverse_kernel import reverse_kernel

__all__ = ["DynamicTexture"]


@dataclass(frozen=True, eq=False)
class DynamicTexture(Result):
    r"""A film as a stationary process: :math:`x_{t+1} = A x_t + w_t`, frame = mean + C x_t.

    Parameters
    ----------
    A : ndarray [n, n]
        Transition, stable.
    C : ndarray [H W channels, n]
        Orthonormal images.
    Q : ndarray [n, n]
        Covariance of the state noise.
    mean : ndarray [H W channels]
        Mean frame.
    shape : tuple of int
        Shape of a frame.
    states : ndarray [T, n]
        States of the film that was fitted.
    explained : float
        Share of the film's variance that n images hold.
    stability_price : float
        By how much the constraint of stability raised the sum of squares of one-step errors, relative to the states'; 0
        where the free fit was stable.

    Examples
    --------
    >>> from solomonic.realization import film
    >>> texture = DynamicTexture.fit(film("waves", frames=80, size=16), order=6)
    >>> texture.radius < 1, texture.synthesize(5, rng=0).shape
    (True, (5, 16, 16))
    """

    A: Array
    C: Array
    Q: Array
    mean: Array
    shape: tuple[int, ...]
    states: Array
    explained: float
    stability_price: float

    @classmethod
    def fit(cls, film: Any, order: int = 20) -> DynamicTexture:
        r"""Fit a film: images by singular value decomposition, dynamics by least squares under stability.

        .. math:: Y - \bar y = U S V^T,\quad C = U_n,\quad X = S_n V_n^T,\quad
                  \min_{\rho(A) < 1} \sum_t \|x_{t+1} - A x_t\|^2 .

        Parameters
        ----------
        film : array_like [T, H, W] or [T, H, W, channels]
            Frames.
        order : int
            Number of states n.

        Returns
        -------
        DynamicTexture
            Stable; states are principal components.

        Raises
        ------
        ValueError
            Fewer than ``order + 2`` frames, a film that does not move, NaN.

        Notes
        -----
        The singular value decomposition goes through the T x T matrix of inner products where there are more pixels
        than frames. Cost: :math:`O(T^2 H W)`.

        References
        ----------
        .. [1] G. Doretto, A. Chiuso, Y. N. Wu, S. Soatto, *Dynamic textures*, Int. J. Computer Vision 51 (2003),
           section 4.
        .. [2] S. M. Siddiqi, B. Boots, G. J. Gordon, *A constraint generation approach to learning stable linear
           dynamical systems*, NIPS 2007.
        """
        frames = as_array(film, "film", ndim=(3, 4), real=True)
        n, steps = as_index(order, "order", 1, 10**6), len(frames)
        if steps < n + 2:
            raise ValueError(f"film: expected at least {n + 2} frames for {n} states, got {steps}; lower order=")
        flat = frames.reshape(steps, -1)
        mean = flat.mean(0)
        moving = flat - mean
        if moving.shape[1] > steps:
            values, vectors = np.linalg.eigh(moving @ moving.T)
            size = np.sqrt(np.maximum(values[::-1], 0.0))
            time = vectors[:, ::-1]
        else:
            time, size, _ = np.linalg.svd(moving, full_matrices=False)
        total = float(np.sum(size**2))
        if total <= 1e-24 * float(np.sum(flat**2)) or size[min(n, len(size)) - 1] <= 1e-10 * size[0]:
            shown = int(np.sum(size > 1e-10 * max(size[0], 1e-300))) if total > 0 else 0
            raise ValueError(
                f"film: expected motion in at least {n} directions, got {shown}; lower order= to that, or check that "
                f"the frames differ"
            )
        states = time[:, :n] * size[:n]
        images = moving.T @ (time[:, :n] / size[:n])
        a, price = _stable_dynamics(states)
        rest = states[1:] - states[:-1] @ a.T
        return cls(
            frozen(a),
            frozen(images),
            frozen(rest.T @ rest / len(rest)),
            frozen(mean),
            frames.shape[1:],
            frozen(states),
            float(np.sum(size[:n] ** 2) / total),
            price,
        )

    @property
    def order(self) -> int:
        """Number of states n."""
        return len(self.A)

    @property
    def radius(self) -> float:
        """Spectral radius of A, below 1."""
        return spectral_radius(self.A)

    def __repr__(self) -> str:
        return (
            f"DynamicTexture(order={self.order}, frame={'x'.join(map(str, self.shape))}, radius={self.radius:.4f}, "
            f"explained={100 * self.explained:.1f} %)"
        )

    def _repr_html_(self) -> str:
        rows = [
            [
                "moduli of the eigenvalues of A",
                np.array2string(np.sort(np.abs(np.linalg.eigvals(self.A))), precision=3),
            ],
            ["frames that were fitted", str(len(self.states))],
            ["price of stability", f"{self.stability_price:.2g}"],
        ]
        return table(["", ""], rows, caption=repr(self))

    def state_covariance(self) -> Array:
        """Return the stationary covariance P = A P A^T + Q of the states, [n, n]."""
        values, vectors = np.linalg.eigh(self.Q)
        drive = vectors * np.sqrt(np.maximum(values, 0.0))
        quiet = Matrices(self.A, drive, np.eye(self.order), np.zeros((self.order, self.order)), True)
        root = gramian_factors(quiet)[0]
        return root @ root.T

    def step(self, speed: float = 1.0, *, backwards: bool = False) -> tuple[Array, Array]:
        r"""Return transition and noise covariance of one frame at another speed or in the other direction.

        .. math:: A_s = A^s,\quad Q_s = P - A_s P A_s^T; \qquad \text{backwards: } \bar A_s = P A_s^T P^{-1},\quad
                  \bar Q_s = P - \bar A_s P \bar A_s^T .

        All have the stationary covariance P. Where A has no real power s that keeps Q_s positive semidefinite (the
        film is no sample of a process in continuous time), the power is taken of the nearest that has, and a
        RepairWarning says by how much Q_s was moved.

        Parameters
        ----------
        speed : float
            s > 0; 2 shows every second frame, 0.5 puts one between two.
        backwards : bool
            Run time backwards.

        Returns
        -------
        tuple of ndarray [n, n]
            Transition and noise covariance.
        """
        s = as_number(speed, "speed", "a positive number", lambda x: x > 0)
        p = self.state_covariance()
        a = np.linalg.matrix_power(self.A, int(s)) if s == int(s) else _real_power(self.A, s)
        q = p - a @ p @ a.T
        clean = positive_part(q)
        moved = float(np.linalg.norm(clean - q) / np.linalg.norm(p))
        if moved > 1e-6:
            warnings.warn(
                f"at speed {s:g} the noise covariance is not positive semidefinite; it was moved by {moved:.2g} of the "
                f"states' covariance",
                RepairWarning,
                stacklevel=2,
            )
        if not backwards:
            return a, clean
        kernel = reverse_kernel(a, clean, p)
        return kernel.gain, kernel.covariance

    def synthesize(
        self,
        frames: int,
        *,
        speed: float = 1.0,
        backwards: bool = False,
        x0: Any = None,
        noise: bool = True,
        rng: int | np.random.Generator | None = None,
    ) -> Array:
        """Make new frames.

        Parameters
        ----------
        frames : int
            How many.
        speed : float
            2 is twice as fast, 0.5 half as fast.
        backwards : bool
            Run time backwards: by the backward model, driven by noise of its own, not by showing a film in reverse.
        x0 : array_like [n], optional
            State of the first frame; drawn from the stationary law by default.
        noise : bool
            Drive the model with noise; without, the film fades to its mean.
        rng : int or numpy.random.Generator, optional
            Source of randomness.

        Returns
        -------
        ndarray [frames, H, W] or [frames, H, W, channels]
            In the units of the film.
        """
        count = as_index(frames, "frames", 1, 10**7)
        a, q = self.step(speed, backwards=backwards)
        source = np.random.default_rng(rng)
        values, vectors = np.linalg.eigh(q)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drive = source.standard_normal((count, self.order)) @ root.T if noise else np.zeros((count, self.order))
        if x0 is None:
            values, vectors = np.linalg.eigh(self.state_covariance())
            start = (vectors * np.sqrt(np.maximum(values, 0.0))) @ source.standard_normal(self.order)
        else:
            start = as_array(x0, "x0", shape=(self.order,), real=True)
        return self.render(linear_states(a, drive, start)[:count])

    def render(self, states: Any) -> Array:
        """Turn ``states`` [T, n] into frames [T, H, W]."""
        x = as_array(states, "states", shape=("T", self.order), real=True)
        return (self.mean + x @ self.C.T).reshape(len(x), *self.shape)


def _stable_dynamics(states: Array) -> tuple[Array, float]:
    """Least squares of x_{t+1} on x_t under stability, in whitened coordinates; the price as in ``identify``."""
    past, later = states[:-1], states[1:]
    a = np.linalg.lstsq(past, later, rcond=None)[0].T
    bound = 1 - 1 / (10 * len(states))
    if spectral_radius(a) <= bound:
        return a, 0.0
    root = np.linalg.cholesky(past.T @ past)
    fit = nearest_stable(np.linalg.solve(root, a @ root), bound)
    whole = float(np.sum(np.linalg.solve(root, later.T) ** 2))
    return root @ fit.matrix @ np.linalg.inv(root), fit.distance**2 / whole


def _real_power(a: Array, s: float) -> Array:
    """A^s by its eigenvalues; those on the negative axis turn by half a circle in both directions and are averaged."""
    power = np.asarray(scipy.linalg.fractional_matrix_power(a, s))
    return np.real(power)
