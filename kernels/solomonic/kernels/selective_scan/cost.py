"""Cost of `selective_scan`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from solomonic.kernels.cost import Cost
from solomonic.kernels.selective_scan.configs import config

__all__ = ["forward"]


def forward(B: int, T: int, E: int, N: int, itemsize: int = 2) -> Cost:
    """Cost of the forward kernel with an initial state and without gradients.

    Parameters
    ----------
    B, T, E, N : int
        Batch, tokens, channels and states.
    itemsize : int
        Bytes of an element of x, dt, B and C.

    Returns
    -------
    Cost
        Every program reads B and C again, from the cache: that is in `reread`. Compositions of the scan inside a chunk
        are not counted.
    """
    work = 8 if itemsize == 8 else 4
    programs = -(-E // config("forward", N).BE)
    compulsory = B * T * (3 * E + 2 * N) * itemsize + (E * N + E + 2 * B * E * N) * work
    reread = (programs - 1) * B * T * 2 * N * itemsize
    return Cost(B * T * E * (6 * N + 2), B * T * E * N, compulsory, compulsory, reread)
