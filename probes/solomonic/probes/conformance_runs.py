"""What conformance asks of a model: read tokens, go on from a memory, change a part of it. Ours, and as published."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory, adapt
from solomonic.models.memory import StoredTokens, tensors

#: Outputs of the layers [B, T, d] each, and logits [B, T, vocabulary], in float64.
Read = tuple[list[Tensor], Tensor]


class Runner(Protocol):
    """A model that reads tokens from a memory of whatever kind."""

    def read(self, ids: Tensor, memory: Any = None, **options: Any) -> tuple[Read, Any]:
        """Outputs and the memory after the last token; the memory that was given stays as it was."""
        ...

    def parts(self, memory: Any) -> list[tuple[int, str]]:
        """Layer and name of everything that is carried."""
        ...

    def changed(self, memory: Any, layer: int, part: str, generator: torch.Generator) -> Any | None:
        """A memory with noise added to one part; None where that part holds nothing yet."""
        ...


def noised(value: Tensor, generator: torch.Generator) -> Tensor:
    """The value plus noise of its own size, or of size 1 where it is zero."""
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    size = float(value.double().square().mean().sqrt()) or 1.0
    return value + (size * noise).to(value)


class Explicit:
    """A model with an explicit memory."""

    def __init__(self, model: HybridLM | AdaptedLM) -> None:
        self.model = model

    def read(self, ids: Tensor, memory: Memory | None = None, **options: Any) -> tuple[Read, Memory]:
        hidden: dict[int, Tensor] = {}

        def record(layer: int, name: str, value: Tensor) -> None:
            if name == "hidden":
                hidden[layer] = value.double()

        with torch.inference_mode():
            out = self.model(ids, memory=memory, record=record)
        return ([hidden[i] for i in sorted(hidden)], out.logits.double()), out.memory

    def parts(self, memory: Memory) -> list[tuple[int, str]]:
        return [(part.layer, part.part) for part in memory.parts()]

    def changed(self, memory: Memory, layer: int, part: str, generator: torch.Generator) -> Memory | None:
        value = memory.get(layer, part)
        if not any(each.numel() for each in tensors(value)):
            return None
        if isinstance(value, Tensor):
            return memory.set(layer, part, noised(value, generator))
        if isinstance(value, StoredTokens) and not bool((value.admitted > 0).any()):
            return None  # nothing is stored yet
        names = {"key", "value"} & set(value._fields) or set(value._fields)
        new = {
            name: noised(each, generator) if name in names and each.is_floating_point() else each
            for name, each in zip(value._fields, value, strict=True)
        }
        return memory.set(layer, part, type(value)(**new))


class Published:
    """A model of transformers as it runs by itself, with its own cache."""

    def __init__(self, hf: Any) -> None:
        adapted = adapt(hf)
        self.hf, self.blocks, self.cache = hf, [layer.block for layer in adapted.blocks], adapted.family.cache
        self.takes_positions = "position_ids" in inspect.signature(hf.forward).parameters

    def read(self, ids: Tensor, memory: Any = None, **options: Any) -> tuple[Read, Any]:
        hidden: list[Tensor] = []
        if memory is not None:
            options[self.cache] = copy.deepcopy(memory)  # it is written in place
        with torch.no_grad(), _hidden(self.blocks, hidden):
            out = self.hf(ids, use_cache=True, return_dict=True, **options)
        return (hidden, out.logits.double()), out[self.cache]

    def parts(self, memory: Any) -> list[tuple[int, str]]:
        found = []
        for i, layer in enumerate(memory.layers):
            found += [(i, name) for name, at in _PARTS.items() if _held(layer, at)]
        return found

    def changed(self, memory: Any, layer: int, part: str, generator: torch.Generator) -> Any | None:
        other = copy.deepcopy(memory)
        for name, key in _held(other.layers[layer], _PARTS[part]):
            here = getattr(other.layers[layer], name)
            if key is None:
                setattr(other.layers[layer], name, noised(here, generator))
            else:
                here[key].copy_(noised(here[key], generator))
        return other


_PARTS = {"conv": ("conv_states",), "state": ("recurrent_states",), "kv": ("keys", "values")}


def _held(layer: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Attribute and key of every tensor that a layer of the cache holds under some names."""
    found: list[tuple[str, Any]] = []
    for name in names:
        value = getattr(layer, name, None)
        if isinstance(value, Tensor) and value.numel():
            found.append((name, None))
        elif isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            found += [(name, key) for key in keys if isinstance(value[key], Tensor)]
    return found


@contextmanager
def _hidden(blocks: list[Any], out: list[Tensor]) -> Iterator[None]:
    handles = [
        block.register_forward_hook(lambda module, args, y: out.append((y[0] if isinstance(y, tuple) else y).double()))
        for block in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
