"""Where a scan is cut: edits of the state and states to save, in the form that all implementations read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

__all__ = ["Edits", "chunk_table"]


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
