"""The definition of `ssd`: one token after the other, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from solomonic.kernels.ssd.pieces import Edits

__all__ = ["ssd_naive"]


def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h: Tensor,
    reset: Tensor | None,
    edits: Edits | None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """y, the last state, and the state after every token; B and C for each head."""
    slots = {position: slot for slot, position in enumerate(edits.positions)} if edits is not None else {}
    outputs, states = [], []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None, None], torch.zeros_like(h), h)
        if edits is not None and t in slots:
            h = edits.scale[:, slots[t], :, None, None].double() * h
            h = h if edits.add is None else h + edits.add[:, slots[t]].double()
        decay = torch.exp(dt[:, t] * A)
        write = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        h = decay[:, :, None, None] * h + write
        y = torch.einsum("bhpn,bhn->bhp", h, C[:, t])
        if D is not None:
            y = y + D[:, None] * x[:, t]
        outputs.append(y)
        states.append(h)
    return (torch.stack(outputs, dim=1) if outputs else x), h, states


def _statistics(
    want: tuple[str, ...],
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reset: Tensor | None,
    y: Tensor,
    chunk: int,
) -> tuple[Tensor, ...]:
    batch, time, heads, _ = x.shape
    N = B.shape[3]
    chunk = max(1, min(chunk, time))
    seen = x.new_zeros(batch, heads, N, N)
    acts = x.new_zeros(batch, heads, N, N)
    survival = x.new_ones(batch, heads)
    ones = x.new_zeros(batch, heads, N)
    chunks, sums, energies = [], [], []
    for t in range(time):
        log = dt[:, t] * A
        if reset is not None:
            log = torch.where(reset[:, t, None], -torch.inf, log)
        decay = log.exp()
        write = dt[:, t, :, None] * B[:, t]
        acts = decay[..., None, None] ** 2 * acts + write[..., :, None] * write[..., None, :]
        survival = survival * decay
        read = survival[..., None] * C[:, t]
        seen = seen + read[..., :, None] * read[..., None, :]
        ones = decay[..., None] * ones + write
        sums.append((C[:, t] * ones).sum(-1))
        gain = (C[:, t] * write).sum(-1) + (0.0 if D is None else D)
        energy = torch.stack([(gain[..., None] * x[:, t]).square().sum(-1), y[:, t].square().sum(-1)], -1)
        if t % chunk:
            chunks[-1], energies[-1] = chunks[-1] + log, energies[-1] + energy
        else:
            chunks.append(log)
            energies.append(energy)
    found = {
        "log_decay": torch.stack(chunks, 1) if chunks else x.new_zeros(batch, 0, heads),
        "controllability": acts,
        "observability": seen,
        "row_sums": torch.stack(sums, 1) if sums else x.new_zeros(batch, 0, heads),
        "innovation": torch.stack(energies, 1) if energies else x.new_zeros(batch, 0, heads, 2),
    }
    return tuple(found[name] for name in want)


def ssd_naive(
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
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t', y_t = h_t C_t + D x_t.

    `chunk` says where chunks end, for what is saved and measured by chunk. Each intervention is a scan of its own.
    """
    batch, time, heads, channels = x.shape
    x, dt, A = x.double(), dt.double(), A.double()
    B = B.double().repeat_interleave(heads // B.shape[2], dim=2)
    C = C.double().repeat_interleave(heads // C.shape[2], dim=2)
    D = None if D is None else D.double()
    h = x.new_zeros(batch, heads, channels, B.shape[3]) if h0 is None else h0.double()
    keep = saves is None or bool(saves)
    if saves is None:
        saves = tuple(min(time, end) - 1 for end in range(chunk, time + chunk, chunk))
    runs = []
    for edits in [None] if interventions is None else interventions:
        y, last, states = _scan(x, dt, A, B, C, D, h, reset, edits)
        kept = (
            torch.stack([states[position] for position in saves], 1)
            if saves
            else last.new_zeros(batch, 0, *last.shape[1:])
        )
        runs.append((y, last, kept))
    with torch.no_grad():
        plain = _scan(x, dt, A, B, C, D, h, reset, None)[0] if "innovation" in want else x
        found = _statistics(want, x, dt, A, B, C, D, reset, plain, chunk) if want else ()
    y, last, kept = runs[0] if interventions is None else (torch.stack(part) for part in zip(*runs, strict=True))
    return y, last, kept if keep else None, found
