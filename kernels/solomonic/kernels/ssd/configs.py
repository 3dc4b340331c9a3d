"""Configurations of the Triton kernels of `ssd`, checked in. No tuning at run time.

They were chosen by what the kernels compile to (``make kernels``): no spills and at most 255 registers for head sizes
64 and 128, with and without edits, then as few bytes as possible, then the largest chunk.
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
    BP : int
        Channels of a head in one program (backward kernels take them all).
    warps, stages : int
        Warps of a program, and stages of its software pipeline.
    """

    Q: int
    BP: int
    warps: int
    stages: int


# (kernel, bytes of an element, size of the head: the larger of P and N) -> Q, warps, stages.
_NVIDIA = {
    ("forward", 2, 64): (32, 4, 1),
    ("C", 2, 64): (32, 4, 1),
    ("B", 2, 64): (32, 4, 1),
    ("x", 2, 64): (32, 4, 1),
    ("forward", 2, 128): (32, 8, 1),
    ("C", 2, 128): (16, 8, 1),
    ("B", 2, 128): (32, 8, 1),
    ("x", 2, 128): (16, 8, 1),
    ("forward", 4, 64): (32, 8, 1),
    ("C", 4, 64): (16, 8, 1),
    ("B", 4, 64): (32, 8, 1),
    ("x", 4, 64): (16, 8, 1),
    ("forward", 4, 128): (16, 8, 1),
    ("C", 4, 128): (16, 8, 1),
    ("B", 4, 128): (16, 8, 1),
    ("x", 4, 128): (16, 8, 1),
}
_AMD = {
    ("C", 2, 64): (16, 4, 1),
    ("B", 2, 64): (16, 4, 1),
    ("x", 2, 64): (16, 4, 1),
    ("forward", 2, 128): (16, 8, 1),
    ("B", 2, 128): (16, 8, 1),
    ("forward", 4, 64): (16, 4, 1),
    ("C", 4, 64): (16, 4, 1),
    ("B", 4, 64): (16, 4, 1),
    ("x", 4, 64): (16, 4, 1),
}


def _block(size: int) -> int:
    """The power of two, at least 16, that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


def config(kernel: str, arch: str, itemsize: int, P: int, N: int) -> Config:
    """The configuration of a kernel.

    Parameters
    ----------
    kernel : {"forward", "C", "B", "x"}
        Forward pass, or one of the three kernels of the backward pass, by the gradient that it gives.
    arch : str
        Architecture, such as ``"sm_90"`` or ``"gfx942"``.
    itemsize : int
        Bytes of an element of x.
    P, N : int
        Channels of a head, and states.

    Returns
    -------
    Config
        The row of the table for the next larger head.
    """
    amd = arch.startswith("gfx")
    key = (kernel, 2 if itemsize == 2 else 4, 64 if max(P, N) <= 64 else 128)
    Q, warps, stages = (_AMD.get(key) if amd else None) or _NVIDIA[key]
    return Config(Q, _block(P), warps, stages)
