"""Kernels of `short_conv`: a program takes BT tokens of BC channels; taps are read again from the cache.

Position p of the padded input is token p, or slot p + k - 1 of the register where p is negative. A reset hides an input
at p from a token t if it lies at p + 1 .. t.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward_kernel", "forward_kernel", "step_kernel"]


@triton.jit
def _input(x_p, state_p, batch, p, c, T, C, TAPS: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr):
    """Inputs at the positions p, zero where there is none."""
    p = p.to(tl.int64)
    there = (p >= 0) & (p < T)
    tile = tl.load(x_p + (batch * T + p)[:, None] * C + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0)
    tile = (tile if UP is None else tile.to(UP)).to(ACC)
    if TAPS > 0:
        old = (p < 0) & (p >= -TAPS)
        slot = tl.load(
            state_p + (batch * TAPS + p + TAPS)[:, None] * C + c[None, :], mask=old[:, None] & (c < C)[None, :],
            other=0.0,
        )  # fmt: skip
        tile += (slot if UP is None else slot.to(UP)).to(ACC)
    return tile


@triton.jit
def _flag(reset_p, batch, t, T):
    return tl.load(reset_p + batch * T + t, mask=(t >= 0) & (t < T), other=0).to(tl.int32)


@triton.jit
def _weight(weight_p, c, j, C, TAPS: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr):
    w = tl.load(weight_p + c * (TAPS + 1) + j, mask=c < C, other=0.0)
    return (w if UP is None else w.to(UP)).to(ACC)


@triton.jit
def _sum(
    x_p, state_p, weight_p, bias_p, reset_p, batch, t, c, T, C, TAPS: tl.constexpr, BIAS: tl.constexpr,
    RESET: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The weighted sums of tokens t, before the activation."""
    z = _input(x_p, state_p, batch, t, c, T, C, TAPS, UP, ACC) * _weight(weight_p, c, TAPS, C, TAPS, UP, ACC)[None, :]
    hidden = tl.zeros(t.shape, tl.int32)
    for back in tl.static_range(1, TAPS + 1):
        tap = _input(x_p, state_p, batch, t - back, c, T, C, TAPS, UP, ACC)
        if RESET:
            hidden += _flag(reset_p, batch, t - back + 1, T)
            tap = tl.where((hidden == 0)[:, None], tap, 0.0)
        z += tap * _weight(weight_p, c, TAPS - back, C, TAPS, UP, ACC)[None, :]
    if BIAS:
        bias = tl.load(bias_p + c, mask=c < C, other=0.0)
        z += (bias if UP is None else bias.to(UP)).to(ACC)[None, :]
    return z


