"""Configurations of the Triton kernels of `ssd`, checked in. No tuning at run time.

They were chosen by what the kernels compile to (``make kernels``): no spills for head sizes 64 and 128, then as few
bytes as possible, then the largest chunk.
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
    precision : str
        How products of float32 are made: ``"tf32x3"`` on NVIDIA's matrix units (about as exact as float32),
        ``"ieee"`` where the hardware multiplies float32 matrices.
    """

    Q: int
    BP: int
    warps: int
    stages: int
    precision: str


# (kernel, bytes of an element, size of the head: the larger of P and N) -> Q, warps, stages.
_NVIDIA = {
    ("forward", 2, 64): (64, 4, 2),
    ("forward", 2, 128): (64, 8, 2),
    ("forward", 4, 64): (32, 8, 1),
    ("forward", 4, 128): (16, 8, 1),
    ("read", 2, 64): (64, 8, 1),
    ("read", 2, 128): (32, 8, 1),
    ("read", 4, 64): (32, 8, 1),
    ("read", 4, 128): (16, 8, 1),
    ("write", 2, 64): (64, 8, 1),
    ("write", 2, 128): (32, 8, 1),
    ("write", 4, 64): (32, 8, 1),
    ("write", 4, 128): (16, 8, 1),
}
_AMD: dict[tuple[str, int, int], tuple[int, int, int]] = {}


def _block(size: int) -> int:
    """The power of two, at least 16, that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


def config(kernel: str, arch: str, itemsize: int, P: int, N: int) -> Config:
    """The configuration of a kernel.

    Parameters
    ----------
    kernel : {"forward", "read", "write"}
        Forward pass, or one of the two kernels of the backward pass.
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
    return Config(Q, _block(P), warps, stages, "ieee" if amd or itemsize == 8 else "tf32x3")
