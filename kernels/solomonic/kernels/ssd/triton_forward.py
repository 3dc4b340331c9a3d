"""Forward pass of `ssd` on a GPU: one kernel, with the state in registers.

A program takes one head of one sequence and BP of its channels, walks along the chunks and reads every token
once. What a chunk computes is told in `solomonic.kernels.ssd.cpu`; the state is kept as [P, N].

Chunks are consecutive, or those of a table with four integers a chunk: first token, end, the edit that acts before
its first token and the place where its last state is saved (-1: none). An edit multiplies the state by a number and
adds a matrix.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["decays", "forward_kernel", "load_tile", "step_kernel"]

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_tile(pointer, rows, stride, columns, width, stop, UP: tl.constexpr):
    """[len(rows), len(columns)] of a matrix, zero from row `stop` and column `width` on."""
    mask = (rows[:, None] < stop) & (columns[None, :] < width)
    tile = tl.load(pointer + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)
    return tile if UP is None else tile.to(UP)


@triton.jit
def decays(dt_p, dt_stride, reset_p, rows, stop, rate, RESET: tl.constexpr, ACC: tl.constexpr):
    """dt, running log2 decay c, segment numbers, and the weights e, w, g of a chunk."""
    dt = tl.load(dt_p + rows * dt_stride, mask=rows < stop, other=0.0).to(ACC)
    a = dt * rate
    c = tl.cumsum(a, 0)
    total = tl.sum(a, 0)
    e = tl.exp2(c)
    w = tl.exp2(tl.minimum(total - c, 0.0))
    g = tl.exp2(total)
    if RESET:
        cut = tl.load(reset_p + rows, mask=rows < stop, other=0).to(tl.int32)
        seg = tl.cumsum(cut, 0)
        cuts = tl.sum(cut, 0)
        e = tl.where(seg == 0, e, 0.0)
        w = tl.where(seg == cuts, w, 0.0)
        g = tl.where(cuts == 0, g, 0.0)
    else:
        cut = rows * 0
        seg = cut
        cuts = tl.sum(cut, 0)
    return dt, c, seg, cut, cuts, e, w, g


@triton.jit
def edited(h, scale_p, add_p, h_offsets, h_mask, ADD: tl.constexpr, ACC: tl.constexpr):
    """scale * h + add."""
    h = h * tl.load(scale_p).to(ACC)
    if ADD:
        h += tl.load(add_p + h_offsets, mask=h_mask, other=0.0).to(ACC)
    return h


@triton.jit
def forward_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, h0_p, reset_p, y_p, last_p,
    table_p, scale_p, add_p, saved_p,
    x_b, x_t, x_h, dt_b, dt_t, dt_h, B_b, B_t, B_g, C_b, C_t, C_g,
    T, H, P: tl.constexpr, N: tl.constexpr, per_B, per_C, chunks, edits, saves,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    DIRECT: tl.constexpr, INITIAL: tl.constexpr, RESET: tl.constexpr, TABLE: tl.constexpr, ADD: tl.constexpr,
    UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y and the last state. UP: dtype that tiles are raised to; LOW: dtype of the operands of products."""
    pair = tl.program_id(0).to(tl.int64)
    b, h_ = pair // H, pair % H
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    x_p += b * x_b + h_ * x_h
    dt_p += b * dt_b + h_ * dt_h
    B_p += b * B_b + (h_ // per_B) * B_g
    C_p += b * C_b + (h_ // per_C) * C_g
    y_p += b * T * H * P + h_ * P
    if RESET:
        reset_p += b * T
    rate = tl.load(A_p + h_).to(ACC) * LOG2E
    if DIRECT:
        direct = tl.load(D_p + h_).to(ACC)
    h_offsets = p[:, None] * N + n[None, :]
    h_mask = (p[:, None] < P) & (n[None, :] < N)
    if INITIAL:
        h = tl.load(h0_p + pair * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC)
    else:
        h = tl.zeros((BP, BN), ACC)
    for i in range(chunks):
        if TABLE:
            start = tl.load(table_p + 4 * i).to(tl.int64)
            stop = tl.load(table_p + 4 * i + 1).to(tl.int64)
            if scale_p is not None:
                edit = tl.load(table_p + 4 * i + 2).to(tl.int64)
                if edit >= 0:
                    slot = (b * edits + edit) * H + h_
                    at = add_p + slot * P * N if ADD else add_p
                    h = edited(h, scale_p + slot, at, h_offsets, h_mask, ADD, ACC)
        else:
            start = tl.cast(i, tl.int64) * Q
            stop = T
        end = (stop - start).to(tl.int32)
        dt, c, seg, cut, cuts, e, w, g = decays(  # type: ignore[misc]
            dt_p + start * dt_t, dt_t, reset_p + start if RESET else reset_p, q, end, rate, RESET, ACC
        )
        Bt = load_tile(B_p + start * B_t, q, B_t, n, N, end, UP)
        Ct = load_tile(C_p + start * C_t, q, C_t, n, N, end, UP)
        xt = load_tile(x_p + start * x_t, q, x_t, p, P, end, UP)
        # Tiles are transposed: row s is the token that is written, column t the one that reads.
        keep = q[:, None] <= q[None, :]
        if RESET:
            keep = keep & (seg[:, None] == seg[None, :])
        mix = tl.where(keep, tl.exp2(tl.minimum(c[None, :] - c[:, None], 0.0)), 0.0) * dt[:, None]
        mix *= tl.dot(Bt, tl.trans(Ct), out_dtype=ACC, input_precision=PRECISION)
        # The state is the first factor of its products: that operand stays in registers.
        y = tl.dot(h.to(LOW), tl.trans(Ct), out_dtype=ACC, input_precision=PRECISION) * e[None, :]
        y += tl.dot(tl.trans(xt), mix.to(LOW), out_dtype=ACC, input_precision=PRECISION)
        if DIRECT:
            y += direct * tl.trans(xt).to(ACC)
        y_at = y_p + start * H * P + q[None, :] * (H * P) + p[:, None]
        tl.store(y_at, y.to(y_p.dtype.element_ty), mask=(q[None, :] < end) & (p[:, None] < P))
        write = (tl.trans(xt).to(ACC) * (w * dt)[None, :]).to(LOW)
        h = h * g + tl.dot(write, Bt, out_dtype=ACC, input_precision=PRECISION)
        if saved_p is not None:
            save = tl.load(table_p + 4 * i + 3).to(tl.int64)
            if save >= 0:
                slot = (b * saves + save) * H + h_
                tl.store(saved_p + slot * P * N + h_offsets, h, mask=h_mask)
    tl.store(last_p + pair * P * N + h_offsets, h, mask=h_mask)


@triton.jit
def step_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, h0_p, reset_p, y_p, last_p,
    x_b, x_h, dt_b, dt_h, B_b, B_g, C_b, C_g,
    H, P: tl.constexpr, N: tl.constexpr, per_B, per_C,
    BP: tl.constexpr, BN: tl.constexpr,
    DIRECT: tl.constexpr, INITIAL: tl.constexpr, RESET: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One token, as in decoding: reads and writes each number of the state once."""
    pair = tl.program_id(0).to(tl.int64)
    b, h_ = pair // H, pair % H
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    n = tl.arange(0, BN)
    x = tl.load(x_p + b * x_b + h_ * x_h + p, mask=p < P, other=0.0).to(ACC)
    dt = tl.load(dt_p + b * dt_b + h_ * dt_h).to(ACC)
    rate = tl.load(A_p + h_).to(ACC) * LOG2E
    Bt = tl.load(B_p + b * B_b + (h_ // per_B) * B_g + n, mask=n < N, other=0.0).to(ACC)
    Ct = tl.load(C_p + b * C_b + (h_ // per_C) * C_g + n, mask=n < N, other=0.0).to(ACC)
    offsets = pair * P * N + p[:, None] * N + n[None, :]
    mask = (p[:, None] < P) & (n[None, :] < N)
    h = (x * dt)[:, None] * Bt[None, :]
    if INITIAL:
        decay = tl.exp2(dt * rate)
        if RESET:
            decay = tl.where(tl.load(reset_p + b) != 0, 0.0, decay)
        h += decay * tl.load(h0_p + offsets, mask=mask, other=0.0).to(ACC)
    y = tl.sum(h * Ct[None, :], 1)
    if DIRECT:
        y += tl.load(D_p + h_).to(ACC) * x
    tl.store(y_p + pair * P + p, y.to(y_p.dtype.element_ty), mask=p < P)
    tl.store(last_p + offsets, h, mask=mask)
