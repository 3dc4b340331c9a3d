"""Small pieces of linear algebra that several methods share."""

from __future__ import annotations

import numpy as np

from ._validate import Array

EPS = float(np.finfo(float).eps)


def triangle(matrix: Array) -> Array:
    """Return the triangular factor R of the QR decomposition of ``matrix``."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))
