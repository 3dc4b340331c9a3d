"""Matrices whose structure is known by construction: for tests, lessons and counterexamples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from ._linalg import EPS, conjugate_partition
from ._validate import Array, as_array, as_index, as_number
from .bilinear.system import BilinearSystem

__all__ = ["KnownStructure", "cyclic_shift", "jordan_matrix", "known_structure", "random_bilinear", "random_orthogonal"]


class KnownStructure(NamedTuple):
    """A matrix with the structure it was made with.

    Parameters
    ----------
    matrix : ndarray [n, n]
        Direct sum of Jordan blocks at 0 and an invertible part: exact, before any change of basis.
    weyr : tuple of int
        Weyr characteristic at 0.
    jordan : tuple of int
        Jordan block sizes at 0, largest first.
    core_order : int
        Dimension of the invertible part.
    """

    matrix: Array
    weyr: tuple[int, ...]
    jordan: tuple[int, ...]
    core_order: int


def _direct_sum(*blocks: Any) -> Any:
    result: Any = scipy.linalg.block_diag(*blocks)
    return result


def jordan_matrix(sizes: Any, eigenvalues: Any = 0.0) -> Any:
    """Return a direct sum of Jordan blocks.

    Parameters
    ----------
    sizes : sequence of int
        Block sizes.
    eigenvalues : float, complex or sequence
        One for all blocks, or one a block.

    Returns
    -------
    ndarray [n, n]
        Upper bidiagonal, ones above the diagonal inside each block.

    Examples
    --------
    >>> jordan_matrix([2, 1], 3.0)
    array([[3., 1., 0.],
           [0., 3., 0.],
           [0., 0., 3.]])
    """
    sizes = as_array(sizes, "sizes", ndim=1, real=True)
    if np.any(sizes < 1) or np.any(sizes % 1):
        raise ValueError(f"sizes: expected block sizes, integers of at least 1, got {sizes.tolist()}")
    values = as_array(eigenvalues, "eigenvalues", ndim=(0, 1))
    if values.shape not in ((), (1,), sizes.shape):
        raise ValueError(f"eigenvalues: expected one, or one for each of the {len(sizes)} blocks, got {values.size}")
    sizes, values = sizes.astype(int), np.broadcast_to(values, sizes.shape)
    return scipy.linalg.block_diag(*(np.eye(k, k=1) + v * np.eye(k) for k, v in zip(sizes, values, strict=True)))


def cyclic_shift(weights: Any) -> Array:
    """Return the weighted cyclic shift; its distance to the nilpotent matrices is its smallest weight, exactly.

    Parameters
    ----------
    weights : array_like [n]
        Entry (k, k + 1) holds weights[k]; the last one closes the cycle at (n - 1, 0).

    Returns
    -------
    ndarray [n, n]
        All singular values are moduli of weights; leaving out the smallest breaks the cycle, and a nilpotent
        matrix is singular.

    Examples
    --------
    >>> cyclic_shift([1.0, 1.0, 1e-3]).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.001, 0.0, 0.0]]
    """
    w = as_array(weights, "weights", ndim=1)
    return np.diag(w) @ np.roll(np.eye(len(w)), 1, axis=1)


def random_orthogonal(order: int, rng: np.random.Generator) -> Array:
    """Return a random orthogonal matrix.

    Parameters
    ----------
    order : int
        n.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray [n, n]
        The QR factor of a Gaussian matrix.

    Examples
    --------
    >>> q = random_orthogonal(3, np.random.default_rng(0))
    >>> bool(np.allclose(q @ q.T, np.eye(3)))
    True
    """
    return np.linalg.qr(rng.standard_normal((as_index(order, "order", 1, 10**6),) * 2))[0]


def known_structure(
    rng: np.random.Generator,
    *,
    largest: int = 128,
    core: str = "few",
    moduli: tuple[float, float] = (1e-3, 1e3),
) -> KnownStructure:
    r"""Draw a direct sum of Jordan blocks at 0 with an invertible part of given moduli.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    largest : int
        Largest order n.
    core : str
        "few": at most 3 modes anywhere in ``moduli``. "outside": any number, outside the ambiguity band, of
        modulus at least (n eps max modulus)^(1/index). "any": any number anywhere. "none": nilpotent.
    moduli : tuple of float
        Range of the moduli of the core's eigenvalues, drawn log-uniformly.

    Returns
    -------
    KnownStructure
        The matrix is exact; a change of basis is the caller's.

    Notes
    -----
    With many modes inside the band, float64 cannot hold the question: within the rounding of the rotated
    matrix lie others with a larger nilpotent part.

    Examples
    --------
    >>> known_structure(np.random.default_rng(1), largest=6).jordan
    (1,)
    """
    if core not in ("few", "outside", "any", "none"):
        raise ValueError(f"core: expected one of few, outside, any, none, got {core!r}")
    n = int(rng.integers(1, largest + 1))
    most = {"few": min(3, n - 1), "none": 0}.get(core, n - 1)
    order = 0 if most == 0 or rng.random() < 0.25 else int(rng.integers(1, most + 1))
    sizes, left = [], n - order
    while left:
        sizes.append(int(rng.integers(1, left + 1)))
        left -= sizes[-1]
    low, high = moduli
    if core == "outside":
        low = max(low, (n * EPS * high) ** (1 / max(sizes)))
    blocks, left = [], order
    while left:
        r = np.exp(rng.uniform(np.log(low), np.log(high)))
        if left >= 2 and rng.random() < 0.5:
            c, s = np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)
            blocks.append(r * np.array([[c, -s], [s, c]]))
            left -= 2
        else:
            blocks.append(np.array([[r * rng.choice([-1, 1])]]))
            left -= 1
    jordan = tuple(sorted(sizes, reverse=True))
    matrix = _direct_sum(jordan_matrix(sizes), *blocks)
    return KnownStructure(matrix, conjugate_partition(jordan), jordan, order)


def random_bilinear(
    order: int, inputs: int = 1, outputs: int = 1, *, radius: float = 0.8, rng: int | np.random.Generator | None = None
) -> BilinearSystem:
    r"""Return a random bilinear system, minimal with probability 1 and mean-square stable under white inputs.

    .. math:: \rho\Bigl(A \otimes A + \sum_j N_j \otimes N_j\Bigr) = r.

    Parameters
    ----------
    order, inputs, outputs : int
        n, m and p.
    radius : float
        r: the growth of the state's covariance a step under white inputs of variance 1; below 1 for a stable system.
    rng : int, numpy.random.Generator or None
        Source of the entries, normal ones: a seed, a generator, or None for a fresh one.

    Returns
    -------
    BilinearSystem
        With normal B, C and D.

    Examples
    --------
    >>> round(random_bilinear(3, rng=0).mean_square_radius(), 6)
    0.8
    """
    n, m = as_index(order, "order", 1, 10**4), as_index(inputs, "inputs", 1, 10**4)
    p = as_index(outputs, "outputs", 1, 10**4)
    radius = as_number(radius, "radius", "a number above 0", lambda x: x > 0)
    rng = np.random.default_rng(rng)
    a, more = rng.standard_normal((n, n)), rng.standard_normal((m, n, n)) / np.sqrt(m)
    b, c, d = rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m))
    factor = np.sqrt(radius / BilinearSystem(a, more, b, c, d).mean_square_radius())
    return BilinearSystem(factor * a, factor * more, b, c, d)
