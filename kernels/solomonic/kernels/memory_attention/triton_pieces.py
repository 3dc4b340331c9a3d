"""What the kernels of `memory_attention` share: rows of queries, tiles of keys, and one step over a tile.

The R query heads of a key head are rows of one tile: row i of a sequence is head ``i % R`` of query ``i // R``, so
that a tile of keys is read once for all of them, and one token (decoding) is the same kernel as a whole sequence.
"""

# The body of a kernel is Triton's language: constants stand for what they hold.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "band", "head_tile", "interval", "listed", "row_tile", "share"]


@triton.jit
def row_tile(pointer, first, t, r, stride_t, stride_h, columns, valid, WIDTH, UP: tl.constexpr):
    """[rows, columns] of queries or their gradients; `first` is the query at which `pointer` stands."""
    offsets = (t - first) * stride_t + r * stride_h
    mask = valid[:, None] & (columns < WIDTH)[None, :]
    tile = tl.load(pointer + offsets[:, None] + columns[None, :], mask=mask, other=0.0)
    return tile if UP is None else tile.to(UP)


@triton.jit
def head_tile(pointer, offsets, columns, valid, WIDTH, UP: tl.constexpr):
    """[tokens, columns] of keys or values at `offsets`."""
    mask = valid[:, None] & (columns < WIDTH)[None, :]
    tile = tl.load(pointer + offsets[:, None] + columns[None, :], mask=mask, other=0.0)
    return tile if UP is None else tile.to(UP)


@triton.jit
def band(first, last, offset, SHIFT, WINDOW, S):
    """Keys that the queries first .. last read of a band: from, and up to but without."""
    low = tl.maximum(first + offset - SHIFT - WINDOW + 1, 0)
    return low, tl.minimum(last + offset - SHIFT + 1, S)


@triton.jit
def share(low, high, split, splits, BN: tl.constexpr):
    """The part of the keys low .. high - 1 that falls to one of several programs, in whole tiles."""
    each = tl.cdiv(tl.cdiv(tl.maximum(high - low, 0), BN), splits) * BN
    start = low + split * each
    return start, tl.minimum(high, start + each)


@triton.jit
def listed(list_p, at, count):
    """Tokens at places `at` of a list of which `count` are valid."""
    valid = at < count
    return tl.load(list_p + at, mask=valid, other=0), valid


@triton.jit
def interval(enter_p, exit_p, tokens, valid):
    """First query and end of the tokens' intervals; empty ones where there is no token."""
    enter = tl.load(enter_p + tokens, mask=valid, other=0)
    return enter, tl.load(exit_p + tokens, mask=valid, other=0)


@triton.jit
def attend(acc, best, top, mass, q, k, v, mask, SCALE: tl.constexpr, FIRST: tl.constexpr, LOW: tl.constexpr,
           ACC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """One tile of keys of one source: the source keeps its own greatest score and mass, the output is shared.

    `best` is the greatest score of all sources so far, `top` that of this source; in base 2.
    """
    s = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision=PRECISION) * SCALE
    s = tl.where(mask, s, float("-inf"))
    new = tl.maximum(top, tl.max(s, 1))
    safe = tl.where(new == float("-inf"), 0.0, new)
    p = tl.exp2(s - safe[:, None])
    mass = mass * tl.exp2(top - safe) + tl.sum(p, 1)
    if FIRST:
        acc = acc * tl.exp2(top - safe)[:, None]
        best = new
    else:
        joint = tl.maximum(best, new)
        finite = tl.where(joint == float("-inf"), 0.0, joint)
        p = p * tl.exp2(new - finite)[:, None]
        acc = acc * tl.exp2(best - finite)[:, None]
        best = joint
    acc += tl.dot(p.to(LOW), v, out_dtype=ACC, input_precision=PRECISION)
    return acc, best, new, mass
