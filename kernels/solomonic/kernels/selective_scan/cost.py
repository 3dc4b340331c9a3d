"""Cost of `selective_scan`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from solomonic.kernels.cost import Cost
from solomonic.kernels.selective_scan.configs import config

__all__ = ["backward", "forward"]


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


def backward(B: int, T: int, E: int, N: int, itemsize: int = 2) -> Cost:
    """Cost of the backward kernel with an initial state, and of the sums over its parts; arguments as for `forward`.

    Returns
    -------
    Cost
        `moved` has the states before the chunks, and the parts of the gradients of B, C, A and D, which are written and
        read once more. Rows of x, dt and B before and after a chunk's are loaded again: that is in `reread`.
    """
    work = 8 if itemsize == 8 else 4
    Q, BE, _ = config("backward", N)
    programs = -(-E // BE)
    wide, narrow, states = B * T * E, B * T * N, B * E * N
    parameters = (E * N + E) * work
    compulsory = (5 * wide + 4 * narrow) * itemsize + 2 * parameters + 2 * states * work
    starts = B * -(-T // Q) * E * N * work
    parts = 2 * programs * narrow * work + (states + B * E) * work
    moved = compulsory + starts + 2 * parts
    reread = (3 * wide + narrow) * itemsize + (programs - 1) * 3 * narrow * itemsize
    return Cost(wide * (26 * N + 9), 3 * wide * N, compulsory, moved, reread)
