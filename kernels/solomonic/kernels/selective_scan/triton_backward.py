"""Backward pass of `selective_scan` on a GPU: chunks from the last to the first, no atomics, fixed order of sums.

The states before every token, h_{t-1}, and the gradients g_t = dy_t C_t' + a_{t+1} g_{t+1} of the states are one
associative scan each. Sums over channels leave one partial result a program, which are added up afterwards.
"""

from __future__ import annotations

import triton
import triton.language as tl

from solomonic.kernels.selective_scan.triton_forward import compose, decay, rows

__all__ = ["backward_kernel"]


@triton.jit
def backward_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, reset_p, dy_p, starts_p, dlast_p,
    dx_p, ddt_p, dA_p, dB_p, dC_p, dD_p, dh0_p,
    T, E, chunks,
    N: tl.constexpr, Q: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, DIRECT: tl.constexpr,
    RESET: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    mask = (e < E)[:, None] & (n < N)[None, :]
    at = e[:, None] * N + n[None, :]
    rates = tl.load(A_p + at, mask=mask, other=0.0).to(ACC)
    A = rates * 1.4426950408889634
    carry = tl.load(dlast_p + batch * E * N + at, mask=mask, other=0.0).to(ACC)
    dA = tl.zeros((BE, BN), ACC)
    dD = tl.zeros((BE,), ACC)
    direct = tl.zeros((BE,), ACC)
    if DIRECT:
        direct = tl.load(D_p + e, mask=e < E, other=0.0).to(ACC)
    partial = (batch * tl.num_programs(0) + tl.program_id(0)) * T * N
    for j in range(chunks):
        i = chunks - 1 - j
        t = i * Q + q
        x = rows(x_p + batch * T * E, t, T, e, E, UP).to(ACC)
        dt = rows(dt_p + batch * T * E, t, T, e, E, UP).to(ACC)
        B = rows(B_p + batch * T * N, t, T, n, N, UP).to(ACC)
        C = rows(C_p + batch * T * N, t, T, n, N, UP).to(ACC)
        dy = rows(dy_p + batch * T * E, t, T, e, E, UP).to(ACC)
        a = decay(dt, A, reset_p, batch * T, t, T, RESET)
        # The states before each token: the inputs of the tokens before, and the state before the chunk.
        start = tl.load(starts_p + (batch * chunks + i) * E * N + at, mask=mask, other=0.0).to(ACC)
        old_x = rows(x_p + batch * T * E, t - 1, T, e, E, UP).to(ACC)
        old_dt = rows(dt_p + batch * T * E, t - 1, T, e, E, UP).to(ACC)
        old_B = rows(B_p + batch * T * N, t - 1, T, n, N, UP).to(ACC)
        old_a = decay(old_dt, A, reset_p, batch * T, t - 1, T, RESET)
        old_b = (old_dt * old_x)[:, None, :] * old_B[None, :, :]
        old_b = tl.where((q == 0)[None, None, :], start[:, :, None], old_b)
        _, before = tl.associative_scan((old_a, old_b), 2, compose)
        h = a * before + (dt * x)[:, None, :] * B[None, :, :]
        dC = tl.sum(h * dy[:, None, :], 0)
        # The gradients of the states, from behind.
        new_dt = rows(dt_p + batch * T * E, t + 1, T, e, E, UP).to(ACC)
        new_a = decay(new_dt, A, reset_p, batch * T, t + 1, T, RESET)
        new_a = tl.where((q == Q - 1)[None, None, :], 1.0, new_a)
        product, g = tl.associative_scan((new_a, dy[:, None, :] * C[None, :, :]), 2, compose, reverse=True)
        g += product * carry[:, :, None]
        carry = tl.sum(tl.where((q == 0)[None, None, :], a * g, 0.0), 2)
        dB = tl.sum(g * (dt * x)[:, None, :], 0)
        write = tl.sum(g * B[None, :, :], 1)
        da = g * a * before
        dA += tl.sum(da * dt[:, None, :], 2)
        ddt = tl.sum(da * rates[:, :, None], 1) + write * x
        dx = write * dt + direct[:, None] * dy
        dD += tl.sum(dy * x, 1)
        wide = t.to(tl.int64)
        there = (t < T)[None, :] & (e < E)[:, None]
        tl.store(dx_p + batch * T * E + wide[None, :] * E + e[:, None], dx.to(dx_p.dtype.element_ty), mask=there)
        tl.store(ddt_p + batch * T * E + wide[None, :] * E + e[:, None], ddt.to(ddt_p.dtype.element_ty), mask=there)
        there = (t < T)[None, :] & (n < N)[:, None]
        tl.store(dB_p + partial + wide[None, :] * N + n[:, None], dB, mask=there)
        tl.store(dC_p + partial + wide[None, :] * N + n[:, None], dC, mask=there)
    tl.store(dA_p + batch * E * N + at, dA, mask=mask)
    tl.store(dh0_p + batch * E * N + at, carry, mask=mask)
    if DIRECT:
        tl.store(dD_p + batch * E + e, dD, mask=e < E)
