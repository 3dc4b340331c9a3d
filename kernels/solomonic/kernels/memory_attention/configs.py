"""Configurations of the Triton kernels of `memory_attention`, checked in. No tuning at run time.

They were chosen by what the kernels compile to (``make kernels``): no spills for head sizes 64 and 128, then the
largest tiles.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Config", "config", "splits"]

# Queries that one program reads for the gradients of stored tokens.
_QUERIES_OF_A_SPLIT = 1024


class Config(NamedTuple):
    """How one kernel runs.

    Attributes
    ----------
    BQ, BN : int
        Rows of queries and keys in a tile.
    warps, stages : int
        Warps of a program, and stages of its software pipeline.
    precision : str
        How products of float32 are made.
    """

    BQ: int
    BN: int
    warps: int
    stages: int
    precision: str


# (kernel, bytes of an element, size of the head: the larger of K and V) -> BQ, BN, warps, stages.
_NVIDIA = {
    ("forward", 2, 64): (64, 64, 4, 2),
    ("forward", 2, 128): (64, 32, 8, 2),
    ("forward", 4, 64): (32, 32, 8, 1),
    ("forward", 4, 128): (16, 16, 4, 1),
    ("query", 2, 64): (64, 32, 8, 1),
    ("query", 2, 128): (64, 32, 8, 1),
    ("query", 4, 64): (32, 32, 8, 1),
    ("query", 4, 128): (16, 16, 8, 1),
    ("key", 2, 64): (64, 64, 8, 1),
    ("key", 2, 128): (32, 64, 8, 1),
    ("key", 4, 64): (32, 32, 8, 1),
    ("key", 4, 128): (16, 16, 4, 1),
}
# Larger tiles spill scalar registers there, which hold the masks.
_AMD = {
    ("forward", 2, 64): (16, 32, 4, 1),
    ("forward", 2, 128): (16, 32, 4, 1),
    ("forward", 4, 64): (16, 32, 4, 1),
    ("forward", 4, 128): (16, 32, 4, 1),
    ("query", 2, 64): (16, 32, 4, 1),
    ("query", 2, 128): (16, 32, 4, 1),
    ("query", 4, 64): (32, 32, 8, 1),
    ("query", 4, 128): (32, 16, 8, 1),
    ("key", 2, 64): (16, 32, 4, 1),
    ("key", 2, 128): (16, 32, 4, 1),
    ("key", 4, 64): (16, 32, 4, 1),
    ("key", 4, 128): (16, 32, 4, 1),
}


def config(kernel: str, arch: str, itemsize: int, width: int, rows: int) -> Config:
    """The configuration of a kernel.

    Parameters
    ----------
    kernel : {"forward", "query", "key"}
        Forward pass, or the two parts of the backward pass.
    arch : str
        Architecture, such as ``"sm_90"`` or ``"gfx942"``.
    itemsize : int
        Bytes of an element of the products.
    width : int
        The larger one of the sizes of keys and values.
    rows : int
        Rows of queries that there are: a tile is not made much larger than that (decoding).

    Returns
    -------
    Config
        The row of the table for the next larger head.
    """
    amd = arch.startswith("gfx")
    key = (kernel, 2 if itemsize == 2 else 4, 64 if width <= 64 else 128)
    BQ, BN, warps, stages = (_AMD if amd else _NVIDIA)[key]
    fits = max(16, 1 << (rows - 1).bit_length())
    if fits < BQ:
        BQ, warps = fits, min(warps, 4)
    return Config(BQ, BN, warps, stages, "ieee" if amd or itemsize == 8 else "tf32x3")


def splits(queries: int) -> int:
    """Programs that share the queries of a stored token in the backward pass, each with a part of its gradients.

    Parameters
    ----------
    queries : int
        Queries T.

    Returns
    -------
    int
        One for each 1024 queries, at most 16.
    """
    return max(1, min(16, queries // _QUERIES_OF_A_SPLIT))
