"""How far a stored matrix may be from the one that was meant: rounding as a norm bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._linalg import EPS
from ._validate import Array, as_number, as_scaled_square, to_numpy

__all__ = ["rounding_uncertainty"]

#: Bits of the significand, the hidden one included, and the smallest positive normal number.
_FORMATS = {
    "float64": (53, 2.0**-1022),
    "float32": (24, 2.0**-126),
    "float16": (11, 2.0**-14),
    "bfloat16": (8, 2.0**-126),
    "float8_e4m3fn": (4, 2.0**-6),
    "float8_e5m2": (3, 2.0**-14),
}


def rounding_uncertainty(A: Any, dtype: Any = "float32") -> float:
    r"""Bound the norm of the error that storing a matrix in a floating-point format has caused.

    .. math:: \|\Delta A\|_2 \le \tfrac{u}{1-u}\, \bigl\| |A| \bigr\|_2 + \sqrt{pq}\, u\, x_{\min},
              \qquad u = 2^{-\text{bits}}.

    Parameters
    ----------
    A : array_like [p, q] or torch.Tensor
        The weights as they are stored.
    dtype : str, numpy.dtype or torch.dtype
        The format that held them: float64, float32, float16, bfloat16, float8_e4m3fn or float8_e5m2.

    Returns
    -------
    float
        A bound on the spectral norm of (true weights - stored weights), in the unit of A; give it as
        ``uncertainty`` to a certificate.

    Raises
    ------
    ValueError
        A format that is not in the list, or a matrix that is not finite.

    Notes
    -----
    Rounding to nearest is assumed, entry by entry: :math:`|\Delta a| \le u |a| / (1 - u)`, or half the
    spacing of the subnormal numbers. The bound is sharp within a factor of the square root of the size. It
    does not cover errors made before the weights were stored. Cost: one norm.

    References
    ----------
    .. [1] N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, Theorem 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> rounding_uncertainty(np.eye(4), "bfloat16") < 0.004
    True
    """
    name = str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name not in _FORMATS:
        raise ValueError(f"dtype: expected one of {', '.join(_FORMATS)}, got {name!r}")
    a = to_numpy(A, "A")
    if a.ndim != 2 or a.dtype.kind not in "biufc" or not np.all(np.isfinite(a)):
        raise ValueError(f"A: expected a finite matrix [p, q], got shape {list(a.shape)}, dtype {a.dtype}")
    bits, smallest = _FORMATS[name]
    unit = 2.0**-bits
    size = float(np.linalg.norm(np.abs(a.astype(complex)), 2)) if a.size else 0.0
    return unit / (1 - unit) * size + float(np.sqrt(a.size)) * unit * smallest


def float64_uncertainty(norm: float, order: int) -> float:
    """Stand-in where the caller states no uncertainty: what backward stable float64 arithmetic leaves in A."""
    return 8 * order * EPS * norm


def as_certifiable(A: Any, uncertainty: Any) -> tuple[Array, float, float]:
    """Check the arguments that every certificate shares; return A, its 2-norm and the uncertainty."""
    a = as_scaled_square(A, "A")
    norm = float(np.linalg.norm(a, 2))
    if uncertainty is None:
        return a, norm, float64_uncertainty(norm, len(a))
    expected = "a bound of at least 0 on the norm of the error of A"
    return a, norm, as_number(uncertainty, "uncertainty", expected, lambda x: x >= 0)
