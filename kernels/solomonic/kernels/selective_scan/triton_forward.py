"""Forward pass of `selective_scan` on a GPU: a program takes BE channels of a sequence and walks along its chunks.

Inside a chunk of Q tokens, the recurrence of all channels and states is one associative scan of pairs (a, b) over the
time; only the state at the chunk's end goes on, in registers. Nothing of the size [T, E, N] is ever stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["compose", "decay", "forward_kernel", "rows", "step_kernel"]


@triton.jit
def compose(a, b, later_a, later_b):
    """One after the other: h -> a h + b, then h -> later_a h + later_b."""
    return a * later_a, later_a * b + later_b


@triton.jit
def rows(pointer, t, T, columns, width, UP: tl.constexpr):
    """[columns, time] of a [T, width] matrix; zero before the first and after the last token."""
    mask = ((t >= 0) & (t < T))[None, :] & (columns < width)[:, None]
    tile = tl.load(pointer + t[None, :].to(tl.int64) * width + columns[:, None], mask=mask, other=0.0)
    return tile if UP is None else tile.to(UP)


@triton.jit
def decay(dt, A, reset_p, first, t, T, RESET: tl.constexpr):
    """exp(dt A) as [channels, states, time], from A in base 2; zero where the state is reset.

    The flags of the sequence begin at `first`.
    """
    a = tl.exp2(dt[:, None, :] * A[:, :, None])
    if RESET:
        cut = tl.load(reset_p + first + t, mask=(t >= 0) & (t < T), other=0).to(tl.int32)
        a = tl.where((cut == 0)[None, None, :], a, 0.0)
    return a


@triton.jit
def forward_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, h0_p, reset_p, y_p, last_p, starts_p,
    T, E, chunks,
    N: tl.constexpr, Q: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, DIRECT: tl.constexpr,
    INITIAL: tl.constexpr, RESET: tl.constexpr, STARTS: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """STARTS: the state before every chunk is stored too, for the backward pass."""
    batch = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    mask = (e < E)[:, None] & (n < N)[None, :]
    at = e[:, None] * N + n[None, :]
    A = tl.load(A_p + at, mask=mask, other=0.0).to(ACC) * 1.4426950408889634
    h = tl.zeros((BE, BN), ACC)
    if INITIAL:
        h = tl.load(h0_p + batch * E * N + at, mask=mask, other=0.0).to(ACC)
    x_p += batch * T * E
    dt_p += batch * T * E
    y_p += batch * T * E
    B_p += batch * T * N
    C_p += batch * T * N
    for i in range(chunks):
        t = i * Q + q
        if STARTS:
            tl.store(starts_p + (batch * chunks + i) * E * N + at, h, mask=mask)
        x = rows(x_p, t, T, e, E, UP).to(ACC)
        dt = rows(dt_p, t, T, e, E, UP).to(ACC)
        B = rows(B_p, t, T, n, N, UP).to(ACC)
        C = rows(C_p, t, T, n, N, UP).to(ACC)
        a = decay(dt, A, reset_p, batch * T, t, T, RESET)
        b = (dt * x)[:, None, :] * B[None, :, :]
        product, states = tl.associative_scan((a, b), 2, compose)
        states += product * h[:, :, None]
        y = tl.sum(states * C[None, :, :], 1)
        if DIRECT:
            y += tl.load(D_p + e, mask=e < E, other=0.0).to(ACC)[:, None] * x
        y_at = y_p + t[None, :].to(tl.int64) * E + e[:, None]
        tl.store(y_at, y.to(y_p.dtype.element_ty), mask=(t < T)[None, :] & (e < E)[:, None])
        # Tokens that do not exist have dt = 0: they change nothing, and the last state is that of the last column.
        h = tl.sum(tl.where((q == Q - 1)[None, None, :], states, 0.0), 2)
    tl.store(last_p + batch * E * N + at, h, mask=mask)


@triton.jit
def step_kernel(
    x_p, dt_p, A_p, B_p, C_p, D_p, h0_p, reset_p, y_p, last_p,
    E,
    N: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, DIRECT: tl.constexpr, INITIAL: tl.constexpr,
    RESET: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One token (decoding): the state is read and written once."""
    batch = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    n = tl.arange(0, BN)
    mask = (e < E)[:, None] & (n < N)[None, :]
    at = e[:, None] * N + n[None, :]
    x = tl.load(x_p + batch * E + e, mask=e < E, other=0.0)
    dt = tl.load(dt_p + batch * E + e, mask=e < E, other=0.0)
    B = tl.load(B_p + batch * N + n, mask=n < N, other=0.0)
    C = tl.load(C_p + batch * N + n, mask=n < N, other=0.0)
    if UP is not None:
        x, dt, B, C = x.to(UP), dt.to(UP), B.to(UP), C.to(UP)
    x, dt, B, C = x.to(ACC), dt.to(ACC), B.to(ACC), C.to(ACC)
    h = (dt * x)[:, None] * B[None, :]
    if INITIAL:
        A = tl.load(A_p + at, mask=mask, other=0.0).to(ACC) * 1.4426950408889634
        keep = tl.exp2(dt[:, None] * A)
        if RESET:
            keep = tl.where(tl.load(reset_p + batch).to(tl.int32) == 0, keep, 0.0)
        h += keep * tl.load(h0_p + batch * E * N + at, mask=mask, other=0.0).to(ACC)
    y = tl.sum(h * C[None, :], 1)
    if DIRECT:
        y += tl.load(D_p + e, mask=e < E, other=0.0).to(ACC) * x
    tl.store(y_p + batch * E + e, y.to(y_p.dtype.element_ty), mask=e < E)
    tl.store(last_p + batch * E * N + at, h, mask=mask)
