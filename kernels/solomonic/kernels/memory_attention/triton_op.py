"""`memory_attention` by Triton kernels: starts them, and joins them into one differentiable operation."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from solomonic.kernels.memory_attention.configs import config, splits
from solomonic.kernels.memory_attention.triton_backward import (
    backward_band_kernel,
    backward_query_kernel,
    backward_stored_kernel,
)
from solomonic.kernels.memory_attention.triton_forward import forward_kernel
from solomonic.kernels.triton.launch import architecture_of, launch

__all__ = ["memory_attention_triton"]

_LOG2E = math.log2(math.e)
# Keys of a source that one program reads when there is a single query.
_KEYS_OF_A_SPLIT = 512


class _Types(NamedTuple):
    """UP: what loaded tiles are raised to; LOW: operands of products; ACC: sums."""

    UP: Any
    LOW: Any
    ACC: Any


def _types(dtype: torch.dtype) -> tuple[_Types, int]:
    """Types, and the bytes of an operand."""
    if dtype == torch.float64:
        return _Types(None, tl.float64, tl.float64), 8
    if dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET", "0") == "0":
        return _Types(None, tl.bfloat16, tl.float32), 2
    # float16 has too small a range for gradients, and the interpreter cannot compute in bfloat16: both are raised.
    return _Types(None if dtype == torch.float32 else tl.float32, tl.float32, tl.float32), 4


def _listed(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The places of what is seen [..., M] first, and how many these are; in order, without waiting for the device."""
    place = seen.cumsum(-1)
    count = place[..., -1:]
    rest = count + (~seen).cumsum(-1)
    place = torch.where(seen, place, rest) - 1
    tokens = torch.arange(seen.shape[-1], dtype=torch.int32, device=seen.device).expand(seen.shape)
    return torch.empty_like(tokens, memory_format=torch.contiguous_format).scatter_(-1, place, tokens), count.squeeze(
        -1
    ).to(torch.int32).contiguous()


class _Call:
    """What all kernels of one call need."""

    def __init__(self, tensors: tuple[Any, ...], enter: Tensor | None, leave: Tensor | None, window: Any, scale: float):
        self.tensors = tensors
        q, k, v, qf, kf, _, qe, ke, _ = tensors
        self.B, self.T, self.H, self.K = q.shape
        self.S, self.G, self.V = k.shape[1], k.shape[2], v.shape[3]
        self.R = self.H // self.G
        self.window = self.S if window is None else window
        self.scale = scale
        self.SF = 0 if kf is None else kf.shape[1]
        self.M = 0 if ke is None else ke.shape[1]
        self.fading = 0 if kf is None else 1 if qf is None else 2
        self.stored = 0 if ke is None else 1 if qe is None else 2
        self.enter, self.leave = enter, leave
        self.sources = 1 + bool(self.fading) + bool(self.stored)
        self.types, self.itemsize = _types(q.dtype)
        self.work = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.arch = architecture_of(q)

    def options(self, kernel: str) -> tuple[int, int, dict[str, Any]]:
        """Sizes of tiles, and constants."""
        chosen = config(kernel, self.arch, self.itemsize, max(self.K, self.V), self.T * self.R)
        precision = chosen.precision
        if self.tensors[0].dtype == torch.float16 and precision == "tf32x3":
            precision = "tf32"  # holds float16 exactly
        sizes = {"BQ": chosen.BQ, "BN": chosen.BN, "BK": _block(self.K), "BV": _block(self.V)}
        named = (
            {"G": self.G, "R": self.R, "K": self.K, "V": self.V, "SCALE": self.scale * _LOG2E, "PRECISION": precision}
            | sizes
            | self.types._asdict()
        )
        return chosen.BQ, chosen.BN, named | {"num_warps": chosen.warps, "num_stages": chosen.stages}

    def lists(self, BQ: int) -> tuple[Tensor | None, Tensor | None]:
        """For each tile of BQ rows the stored tokens that its queries can see, and how many."""
        if not self.stored:
            return None, None
        assert self.enter is not None
        assert self.leave is not None
        rows = torch.arange(0, self.T * self.R, BQ, device=self.enter.device)
        first = rows // self.R
        last = (rows + BQ - 1).clamp(max=self.T * self.R - 1) // self.R
        enter, leave = self.enter.unsqueeze(1), self.leave.unsqueeze(1)
        seen = (enter <= last.view(1, -1, 1)) & (leave > first.view(1, -1, 1)) & (enter < leave)
        return _listed(seen)

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.tensors[0].new_empty(shape, dtype=dtype or self.work)


