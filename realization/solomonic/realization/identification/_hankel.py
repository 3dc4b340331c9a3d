"""Block Hankel matrices: products by FFT, and a randomised singular value decomposition of large ones."""

from __future__ import annotations

import numpy as np
import scipy.fft

from .._validate import Array

__all__ = ["HankelOperator", "leading_svd"]

# Matrices with at most this many entries are formed and decomposed exactly.
DENSE = 1_500_000


class HankelOperator:
    """The block Hankel matrix whose block (i, j) is h[i + j], as an operator.

    Parameters
    ----------
    h : ndarray [rows + columns - 1, p, m]
        Blocks along the anti-diagonals.
    rows, columns : int
        Numbers of block rows and block columns.
    """

    def __init__(self, h: Array, rows: int, columns: int) -> None:
        self.h, self.rows, self.columns = h[: rows + columns - 1], rows, columns
        self.outputs, self.inputs = h.shape[1:]
        self.length = scipy.fft.next_fast_len(rows + columns - 1, real=True)
        self._kept: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.rows * self.outputs, self.columns * self.inputs

    def dense(self) -> Array:
        """The matrix itself."""
        index = np.arange(self.rows)[:, None] + np.arange(self.columns)
        return self.h[index].transpose(0, 2, 1, 3).reshape(self.shape)

    @property
    def _spectrum(self) -> Array:
        """FFT of the blocks over time, as [p, m, F]."""
        if self._kept is None:
            self._kept = np.fft.rfft(np.ascontiguousarray(self.h.transpose(1, 2, 0)), self.length)
        return self._kept

    def _correlate(self, spectrum: Array, blocks: Array, size: int) -> Array:
        """out[i] = sum_j h[i + j] blocks[j] for i < size, from the FFT of h (or of its transposed blocks)."""
        _, channels, count = blocks.shape
        transformed = np.conj(np.fft.rfft(np.ascontiguousarray(blocks.transpose(1, 2, 0)), self.length))
        rows = []
        for row in spectrum:
            total = row[0] * transformed[0]
            for c in range(1, channels):
                total += row[c] * transformed[c]
            rows.append(np.fft.irfft(total, self.length)[:, :size])
        return np.stack(rows).transpose(2, 0, 1).reshape(-1, count)

    def product(self, matrix: Array) -> Array:
        """Multiply H with a matrix [columns m, k]."""
        return self._correlate(self._spectrum, matrix.reshape(self.columns, self.inputs, -1), self.rows)

    def transposed_product(self, matrix: Array) -> Array:
        """Multiply the transpose of H with a matrix [rows p, k]."""
        blocks = matrix.reshape(self.rows, self.outputs, -1)
        return self._correlate(self._spectrum.transpose(1, 0, 2), blocks, self.columns)


def leading_svd(
    operator: HankelOperator, rank: int, rng: np.random.Generator, *, oversample: int = 10, passes: int = 2
) -> tuple[Array, Array, Array]:
    """Leading singular triplets (U, s, V) of a Hankel operator: exact where it is small, randomised where it is not.

    References: N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1.
    """
    rows, columns = operator.shape
    if rows * columns <= DENSE:
        u, s, vt = np.linalg.svd(operator.dense(), full_matrices=False)
        return u[:, :rank], s, vt[:rank].T
    size = min(rank + oversample, rows, columns)
    basis, _ = np.linalg.qr(operator.product(rng.standard_normal((columns, size))))
    for _ in range(passes):
        basis, _ = np.linalg.qr(operator.transposed_product(basis))
        basis, _ = np.linalg.qr(operator.product(basis))
    v, s, wt = np.linalg.svd(operator.transposed_product(basis), full_matrices=False)
    return (basis @ wt.T)[:, :rank], s, v[:, :rank]
