"""Kernels of `select_innovations`: distances of a tile of tokens, and the merges of one sequence.

The merge knows scores by their rank alone, an integer that no other token of the sequence has: so it is exact in every
dtype, and ties are settled before it begins.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["innovation_kernel", "select_kernel"]


@triton.jit
def _outputs(y_p, past_p, batch, t, c, T, C, known, UP: tl.constexpr, ACC: tl.constexpr):
    """Outputs at the tokens t; before the first, those of the register; zero where there is none."""
    t = t.to(tl.int64)
    inside = ((t >= 0) & (t < T))[:, None] & (c < C)[None, :]
    tile = tl.load(y_p + (batch * T + t)[:, None] * C + c[None, :], mask=inside, other=0.0)
    before = ((t < 0) & (t >= -known))[:, None] & (c < C)[None, :]
    old = tl.load(past_p + (batch * known + t + known)[:, None] * C + c[None, :], mask=before, other=0.0)
    if UP is not None:
        tile, old = tile.to(UP), old.to(UP)
    return tile.to(ACC) + old.to(ACC)


@triton.jit
def innovation_kernel(
    y_p, past_p, score_p, T, C, known,
    SPAN: tl.constexpr, RELATIVE: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, UP: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Distance of each of BT outputs from the mean of the last SPAN ones before it."""
    batch = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    count = tl.minimum(tl.maximum(known + t, 1), SPAN).to(ACC)
    distance = tl.zeros((BT,), ACC)
    size = tl.zeros((BT,), ACC)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        now = _outputs(y_p, past_p, batch, t, c, T, C, known, UP, ACC)
        total = tl.zeros((BT, BC), ACC)
        for back in tl.static_range(1, SPAN + 1):
            total += _outputs(y_p, past_p, batch, t - back, c, T, C, known, UP, ACC)
        gap = now - total / count[:, None]
        distance += tl.sum(gap * gap, 1)
        if RELATIVE:
            size += tl.sum(now * now, 1)
    score = tl.sqrt_rn(distance) if tl.float32 == ACC else tl.sqrt(distance)
    if RELATIVE:
        norm = tl.sqrt_rn(size) if tl.float32 == ACC else tl.sqrt(size)
        score = score / tl.maximum(norm, 1e-12)
    tl.store(score_p + batch * T + t, score, mask=t < T)


@triton.jit
def select_kernel(
    rank_p, token_p, first_p, last_p, kept_p, columns, held, held_after, size, boundary, refreshes, chunk, oldest,
    never, L: tl.constexpr,
):  # fmt: skip
    """Merge the candidates of every refresh into the memory of one sequence.

    `rank_p` [B, columns] holds columns - 1 for the greatest score down to 0, and -1 for what is never stored; `token_p`
    the column of each place, greatest first. `boundary` is the first refresh, and `oldest` the column of its first
    candidate, which is negative where tokens of an earlier block are missing.
    """
    batch = tl.program_id(0).to(tl.int64) * columns
    i = tl.arange(0, L)
    best = tl.load(rank_p + batch + i, mask=(i < held) & (i < size), other=-1)
    best = tl.sort(best, descending=True)
    for r in range(refreshes):
        now = boundary + r * chunk
        start = oldest + r * chunk
        candidate = start + i - size
        due = (i >= size) & (candidate >= held) & (candidate < start + chunk)
        best = tl.where(i < size, best, tl.load(rank_p + batch + candidate, mask=due, other=-1))
        best = tl.sort(best, descending=True)
        token = tl.load(token_p + batch + columns - 1 - best, mask=best >= 0, other=0)
        new = (token >= held) & (token >= start)
        tl.store(first_p + batch + token, now.to(tl.int64), mask=(best >= 0) & (i < size) & new)
        tl.store(last_p + batch + token, now.to(tl.int64), mask=(best >= 0) & (i >= size) & (new == 0))
    token = tl.load(token_p + batch + columns - 1 - best, mask=best >= 0, other=0)
    stays = (best >= 0) & (i < size)
    tl.store(last_p + batch + token, never, mask=stays)
    kept = tl.where(stays, token, -1)
    tl.store(kept_p + tl.program_id(0).to(tl.int64) * held_after + i, kept, mask=i < held_after)
