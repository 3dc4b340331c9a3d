"""Configurations of the Triton kernels of `short_conv`, checked in. No tuning at run time."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Config", "config"]


class Config(NamedTuple):
    """How one kernel runs.

    Attributes
    ----------
    BT, BC : int
        Tokens and channels of a program.
    warps : int
        Warps of a program.
    """

    BT: int
    BC: int
    warps: int


_TABLE = {"forward": Config(32, 128, 4), "backward": Config(16, 64, 4), "step": Config(1, 256, 4)}


def config(kernel: str) -> Config:
    """The configuration of a kernel: ``"forward"``, ``"backward"`` or ``"step"``.

    Parameters
    ----------
    kernel : str
        Its name.

    Returns
    -------
    Config
        Tiles that compile without spills on every architecture of the table.
    """
    return _TABLE[kernel]
