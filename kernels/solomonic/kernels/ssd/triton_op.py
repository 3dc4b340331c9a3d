"""`ssd` by Triton kernels: starts them, and joins them into one differentiable operation."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from solomonic.kernels.ssd.configs import config
from solomonic.kernels.ssd.pieces import Edits, chunk_table
from solomonic.kernels.ssd.triton_backward import backward_B_kernel, backward_C_kernel, backward_x_kernel
from solomonic.kernels.ssd.triton_forward import forward_kernel, step_kernel
from solomonic.kernels.triton.launch import architecture_of, launch

__all__ = ["ssd_triton"]


class _Types(NamedTuple):
    """UP: what loaded tiles are raised to; LOW: operands of products; ACC: sums."""

    UP: Any
    LOW: Any
    ACC: Any


def _types(dtype: torch.dtype) -> _Types:
    if dtype == torch.float64:
        return _Types(None, tl.float64, tl.float64)
    if dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET", "0") == "0":
        return _Types(None, tl.bfloat16, tl.float32)
    # float16 has too small a range for states, and the interpreter cannot compute in bfloat16: both are raised.
    return _Types(None if dtype == torch.float32 else tl.float32, tl.float32, tl.float32)


def _rows(value: Tensor) -> Tensor:
    """`value` with its last dimension contiguous, as the kernels read it."""
    return value if value.stride(-1) == 1 or value.shape[-1] <= 1 else value.contiguous()


class _Call:
    """What all kernels of one call need."""

    def __init__(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, saves: tuple[int, ...], edits: Edits | None):
        self.batch, self.T, self.H, self.P = x.shape
        self.N = B.shape[3]
        self.per_B, self.per_C = self.H // B.shape[2], self.H // C.shape[2]
        self.strides = (*x.stride()[:3], *dt.stride(), *B.stride()[:3], *C.stride()[:3])
        self.arch = architecture_of(x)
        self.itemsize = x.element_size()
        self.types = _types(x.dtype)
        self.work = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.saves, self.edits = saves, edits
        self.like = x
        self.BN = max(16, 1 << (self.N - 1).bit_length())

    def options(self, kernel: str) -> tuple[int, dict[str, Any], int]:
        """Chunk, constants and channels of a program."""
        chosen = config(kernel, self.arch, self.itemsize, self.P, self.N)
        # Products of float32 are exact ones: the three-pass form on NVIDIA's matrix units (tf32x3) spills. tf32
        # holds float16 exactly; AMD's matrix units multiply float32.
        half = self.like.dtype == torch.float16 and self.arch.startswith("sm_")
        precision = "tf32" if half else "ieee"
        named = {"Q": chosen.Q, "BP": chosen.BP, "BN": self.BN, "PRECISION": precision}
        return (
            chosen.Q,
            named | self.types._asdict() | {"num_warps": chosen.warps, "num_stages": chosen.stages},
            chosen.BP,
        )

    def table(self, Q: int) -> tuple[Tensor | None, int]:
        """The table of chunks, where they are not just consecutive, and how many there are."""
        if self.edits is None and not self.saves:
            return None, -(-self.T // Q)
        positions = () if self.edits is None else self.edits.positions
        rows = chunk_table(self.T, Q, positions, self.saves)
        return torch.tensor(rows, dtype=torch.int32, device=self.like.device), len(rows)

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.like.new_empty(shape, dtype=dtype or self.work)


def _edit_arguments(edits: Edits | None) -> tuple[Tensor | None, Tensor | None, int]:
    if edits is None:
        return None, None, 0
    return edits.scale.contiguous(), None if edits.add is None else edits.add.contiguous(), len(edits.positions)


class _Scan(torch.autograd.Function):
    """y, the last state and the saved states."""

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, D, h0, scale, add, reset, positions, saves):  # type: ignore[override]
        edits = None if scale is None else Edits(positions, scale, add)
        x, B, C = _rows(x), _rows(B), _rows(C)
        call = _Call(x, dt, B, C, saves, edits)
        Q, named, BP = call.options("forward")
        table, chunks = call.table(Q)
        scales, adds, count = _edit_arguments(edits)
        y = call.new(call.batch, call.T, call.H, call.P, dtype=x.dtype)
        last = call.new(call.batch, call.H, call.P, call.N)
        saved = call.new(call.batch, len(saves), call.H, call.P, call.N)
        launch(
            forward_kernel,
            (call.batch * call.H, -(-call.P // BP)),
            *(x, dt, A, B, C, D, h0, reset, y, last, table, scales, adds, saved if saves else None),
            *call.strides,
            *(call.T, call.H, call.P, call.N, call.per_B, call.per_C, chunks, count, len(saves)),
            DIRECT=D is not None,
            INITIAL=h0 is not None,
            RESET=reset is not None,
            TABLE=table is not None,
            ADD=adds is not None,
            **named,
        )
        ctx.save_for_backward(x, dt, A, B, C, D, h0, scale, add, reset, last, saved)
        ctx.positions, ctx.saves = positions, saves
        return y, last, saved

    @staticmethod
    def backward(ctx: Any, dy, dlast, dsaved):  # type: ignore[override]
        x, dt, A, B, C, D, h0, scale, add, reset, last, saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise NotImplementedError("backend 'triton' has no second derivatives: use backend='cpu' for them")
        edits = None if scale is None else Edits(ctx.positions, scale, add)
        dy, dlast, dsaved = dy.contiguous(), dlast.contiguous(), dsaved.contiguous()
        call = _Call(x, dt, B, C, ctx.saves, edits)
        scales, adds, count = _edit_arguments(edits)
        flags = {"RESET": reset is not None, "ADD": adds is not None}
        sizes = (call.T, call.H, call.P, call.N, call.per_B, call.per_C)
        per_head = call.batch, call.T, call.H

        Q, named, _ = call.options("C")
        table, chunks = call.table(Q)
        dC = call.new(*per_head, call.N, dtype=C.dtype if call.per_C == 1 else None)
        products = call.new(*per_head)
        launch(
            backward_C_kernel,
            (call.batch * call.H,),
            *(x, dt, A, B, C, h0, reset, dy, dC, products, table, scales, adds),
            *(*call.strides, *sizes, chunks, count),
            INITIAL=h0 is not None,
            TABLE=table is not None,
            **flags,
            **named,
        )
        Q, named, _ = call.options("B")
        table, chunks = call.table(Q)
        some, dsome = (saved, dsaved) if ctx.saves else (None, None)
        dB = call.new(*per_head, call.N, dtype=B.dtype if call.per_B == 1 else None)
        launch(
            backward_B_kernel,
            (call.batch * call.H,),
            *(x, dt, A, C, reset, dy, dlast, dB, table, scales, dsome),
            *(*call.strides[:6], *call.strides[9:]),
            *(call.T, call.H, call.P, call.N, call.per_C, chunks, count, len(ctx.saves)),
            TABLE=table is not None,
            RESET=reset is not None,
            **named,
        )
        Q, named, _ = call.options("x")
        table, chunks = call.table(Q)
        dx = call.new(*per_head, call.P, dtype=x.dtype)
        ddt = call.new(*per_head)
        dA, dD, dh0 = call.new(call.batch, call.H), call.new(call.batch, call.H), torch.empty_like(last)
        dadd = call.new(call.batch, count, call.H, call.P, call.N) if count else None
        launch(
            backward_x_kernel,
            (call.batch * call.H,),
            *(x, dt, A, B, C, D, reset, dy, products, last, dlast, dx, ddt, dA, dD, dh0),
            *(table, scales, adds, some, dsome, dadd),
            *(*call.strides, *sizes, chunks, count, len(ctx.saves)),
            DIRECT=D is not None,
            TABLE=table is not None,
            **flags,
            **named,
        )
        dB, dC = (
            g.unflatten(2, (v.shape[2], -1)).sum(3).to(v.dtype) if g.shape[2] != v.shape[2] else g
            for g, v in ((dB, B), (dC, C))
        )
        dD = None if D is None else dD.sum(0).to(D.dtype)
        dh0 = None if h0 is None else dh0.to(h0.dtype)
        dscale = None
        if dadd is not None and ctx.needs_input_grad[7]:
            dscale = (_states_before(ctx.positions, ctx.saves, saved, h0) * dadd).sum((-2, -1))
        dadd = dadd if add is not None else None
        return dx, ddt.to(dt.dtype), dA.sum(0).to(A.dtype), dB, dC, dD, dh0, dscale, dadd, None, None, None


def _states_before(positions: tuple[int, ...], saves: tuple[int, ...], saved: Tensor, h0: Tensor | None) -> Tensor:
    """The states that edits at `positions` acted on, from those that were saved."""
    slots = {position: index for index, position in enumerate(saves)}
    first = torch.zeros_like(saved[:, 0]) if h0 is None else h0
    return torch.stack([first if p == 0 else saved[:, slots[p - 1]] for p in positions], 1)


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, h0: Any, reset: Any) -> tuple[Tensor, Tensor]:
    x, B, C = _rows(x), _rows(B), _rows(C)
    batch, _, H, P = x.shape
    N = B.shape[3]
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    last = x.new_empty(batch, H, P, N, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    launch(
        step_kernel,
        (batch * H, -(-P // 16)),
        *(x, dt, A, B, C, D, h0, reset, y, last),
        *(x.stride(0), x.stride(2), dt.stride(0), dt.stride(2), B.stride(0), B.stride(2), C.stride(0), C.stride(2)),
        *(H, P, N, H // B.shape[2], H // C.shape[2]),
        BP=16,
        BN=max(16, 1 << (N - 1).bit_length()),
        DIRECT=D is not None,
        INITIAL=h0 is not None,
        RESET=reset is not None,
        ACC=acc,
        num_warps=4,
        num_stages=1,
    )
    return y, last


def ssd_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
    chunk: int = 64,
    interventions: list[Edits | None] | None = None,
    saves: tuple[int, ...] | None = (),
    want: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, ...]]:
    """`ssd` by Triton kernels, with at most one intervention and no statistics.

    Arguments are validated; x, B and C come in their own dtype and are raised inside the kernels. `chunk` says where
    the chunks of ``saves=None`` end; the kernels have chunks of their own.
    """
    assert not want
    edits = interventions[0] if interventions else None
    A, D = A.contiguous(), None if D is None else D.contiguous()
    h0 = None if h0 is None else h0.contiguous()
    T = x.shape[1]
    if saves is None:
        saves = tuple(min(T, end) - 1 for end in range(chunk, T + chunk, chunk))
    inputs = (x, dt, A, B, C, D, h0)
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if T == 1 and edits is None and not saves and not grad:
        y, last = _step(x, dt, A, B, C, D, h0, reset)
        return y, last, None, ()
    positions, scale, add = (), None, None
    order = tuple(sorted(saves))
    if edits is not None and edits.positions:
        positions, scale, add = edits
        if reset is not None:
            # An edit acts after the reset of its token: the reset becomes part of the edit.
            at = list(positions)
            scale = scale.masked_fill(reset[:, at, None], 0.0)
            reset = reset.index_fill(1, torch.tensor(at, device=reset.device), False)
        if scale.requires_grad:
            order = tuple(sorted({*saves, *(p - 1 for p in positions if p)}))
    reset = None if reset is None else reset.contiguous()
    y, last, saved = _Scan.apply(x, dt, A, B, C, D, h0, scale, add, reset, positions, order)
    kept = saved[:, [order.index(position) for position in saves]] if saves else None
    if interventions is not None:
        y, last, kept = y[None], last[None], None if kept is None else kept[None]
    return y, last, kept, ()
