"""The tap of attention: queries, keys and values as the softmax reads them, whichever implementation runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from solomonic.kernels import memory_attention
from solomonic.kernels.backends import transformed

from .session import Session, elsewhere

#: Options of attention functions that would change what is read.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "indices")


class _Interface:
    """``ALL_ATTENTION_FUNCTIONS`` of a modeling module, whose functions tell what they were given."""

    def __init__(self, original: Any, session: Session) -> None:
        self._original, self._session = original, session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def get_interface(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        function = self._original.get_interface(*args, **kwargs)
        return function if elsewhere(self._session) else _tapped(function, self._session)


def _tapped(function: Callable[..., Any], session: Session) -> Callable[..., Any]:
    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Any:
        layer = session.enter("attention")
        for name in _UNKNOWN:
            if options.get(name) is not None:
                raise ValueError(f"model: attention of layer {layer} has {name}, which the adapters do not know")
        if transformed(query, key, value):  # fused attention has no forward mode
            q, k, v = (each.transpose(1, 2) for each in (query, key, value))
            scale, window = options.get("scaling"), session.layers[layer].window
            out = memory_attention(q, k, v, window=window, scale=scale).out, None
        else:
            out = function(module, query, key, value, attention_mask, **options)
        if session.record is not None:
            _record(session, layer, query, key, value, out[0], options.get("scaling"))
        return out

    return attention


def _record(
    session: Session, layer: int, query: Tensor, key: Tensor, value: Tensor, read: Tensor, scale: float | None
) -> None:
    q, k, v = (each.transpose(1, 2) for each in (query, key, value))
    width = q.shape[-1]
    scale = width**-0.5 if scale is None else float(scale)
    again = memory_attention(q, k, v, window=session.layers[layer].window, scale=scale)
    if abs(scale * width**0.5 - 1) > 1e-12:
        q = q * (scale * width**0.5)  # so that the scores are q k' / sqrt(D) in every family
    session.tap(layer, q=q, k=k, v=v, read=read, lse_window=again.lse.window)


#: The name in every modeling module.
ATTENTION_TAPS = {"ALL_ATTENTION_FUNCTIONS": _Interface}
