"""Backward pass of `memory_attention` on a GPU: scores again from the log-sum-exps, no atomics, fixed order of sums.

With P = exp(S - lse_source), the share a = exp(lse_source - lse) of the source and c = dlse_source - a rowsum(dO O),

    dS = P (a dO V' + c),  dQ = s dS K,  dK = s dS' Q,  dV = (a P)' dO.

One kernel walks along the keys of a tile of queries, one along the queries of a tile of keys of a band, and one along
the queries of a list of stored tokens, in parts that are added up afterwards.
"""

# The body of a kernel is Triton's language: constants stand for what they hold.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from solomonic.kernels.memory_attention.triton_pieces import band, head_tile, interval, listed, row_tile

__all__ = ["backward_band_kernel", "backward_query_kernel", "backward_stored_kernel"]


@triton.jit
def _statistics(stats_p, at, per, valid):
    """Log-sum-exp in base 2, share and shift of a source, for rows at `at`."""
    lse = tl.load(stats_p + at, mask=valid, other=0.0)
    a = tl.load(stats_p + per + at, mask=valid, other=0.0)
    return lse, a, tl.load(stats_p + 2 * per + at, mask=valid, other=0.0)


@triton.jit
def _weights(q, k, v, dout, mask, lse, a, c, SCALE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr):
    """a P and dS of a tile."""
    s = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision=PRECISION) * SCALE
    p = tl.exp2(tl.where(mask, s - lse[:, None], float("-inf")))
    dp = tl.dot(dout, tl.trans(v), out_dtype=ACC, input_precision=PRECISION)
    return p * a[:, None], p * (a[:, None] * dp + c[:, None])


