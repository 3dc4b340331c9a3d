"""Configurations of the Triton kernels of `selective_scan`, checked in. No tuning at run time.

They were chosen by what the kernels compile to (``make kernels``): no spills for 16 and 64 states.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Config", "config"]


class Config(NamedTuple):
    """How one kernel runs.

    Attributes
    ----------
    Q : int
        Tokens in a chunk.
    BE : int
        Channels of a program.
    warps : int
        Warps of a program.
    """

    Q: int
    BE: int
    warps: int


# (kernel, states up to) -> Q, BE, warps. The numbers of a program are Q BE N.
_TABLE = {
    ("forward", 16): Config(32, 16, 4),
    ("forward", 64): Config(32, 8, 8),
    ("forward", 256): Config(16, 4, 8),
    ("backward", 16): Config(32, 8, 8),
    ("backward", 64): Config(16, 4, 8),
    ("backward", 256): Config(16, 2, 8),
}


def config(kernel: str, states: int) -> Config:
    """The configuration of a kernel.

    Parameters
    ----------
    kernel : {"forward", "backward"}
        Which pass.
    states : int
        States N of a channel.

    Returns
    -------
    Config
        The row of the table for the next larger number of states.
    """
    return next(row for (name, most), row in _TABLE.items() if name == kernel and states <= most)
