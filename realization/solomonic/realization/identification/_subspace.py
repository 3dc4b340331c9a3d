"""Subspace identification: MOESP, N4SID and CVA as one projection with three weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._linalg import EPS, triangle
from .._validate import Array

__all__ = ["METHODS", "Regression", "Subspace", "subspace"]

METHODS = ("cva", "moesp", "n4sid")
# By how much the weight of N4SID may amplify the noise of a direction of the past, against that of MOESP.
AMPLIFICATION = 2.0


@dataclass(frozen=True, eq=False)
class Regression:
    """Sufficient statistics of (x_{t+1}, y_t) on (x_t, u_t), as columns with few rows.

    Parameters
    ----------
    x, x_next : ndarray [r, n]
        States and the states one step later.
    u, y : ndarray [r, m], [r, p]
        Inputs and outputs of the step.
    samples : int
        Number of windows behind the r rows.
    """

    x: Array
    x_next: Array
    u: Array
    y: Array
    samples: int


@dataclass(frozen=True, eq=False)
class Subspace:
    """What the past says of the future.

    Parameters
    ----------
    singular_values : ndarray
        Of the weighted projection; for CVA the canonical correlations of past and future, given the future inputs.
    readout : ndarray [k, past * (m + p)]
        The state as a function of the past, most important component first.
    observability : ndarray [future * p, k]
        Extended observability matrix in the same coordinates.
    factor : ndarray
        The triangular factor of the windows.
    samples, past, future, inputs, outputs : int
        Windows, horizons and channels.
    """

    singular_values: Array
    readout: Array
    observability: Array
    factor: Array
    samples: int
    past: int
    future: int
    inputs: int
    outputs: int

    def regression(self, order: int) -> Regression:
        """The state of this order at t and t + 1, from the pasts at t and t + 1."""
        m, p = self.inputs, self.outputs
        uf, up = self.future * m, self.past * m
        yp = self.past * p
        r, j = self.factor, self.readout[:order]
        past = r[:, uf : uf + up + yp]
        u, y = r[:, :m], r[:, uf + up + yp : uf + up + yp + p]
        later = np.hstack([past[:, m:up], u, past[:, up + p :], y])
        return Regression(past @ j.T, later @ j.T, u, y, self.samples)


def subspace(factor: Array, samples: int, past: int, future: int, inputs: int, outputs: int, method: str) -> Subspace:
    r"""Project the future outputs on the past, along the future inputs, in the metric of the method.

    With :math:`Y_f = L_z Z_p + L_u U_f + E` the singular value decomposition is that of :math:`W_1 L_z Z_p W_2`:

    =======  ============================================  ============================
    method   :math:`W_1`                                   :math:`W_2`
    =======  ============================================  ============================
    n4sid    1                                             1, bounded
    moesp    1                                             :math:`\Pi_{U_f}^\perp`
    cva      :math:`(Y_f \Pi_{U_f}^\perp Y_f^T)^{-1/2}`    :math:`\Pi_{U_f}^\perp`
    =======  ============================================  ============================

    In orthonormal directions of :math:`Z_p` of which the future inputs leave the shares :math:`c_i^2` (one minus the
    squared canonical correlations of past and future inputs), the noise of :math:`L_z Z_p` has the size
    :math:`1 / c_i`, and that of :math:`L_z Z_p \Pi_{U_f}^\perp` is the same in all. Smooth inputs have
    :math:`c_i \approx 10^{-5}`, and extrapolation is all that N4SID would see; so the weight of a direction is
    :math:`\min(1, 2 c_i)`, which lets noise grow by a factor of 2 at most and is 1 where inputs excite.
    """
    uf = future * inputs
    zs = slice(uf, uf + past * (inputs + outputs))
    own, seen = factor[zs, zs], factor[zs, zs.stop :]
    apart = factor[zs.start :, zs.stop :]  # the future outputs given the future inputs
    # L_z by a truncated pseudo-inverse: noise-free pasts are linearly dependent.
    u, s, vt = np.linalg.svd(own)
    kept = s > s[0] * EPS * len(factor)
    projected = u[:, kept].T @ seen
    lz = (vt[kept].T @ (projected / s[kept, None])).T
    if method == "n4sid":
        weighted = _oblique(lz, own, factor[: zs.stop, zs]) if inputs else lz @ own.T
    else:
        weighted = (u[:, kept] @ projected).T
    if method == "cva":
        _, size, basis = np.linalg.svd(triangle(apart))
        strong = size > size[0] * np.sqrt(EPS) * 1e-2
        w1, w1_inverse = basis[strong] / size[strong, None], (basis[strong] * size[strong, None]).T
        left, values, _ = np.linalg.svd(w1 @ weighted, full_matrices=False)
        back, values = w1.T @ left, np.minimum(values, 1.0)
        observability = w1_inverse @ left
    else:
        left, values, _ = np.linalg.svd(weighted, full_matrices=False)
        back = observability = left
        values = values / np.sqrt(samples)
    usable = values > values[0] * EPS * len(factor) if values.size and values[0] > 0 else values > 0
    back, observability, root = back[:, usable], observability[:, usable], np.sqrt(values[usable])
    return Subspace(values, (back / root).T @ lz, observability * root, factor, samples, past, future, inputs, outputs)


def _oblique(lz: Array, own: Array, whole: Array) -> Array:
    """L_z Z_p by directions of the past ``whole``, those that the future inputs nearly tell held down."""
    _, size, basis = np.linalg.svd(whole, full_matrices=False)
    kept = size > size[0] * EPS * len(whole)
    size, basis = size[kept], basis[kept].T
    share, turn = np.linalg.svd(own @ (basis / size), full_matrices=False)[1:]
    return lz @ ((basis * size) @ turn.T * np.minimum(1.0, AMPLIFICATION * share))