@triton.jit
def _sigmoid(z):
    # 1 / (1 + exp(-z)) without an overflow, in double precision too.
    e = tl.exp2(-tl.abs(z) * 1.4426950408889634)
    return tl.where(z >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def forward_kernel(
    x_p, state_p, weight_p, bias_p, reset_p, y_p, T, C,
    TAPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BIAS: tl.constexpr, RESET: tl.constexpr,
    SILU: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    z = _sum(x_p, state_p, weight_p, bias_p, reset_p, batch, t, c, T, C, TAPS, BIAS, RESET, UP, ACC)
    if SILU:
        z = z * _sigmoid(z)
    at = y_p + (batch * T + t)[:, None] * C + c[None, :]
    tl.store(at, z.to(y_p.dtype.element_ty), mask=(t < T)[:, None] & (c < C)[None, :])


@triton.jit
def _slope(
    x_p, state_p, weight_p, bias_p, reset_p, dy_p, batch, t, c, T, C, TAPS: tl.constexpr, BIAS: tl.constexpr,
    RESET: tl.constexpr, SILU: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the sums of tokens t; zero where there is no token."""
    at = dy_p + (batch * T + t)[:, None] * C + c[None, :]
    dy = tl.load(at, mask=((t >= 0) & (t < T))[:, None] & (c < C)[None, :], other=0.0)
    dy = (dy if UP is None else dy.to(UP)).to(ACC)
    if SILU:
        z = _sum(x_p, state_p, weight_p, bias_p, reset_p, batch, t, c, T, C, TAPS, BIAS, RESET, UP, ACC)
        s = _sigmoid(z)
        dy = dy * (s + z * s * (1.0 - s))
    return dy


@triton.jit
def backward_kernel(
    x_p, state_p, weight_p, bias_p, reset_p, dy_p, dx_p, dstate_p, parts_p, T, C,
    TAPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BIAS: tl.constexpr, RESET: tl.constexpr,
    SILU: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of BT positions of the padded input, and this program's part of those of the weights and the bias."""
    batch = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BT + tl.arange(0, BT) - TAPS
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    dz = _slope(x_p, state_p, weight_p, bias_p, reset_p, dy_p, batch, p, c, T, C, TAPS, BIAS, RESET, SILU, UP, ACC)
    part = parts_p + (batch * tl.num_programs(0) + tl.program_id(0)) * (TAPS + 2) * C + c
    tl.store(part + (TAPS + 1) * C, tl.sum(dz, 0), mask=c < C)
    x = _input(x_p, state_p, batch, p, c, T, C, TAPS, UP, ACC)
    tl.store(part + TAPS * C, tl.sum(dz * x, 0), mask=c < C)
    dx = dz * _weight(weight_p, c, TAPS, C, TAPS, UP, ACC)[None, :]
    hidden = tl.zeros((BT,), tl.int32)
    before = tl.zeros((BT,), tl.int32)
    for back in tl.static_range(1, TAPS + 1):
        x = _input(x_p, state_p, batch, p - back, c, T, C, TAPS, UP, ACC)
        later = _slope(
            x_p, state_p, weight_p, bias_p, reset_p, dy_p, batch, p + back, c, T, C, TAPS, BIAS, RESET, SILU, UP, ACC,
        )  # fmt: skip
        if RESET:
            before += _flag(reset_p, batch, p - back + 1, T)
            x = tl.where((before == 0)[:, None], x, 0.0)
            hidden += _flag(reset_p, batch, p + back, T)
            later = tl.where((hidden == 0)[:, None], later, 0.0)
        tl.store(part + (TAPS - back) * C, tl.sum(dz * x, 0), mask=c < C)
        dx += later * _weight(weight_p, c, TAPS - back, C, TAPS, UP, ACC)[None, :]
    there = ((p >= 0) & (p < T))[:, None] & (c < C)[None, :]
    tl.store(dx_p + (batch * T + p)[:, None] * C + c[None, :], dx.to(dx_p.dtype.element_ty), mask=there)
    if TAPS > 0:
        old = ((p >= -TAPS) & (p < 0))[:, None] & (c < C)[None, :]
        at = dstate_p + (batch * TAPS + p + TAPS)[:, None] * C + c[None, :]
        tl.store(at, dx.to(dstate_p.dtype.element_ty), mask=old)


@triton.jit
def step_kernel(
    x_p, state_p, weight_p, bias_p, reset_p, y_p, next_p, C,
    TAPS: tl.constexpr, BC: tl.constexpr, BIAS: tl.constexpr, RESET: tl.constexpr, SILU: tl.constexpr,
    UP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One token (decoding): read out the register with it, and shift it in."""
    batch = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    keep = 1
    if RESET:
        keep = tl.where(tl.load(reset_p + batch).to(tl.int32) == 0, 1, 0)
    x = tl.load(x_p + batch * C + c, mask=c < C, other=0.0)
    now = (x if UP is None else x.to(UP)).to(ACC)
    z = now * _weight(weight_p, c, TAPS, C, TAPS, UP, ACC)
    for j in tl.static_range(0, TAPS):
        tap = tl.load(state_p + (batch * TAPS + j) * C + c, mask=(c < C) & (keep == 1), other=0.0)
        z += (tap if UP is None else tap.to(UP)).to(ACC) * _weight(weight_p, c, j, C, TAPS, UP, ACC)
        if j > 0:
            tl.store(next_p + (batch * TAPS + j - 1) * C + c, tap, mask=c < C)
    if TAPS > 0:
        tl.store(next_p + (batch * TAPS + TAPS - 1) * C + c, x, mask=c < C)
    if BIAS:
        bias = tl.load(bias_p + c, mask=c < C, other=0.0)
        z += (bias if UP is None else bias.to(UP)).to(ACC)
    if SILU:
        z = z * _sigmoid(z)
    tl.store(y_p + batch * C + c, z.to(y_p.dtype.element_ty), mask=c < C)
