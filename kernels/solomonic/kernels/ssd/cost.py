"""Cost of `ssd`: arithmetic, exponentials and bytes as functions of the sizes.

B batch, T time, H heads, P channels, N states, GB and GC groups, Q tokens of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

from solomonic.kernels.cost import Cost
from solomonic.kernels.ssd.configs import config

__all__ = ["Sizes", "backward", "forward", "recurrence", "step"]


class Sizes(NamedTuple):
    """Sizes of a call; `itemsize` and `dt_itemsize` are the bytes of an element of x, B, C and of dt."""

    B: int
    T: int
    H: int
    P: int
    N: int
    GB: int
    GC: int
    itemsize: int = 2
    dt_itemsize: int = 4

    @property
    def work(self) -> int:
        """Bytes of an element of a state."""
        return 8 if self.itemsize == 8 else 4


def _states(s: Sizes) -> int:
    """Bytes of one state of every head."""
    return s.B * s.H * s.P * s.N * s.work


def _inputs(s: Sizes) -> int:
    """Bytes of x, B, C, dt, A and D."""
    tokens = s.B * s.T
    rows = s.H * s.P + (s.GB + s.GC) * s.N
    return tokens * (rows * s.itemsize + s.H * s.dt_itemsize) + 2 * s.H * s.work


def forward(s: Sizes, arch: str = "sm_90") -> Cost:
    """Cost of the forward kernel with an initial state, in its checked-in configuration.

    Parameters
    ----------
    s : Sizes
        The call.
    arch : str
        Architecture, for the configuration.

    Returns
    -------
    Cost
        A chunk of Q tokens takes ``2 Q Q N`` for C B', ``2 Q Q P`` for its product with x, and ``2 Q N P`` each for
        reading and writing the state.
    """
    Q, BP, *_ = config("forward", arch, s.itemsize, s.P, s.N)
    chunks, blocks = s.B * s.H * -(-s.T // Q), -(-s.P // BP)
    flops = chunks * (blocks * 2 * Q * Q * s.N + 2 * Q * Q * s.P + 4 * Q * s.N * s.P)
    compulsory = _inputs(s) + s.B * s.T * s.H * s.P * s.itemsize + 2 * _states(s)
    tokens = s.B * s.T
    again = (s.H * blocks - s.GB) + (s.H * blocks - s.GC)
    reread = tokens * (again * s.N * s.itemsize + (blocks - 1) * s.H * s.dt_itemsize)
    return Cost(flops, chunks * blocks * (Q * Q + 2 * Q + 1), compulsory, compulsory, reread)


def backward(s: Sizes, arch: str = "sm_90") -> Cost:
    """Cost of the three backward kernels; arguments as for `forward`."""
    tokens = s.B * s.T
    heads_P, heads_N = s.H * s.P * s.itemsize, s.H * s.N * s.itemsize
    groups = (s.GB + s.GC) * s.N * s.itemsize
    scalars = s.H * s.dt_itemsize
    compulsory = 2 * _inputs(s) + tokens * heads_P + 4 * _states(s)
    flops = exponentials = 0
    # Between the tokens of a chunk: dy x', C B' and B' with the tile; x dy' and C' with it; C B' and dy' with it.
    for kernel, square in (("C", s.P + 2 * s.N), ("B", s.P + s.N), ("x", s.N + s.P)):
        Q = config(kernel, arch, s.itemsize, s.P, s.N).Q
        chunks = s.B * s.H * -(-s.T // Q)
        flops += chunks * (2 * Q * Q * square + 4 * Q * s.N * s.P)
        exponentials += chunks * (Q * Q + 2 * Q + 1)
    # x, dy, B, C, dt in; dC and the products out. x, dy, C, dt in; dB out. All in; dx and ddt out.
    wide = s.itemsize if s.GB == s.GC == s.H else s.work
    reads = 3 * 2 * heads_P + 2 * groups + s.GC * s.N * s.itemsize + 3 * scalars
    writes = 2 * s.H * s.N * wide + heads_P + 3 * s.H * s.work
    moved = tokens * (reads + writes) + 5 * _states(s)
    reread = tokens * (2 * (2 * heads_N - groups) + heads_N - s.GC * s.N * s.itemsize)
    return Cost(flops, exponentials, compulsory, moved, reread)


def recurrence(s: Sizes) -> Cost:
    """Cost of one token after the other with the state at hand: the floor of a processor without matrix units."""
    updates = s.B * s.T * s.H * s.P * s.N
    compulsory = _inputs(s) + s.B * s.T * s.H * s.P * s.itemsize + 2 * _states(s)
    return Cost(5 * updates, s.B * s.T * s.H, compulsory, compulsory, 0)


def step(s: Sizes) -> Cost:
    """Cost of decoding one token: the state is read and written once."""
    return recurrence(s._replace(T=1))
