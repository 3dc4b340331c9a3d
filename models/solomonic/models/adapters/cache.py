"""A cache of transformers that is a value: nothing in it is written in place, so that a Memory stays what it was."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..memory import KeyValue, Memory, Value
from .family import Layer


def make_cache(config: Any, layers: Sequence[Layer], memory: Memory | None) -> Any:
    """A cache for one run that goes on from ``memory``, or starts afresh without one."""
    cache = _cache_class()(config=config)
    cache.begin(layers, memory)
    return cache


def read_memory(cache: Any, layers: Sequence[Layer], like: Tensor, position: int) -> Memory:
    """What a cache holds after a run, as a Memory."""
    return Memory(tuple(_parts(cache, i, layer, like) for i, layer in enumerate(layers)), position)


def _parts(cache: Any, i: int, layer: Layer, like: Tensor) -> dict[str, Value]:
    parts: dict[str, Value] = {}
    for part in layer.shapes:
        if part == "conv":
            parts[part] = cache.registers[i]
        elif part == "state":
            parts[part] = cache.states[i].to(torch.promote_types(like.dtype, torch.float32))
        else:
            held = cache.layers[i]
            key, value = held.keys.transpose(1, 2), held.values.transpose(1, 2)
            if layer.window is not None and key.shape[1] >= layer.window:
                start = key.shape[1] - layer.window + 1
                key, value = key[:, start:].clone(), value[:, start:].clone()
            parts[part] = KeyValue(key, value)
    return parts


@functools.cache
def _cache_class() -> type:
    from transformers import DynamicCache  # pyright: ignore[reportMissingImports]

    class ValueCache(DynamicCache):
        """Convolution registers and states are handed on, not written; mixers always see the start of a text.

        To a mixer the cache says that there is no earlier state, so that it takes its form for whole sequences, also
        for one token: the register reaches it through :meth:`update_conv_state`, the state through the tapped scan.
        """

        registers: dict[int, Tensor]
        states: dict[int, Tensor]
        initial: dict[int, Tensor]

        def begin(self, layers: Sequence[Layer], memory: Memory | None) -> None:
            self.registers, self.states, self.initial = {}, {}, {}
            self.fresh = memory is None
            self.position = 0 if memory is None else memory.position
            self.attends = any(part in layer.shapes for layer in layers for part in ("kv", "window"))
            self.convolved: list[int] = []
            self.widths = {i: layer.shapes["conv"][0] for i, layer in enumerate(layers) if "conv" in layer.shapes}
            if memory is None:
                return
            for i, layer in enumerate(layers):
                for part, value in memory.layers[i].items():
                    if part == "conv":
                        assert isinstance(value, Tensor)
                        self.registers[i] = value
                    elif part == "state":
                        assert isinstance(value, Tensor)
                        self.initial[i] = value
                    else:
                        assert isinstance(value, KeyValue)
                        self._fill(i, layer, value, memory.position)

        def _fill(self, i: int, layer: Layer, value: KeyValue, position: int) -> None:
            held: Any = self.layers[i]
            key = value.key.transpose(1, 2)
            if hasattr(held, "conv_states"):  # a layer that holds both
                from transformers.cache_utils import DynamicLayer  # pyright: ignore[reportMissingImports]

                DynamicLayer.lazy_initialization(held, key, key)
            else:
                held.lazy_initialization(key, key)
            held.keys, held.values = key, value.value.transpose(1, 2)
            if layer.window is not None:
                held.cumulative_length = position

        def get_seq_length(self, layer_idx: int = 0) -> int:
            """Tokens before this run; transformers asks attention layers alone, and raises where there are none."""
            return super().get_seq_length(layer_idx) if self.attends else self.position

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            return super().get_mask_sizes(query_length, layer_idx) if self.attends else (query_length, 0)

        def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> None:
            return None

        def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> None:
            return None

        def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Tensor:
            width = self.widths[layer_idx]
            self.convolved.append(layer_idx)
            if layer_idx in self.registers:
                conv_states = torch.cat([self.registers[layer_idx].transpose(1, 2), conv_states], -1)
            elif conv_states.shape[-1] <= width:
                conv_states = torch.nn.functional.pad(conv_states, (width + 1 - conv_states.shape[-1], 0))
            kept = conv_states[..., conv_states.shape[-1] - width :]
            self.registers[layer_idx] = kept.transpose(1, 2).contiguous()
            return conv_states

        def update_recurrent_state(
            self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
        ) -> Tensor:
            return recurrent_states  # the tapped scan has handed on the state

    return ValueCache
