"""Backward pass of `ssd` on a GPU: three kernels, each with one state in registers.

The first walks forwards, makes the states again and gives the gradient of C and the products dy_t . y_t. The others
walk backwards with the gradient of the state; one gives the gradient of B, one that of x and all the rest. In each
the state is the first factor of its products, an operand that never leaves the registers. A tile is loaded where it is
first read: fewer tiles are then held at a time.

The gradient of a running log decay is

    dc_t = dy_t . y_t - dt_t x_t . du_t,

and that of a single log decay is the sum of dc over the later tokens; no state is read from memory for it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from solomonic.kernels.ssd.triton_forward import decays, edited, load_tile

__all__ = ["backward_B_kernel", "backward_C_kernel", "backward_x_kernel"]

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def backward_C_kernel(
    x_p, dt_p, A_p, B_p, C_p, h0_p, reset_p, dy_p, dC_p, products_p,
    table_p, scale_p, add_p,
    x_b, x_t, x_h, dt_b, dt_t, dt_h, B_b, B_t, B_g, C_b, C_t, C_g,
    T, H, P: tl.constexpr, N: tl.constexpr, per_B, per_C, chunks, edits,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    INITIAL: tl.constexpr, RESET: tl.constexpr, TABLE: tl.constexpr, ADD: tl.constexpr,
    UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of C for each head, and the products of dy and y (without D)."""
    pair = tl.program_id(0).to(tl.int64)
    b, h_ = pair // H, pair % H
    p = tl.arange(0, BP)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    x_p += b * x_b + h_ * x_h
    dy_p += b * T * H * P + h_ * P
    dt_p += b * dt_b + h_ * dt_h
    B_p += b * B_b + (h_ // per_B) * B_g
    C_p += b * C_b + (h_ // per_C) * C_g
    dC_p += b * T * H * N + h_ * N
    products_p += b * T * H + h_
    if RESET:
        reset_p += b * T
    rate = tl.load(A_p + h_).to(ACC) * LOG2E
    h_offsets = p[None, :] * N + n[:, None]
    h_mask = (p[None, :] < P) & (n[:, None] < N)
    if INITIAL:
        h = tl.load(h0_p + pair * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC)
    else:
        h = tl.zeros((BN, BP), ACC)
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
        xt = load_tile(x_p + start * x_t, q, x_t, p, P, end, UP)
        dy = load_tile(dy_p + start * H * P, q, H * P, p, P, end, UP)
        # Tiles are transposed: row s is the token that is written, column t the one that reads.
        keep = q[:, None] <= q[None, :]
        if RESET:
            keep = keep & (seg[:, None] == seg[None, :])
        tile = tl.where(keep, tl.exp2(tl.minimum(c[None, :] - c[:, None], 0.0)), 0.0) * dt[:, None]
        tile *= tl.dot(xt, tl.trans(dy), out_dtype=ACC, input_precision=PRECISION)
        read = tl.dot(h.to(LOW), tl.trans(dy), out_dtype=ACC, input_precision=PRECISION) * e[None, :]
        Ct = load_tile(C_p + start * C_t, q, C_t, n, N, end, UP)
        products = tl.sum(read * tl.trans(Ct).to(ACC), 0)
        Bt = load_tile(B_p + start * B_t, q, B_t, n, N, end, UP)
        scores = tl.dot(Bt, tl.trans(Ct), out_dtype=ACC, input_precision=PRECISION)
        products += tl.sum(tile * scores, 0)
        read += tl.dot(tl.trans(Bt), tile.to(LOW), out_dtype=ACC, input_precision=PRECISION)
        dC_at = dC_p + start * H * N + q[None, :] * (H * N) + n[:, None]
        tl.store(dC_at, read.to(dC_p.dtype.element_ty), mask=(q[None, :] < end) & (n[:, None] < N))
        tl.store(products_p + start * H + q * H, products, mask=q < end)
        write = (tl.trans(Bt).to(ACC) * (w * dt)[None, :]).to(LOW)
        h = h * g + tl.dot(write, xt, out_dtype=ACC, input_precision=PRECISION)


@triton.jit
def backward_B_kernel(
    x_p, dt_p, A_p, C_p, reset_p, dy_p, dlast_p, dB_p,
    table_p, scale_p, dsaved_p,
    x_b, x_t, x_h, dt_b, dt_t, dt_h, C_b, C_t, C_g,
    T, H, P: tl.constexpr, N: tl.constexpr, per_C, chunks, edits, saves,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, RESET: tl.constexpr, TABLE: tl.constexpr,
    UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of B for each head."""
    pair = tl.program_id(0).to(tl.int64)
    b, h_ = pair // H, pair % H
    p = tl.arange(0, BP)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    x_p += b * x_b + h_ * x_h
    dy_p += b * T * H * P + h_ * P
    dt_p += b * dt_b + h_ * dt_h
    C_p += b * C_b + (h_ // per_C) * C_g
    dB_p += b * T * H * N + h_ * N
    if RESET:
        reset_p += b * T
    rate = tl.load(A_p + h_).to(ACC) * LOG2E
    h_offsets = p[None, :] * N + n[:, None]
    h_mask = (p[None, :] < P) & (n[:, None] < N)
    dh = tl.load(dlast_p + pair * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC)
    for k in range(chunks):
        i = chunks - 1 - k
        if TABLE:
            start = tl.load(table_p + 4 * i).to(tl.int64)
            stop = tl.load(table_p + 4 * i + 1).to(tl.int64)
            if dsaved_p is not None:
                save = tl.load(table_p + 4 * i + 3).to(tl.int64)
                if save >= 0:
                    at = ((b * saves + save) * H + h_) * P * N + h_offsets
                    dh += tl.load(dsaved_p + at, mask=h_mask, other=0.0).to(ACC)
        else:
            start = tl.cast(i, tl.int64) * Q
            stop = T
        end = (stop - start).to(tl.int32)
        dt, c, seg, cut, cuts, e, w, g = decays(  # type: ignore[misc]
            dt_p + start * dt_t, dt_t, reset_p + start if RESET else reset_p, q, end, rate, RESET, ACC
        )
        xt = load_tile(x_p + start * x_t, q, x_t, p, P, end, UP)
        dy = load_tile(dy_p + start * H * P, q, H * P, p, P, end, UP)
        # Row t is the token that reads, column s the one that is written.
        keep = q[:, None] >= q[None, :]
        if RESET:
            keep = keep & (seg[:, None] == seg[None, :])
        tile = tl.where(keep, tl.exp2(tl.minimum(c[:, None] - c[None, :], 0.0)), 0.0)
        tile *= tl.dot(dy, tl.trans(xt), out_dtype=ACC, input_precision=PRECISION)
        dB = tl.dot(dh.to(LOW), tl.trans(xt), out_dtype=ACC, input_precision=PRECISION) * w[None, :]
        Ct = load_tile(C_p + start * C_t, q, C_t, n, N, end, UP)
        dB += tl.dot(tl.trans(Ct), tile.to(LOW), out_dtype=ACC, input_precision=PRECISION)
        dB *= dt[None, :]
        dB_at = dB_p + start * H * N + q[None, :] * (H * N) + n[:, None]
        tl.store(dB_at, dB.to(dB_p.dtype.element_ty), mask=(q[None, :] < end) & (n[:, None] < N))
        pulled = (tl.trans(Ct).to(ACC) * e[None, :]).to(LOW)
        dh = dh * g + tl.dot(pulled, dy, out_dtype=ACC, input_precision=PRECISION)
        if scale_p is not None:
            edit = tl.load(table_p + 4 * i + 2).to(tl.int64)
            if edit >= 0:
                dh = dh * tl.load(scale_p + (b * edits + edit) * H + h_).to(ACC)


@triton.jit
def backward_x_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, reset_p, dy_p, products_p, last_p, dlast_p,
    dx_p, ddt_p, dA_p, dD_p, dh0_p,
    table_p, scale_p, add_p, saved_p, dsaved_p, dadd_p,
    x_b, x_t, x_h, dt_b, dt_t, dt_h, B_b, B_t, B_g, C_b, C_t, C_g,
    T, H, P: tl.constexpr, N: tl.constexpr, per_B, per_C, chunks, edits, saves,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    DIRECT: tl.constexpr, RESET: tl.constexpr, TABLE: tl.constexpr, ADD: tl.constexpr,
    UP: tl.constexpr, LOW: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of all but B and C; those of A and D for each sequence."""
    pair = tl.program_id(0).to(tl.int64)
    b, h_ = pair // H, pair % H
    p = tl.arange(0, BP)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    x_p += b * x_b + h_ * x_h
    dy_p += b * T * H * P + h_ * P
    dt_p += b * dt_b + h_ * dt_h
    B_p += b * B_b + (h_ // per_B) * B_g
    C_p += b * C_b + (h_ // per_C) * C_g
    dx_p += b * T * H * P + h_ * P
    products_p += b * T * H + h_
    ddt_p += b * T * H + h_
    if RESET:
        reset_p += b * T
    A = tl.load(A_p + h_).to(ACC)
    rate = A * LOG2E
    if DIRECT:
        direct = tl.load(D_p + h_).to(ACC)
    h_offsets = p[:, None] * N + n[None, :]
    h_mask = (p[:, None] < P) & (n[None, :] < N)
    dh = tl.load(dlast_p + pair * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC)
    # <h, dh> at the right edge of the chunk: what the decays of the chunk owe to all that comes later.
    tail = tl.sum(tl.load(last_p + pair * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC) * dh)
    dA = A * 0.0
    dD = A * 0.0
    for k in range(chunks):
        i = chunks - 1 - k
        if TABLE:
            start = tl.load(table_p + 4 * i).to(tl.int64)
            stop = tl.load(table_p + 4 * i + 1).to(tl.int64)
            if dsaved_p is not None:
                save = tl.load(table_p + 4 * i + 3).to(tl.int64)
                if save >= 0:
                    at = ((b * saves + save) * H + h_) * P * N + h_offsets
                    dsaved = tl.load(dsaved_p + at, mask=h_mask, other=0.0).to(ACC)
                    tail += tl.sum(dsaved * tl.load(saved_p + at, mask=h_mask, other=0.0).to(ACC))
                    dh += dsaved
        else:
            start = tl.cast(i, tl.int64) * Q
            stop = T
        end = (stop - start).to(tl.int32)
        dt, c, seg, cut, cuts, e, w, g = decays(  # type: ignore[misc]
            dt_p + start * dt_t, dt_t, reset_p + start if RESET else reset_p, q, end, rate, RESET, ACC
        )
        Bt = load_tile(B_p + start * B_t, q, B_t, n, N, end, UP)
        Ct = load_tile(C_p + start * C_t, q, C_t, n, N, end, UP)
        # Tiles are not transposed: row t is the token that reads, column s the one that is written.
        keep = q[:, None] >= q[None, :]
        if RESET:
            keep = keep & (seg[:, None] == seg[None, :])
        tile = tl.where(keep, tl.exp2(tl.minimum(c[:, None] - c[None, :], 0.0)), 0.0)
        tile *= tl.dot(Ct, tl.trans(Bt), out_dtype=ACC, input_precision=PRECISION)
        du = tl.dot(dh.to(LOW), tl.trans(Bt), out_dtype=ACC, input_precision=PRECISION) * w[None, :]
        dy = load_tile(dy_p + start * H * P, q, H * P, p, P, end, UP)
        du += tl.dot(tl.trans(dy), tile.to(LOW), out_dtype=ACC, input_precision=PRECISION)
        xt = load_tile(x_p + start * x_t, q, x_t, p, P, end, UP)
        xdu = tl.sum(du * tl.trans(xt).to(ACC), 0)
        dx = du * dt[None, :]
        if DIRECT:
            dx += direct * tl.trans(dy).to(ACC)
            dD += tl.sum(tl.sum(tl.trans(dy).to(ACC) * tl.trans(xt).to(ACC), 0), 0)
        dx_at = dx_p + start * H * P + q[None, :] * (H * P) + p[:, None]
        tl.store(dx_at, dx.to(dx_p.dtype.element_ty), mask=(q[None, :] < end) & (p[:, None] < P))
        dc = tl.load(products_p + start * H + q * H, mask=q < end, other=0.0) - dt * xdu
        da = tl.sum(tl.where(keep, dc[:, None], 0.0), 0)
        if RESET:
            # Other comparisons than in `decays`: the masks made there need not be kept until here.
            da = tl.where(seg >= cuts, da + tail, da)
            da = tl.where(cut != 0, 0.0, da)
            tail = tl.sum(tl.where(seg < 1, dc, 0.0), 0) + tl.where(cuts < 1, tail, 0.0)
        else:
            da += tail
            tail += tl.sum(dc, 0)
        tl.store(ddt_p + start * H + q * H, xdu + da * A, mask=q < end)
        dA += tl.sum(da * dt, 0)
        pulled = (tl.trans(dy).to(ACC) * e[None, :]).to(LOW)
        dh = dh * g + tl.dot(pulled, Ct, out_dtype=ACC, input_precision=PRECISION)
        if scale_p is not None:
            edit = tl.load(table_p + 4 * i + 2).to(tl.int64)
            if edit >= 0:
                slot = (b * edits + edit) * H + h_
                scale = tl.load(scale_p + slot).to(ACC)
                tl.store(dadd_p + slot * P * N + h_offsets, dh, mask=h_mask)
                if ADD:
                    add = tl.load(add_p + slot * P * N + h_offsets, mask=h_mask, other=0.0).to(ACC)
                    tail -= tl.sum(add * dh)
                tail = tl.where(scale == 0.0, 0.0, tail)
                dh = dh * scale
    tl.store(dA_p + pair, dA)
    tl.store(dD_p + pair, dD)
    tl.store(dh0_p + pair * P * N + h_offsets, dh, mask=h_mask)
