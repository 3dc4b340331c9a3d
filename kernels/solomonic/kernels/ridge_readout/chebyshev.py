"""Chebyshev iteration for (H + lambda I) x = q, where H is only known by its products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["chebyshev", "positive_norm"]

#: Stands for a Frobenius norm of zero, where nothing has been written: its square is a normal float32 number.
_TINY = 1e-18


def positive_norm(square: Tensor) -> Tensor:
    """A norm from its square, kept away from 0 so that it can be divided by and differentiated."""
    return square.clamp(min=_TINY**2).sqrt()


def chebyshev(product: Callable[[Tensor], Tensor], q: Tensor, norm: Tensor, ridge: float, iterations: int) -> Tensor:
    """x after so many iterations for (H + ridge F I) x = q, where F = ``norm`` bounds the eigenvalues of H.

    ``product`` gives H x; ``norm`` is broadcast with q. The eigenvalues lie from ridge F to (ridge + 1) F, so that the
    step is 2 / (2 ridge F + F) and the error falls by about ``1 - 2 sqrt(ridge)`` an iteration.
    """
    lam = ridge * norm
    step = 2 / (2 * lam + norm)
    rho2 = (1 / (2 * ridge + 1)) ** 2
    x, before, omega = step * q, torch.zeros_like(q), 2.0
    for _ in range(iterations):
        omega = 1 / (1 - rho2 * omega / 4)
        residual = product(x) + lam * x - q
        x, before = omega * (x - step * residual) + (1 - omega) * before, x
    return x
