"""Configurations of the Triton kernels of `select_innovations`, checked in. No tuning at run time."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["INNOVATION", "MOST_TOKENS", "Config", "merge_warps"]

#: Stored tokens and candidates of a refresh that one program can sort.
MOST_TOKENS = 4096


class Config(NamedTuple):
    """How the innovation kernel runs.

    Attributes
    ----------
    BT, BC : int
        Tokens of a program, and channels that it takes at a time.
    warps : int
        Warps of a program.
    """

    BT: int
    BC: int
    warps: int


INNOVATION = Config(16, 128, 4)


def merge_warps(length: int) -> int:
    """Warps of the program that sorts ``length`` numbers at every refresh.

    Parameters
    ----------
    length : int
        A power of two.

    Returns
    -------
    int
        Four numbers a thread, and one warp at least.
    """
    return max(1, min(8, length // 128))
