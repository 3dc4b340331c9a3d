"""Cost of `memory_attention`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from typing import NamedTuple

from solomonic.kernels.cost import Cost
from solomonic.kernels.memory_attention.configs import config

__all__ = ["Sizes", "forward"]


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
        and the intervals and the list of stored tokens of every tile, which are not compulsory.
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
    lists = s.B * s.G * tiles * (4 + 12 * s.seen) if s.M else 0
    loaded = tiles * (keys + s.seen) * token
    reread = max(0, loaded - (s.S + s.SF + s.M) * token)
    score = s.B * s.G * tiles * BQ * read
    return Cost(2 * score * (s.K + s.V), score * (2 if sources > 1 else 1), compulsory, compulsory + lists, reread)
