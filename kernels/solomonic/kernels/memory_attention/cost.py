"""Cost of `memory_attention`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from typing import NamedTuple

from solomonic.kernels.cost import Cost
from solomonic.kernels.memory_attention.configs import config, splits

__all__ = ["Sizes", "backward", "forward"]


class Sizes(NamedTuple):
    """Sizes of a call, with fading tokens if SF and stored ones if M is not 0.

    B batch, T queries, S keys, SF fading tokens, M stored tokens of which a query reads `seen`, H heads, G key heads,
    K and V channels, W window, `itemsize` bytes of an element.
    """

    B: int
    T: int
    S: int
    SF: int
    M: int
    seen: int
    H: int
    G: int
    K: int
    V: int
    W: int
    itemsize: int = 2


def forward(s: Sizes, arch: str = "sm_90") -> Cost:
    """Cost of the forward kernel in its checked-in configuration.

    Parameters
    ----------
    s : Sizes
        The call; S is T, for a whole sequence, or larger by what the register holds.
    arch : str
        Architecture, for the configuration.

    Returns
    -------
    Cost
        A tile of BQ rows, which are BQ G / H queries of all heads of a key head, reads W + BQ G / H keys of each band.
        Neighbouring tiles read most of them again, from the cache: that is in `reread`. `moved` has every key once,
        and the list of stored tokens of every tile, which is not compulsory.
    """
    repeat = s.H // s.G
    BQ, BN, *_ = config("forward", arch, s.itemsize, max(s.K, s.V), s.T * repeat)
    tiles = -(-s.T * repeat // BQ)
    queries = -(-BQ // repeat)
    band = min(s.S, s.W + queries)
    keys = band * (2 if s.SF else 1)
    read = BN * (-(-band // BN) * (2 if s.SF else 1) + -(-s.seen // BN))
    sources = 1 + bool(s.SF) + bool(s.M)
    rows = s.B * s.T * s.H
    token = s.B * s.G * (s.K + s.V) * s.itemsize
    compulsory = rows * ((s.K + s.V) * s.itemsize + 4 * sources) + (s.S + s.SF + s.M) * token + 8 * s.B * s.M
    lists = s.B * tiles * 4 * (1 + s.seen) if s.M else 0
    loaded = tiles * (keys + s.seen) * token + (s.G * tiles * 8 * s.B * s.seen + (s.G - 1) * lists if s.M else 0)
    reread = max(0, loaded - (s.S + s.SF + s.M) * token - 8 * s.B * s.M)
    score = s.B * s.G * tiles * BQ * read
    return Cost(2 * score * (s.K + s.V), score * (2 if sources > 1 else 1), compulsory, compulsory + lists, reread)


def backward(s: Sizes, arch: str = "sm_90") -> Cost:
    """Cost of the backward kernels, for fading and stored tokens that the queries of the window read.

    Parameters
    ----------
    s : Sizes
        The call, as for `forward`.
    arch : str
        Architecture, for the configurations.

    Returns
    -------
    Cost
        Scores and their gradients are made twice: along the keys of a tile of queries, and along the queries of a tile
        of keys of each source. So the queries are read once more for each source, which is in `moved`, with the
        statistics of the softmax and the parts that stored tokens' gradients come in.
    """
    repeat = s.H // s.G
    work = 8 if s.itemsize == 8 else 4
    sources = 1 + bool(s.SF) + bool(s.M)
    rows = s.B * s.T * s.H
    queries, outs = rows * s.K * s.itemsize, rows * s.V * s.itemsize
    token = s.B * s.G * (s.K + s.V) * s.itemsize
    keys = (s.S + s.SF + s.M) * token
    spans = 8 * s.B * s.M
    compulsory = 2 * queries + 2 * keys + 2 * outs + 2 * sources * rows * work + spans
    stats = 3 * sources * rows * work
    BQ, BN, *_ = config("query", arch, s.itemsize, max(s.K, s.V), s.T * repeat)
    tiles = -(-s.T * repeat // BQ)
    lists = s.B * tiles * 4 * (1 + s.seen) + 4 * s.B * (1 + s.M) + spans if s.M else 0
    parts = 2 * splits(s.T) * s.B * s.M * s.G * (s.K + s.V) * work
    # The statistics are written and read twice, and dO is read for them too.
    moved = compulsory + 3 * stats + sources * queries + (sources + 1) * outs + keys + lists + parts
    band = min(s.S, s.W + -(-BQ // repeat))
    along_keys = tiles * BQ * BN * (-(-band // BN) * (2 if s.SF else 1) + -(-s.seen // BN))
    BQ_key, BN_key, *_ = config("key", arch, s.itemsize, max(s.K, s.V), s.T * repeat)
    span = min(s.T, s.W + BN_key) * repeat
    tiles_key = -(-s.S // BN_key) + -(-s.SF // BN_key)
    along_queries = BN_key * BQ_key * (tiles_key * -(-span // BQ_key) + -(-s.M // BN_key) * -(-s.T * repeat // BQ_key))
    heads = s.B * s.G
    flops = heads * (along_keys * (4 * s.K + 2 * s.V) + along_queries * 4 * (s.K + s.V))
    loaded = tiles * (band * (2 if s.SF else 1) + s.seen) * token
    loaded += heads * (tiles_key * span + -(-s.M // BN_key) * s.T * repeat) * (s.K + s.V) * s.itemsize
    reread = max(0, loaded - keys - sources * (queries + outs))
    return Cost(flops, heads * (along_keys + along_queries), compulsory, moved, reread)
