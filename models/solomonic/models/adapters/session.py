"""One tapped run: functions of transformers are replaced for its time, and each must have been called as expected."""

from __future__ import annotations

import importlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .family import PIECES, Family, Layer

_LOCK = threading.Lock()
_OWNER: list[int] = []  # the thread whose run is under way


class Session:
    """What the tapped functions of one run share: the layer that runs, its cache, and whom to tell.

    Parameters
    ----------
    family : Family
        Of the model.
    layers : sequence of Layer
        Of the model.
    cache : object
        The run's cache.
    record : callable or None
        Receives (layer, name, value).
    """

    def __init__(
        self,
        family: Family,
        layers: Sequence[Layer],
        cache: Any,
        record: Callable[[int, str, Tensor], None] | None,
    ) -> None:
        self.family, self.layers, self.cache, self.record = family, layers, cache, record
        self.calls: dict[int, Counter[str]] = {i: Counter() for i in range(len(layers))}
        self.thread = threading.get_ident()
        self.current: int | None = None

    def enter(self, piece: str) -> int:
        """Count a call of a tapped function; the layer it belongs to."""
        if self.current is None:
            raise ValueError(f"model: a tapped function ({piece}) was called outside of every layer")
        self.calls[self.current][piece] += 1
        return self.current

    def tap(self, layer: int, **values: Tensor) -> None:
        """Hand out values of a layer."""
        if self.record is not None:
            for name, value in values.items():
                self.record(layer, name, value)

    def check(self) -> None:
        """Raise ValueError unless every tap of every layer fired exactly once."""
        for i, layer in enumerate(self.layers):
            expected = Counter(PIECES[layer.symbol])
            if self.calls[i] != expected:
                raise ValueError(
                    f"model: layer {i} ({layer.symbol}) called the tapped functions {dict(self.calls[i])}, expected "
                    f"{dict(expected)}; something took the place of {', '.join(self.family.taps)} in "
                    f"{self.family.module} (kernels, a compiled forward, another version): run the model without it"
                )
            convolved = self.cache.convolved.count(i)
            if convolved != ("conv" in layer.shapes):
                raise ValueError(
                    f"model: layer {i} ({layer.symbol}) updated its convolution {convolved} times, expected "
                    f"{int('conv' in layer.shapes)}; {versions_advice()}"
                )


@contextmanager
def tapped_functions(session: Session) -> Iterator[None]:
    """Replace the family's functions and watch its layers, for the time of one run of this thread.

    Raises RuntimeError where this thread has a tapped run under way; another thread waits for it to end. Calls from
    other threads pass through to the functions that were there.
    """
    me = threading.get_ident()
    if me in _OWNER:
        raise RuntimeError("model: a tapped run is under way in this thread; runs of adapted models do not nest")
    with _LOCK:
        _OWNER.append(me)
        undo: list[Callable[[], None]] = []
        try:
            _patch(session, undo)
            _watch(session, undo)
            yield
        finally:
            for each in reversed(undo):
                each()
            _OWNER.remove(me)


def _patch(session: Session, undo: list[Callable[[], None]]) -> None:
    module = importlib.import_module(session.family.module)
    for name, make in session.family.taps.items():
        original = getattr(module, name, None)
        if original is None:
            raise ValueError(f"transformers: {session.family.module} has no {name}; {versions_advice()}")
        setattr(module, name, make(original, session))
        undo.append(lambda name=name, original=original: setattr(module, name, original))


def _watch(session: Session, undo: list[Callable[[], None]]) -> None:
    for i, layer in enumerate(session.layers):

        def begin(block: Any, args: Any, i: int = i) -> None:
            session.current = i

        def end(block: Any, args: Any, out: Any, i: int = i) -> None:
            session.tap(i, hidden=_first(out))
            session.current = None

        undo.append(layer.block.register_forward_pre_hook(begin).remove)
        undo.append(layer.block.register_forward_hook(end).remove)
        if layer.mixer is not None and session.record is not None:

            def mixed(mixer: Any, args: Any, kwargs: Any, out: Any, i: int = i) -> None:
                session.tap(i, mixer_in=args[0] if args else kwargs["hidden_states"], mixer_out=_first(out))

            undo.append(layer.mixer.register_forward_hook(mixed, with_kwargs=True).remove)


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def elsewhere(session: Session) -> bool:
    """Whether a call comes from another thread than the session's."""
    return threading.get_ident() != session.thread


def versions_advice() -> str:
    """What to do where transformers is not what the adapters know."""
    return "install a version in the range of the extra: pip install 'solomonic[transformers]'"
