"""What a task hands out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Target where nothing is asked; what ``cross_entropy`` leaves out.
IGNORED = -100


@dataclass(frozen=True, eq=False)
class TaskRows:
    """Rows of a task.

    Parameters
    ----------
    ids : Tensor
        Tokens [B, T], int64.
    targets : Tensor
        The token that is asked for at each position [B, T]; ``IGNORED`` where none is. It is asked at the position
        itself: the logits of position t are compared with ``targets[:, t]``.
    lags : Tensor
        How many tokens back the answer was last shown [B, T]; -1 where nothing is asked.
    vocab_size : int
        Number of tokens of the task.
    """

    ids: Tensor
    targets: Tensor
    lags: Tensor
    vocab_size: int

    def __repr__(self) -> str:
        asked = int((self.targets != IGNORED).sum())
        return f"TaskRows({tuple(self.ids.shape)}, {self.vocab_size} tokens, {asked} answers asked for)"


def rows(ids: np.ndarray, targets: np.ndarray, lags: np.ndarray, vocab_size: int) -> TaskRows:
    """The same from arrays."""
    return TaskRows(torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(lags), vocab_size)


def blank(batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and lags [batch, length] that ask for nothing."""
    return np.full((batch, length), IGNORED, dtype=np.int64), np.full((batch, length), -1, dtype=np.int64)


def positive(**numbers: int) -> None:
    """ValueError unless every number is an integer of at least 1."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
