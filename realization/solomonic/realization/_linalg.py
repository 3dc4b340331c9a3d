"""Small pieces of linear algebra that several methods share."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.lapack

from ._validate import Array

EPS = float(np.finfo(float).eps)


def triangle(matrix: Array) -> Array:
    """Return the triangular factor R of the QR decomposition of ``matrix``.

    LAPACK is called with room for its blocked algorithm, which takes half the time of ``numpy.linalg.qr(mode="r")``.
    """
    rows, columns = matrix.shape
    if matrix.size == 0:
        return np.zeros((min(rows, columns), columns), np.result_type(matrix, np.float64))
    factorize: Any = scipy.linalg.lapack.get_lapack_funcs("geqrf", (matrix,))
    return np.triu(factorize(matrix, lwork=64 * columns)[0][: min(rows, columns)])


def norm2(matrix: Array) -> float:
    """Return the spectral norm (0 for an empty matrix)."""
    if matrix.size == 0:
        return 0.0
    if 1 in matrix.shape:
        return float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix, 2))


def conjugate_partition(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Turn a Weyr characteristic into Jordan block sizes, or back: the conjugate partition."""
    return tuple(sum(size > k for size in sizes) for k in range(max(sizes, default=0)))


def smallest_singular_value(matrix: Array) -> float:
    """Return the last singular value (of min(p, q) many)."""
    return float(np.linalg.svd(matrix, compute_uv=False)[-1])


def schur(matrix: Array, sort: Any = None) -> tuple[Array, Array]:
    """Return (T, Z) with matrix = Z T Z^H: real and quasi-triangular for a real matrix, complex for a complex one."""
    output = "complex" if np.iscomplexobj(matrix) else "real"
    result: Any = scipy.linalg.schur(matrix, output=output, sort=sort)
    return result[0], result[1]