@triton.jit
def _query_band(
    dq, q, dout, k_p, v_p, low, high, t, offset, columns, values, WINDOW, stats_p, row, per, rows,
    SCALE: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BN: tl.constexpr, UP: tl.constexpr,
    LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what the keys of a band say of the gradient of the queries."""
    lse, a, c = _statistics(stats_p, row, per, rows)
    n = tl.arange(0, BN)
    for start in range(low, high, BN):
        wide_start = tl.full((), 0, tl.int64) + start  # in the interpreter, start is an int
        valid = start + n < high
        k = head_tile(k_p + wide_start * (G * K), n * (G * K), columns, valid, K, UP).to(LOW)
        v = head_tile(v_p + wide_start * (G * V), n * (G * V), values, valid, V, UP).to(LOW)
        lag = (t + offset)[:, None] - (start + n)[None, :]
        mask = (lag >= 0) & (lag < WINDOW) & valid[None, :]
        _, ds = _weights(q, k, v, dout, mask, lse, a, c, SCALE, ACC, PRECISION)
        dq += tl.dot(ds.to(LOW), k, out_dtype=ACC, input_precision=PRECISION)
    return dq


@triton.jit
def _query_stored(
    dq, q, dout, k_p, v_p, enter_p, exit_p, list_p, count, t, columns, values, stats_p, row, per, rows,
    SCALE: tl.constexpr, G: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BN: tl.constexpr, UP: tl.constexpr,
    LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what a list of stored tokens says."""
    lse, a, c = _statistics(stats_p, row, per, rows)
    for start in range(0, count, BN):
        tokens, there = listed(list_p, start + tl.arange(0, BN), count)
        enter, leave = interval(enter_p, exit_p, tokens, there)
        wide = tokens.to(tl.int64)
        k = head_tile(k_p, wide * (G * K), columns, there, K, UP).to(LOW)
        v = head_tile(v_p, wide * (G * V), values, there, V, UP).to(LOW)
        mask = (enter[None, :] <= t[:, None]) & (t[:, None] < leave[None, :])
        _, ds = _weights(q, k, v, dout, mask, lse, a, c, SCALE, ACC, PRECISION)
        dq += tl.dot(ds.to(LOW), k, out_dtype=ACC, input_precision=PRECISION)
    return dq


@triton.jit
def backward_query_kernel(
    q_p, k_p, v_p, qf_p, kf_p, vf_p, qe_p, ke_p, ve_p, enter_p, exit_p, list_p, count_p, dout_p, stats_p,
    dq_p, dqf_p, dqe_p,
    T, S, SF, M, WINDOW, per,
    SCALE: tl.constexpr, FACTOR: tl.constexpr, G: tl.constexpr, R: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    FADING: tl.constexpr, STORED: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of queries; those of own queries of the fading and stored tokens come first."""
    b = tl.program_id(1) // G
    g = tl.program_id(1) % G
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
    row = (wide_b * T + t) * (G * R) + g * R + r
    stored_stats_p = stats_p + (3 if FADING == 0 else 6) * per

    q_at = ((wide_b * T + wide_first) * G + g) * R * K
    dq_at = row[:, None] * K + columns[None, :]
    dq_mask = valid[:, None] & (columns < K)[None, :]
    dout_at = dout_p + ((wide_b * T + wide_first) * G + g) * R * V
    dout = row_tile(dout_at, first, t, r, G * R * V, V, values, valid, V, UP).to(LOW)
    low_f, high_f = band(first, last, SF - T, WINDOW, WINDOW, SF)
    kf_at, vf_at = (wide_b * SF * G + g) * K, (wide_b * SF * G + g) * V
    ke_at, ve_at = (wide_b * M * G + g) * K, (wide_b * M * G + g) * V
    tile = wide_b * tl.num_programs(0) + tl.program_id(0)
    if FADING == 2:
        q = row_tile(qf_p + q_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
        dq = _query_band(
            tl.zeros((BQ, BK), ACC), q, dout, kf_p + kf_at, vf_p + vf_at, low_f, high_f, t, SF - T - WINDOW, columns,
            values, WINDOW, stats_p + 3 * per, row, per, valid, SCALE, G, K, V, BN, UP, LOW, ACC, PRECISION,
        )  # fmt: skip
        tl.store(dqf_p + dq_at, (dq * FACTOR).to(dqf_p.dtype.element_ty), mask=dq_mask)
    if STORED == 2:
        q = row_tile(qe_p + q_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
        dq = _query_stored(
            tl.zeros((BQ, BK), ACC), q, dout, ke_p + ke_at, ve_p + ve_at, enter_p + wide_b * M, exit_p + wide_b * M,
            list_p + tile * M, tl.load(count_p + tile), t, columns, values, stored_stats_p, row, per, valid,
            SCALE, G, K, V, BN, UP, LOW, ACC, PRECISION,
        )  # fmt: skip
        tl.store(dqe_p + dq_at, (dq * FACTOR).to(dqe_p.dtype.element_ty), mask=dq_mask)
    q = row_tile(q_p + q_at, first, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
    dq = tl.zeros((BQ, BK), ACC)
    if FADING == 1:
        dq = _query_band(
            dq, q, dout, kf_p + kf_at, vf_p + vf_at, low_f, high_f, t, SF - T - WINDOW, columns, values, WINDOW,
            stats_p + 3 * per, row, per, valid, SCALE, G, K, V, BN, UP, LOW, ACC, PRECISION,
        )  # fmt: skip
    if STORED == 1:
        dq = _query_stored(
            dq, q, dout, ke_p + ke_at, ve_p + ve_at, enter_p + wide_b * M, exit_p + wide_b * M, list_p + tile * M,
            tl.load(count_p + tile), t, columns, values, stored_stats_p, row, per, valid, SCALE, G, K, V, BN, UP, LOW,
            ACC, PRECISION,
        )  # fmt: skip
    low, high = band(first, last, S - T, 0, WINDOW, S)
    dq = _query_band(
        dq, q, dout, k_p + (wide_b * S * G + g) * K, v_p + (wide_b * S * G + g) * V, low, high, t, S - T, columns,
        values, WINDOW, stats_p, row, per, valid, SCALE, G, K, V, BN, UP, LOW, ACC, PRECISION,
    )  # fmt: skip
    tl.store(dq_p + dq_at, (dq * FACTOR).to(dq_p.dtype.element_ty), mask=dq_mask)


@triton.jit
def _key_rows(start, T, R: tl.constexpr, b, G, g, BQ: tl.constexpr):
    """Rows start .. start + BQ - 1: queries, heads, which there are, and where their statistics lie."""
    i = start + tl.arange(0, BQ)
    t = i // R
    r = i % R
    return t, r, i < T * R, (b.to(tl.int64) * T + t) * (G * R) + g * R + r


@triton.jit
def backward_band_kernel(
    q_p, k_p, v_p, dout_p, stats_p, dk_p, dv_p,
    T, S, SHIFT, WINDOW, per,
    SCALE: tl.constexpr, FACTOR: tl.constexpr, G: tl.constexpr, R: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BQ: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, UP: tl.constexpr, LOW: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of the keys and values of a band."""
    b = tl.program_id(1) // G
    g = tl.program_id(1) % G
    wide_b = b.to(tl.int64)
    begin = tl.program_id(0) * BN
    j = begin + tl.arange(0, BN)
    there = j < S
    columns = tl.arange(0, BK)
    values = tl.arange(0, BV)
    wide = j.to(tl.int64)
    k = head_tile(k_p + (wide_b * S * G + g) * K, wide * (G * K), columns, there, K, UP).to(LOW)
    v = head_tile(v_p + (wide_b * S * G + g) * V, wide * (G * V), values, there, V, UP).to(LOW)
    dk = tl.zeros((BN, BK), ACC)
    dv = tl.zeros((BN, BV), ACC)
    offset = S - T - SHIFT
    # Queries t with 0 <= t + offset - j < WINDOW.
    low = tl.maximum(begin - offset, 0)
    high = tl.minimum(tl.minimum(begin + BN, S) - 1 - offset + WINDOW, T)
    for start in range(low * R, high * R, BQ):
        t, r, valid, row = _key_rows(start, T, R, b, G, g, BQ)
        first = tl.full((), 0, tl.int64) + start // R  # in the interpreter, start is an int
        q_at = q_p + ((wide_b * T + first) * G + g) * R * K
        q = row_tile(q_at, start // R, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
        dout_at = dout_p + ((wide_b * T + first) * G + g) * R * V
        dout = row_tile(dout_at, start // R, t, r, G * R * V, V, values, valid, V, UP).to(LOW)
        lse, a, c = _statistics(stats_p, row, per, valid)
        lag = (t + offset)[:, None] - j[None, :]
        mask = (lag >= 0) & (lag < WINDOW) & valid[:, None] & there[None, :]
        p, ds = _weights(q, k, v, dout, mask, lse, a, c, SCALE, ACC, PRECISION)
        dv += tl.dot(tl.trans(p.to(LOW)), dout, out_dtype=ACC, input_precision=PRECISION)
        dk += tl.dot(tl.trans(ds.to(LOW)), q, out_dtype=ACC, input_precision=PRECISION)
    at = (wide_b * S + wide) * G + g
    mask_k, mask_v = there[:, None] & (columns < K)[None, :], there[:, None] & (values < V)[None, :]
    tl.store(dk_p + at[:, None] * K + columns[None, :], (dk * FACTOR).to(dk_p.dtype.element_ty), mask=mask_k)
    tl.store(dv_p + at[:, None] * V + values[None, :], dv.to(dv_p.dtype.element_ty), mask=mask_v)


@triton.jit
def backward_stored_kernel(
    q_p, k_p, v_p, enter_p, exit_p, list_p, count_p, dout_p, stats_p, dk_p, dv_p,
    T, M, per,
    SCALE: tl.constexpr, FACTOR: tl.constexpr, G: tl.constexpr, R: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BQ: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, UP: tl.constexpr, LOW: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of the tokens that are read at all, and one of the parts that the queries are cut into."""
    batch = tl.program_id(1) // G
    g = tl.program_id(1) % G
    wide_b = batch.to(tl.int64)
    count = tl.load(count_p + batch)
    begin = tl.program_id(0) * BN
    if begin < count:
        tokens, there = listed(list_p + wide_b * M, begin + tl.arange(0, BN), count)
        enter, leave = interval(enter_p + wide_b * M, exit_p + wide_b * M, tokens, there)
        columns = tl.arange(0, BK)
        values = tl.arange(0, BV)
        wide = tokens.to(tl.int64)
        k = head_tile(k_p + (wide_b * M * G + g) * K, wide * (G * K), columns, there, K, UP).to(LOW)
        v = head_tile(v_p + (wide_b * M * G + g) * V, wide * (G * V), values, there, V, UP).to(LOW)
        dk = tl.zeros((BN, BK), ACC)
        dv = tl.zeros((BN, BV), ACC)
        part = tl.cdiv(T, tl.num_programs(2))
        low = tl.maximum(tl.min(tl.where(there, enter, T), 0), tl.program_id(2) * part)
        high = tl.minimum(tl.max(leave, 0), tl.minimum((tl.program_id(2) + 1) * part, T))
        for start in range(low * R, high * R, BQ):
            t, r, valid, row = _key_rows(start, T, R, batch, G, g, BQ)
            valid &= t < high
            first = tl.full((), 0, tl.int64) + start // R  # in the interpreter, start is an int
            q_at = q_p + ((wide_b * T + first) * G + g) * R * K
            q = row_tile(q_at, start // R, t, r, G * R * K, K, columns, valid, K, UP).to(LOW)
            dout_at = dout_p + ((wide_b * T + first) * G + g) * R * V
            dout = row_tile(dout_at, start // R, t, r, G * R * V, V, values, valid, V, UP).to(LOW)
            lse, a, c = _statistics(stats_p, row, per, valid)
            mask = (enter[None, :] <= t[:, None]) & (t[:, None] < leave[None, :]) & valid[:, None]
            p, ds = _weights(q, k, v, dout, mask, lse, a, c, SCALE, ACC, PRECISION)
            dv += tl.dot(tl.trans(p.to(LOW)), dout, out_dtype=ACC, input_precision=PRECISION)
            dk += tl.dot(tl.trans(ds.to(LOW)), q, out_dtype=ACC, input_precision=PRECISION)
        sequences = tl.num_programs(1) // G
        at = ((tl.program_id(2).to(tl.int64) * sequences + wide_b) * M + wide) * G + g
        mask_k, mask_v = there[:, None] & (columns < K)[None, :], there[:, None] & (values < V)[None, :]
        tl.store(dk_p + at[:, None] * K + columns[None, :], dk * FACTOR, mask=mask_k)
        tl.store(dv_p + at[:, None] * V + values[None, :], dv, mask=mask_v)
