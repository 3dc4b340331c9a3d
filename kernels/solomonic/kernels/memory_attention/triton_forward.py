"""Forward pass of `memory_attention` on a GPU: window, fading and stored tokens in one pass and one softmax.

A program takes BQ rows (see `triton_pieces`) of one key head, and walks along the keys that its queries can read:
the band of the window, the band of the fading tokens, and a list of the stored tokens that any of its queries reads.
With several splits, each program takes a part of the keys of every source and the parts are joined afterwards.
"""

# The body of a kernel is Triton's language: constants stand for what they hold.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from solomonic.kernels.memory_attention.triton_pieces import attend, band, head_tile, interval, listed, row_tile, share

__all__ = ["forward_kernel"]


@triton.jit
def _source(
    acc, best, q, k_p, v_p, low, high, t, offset, columns, values, WINDOW,
    SCALE: tl.constexpr, FIRST: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BN: tl.constexpr,
    UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All keys of a band from `low` to `high`; a key may be read at lags 0 .. WINDOW - 1 behind t + offset."""
    top = tl.full(t.shape, float("-inf"), ACC)
    mass = tl.zeros(t.shape, ACC)
    n = tl.arange(0, BN)
    for start in range(low, high, BN):
        wide_start = tl.full((), 0, tl.int64) + start  # in the interpreter, start is an int
        valid = start + n < high
        k = head_tile(k_p + wide_start * (G * K), n * (G * K), columns, valid, K, UP).to(LOW)
        v = head_tile(v_p + wide_start * (G * V), n * (G * V), values, valid, V, UP).to(LOW)
        lag = (t + offset)[:, None] - (start + n)[None, :]
        mask = (lag >= 0) & (lag < WINDOW) & valid[None, :]
        acc, best, top, mass = attend(
            acc, best, top, mass, q, k, v, mask, SCALE, FIRST, LOW, ACC, PRECISION,
        )  # fmt: skip
    return acc, best, top + tl.log2(mass)


@triton.jit
def forward_kernel(
    q_p, k_p, v_p, qf_p, kf_p, vf_p, qe_p, ke_p, ve_p, enter_p, exit_p, list_p, count_p, out_p, lse_p,
    T, S, SF, M, WINDOW, splits, per_source,
    SCALE: tl.constexpr, G: tl.constexpr, R: tl.constexpr, K: tl.constexpr, V: tl.constexpr, FADING: tl.constexpr,
    STORED: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, UP: tl.constexpr,
    LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """FADING and STORED: 0 none, 1 with the queries of the window, 2 with their own."""
    b = tl.program_id(1) // G
    g = tl.program_id(1) % G
    split = tl.program_id(2)
    wide_b = b.to(tl.int64)
    i = tl.program_id(0) * BQ + tl.arange(0, BQ)
    t = i // R
    r = i % R
    valid = i < T * R
    first = tl.program_id(0) * BQ // R
    last = tl.minimum(tl.program_id(0) * BQ + BQ - 1, T * R - 1) // R
    columns = tl.arange(0, BK)
    values = tl.arange(0, BV)
    wide_first = first.to(tl.int64)

    q_at = q_p + ((wide_b * T + wide_first) * G + g) * R * K
    q = row_tile(q_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
    acc = tl.zeros((BQ, BV), ACC)
    best = tl.full((BQ,), float("-inf"), ACC)
    low, high = band(first, last, S - T, 0, WINDOW, S)
    low, high = share(low, high, split, splits, BN)
    acc, best, lse = _source(
        acc, best, q, k_p + (wide_b * S * G + g) * K, v_p + (wide_b * S * G + g) * V, low, high, t, S - T, columns,
        values, WINDOW, SCALE, True, G, K, V, BN, UP, LOW, ACC, PRECISION,
    )  # fmt: skip
    total = tl.exp2(lse - tl.where(best == float("-inf"), 0.0, best))
    # Rows lie as [splits, B, T, H] and sources one after the other.
    row = ((split.to(tl.int64) * (tl.num_programs(1) // G) + b) * T + t) * (G * R) + g * R + r
    tl.store(lse_p + row, lse * 0.6931471805599453, mask=valid)
    if FADING > 0:
        if FADING == 2:
            qf_at = qf_p + ((wide_b * T + wide_first) * G + g) * R * K
            qf = row_tile(qf_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
        else:
            qf = q
        low, high = band(first, last, SF - T, WINDOW, WINDOW, SF)
        low, high = share(low, high, split, splits, BN)
        before = best
        acc, best, lse = _source(
            acc, best, qf, kf_p + (wide_b * SF * G + g) * K, vf_p + (wide_b * SF * G + g) * V, low, high, t,
            SF - T - WINDOW, columns, values, WINDOW, SCALE, False, G, K, V, BN, UP, LOW, ACC, PRECISION,
        )  # fmt: skip
        finite = tl.where(best == float("-inf"), 0.0, best)
        total = total * tl.exp2(before - finite) + tl.exp2(lse - finite)
        tl.store(lse_p + per_source + row, lse * 0.6931471805599453, mask=valid)
    if STORED > 0:
        if STORED == 2:
            qe_at = qe_p + ((wide_b * T + wide_first) * G + g) * R * K
            qe = row_tile(qe_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
        else:
            qe = q
        tile = wide_b * tl.num_programs(0) + tl.program_id(0)
        low, high = share(0, tl.load(count_p + tile), split, splits, BN)
        before = best
        top = tl.full((BQ,), float("-inf"), ACC)
        mass = tl.zeros((BQ,), ACC)
        ke_at, ve_at = ke_p + (wide_b * M * G + g) * K, ve_p + (wide_b * M * G + g) * V
        for start in range(low, high, BN):
            tokens, there = listed(list_p + tile * M, start + tl.arange(0, BN), high)
            enter, leave = interval(enter_p + wide_b * M, exit_p + wide_b * M, tokens, there)
            wide = tokens.to(tl.int64)
            k = head_tile(ke_at, wide * (G * K), columns, there, K, UP).to(LOW)
            v = head_tile(ve_at, wide * (G * V), values, there, V, UP).to(LOW)
            mask = (enter[None, :] <= t[:, None]) & (t[:, None] < leave[None, :])
            acc, best, top, mass = attend(
                acc, best, top, mass, qe, k, v, mask, SCALE, False, LOW, ACC, PRECISION,
            )  # fmt: skip
        lse = top + tl.log2(mass)
        finite = tl.where(best == float("-inf"), 0.0, best)
        total = total * tl.exp2(before - finite) + tl.exp2(lse - finite)
        tl.store(lse_p + (FADING > 0) * per_source + per_source + row, lse * 0.6931471805599453, mask=valid)
    acc = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    out_at = out_p + row[:, None] * V + values[None, :]
    tl.store(out_at, acc.to(out_p.dtype.element_ty), mask=valid[:, None] & (values < V)[None, :])
