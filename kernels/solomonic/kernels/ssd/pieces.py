"""Where a scan is cut: edits of the state and states to save, in the form that all implementations read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.ssd.statistics import STATISTICS

__all__ = ["Edits", "chunk_table", "read_edits", "read_save", "read_want"]


class Edits(NamedTuple):
    """What is done to the state: before token ``positions[i]`` it becomes ``scale[:, i] * h + add[:, i]``.

    Attributes
    ----------
    positions : tuple of int
        Tokens, rising.
    scale : torch.Tensor
        [B, E, H] in the compute dtype.
    add : torch.Tensor or None
        [B, E, H, P, N] in the compute dtype.
    """

    positions: tuple[int, ...]
    scale: Tensor
    add: Tensor | None


def chunk_table(T: int, Q: int, edits: Sequence[int], saves: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Chunks of at most Q tokens that begin at edits and end at saves.

    Parameters
    ----------
    T, Q : int
        Tokens, and the largest chunk.
    edits : sequence of int
        Tokens before which the state is edited, rising.
    saves : sequence of int
        Tokens after which the state is saved, rising.

    Returns
    -------
    list of tuple of int
        First token, end, number of the edit before the first token, number of the save after the last one (-1:
        none). Cuts at multiples of Q are kept, so chunks without an edit or a save are those of an uncut scan.
    """
    first = {position: index for index, position in enumerate(edits)}
    last = {position + 1: index for index, position in enumerate(saves)}
    cuts = sorted({*range(0, T, Q), *first, *last, T} - ({T} if not T else set()))
    return [(start, stop, first.get(start, -1), last.get(stop, -1)) for start, stop in pairwise(cuts)]


def _positions(name: str, value: Any, T: int) -> tuple[int, ...]:
    """Tokens as a tuple of int, rising and each once."""
    items = value.tolist() if isinstance(value, Tensor) else value
    items = [items] if isinstance(items, int) and not isinstance(items, bool) else items
    if not isinstance(items, list | tuple | range) or any(isinstance(i, bool) or not isinstance(i, int) for i in items):
        raise TypeError(f"{name}: expected token positions (int, or a sequence or tensor of int), got {value!r}")
    for position in items:
        if not 0 <= position < T:
            raise ValueError(f"{name}: expected positions from 0 to T - 1 = {T - 1}, got {position}")
    if len(set(items)) != len(items):
        raise ValueError(f"{name}: expected each position once, got {list(items)}")
    return tuple(items)


def read_save(save: Any, T: int) -> tuple[int, ...] | None:
    """Positions to save, in the caller's order; None for the last token of every chunk.

    Raises
    ------
    TypeError, ValueError
        If it is neither ``"final"``, ``"chunk"`` nor positions within the scan.
    """
    if isinstance(save, str):
        if save not in ("final", "chunk"):
            raise ValueError(f"save: expected 'final', 'chunk' or positions, got {save!r}")
        return () if save == "final" else None
    return _positions("save", save, T)


def read_want(want: Any) -> tuple[str, ...]:
    """Names of statistics as a tuple.

    Raises
    ------
    TypeError, ValueError
        If it is not a name or a sequence of names.
    """
    names = (want,) if isinstance(want, str) else tuple(want) if isinstance(want, list | tuple | set) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"want: expected names of statistics, got {want!r}")
    for name in names:
        if name not in STATISTICS:
            raise ValueError(f"want: expected names out of {', '.join(map(repr, STATISTICS))}, got {name!r}")
    return tuple(name for name in STATISTICS if name in names)


def read_edits(edit: Any, x: Tensor, N: int, *, name: str = "edit") -> Edits:
    """One intervention in the form that implementations read.

    Parameters
    ----------
    edit : tuple
        ``(positions, mode, value)`` or ``(positions, mode, value, heads)``.
    x : torch.Tensor
        Input [B, T, H, P].
    N : int
        States.
    name : str
        What messages call it.

    Returns
    -------
    Edits
        With positions rising.

    Raises
    ------
    TypeError, ValueError
        If a part has the wrong type, dtype or shape.
    """
    batch, T, H, P = x.shape
    work = validate.compute_dtype(x.dtype)
    if not isinstance(edit, tuple | list) or len(edit) not in (3, 4):
        raise TypeError(f"{name}: expected (positions, mode, value) or (positions, mode, value, heads), got {edit!r}")
    positions, mode, value = edit[:3]
    positions = _positions(f"{name} positions", positions, T)
    E = len(positions)
    if mode not in ("set", "scale", "add"):
        raise ValueError(f"{name} mode: expected 'set', 'scale' or 'add', got {mode!r}")
    heads = _heads(f"{name} heads", edit[3] if len(edit) == 4 else None, H)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = x.new_tensor(float(value), dtype=work)
    value = validate.check_tensor(f"{name} value", value)
    validate.check_like(f"{name} value", value, "x", x, dtypes=(work,))
    letters, shape = ("E H", (E, len(heads))) if mode == "scale" else ("E H P N", (E, len(heads), P, N))
    wide = (batch, *shape)
    try:
        value = value.to(work).expand(wide)
    except RuntimeError:
        raise ValueError(
            f"{name} value: expected a shape that broadcasts to [B, {', '.join(letters.split())}] = {wide}, got "
            f"{tuple(value.shape)}"
        ) from None
    index = torch.tensor(heads, dtype=torch.int64, device=x.device)
    order = sorted(range(E), key=positions.__getitem__)
    if order != list(range(E)):
        value = value[:, order]
    ones = torch.ones(batch, E, H, dtype=work, device=x.device)
    if mode == "scale":
        return Edits(tuple(sorted(positions)), ones.index_copy(2, index, value.contiguous()), None)
    zeros = torch.zeros(batch, E, H, P, N, dtype=work, device=x.device)
    scale = ones.index_fill(2, index, 0.0) if mode == "set" else ones
    return Edits(tuple(sorted(positions)), scale, zeros.index_copy(2, index, value.contiguous()))


def _heads(name: str, heads: Any, H: int) -> list[int]:
    if heads is None:
        return list(range(H))
    items = heads.tolist() if isinstance(heads, Tensor) else heads
    items = [items] if isinstance(items, int) and not isinstance(items, bool) else items
    if not isinstance(items, list | tuple | range) or any(isinstance(i, bool) or not isinstance(i, int) for i in items):
        raise TypeError(f"{name}: expected heads (int, or a sequence or tensor of int), got {heads!r}")
    for head in items:
        if not 0 <= head < H:
            raise ValueError(f"{name}: expected heads from 0 to H - 1 = {H - 1}, got {head}")
    if len(set(items)) != len(items):
        raise ValueError(f"{name}: expected each head once, got {list(items)}")
    return list(items)
