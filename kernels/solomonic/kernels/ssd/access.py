"""States that `ssd` saves and edits on the CPU path, out of the plain scan's chunk states.

The output is linear in the state. An edit before token p adds delta = scale h + add - h to the state; what it changes
later is the response to that delta alone, which decays and is read out but reads no input. So the plain scan runs
once, whatever the number of interventions, and tokens and heads that an edit does not reach keep their bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solomonic.kernels.ssd.cpu import scanned
from solomonic.kernels.ssd.layout import Layout, decays, narrow, segments
from solomonic.kernels.ssd.pieces import Edits

__all__ = ["ssd_with_access"]


class _Chunks:
    """Decays of the chunks, and what is made of them: the state at any token."""

    def __init__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, chunk: int
    ) -> None:
        s = self.s = Layout(x, B, C, chunk)
        self.seg = segments(s, reset)
        self.c, self.e, _, self.g = decays(s, dt, A, self.seg)
        self.dt, self.x, self.reset = dt, x, reset
        self.B = B.repeat_interleave(s.H // B.shape[2], 2) if B.shape[2] not in (1, s.H) else B
        self.Cg = s.groups(C, s.GC)

    def left(self, i: int, start: int | None, stop: Tensor) -> Tensor:
        """What is left after the tokens `stop` of chunk i of what entered it: [B, H, len(stop)].

        `start`: of what was added before token `start`, after its reset; None: of the state that entered the chunk.
        """
        if start is None:
            return self.e[:, i, :, stop]
        before = self.c[:, i, :, start - 1, None] if start else torch.zeros_like(self.c[:, i, :, :1])
        left = (self.c[:, i, :, stop] - before).clamp(max=0).exp2()
        if self.seg is not None:
            left = left * (self.seg[:, i, stop] == self.seg[:, i, start, None])[:, None]
        return left

    def state(self, states: Tensor, position: int) -> Tensor:
        """The plain scan's state after token `position` [B, H, P, N], from its chunk's first state."""
        s = self.s
        i, last = divmod(position, s.Q)
        if last == s.Q - 1:
            return narrow(s, states[:, i + 1])
        inside = slice(i * s.Q, position + 1)
        left = (self.c[:, i, :, last, None] - self.c[:, i, :, : last + 1]).clamp(max=0).exp2()
        if self.seg is not None:
            left = left * (self.seg[:, i, : last + 1] == self.seg[:, i, last, None])[:, None]
        u = self.x[:, inside] * (self.dt[:, inside] * left.transpose(1, 2)).unsqueeze(-1)
        keys = self.B[:, inside].expand(-1, -1, s.H, -1)
        made = torch.matmul(u.permute(0, 2, 3, 1), keys.transpose(1, 2))
        return made + self.e[:, i, :, last, None, None] * narrow(s, states[:, i])

    def flat(self, value: Tensor) -> Tensor:
        """[B, H, P, N] -> [B, G, N, 1, R, P]: states as the second factor of a product with C."""
        s = self.s
        return value.reshape(s.B, s.G, s.R, s.P, s.N).permute(0, 1, 4, 2, 3).unsqueeze(3)

    def tall(self, value: Tensor) -> Tensor:
        """[B, G, N, K, R, P] -> [K, B, H, P, N], the inverse of `flat` for K of them."""
        return value.permute(3, 0, 1, 4, 5, 2).flatten(2, 3)

    def read(self, i: int, start: int, stop: int, deltas: Tensor) -> Tensor:
        """C_t delta for tokens start..stop-1 of chunk i: [B, G, N, K, R, P] gives [K, B, tokens, H, P]."""
        out = torch.matmul(self.Cg[:, i, :, start:stop], deltas.flatten(3))  # [B, G, tokens, K R P]
        return out.unflatten(3, deltas.shape[3:]).permute(3, 0, 2, 1, 4, 5).flatten(3, 4)

    def spread(self, left: Tensor) -> Tensor:
        """[B, H, 1] -> [B, G, 1, 1, R, 1]: decays as factors of flat states."""
        s = self.s
        return left.reshape(s.B, s.G, 1, 1, s.R, 1)


@dataclass
class _Delta:
    """What was added to the state before token `start` of a chunk (None: it entered the chunk).

    `value` is [B, G, N, K, R, P] for all interventions, or for the intervention `index` alone.
    """

    start: int | None
    index: int | None
    value: Tensor


def _respond(
    chunks: _Chunks, states: Tensor, interventions: list[Edits | None], saves: tuple[int, ...], y: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Outputs [K, B, T, H, P], last states and changes of the saved states [K, B, H, P, N] of K interventions."""
    s, K = chunks.s, len(interventions)
    events: dict[int, list[tuple[int, int, int]]] = {}
    for k, edits in enumerate(interventions):
        for slot, position in enumerate(edits.positions if edits else ()):
            events.setdefault(position // s.Q, []).append((position, k, slot))
    changed: list[Tensor | None] = [None] * len(saves)
    if not events:
        return y.expand(K, *y.shape), last.expand(K, *last.shape), changed
    first = min(events)
    parts = [y[:, : first * s.Q].expand(K, -1, -1, -1, -1)]
    out = None if torch.is_grad_enabled() else y.new_empty(K, *y.shape)
    if out is not None:
        out[:, :, : first * s.Q] = parts.pop()
    delta = y.new_zeros(s.B, s.G, s.N, K, s.R, s.P)
    for i in range(first, s.n):
        tokens = slice(i * s.Q, min(s.T, (i + 1) * s.Q))
        present = [_Delta(None, None, delta)]
        for position, k, slot in sorted(events.get(i, ())):
            edits = interventions[k]
            assert edits is not None
            before = _before(chunks, states, present, position, k)
            new = (edits.scale[:, slot, :, None, None] - 1) * before
            new = new if edits.add is None else new + edits.add[:, slot]
            present.append(_Delta(position % s.Q, k, chunks.flat(new)))
        if out is None:
            parts.append(_output(chunks, i, present, y[:, tokens]))
        else:
            _output_into(out[:, :, tokens], chunks, i, present, y[:, tokens])
        for index, position in enumerate(saves):
            if position // s.Q == i:
                changed[index] = chunks.tall(_total(chunks, i, present, position % s.Q))
        delta = _total(chunks, i, present, s.Q - 1)
    return torch.cat(parts, 2) if out is None else out, last + chunks.tall(delta), changed


def _before(chunks: _Chunks, states: Tensor, present: list[_Delta], position: int, k: int) -> Tensor:
    """The state of intervention k before token `position`, after its reset [B, H, P, N]."""
    i, o = divmod(position, chunks.s.Q)
    plain = narrow(chunks.s, states[:, i]) if not o else chunks.state(states, position - 1)
    added = _total(chunks, i, present, o - 1) if o else present[0].value
    total = plain + chunks.tall(added[:, :, :, k : k + 1])[0]
    if chunks.reset is None:
        return total
    return total.masked_fill(chunks.reset[:, position, None, None, None], 0.0)


def _output(chunks: _Chunks, i: int, present: list[_Delta], y: Tensor) -> Tensor:
    """The outputs of chunk i [K, B, tokens, H, P]: the plain ones, and the responses to all deltas."""
    length = y.shape[1]
    tokens = torch.arange(length, device=y.device)
    total = y
    for each in present:
        start = each.start or 0
        weights = chunks.left(i, each.start, tokens[start:]).transpose(1, 2).unsqueeze(-1)
        read = chunks.read(i, start, length, each.value)
        if each.index is None:
            total = torch.addcmul(total, read, weights)
        else:
            padded = torch.nn.functional.pad(read * weights, (0, 0, 0, 0, start, 0))
            total = total.index_add(0, torch.tensor([each.index], device=y.device), padded)
    return total


def _output_into(out: Tensor, chunks: _Chunks, i: int, present: list[_Delta], y: Tensor) -> None:
    """`_output`, in place."""
    length = y.shape[1]
    tokens = torch.arange(length, device=y.device)
    for each in present:
        start = each.start or 0
        weights = chunks.left(i, each.start, tokens[start:]).transpose(1, 2).unsqueeze(-1)
        read = chunks.read(i, start, length, each.value)
        if each.index is None:
            torch.addcmul(y, read, weights, out=out)
        else:
            out[each.index, :, start:].addcmul_(read[0], weights)


def _total(chunks: _Chunks, i: int, present: list[_Delta], token: int) -> Tensor:
    """What all deltas of chunk i that are there after `token` have become [B, G, N, K, R, P]."""
    stop = torch.tensor([token], device=chunks.c.device)
    total = present[0].value * chunks.spread(chunks.left(i, None, stop))
    for each in present[1:]:
        if each.start <= token:  # type: ignore[operator]
            left = each.value * chunks.spread(chunks.left(i, each.start, stop))
            total = total.index_add(3, torch.tensor([each.index], device=total.device), left)
    return total


def ssd_with_access(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
    chunk: int,
    interventions: list[Edits | None] | None = None,
    saves: tuple[int, ...] | None = (),
    want: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, ...]]:
    """`ssd_cpu` with saved states, interventions and statistics.

    Parameters
    ----------
    x, dt, A, B, C, D, h0, reset, chunk
        As for `ssd_cpu`.
    interventions : list of Edits or None, optional
        Outputs get a first dimension over them; None in the list is the plain scan.
    saves : tuple of int or None
        Tokens after which the state is kept; None: the last of every chunk.
    want : tuple of str
        Statistics.

    Returns
    -------
    tuple
        y, the last state, saved states [B, S, H, P, N] (None if there are none to save), statistics.
    """
    if h0 is None:
        h0 = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    y, last, states, *found = scanned(x, dt, A, B, C, D, h0, reset, chunk, want)
    if not x.shape[1]:
        empty = last.new_zeros(last.shape[0], 0, *last.shape[1:])
        if interventions is not None:
            y, last, empty = (t.expand(len(interventions), *t.shape) for t in (y, last, empty))
        return y, last, empty, tuple(found)
    every = saves is None
    s = Layout(x, B, C, chunk)
    if saves is None:
        saves = tuple(min(s.T, (i + 1) * s.Q) - 1 for i in range(s.n))
    if interventions is None and every:
        return y, last, _all_states(s, states), tuple(found)
    if interventions is None and not saves:
        return y, last, None, tuple(found)
    chunks = _Chunks(x, dt, A, B, C, reset, chunk)
    kept = _all_states(s, states) if every else None
    if kept is None and saves:
        kept = torch.stack([chunks.state(states, position) for position in saves], 1)
    if interventions is not None:
        y, last, changed = _respond(chunks, states, interventions, saves, y, last)
        if kept is not None:
            kept = _changed_states(kept, changed, len(interventions))
    return y, last, kept, tuple(found)


def _changed_states(kept: Tensor, changed: list[Tensor | None], K: int) -> Tensor:
    """Saved states of every intervention [K, B, S, H, P, N]."""
    plain = kept.unsqueeze(0).expand(K, *kept.shape).unbind(2)
    return torch.stack([p if d is None else p + d for p, d in zip(plain, changed, strict=True)], 2)


def _all_states(s: Layout, states: Tensor) -> Tensor:
    """The state after every chunk [B, n, H, P, N]."""
    after = states[:, 1:].transpose(3, 4)  # [B, n, G, R P, N]
    return after.reshape(s.B, s.n, s.H, s.P, s.N)
