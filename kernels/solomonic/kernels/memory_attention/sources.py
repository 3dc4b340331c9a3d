"""Sources of keys cut for blocks of queries: a band behind the queries, or tokens with intervals.

Every source gives a block of queries one matrix of keys, so that scores are one matrix product, and takes its
gradients back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HIDDEN", "LN2", "LOG2E", "Band", "BandBlocks", "IntervalBlocks", "Intervals", "Queries", "band", "cut"]

# Exponents are kept in base 2: torch.exp is up to fifty times slower where its result underflows, exp2 is
# not.
LOG2E, LN2 = math.log2(math.e), math.log(2.0)
# Stands for minus infinity in scores: finite, so that a row that sees nothing has no NaN on its way to zero.
HIDDEN = -1e30


@dataclass(frozen=True)
class Band:
    """Where one source lies relative to the queries.

    Query t may read keys at positions ``t + first - lag`` of this source, lag in ``shift .. shift + width -
    1``, as far as they exist: ``first`` is the position of query 0.
    """

    first: int
    shift: int
    width: int


def band(T: int, S: int, shift: int, width: int | None) -> Band | None:
    """The part of a source of `S` keys that the last `T` positions can see, or None if that is nothing."""
    reachable = S - shift  # lags beyond the oldest key are never used
    width = reachable if width is None else min(width, reachable)
    return Band(S - T, shift, width) if width > 0 and T > 0 else None


def cut(source: Band | Intervals, k: Tensor, v: Tensor, T: int, b: int, repeat: int) -> BandBlocks | IntervalBlocks:
    """Keys and values of a source for blocks of b queries, `repeat` heads to a key head."""
    kind = BandBlocks if isinstance(source, Band) else IntervalBlocks
    return kind(source, k, v, T, b, repeat)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Intervals:
    """The queries that may read each key: ``enter .. exit - 1``, int64 [B, M], counted from query 0."""

    enter: Tensor
    exit: Tensor

    def hidden(self, T: int) -> Tensor:
        """Which keys no query may read [B, T, M]."""
        t = torch.arange(T, device=self.enter.device).view(1, T, 1)
        return (t < self.enter.unsqueeze(1)) | (t >= self.exit.unsqueeze(1))


class BandBlocks:
    """Keys and values of a band cut for blocks of b queries, and the mask of its scores.

    Neighbouring blocks share most of their keys: what a block sees is a slice of one tensor.
    """

    def __init__(self, source: Band, k: Tensor, v: Tensor, T: int, b: int, repeat: int) -> None:
        self.b = b
        self.n = -(-T // b)
        self.m = -(-(source.width - 1) // b)
        self.span = (self.m + 1) * b
        self.start = source.first - source.shift - self.m * b  # key position of the first slot of block 0
        self.S = k.shape[1]
        length = (self.m + self.n) * b
        lo, hi = max(self.start, 0), min(self.start + length, self.S)
        self.range = (lo, hi)
        self.groups = k.shape[2]
        self.k, self.v = self._slots(k, length), self._slots(v, length)
        self.dk, self.dv = self.k, self.v  # until the first gradient
        lag = torch.arange(b).unsqueeze(1) + self.m * b - torch.arange(self.span)
        mask = torch.zeros(b, self.span, dtype=k.dtype).masked_fill_((lag < 0) | (lag >= source.width), HIDDEN)
        self.mask = mask.repeat(repeat, 1).to(k.device)

    def _slots(self, value: Tensor, length: int) -> Tensor:
        """[B, S, G, D] -> [B G, length, D] from position `start` on, zeros where there is no key."""
        lo, hi = self.range
        batch, _, groups, width = value.shape
        slots = value.new_zeros(batch, groups, length, width)
        slots[:, :, lo - self.start : hi - self.start] = value[:, lo:hi].transpose(1, 2)
        return slots.view(batch * groups, length, width)

    def _unslot(self, slots: Tensor) -> Tensor:
        """The adjoint of `_slots`."""
        lo, hi = self.range
        _, length, width = slots.shape
        slots = slots.view(-1, self.groups, length, width)
        out = slots.new_zeros(slots.shape[0], self.S, self.groups, width)
        out[:, lo:hi] = slots[:, :, lo - self.start : hi - self.start].transpose(1, 2)
        return out

    def missing(self, i: int) -> int:
        """How many leading slots of block i lie before the first key."""
        return min(max(-(self.start + i * self.b), 0), self.span)

    def skip(self, last: int) -> int:
        """Leading slots, in whole blocks, that no block up to `last` can use."""
        return min(self.missing(last) // self.b, self.m) * self.b

    def scores(self, q: Tensor, i0: int, skip: int, offset: Tensor | None = None) -> Tensor:
        """Masked scores [g, B G, rows, span - skip] of the query blocks q [g, B G, rows, K], starting at i0.

        `offset` [g, B G, rows, 1] is added to the rows.
        """
        g, batch, rows, _ = q.shape
        out = q.new_empty(g, batch, rows, self.span - skip)
        if offset is None:
            out.copy_(self.mask[:, skip:])
        else:
            torch.add(self.mask[:, skip:], offset, out=out)
        for i in range(g):
            lo = (i0 + i) * self.b
            out[i].baddbmm_(q[i], self.k[:, lo + skip : lo + self.span].transpose(1, 2))
            gone = self.missing(i0 + i) - skip
            if gone > 0:
                out[i, :, :, :gone] = HIDDEN
        return out

    def read(self, p: Tensor, i0: int, skip: int) -> Tensor:
        """Sums of values [g, B G, rows, V] with the weights `p`."""
        out = p.new_empty(*p.shape[:3], self.v.shape[-1])
        for i, part in enumerate(self._parts(len(p), i0, skip)):
            torch.bmm(p[i], self.v[:, part], out=out[i])
        return out

    def start_gradients(self) -> None:
        """Make room for what the two functions below add up."""
        self.dk, self.dv = torch.zeros_like(self.k), torch.zeros_like(self.v)

    def back_values(self, p: Tensor, dread: Tensor, ds: Tensor, i0: int, skip: int) -> None:
        """Backward of `read`: add the gradient of the weights to `ds`, and that of the values."""
        for i, part in enumerate(self._parts(len(p), i0, skip)):
            ds[i].baddbmm_(dread[i], self.v[:, part].transpose(1, 2))
            self.dv[:, part] += torch.bmm(p[i].transpose(1, 2), dread[i])

    def back_keys(self, ds: Tensor, q: Tensor, out: Tensor, i0: int, skip: int) -> None:
        """Backward of `scores`: the gradient of the queries, into `out`, and that of the keys."""
        for i, part in enumerate(self._parts(len(ds), i0, skip)):
            torch.bmm(ds[i], self.k[:, part], out=out[i])
            self.dk[:, part] += torch.bmm(ds[i].transpose(1, 2), q[i])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """What has been added up, in the layout of keys and values."""
        return self._unslot(self.dk.mul_(LN2)), self._unslot(self.dv)

    def _parts(self, g: int, i0: int, skip: int) -> Iterator[slice]:
        for i in range(i0, i0 + g):
            yield slice(i * self.b + skip, i * self.b + self.span)


class IntervalBlocks:
    """Keys and values with intervals, gathered for blocks of b queries: for each block what it can see of them.

    The functions are those of `BandBlocks`.
    """

    def __init__(self, source: Intervals, k: Tensor, v: Tensor, T: int, b: int, repeat: int) -> None:
        B, M, self.groups, _ = k.shape
        self.M, self.repeat = M, repeat
        n = -(-T // b)
        first = b * torch.arange(n, device=k.device).view(1, n, 1)
        enter, exit_ = source.enter.unsqueeze(1), source.exit.unsqueeze(1)
        seen = (enter < first + b) & (exit_ > first) & (enter < exit_)
        self.span = max(int(seen.sum(-1).max()), 1)
        seen, index = seen.to(torch.uint8).sort(dim=-1, descending=True, stable=True)
        self.index, self.seen = index[..., : self.span], seen[..., : self.span].bool()
        rows = torch.arange(B, device=k.device).view(B, 1, 1) * M
        self.flat = (self.index + rows).transpose(0, 1).reshape(-1)  # [n, B, L] among the rows of [B M]
        enter, exit_ = (each.expand(B, n, M).gather(2, self.index).unsqueeze(2) for each in (enter, exit_))
        t = (first + torch.arange(b, device=k.device)).unsqueeze(3)
        hidden = ((t < enter) | (t >= exit_)).transpose(0, 1)  # [n, B, b, L]
        self.mask = torch.zeros_like(hidden, dtype=k.dtype).masked_fill_(hidden, HIDDEN).unsqueeze(2)
        self.k, self.v = self._gather(k, n), self._gather(v, n)
        self.dk, self.dv = self.k, self.v  # until the first gradient

    def _gather(self, value: Tensor, n: int) -> Tensor:
        """[B, M, G, D] -> [n, B G, L, D], zeros where no query of the block sees the token."""
        B, M, G, D = value.shape
        taken = value.reshape(B * M, G, D)[self.flat].view(n, B, self.span, G, D)
        taken.masked_fill_(~self.seen.transpose(0, 1).view(n, B, self.span, 1, 1), 0.0)
        return taken.transpose(2, 3).reshape(n, B * G, self.span, D)

    def _scatter(self, value: Tensor) -> Tensor:
        """The adjoint of `_gather`."""
        n, _, L, D = value.shape
        G = self.groups
        rows = value.view(n, -1, G, L, D).transpose(2, 3).reshape(-1, G, D)
        B = rows.shape[0] // (n * L)
        return rows.new_zeros(B * self.M, G, D).index_add_(0, self.flat, rows).view(B, self.M, G, D)

    def skip(self, last: int) -> int:
        return 0

    def scores(self, q: Tensor, i0: int, skip: int, offset: Tensor | None = None) -> Tensor:
        g, batch, rows, _ = q.shape
        mask = self.mask[i0 : i0 + g]
        shape = (g, mask.shape[1], self.groups, self.repeat, *mask.shape[3:])
        out = q.new_empty(g, batch, rows, self.span)
        if offset is None:
            out.view(shape).copy_(mask.unsqueeze(3))
        else:
            torch.add(mask.unsqueeze(3), offset.view(*shape[:-1], 1), out=out.view(shape))
        out.view(-1, rows, self.span).baddbmm_(q.flatten(0, 1), self.k[i0 : i0 + g].flatten(0, 1).transpose(1, 2))
        return out

    def read(self, p: Tensor, i0: int, skip: int) -> Tensor:
        return torch.matmul(p, self.v[i0 : i0 + len(p)])

    def start_gradients(self) -> None:
        self.dk, self.dv = torch.zeros_like(self.k), torch.zeros_like(self.v)

    def back_values(self, p: Tensor, dread: Tensor, ds: Tensor, i0: int, skip: int) -> None:
        part = slice(i0, i0 + len(p))
        ds += torch.matmul(dread, self.v[part].transpose(2, 3))
        torch.matmul(p.transpose(2, 3), dread, out=self.dv[part])

    def back_keys(self, ds: Tensor, q: Tensor, out: Tensor, i0: int, skip: int) -> None:
        part = slice(i0, i0 + len(ds))
        torch.matmul(ds, self.k[part], out=out)
        torch.matmul(ds.transpose(2, 3), q, out=self.dk[part])

    def gradients(self) -> tuple[Tensor, Tensor]:
        return self._scatter(self.dk.mul_(LN2)), self._scatter(self.dv)


class Queries:
    """[B, T, H, D] <-> blocks [n, B G, R b, D], the R query heads of a key head stacked as rows."""

    def __init__(self, B: int, T: int, H: int, G: int, b: int) -> None:
        self.B, self.T, self.H, self.G, self.R, self.b = B, T, H, G, H // G, b
        self.n = -(-T // b)
        self.pad = self.n * b - T

    def cut(self, value: Tensor, scale: float = 1.0) -> Tensor:
        if self.pad:
            value = torch.nn.functional.pad(value, (0, 0, 0, 0, 0, self.pad))
        blocks = value.reshape(self.B, self.n, self.b, self.G, self.R, -1).permute(1, 0, 3, 4, 2, 5)
        out = value.new_empty(blocks.shape)
        if scale == 1.0:
            out.copy_(blocks)
        else:
            torch.mul(blocks, scale, out=out)
        return out.view(self.n, self.B * self.G, self.R * self.b, -1)

    def join(self, blocks: Tensor) -> Tensor:
        value = blocks.view(self.n, self.B, self.G, self.R, self.b, -1).permute(1, 0, 4, 2, 3, 5)
        return value.reshape(self.B, self.n * self.b, self.H, -1)[:, : self.T]
