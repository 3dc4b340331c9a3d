"""What an operation costs: the quantities that every ``cost`` module gives."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Cost"]


class Cost(NamedTuple):
    """Work and traffic of one call.

    Attributes
    ----------
    flops : int
        Additions and multiplications, masked halves of tiles included.
    exponentials : int
        Calls of exp.
    compulsory : int
        Bytes of every input and output, once.
    moved : int
        Bytes that programs load and store, once for each program that needs them, without what is reread.
    reread : int
        Bytes that programs load again because heads share them, or because a head is divided among programs. Caches
        serve them when the programs run together.
    """

    flops: int
    exponentials: int
    compulsory: int
    moved: int
    reread: int

    @property
    def ratio(self) -> float:
        """Bytes moved over compulsory bytes."""
        return self.moved / self.compulsory
