"""One step back: the law of the state before, given the state after, also where the process is not stationary."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from .._validate import Array, as_array, as_square

__all__ = ["ReverseKernel", "reverse_kernel"]


class ReverseKernel(NamedTuple):
    r"""The law of :math:`x_t` given :math:`x_{t+1}`: Gaussian with mean ``gain @ x_{t+1}``.

    Parameters
    ----------
    gain : ndarray [n, n]
        :math:`G = P_t A^T P_{t+1}^{-1}`.
    covariance : ndarray [n, n]
        :math:`P_t - G P_{t+1} G^T`.
    after : ndarray [n, n]
        :math:`P_{t+1} = A P_t A^T + Q`.
    """

    gain: Array
    covariance: Array
    after: Array


def reverse_kernel(A: Any, Q: Any, P: Any) -> ReverseKernel:
    r"""Reverse one step of a Gauss-Markov chain.

    .. math:: x_{t+1} = A x_t + w,\; w \sim N(0, Q),\; x_t \sim N(0, P)
              \quad\Longrightarrow\quad
              x_t = G x_{t+1} + \bar w, \qquad G = P A^T (A P A^T + Q)^{-1} .

    Parameters
    ----------
    A : array_like [n, n]
        Transition.
    Q : array_like [n, n]
        Covariance of the noise of the step.
    P : array_like [n, n]
        Covariance of the state before the step.

    Returns
    -------
    ReverseKernel
        ``.gain``, ``.covariance``, ``.after``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, NaN or infinite, a singular covariance after the step.

    Notes
    -----
    This is Bayes' rule, and every method that runs time backwards: in a stationary process
    :math:`G = P A^T P^{-1}`, the transition of the backward model of Lindquist and Picci in the coordinates of the
    forward one. Step by step through :math:`x_{t+1} = \sqrt{1 - \beta} x_t + \sqrt\beta w` it is the reverse process
    of a diffusion model, :math:`G x = (x + \beta \nabla \log p_{t+1}(x)) / \sqrt{1 - \beta}` with the score
    :math:`\nabla \log p_{t+1}(x) = -P_{t+1}^{-1} x`. For a small step, :math:`A = I + F h`, :math:`Q = g g^T h`, it is
    Anderson's reverse equation, :math:`x_t \approx x_{t+1} - h (F x - g g^T \nabla \log p(x)) + g \sqrt h\, \bar w`.

    References
    ----------
    .. [1] A. Lindquist, G. Picci, *On the stochastic realization problem*, SIAM J. Control Optim. 17 (1979).
    .. [2] B. D. O. Anderson, *Reverse-time diffusion equation models*, Stochastic Processes Appl. 12 (1982).
    .. [3] J. Ho, A. Jain, P. Abbeel, *Denoising diffusion probabilistic models*, NeurIPS 2020, equations 6 and 7.

    Examples
    --------
    >>> step = reverse_kernel([[0.8]], [[0.36]], [[1.0]])
    >>> step.gain.round(12).tolist(), step.covariance.round(12).tolist()
    ([[0.8]], [[0.36]])
    """
    a = as_square(A, "A", real=True)
    q = as_array(Q, "Q", shape=a.shape, real=True)
    p = as_array(P, "P", shape=a.shape, real=True)
    after = a @ p @ a.T + q
    after = (after + after.T) / 2
    values = np.linalg.eigvalsh(after)
    if values[0] <= 1e-14 * max(values[-1], 1e-300):
        raise ValueError(
            f"P, Q: expected a covariance after the step that can be inverted, got eigenvalues from {values[0]:.1e} to "
            f"{values[-1]:.1e}; leave out the states that are combinations of others"
        )
    gain = scipy.linalg.solve(after, a @ p, assume_a="pos").T
    # Joseph's form stays positive semidefinite.
    left = np.eye(len(a)) - gain @ a
    covariance = left @ p @ left.T + gain @ q @ gain.T
    return ReverseKernel(gain, (covariance + covariance.T) / 2, after)