def _block(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


class _Attention(torch.autograd.Function):
    """Output and log-sum-exps [sources, B, T, H]."""

    @staticmethod
    def forward(ctx: Any, enter, leave, window, scale, *tensors):  # type: ignore[override]
        dtype = tensors[0].dtype
        tensors = tuple(None if each is None else each.contiguous() for each in tensors)
        call = _Call(tensors, enter, leave, window, scale)
        B, T, H, V = call.B, call.T, call.H, call.V
        longest = max(min(call.window, call.S), call.M)
        shares = min(16, -(-longest // _KEYS_OF_A_SPLIT)) if T == 1 else 1
        BQ, _, named = call.options("forward")
        tokens, counts = call.lists(BQ)
        out = call.new(shares, B, T, H, V, dtype=dtype if shares == 1 else None)
        lse = call.new(call.sources, shares, B, T, H)
        launch(
            forward_kernel,
            (-(-T * call.R // BQ), B * call.G, shares),
            *(*tensors, enter, leave, tokens, counts, out, lse),
            *(T, call.S, call.SF, call.M, call.window, shares, shares * B * T * H),
            FADING=call.fading,
            STORED=call.stored,
            **named,
        )
        if shares > 1:
            part = torch.logsumexp(lse, 0)
            weights = torch.softmax(part, 0)
            out = (out * weights.unsqueeze(-1)).sum(0).to(dtype)
            lse = torch.logsumexp(lse, 1)
        else:
            out, lse = out.squeeze(0), lse.squeeze(1)
        ctx.save_for_backward(*tensors, enter, leave, out, lse)
        ctx.window, ctx.scale = window, scale
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout, dlse):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise NotImplementedError("backend 'triton' has no second derivatives: use backend='cpu' for them")
        *tensors, enter, leave, out, lse = ctx.saved_tensors
        call = _Call(tuple(tensors), enter, leave, ctx.window, ctx.scale)
        stats = _statistics(out.to(call.work), lse, dout.to(call.work), dlse)
        dout = dout.contiguous()
        sizes = (call.T, call.S, call.SF, call.M, call.window, call.B * call.T * call.H)
        q, k, v, qf, kf, vf, qe, ke, ve = tensors
        BQ, _, named = call.options("query")
        named["FACTOR"] = call.scale
        listed, counts = call.lists(BQ)
        dq, dqf, dqe = (None if each is None else torch.empty_like(each) for each in (q, qf, qe))
        launch(
            backward_query_kernel,
            (-(-call.T * call.R // BQ), call.B * call.G),
            *(*tensors, enter, leave, listed, counts, dout, stats, dq, dqf, dqe, *sizes),
            FADING=call.fading,
            STORED=call.stored,
            **named,
        )
        dk, dv = _band(call, q, k, v, dout, stats[0], 0)
        dkf = dvf = dke = dve = None
        if call.fading:
            dkf, dvf = _band(call, q if qf is None else qf, kf, vf, dout, stats[1], call.window)
        if call.stored:
            dke, dve = _stored(call, q if qe is None else qe, ke, ve, dout, stats[-1])
        return None, None, None, None, dq, dk, dv, dqf, dkf, dvf, dqe, dke, dve


def _statistics(out: Tensor, lse: Tensor, dout: Tensor, dlse: Tensor) -> Tensor:
    """For each source, [3, B, T, H]: log-sum-exp in base 2, share and shift (see `triton_backward`)."""
    unseen = lse == -torch.inf
    share = torch.softmax(lse, 0)
    shift = dlse.masked_fill(unseen, 0.0) - share * (dout * out).sum(-1)
    return torch.stack([lse.masked_fill(unseen, 0.0) * _LOG2E, share, shift], 1)


def _band(call: _Call, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, stats: Tensor, shift: int) -> tuple[Any, Any]:
    """Gradients of the keys and values of a band."""
    _, BN, named = call.options("key")
    dk, dv = (torch.empty_like(each) for each in (k, v))
    launch(
        backward_band_kernel,
        (-(-k.shape[1] // BN), call.B * call.G),
        *(q, k, v, dout, stats, dk, dv),
        *(call.T, k.shape[1], shift, call.window, call.B * call.T * call.H),
        FACTOR=call.scale,
        **named,
    )
    return dk, dv


def _stored(call: _Call, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, stats: Tensor) -> tuple[Any, Any]:
    """Gradients of the keys and values of stored tokens, over those that are read at all."""
    assert call.enter is not None
    assert call.leave is not None
    _, BN, named = call.options("key")
    tokens, counts = _listed((call.enter < call.leave) & (call.enter < call.T) & (call.leave > 0))
    parts = splits(call.T)
    dk, dv = (k.new_zeros(parts, *each.shape, dtype=call.work) for each in (k, v))
    launch(
        backward_stored_kernel,
        (-(-call.M // BN), call.B * call.G, parts),
        *(q, k, v, call.enter, call.leave, tokens, counts, dout, stats, dk, dv),
        *(call.T, call.M, call.B * call.T * call.H),
        FACTOR=call.scale,
        **named,
    )
    return dk.sum(0).to(k.dtype), dv.sum(0).to(v.dtype)


def memory_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qf: Tensor | None,
    kf: Tensor | None,
    vf: Tensor | None,
    qe: Tensor | None,
    ke: Tensor | None,
    ve: Tensor | None,
    intervals: tuple[Tensor, Tensor] | None,
    window: int | None,
    scale: float,
    block: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Start the kernels. Arguments are validated and in their own dtype; tiles have the sizes of the configurations."""
    B, T, H, _ = q.shape
    work = torch.float64 if q.dtype == torch.float64 else torch.float32
    nothing = q.new_full((B, T, H), -torch.inf, dtype=work)
    far, stored = (None if keys is None else nothing for keys in (kf, ke))
    if B * T * H == 0:
        return q.new_zeros(B, T, H, v.shape[3]), nothing, far, stored
    if kf is not None and not kf.shape[1]:
        qf = kf = vf = None
    enter = leave = None
    if ke is not None and not ke.shape[1]:
        qe = ke = ve = None
    elif intervals is not None:
        enter, leave = (each.to(torch.int32).contiguous() for each in intervals)
    out, lse = _Attention.apply(enter, leave, window, scale, q, k, v, qf, kf, vf, qe, ke, ve)
    if kf is not None:
        far = lse[1]
    if ke is not None:
        stored = lse[-1]
    return out, lse[0], far, stored
