"""What a mixer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from ..memory import Value
from ..rope import Rotary

#: Receives (name, value) of intermediate values of one layer.
Record = Callable[[str, Tensor], None]


class Mixer(Protocol):
    """A sequence mixer: an ``nn.Module`` whose parameters have the published names."""

    #: The attribute it has in a decoder layer, which is its prefix in a checkpoint.
    name: str

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        """Its parts of the memory before the first token, tensors like ``like``."""
        ...

    def sizes(self, tokens: int) -> dict[str, int]:
        """How many numbers each part holds after that many tokens, for one sequence."""
        ...

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        """Bytes of each part after that many tokens, for one sequence of a model whose numbers have ``width`` bytes."""
        ...

    def __call__(
        self, h: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        """From h [B, T, d] and its parts of the memory: the output [B, T, d], and the parts after the last token.

        ``tables`` are the cos and sin of the rotary positions; ``record`` hands out intermediate values and is None
        where nobody asks for them.
        """
        ...


def part_nbytes(sizes: Mapping[str, int], width: int) -> dict[str, int]:
    """Bytes of parts of so many numbers: states are kept in float32 at least."""
    return {part: size * (max(width, 4) if part == "state" else width) for part, size in sizes.items()}
