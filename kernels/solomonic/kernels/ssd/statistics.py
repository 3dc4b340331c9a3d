"""What `ssd` measures on the way (``want=``), from the tiles of a chunk and without a further pass over its inputs.

Every statistic is of the system (decays, B, C) or of the run without edits; none has a gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from solomonic.kernels.ssd.layout import Layout

__all__ = ["STATISTICS", "empty_statistics", "measured"]

STATISTICS = ("log_decay", "controllability", "observability", "row_sums", "innovation")


def empty_statistics(want: tuple[str, ...], x: Tensor, B: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """The statistics of a scan without tokens."""
    batch, _, H, _ = x.shape
    N = B.shape[3]
    shapes = {
        "log_decay": (batch, 0, H),
        "controllability": (batch, H, N, N),
        "observability": (batch, H, N, N),
        "row_sums": (batch, 0, H),
        "innovation": (batch, 0, H, 2),
    }
    return tuple(x.new_zeros(shapes[name]) for name in want)


def measured(
    want: tuple[str, ...],
    s: Layout,
    x: Tensor,
    dt: Tensor,
    D: Tensor | None,
    y: Tensor,
    reset: Tensor | None,
    Bg: Tensor,
    Cg: Tensor,
    c: Tensor,
    e: Tensor,
    w: Tensor,
    g: Tensor,
    sums: Tensor | None,
) -> tuple[Tensor, ...]:
    """The statistics `want` of one scan, in that order.

    `sums` [B, n, H, Q] are the row sums of the tiles inside chunks; Bg, Cg [B, n, G, Q, N]; c, e, w [B, n, H, Q] and
    g [B, n, H] are the running log2 decays and the weights of the chunks.
    """
    cut = None
    if reset is not None:
        padded = torch.nn.functional.pad(reset, (0, s.pad))
        cut = padded.reshape(s.B, s.n, s.Q).any(-1)[..., None]  # [B, n, 1]
    dts = s.scalars(dt)
    total = c[..., -1]
    found = {}
    if "log_decay" in want:
        decay = total * math.log(2)
        found["log_decay"] = decay if cut is None else decay.masked_fill(cut, -torch.inf)
    if "controllability" in want:
        later = _exclusive(total.flip(1)).flip(1).exp2()
        if cut is not None:
            later = later.masked_fill(_exclusive(cut.int().flip(1)).flip(1) > 0, 0.0)
        found["controllability"] = _gramians(s, Bg, w * dts * later.unsqueeze(-1))
    if "observability" in want:
        earlier = _exclusive(total).exp2()
        if cut is not None:
            earlier = earlier.masked_fill(_exclusive(cut.int()) > 0, 0.0)
        found["observability"] = _gramians(s, Cg, e * earlier.unsqueeze(-1))
    if "row_sums" in want:
        assert sums is not None
        found["row_sums"] = sums_of_rows(s, Bg, Cg, w * dts, e, g, sums)
    if "innovation" in want:
        found["innovation"] = _innovation(s, x, dts, D, y, Bg, Cg)
    return tuple(found[name] for name in want)


def _exclusive(value: Tensor) -> Tensor:
    """Sum of the entries before, along the chunks."""
    return value.cumsum(1) - value


def _gramians(s: Layout, keys: Tensor, weights: Tensor) -> Tensor:
    """Sum over tokens of weights^2 k k' for each head [B, H, N, N].

    Chunks whose weights are all exactly zero (they underflow where a head has long forgotten) are left out.
    """
    out = keys.new_zeros(s.B, s.H, s.N, s.N)
    if not s.B or not s.N:
        return out
    alive = (weights != 0).any(-1).any(0)  # [n, H]
    first = alive.int().argmax(0).tolist()
    last = (s.n - alive.flip(0).int().argmax(0)).tolist()
    room = keys.new_empty(s.B * s.n * s.Q * s.N)  # the same memory for all heads: it stays in the cache
    for head, some in enumerate(alive.any(0).tolist()):
        if some:
            span = slice(first[head], last[head])
            some_keys = keys[:, span, head // s.R]
            scaled = room[: some_keys.numel()].view(some_keys.shape)
            torch.mul(some_keys, weights[:, span, head, :, None], out=scaled)
            scaled = scaled.view(s.B, -1, s.N)
            out[:, head] = torch.bmm(scaled.transpose(1, 2), scaled)
    return out


def sums_of_rows(s: Layout, Bg: Tensor, Cg: Tensor, wdt: Tensor, e: Tensor, g: Tensor, sums: Tensor) -> Tensor:
    """Row sums [B, T, H] of the hidden attention: the scan of an input that is 1 in one channel."""
    writes = torch.matmul(wdt.unflatten(2, (s.G, s.R)), Bg)  # [B, n, G, R, N]
    decay = g.unflatten(2, (s.G, s.R)).unsqueeze(-1)
    entering = torch.zeros_like(writes)
    for i in range(s.n - 1):
        torch.addcmul(writes[:, i], entering[:, i], decay[:, i], out=entering[:, i + 1])
    carried = torch.matmul(entering, Cg.transpose(-1, -2)).flatten(2, 3)  # [B, n, H, Q]
    whole = torch.addcmul(sums, carried, e)
    return whole.transpose(2, 3).reshape(s.B, s.n * s.Q, s.H)[:, : s.T]


def _innovation(s: Layout, x: Tensor, dts: Tensor, D: Tensor | None, y: Tensor, Bg: Tensor, Cg: Tensor) -> Tensor:
    """Energy of (dt C'B + D) x and of y, summed over channels and the tokens of a chunk [B, n, H, 2]."""
    gain = (Bg * Cg).sum(-1).repeat_interleave(s.R, 2) * dts  # [B, n, H, Q]
    if D is not None:
        gain = gain + D[:, None]
    new = s.scalars(torch.linalg.vector_norm(x, dim=-1)) * gain
    whole = s.scalars(torch.linalg.vector_norm(y, dim=-1))
    return torch.stack([new.square().sum(-1), whole.square().sum(-1)], -1)
