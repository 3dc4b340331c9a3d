"""Which tokens a selection has to do with, from counts alone: what is stored, what waits, when memory is refreshed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NEVER", "Plan", "merge_length"]

#: Where an interval of queries ends that has not ended yet.
NEVER = 1 << 62


@dataclass(frozen=True)
class Plan:
    """A call that reads `length` tokens after `seen` ones, and its columns: stored, waiting, new.

    At a boundary s, a multiple of `chunk`, the tokens up to s - `window` may be stored. A state holds at most
    `size` stored tokens, and those that no boundary has considered yet, which wait.
    """

    seen: int
    length: int
    size: int
    window: int
    chunk: int

    @property
    def end(self) -> int:
        return self.seen + self.length

    @property
    def columns(self) -> int:
        return self.held + self.seen - self.first_waiting + self.length

    @property
    def held(self) -> int:
        """Slots of stored tokens before the call, some of which a caller may have emptied."""
        return min(self.size, self.first_waiting)

    @property
    def first_waiting(self) -> int:
        """Position of the first token that waits before the call; all after it wait too."""
        return self._considered(self.seen)

    @property
    def held_after(self) -> int:
        return min(self.size, self.first_waiting_after)

    @property
    def first_waiting_after(self) -> int:
        return self._considered(self.end)

    @property
    def columns_after(self) -> int:
        """Tokens that the state after the call holds."""
        return self.held_after + self.end - self.first_waiting_after

    @property
    def refreshes(self) -> range:
        """The boundaries that this call passes or reaches."""
        return range((self.seen // self.chunk + 1) * self.chunk, self.end + 1, self.chunk)

    def _considered(self, seen: int) -> int:
        return max(0, seen // self.chunk * self.chunk - self.window + 1)


def merge_length(plan: Plan) -> int:
    """How many numbers a kernel sorts at a refresh: the stored tokens and the candidates, as a power of two."""
    return max(16, 1 << (plan.size + plan.chunk - 1).bit_length())
