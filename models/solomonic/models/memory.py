"""Memory: everything a model carries from the past, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solomonic.kernels import RidgeState

#: What dynamics a part has: an eidetic part is a shift register (nilpotent), a fading part a decaying state.
#: The register of fading tokens is eidetic as a register; what it holds are summaries.
KINDS = {
    "conv": "eidetic",
    "state": "fading",
    "window": "eidetic",
    "fading_tokens": "eidetic",
    "eidetic": "eidetic",
    "kv": "eidetic",
}


class KeyValue(NamedTuple):
    """Keys and values of a register of tokens, oldest first.

    Attributes
    ----------
    key : Tensor
        [B, n, Hkv, D], after norm and rotation.
    value : Tensor
        [B, n, Hkv, D].
    """

    key: Tensor
    value: Tensor


class StoredTokens(NamedTuple):
    """Tokens that were stored for their innovation, highest first, then those that wait for the next refresh.

    A slot is empty where its score is minus infinity.

    Attributes
    ----------
    key : Tensor
        [B, n, Hkv, D], after norm and rotation.
    value : Tensor
        [B, n, Hkv, D].
    position : Tensor
        Position of each token in the sequence, int64 [B, n]; -1 in an empty slot.
    score : Tensor
        Its innovation [B, n].
    admitted : Tensor
        Position of the first query that could read it, int64 [B, n]; 0 for tokens that wait.
    past : Tensor
        The last outputs of the state space layer [B, k, d], from which the next innovation is measured.
    """

    key: Tensor
    value: Tensor
    position: Tensor
    score: Tensor
    admitted: Tensor
    past: Tensor


#: The value of a part.
Value = Tensor | KeyValue | RidgeState | StoredTokens


class Part(NamedTuple):
    """Where a part of a memory is, and what it is.

    Attributes
    ----------
    layer : int
        The layer that carries it.
    part : str
        Its name: ``"conv"``, ``"state"``, ``"window"``, ``"fading_tokens"``, ``"eidetic"`` or ``"kv"``.
    kind : str
        ``"eidetic"`` or ``"fading"``.
    """

    layer: int
    part: str
    kind: str


@dataclass(frozen=True, eq=False)
class Memory:
    """Everything that a model carries from the past: the state of the model as a dynamical system.

    A memory is a value: reading, setting and transplanting parts never changes it, and gradients flow through it.
    It obeys the split law: ``model(a + b)`` and ``model(b, memory=model(a).memory)`` agree.

    Parameters
    ----------
    layers : tuple of mappings
        For each layer its parts by name: ``conv`` [B, k-1, C] (inputs of the short convolution, oldest first),
        ``state`` [B, H, P, N], ``window``, ``fading_tokens`` and ``kv`` (:class:`KeyValue` of [B, n, Hkv, D]).
    position : int
        Number of tokens seen, which is the position of the next token.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8, swa_window=4), rng=0)
    >>> memory = model(torch.tensor([[1, 2, 3]])).memory
    >>> memory.parts()
    [Part(layer=0, part='conv', kind='eidetic'), Part(layer=0, part='state', kind='fading'),
     Part(layer=1, part='window', kind='eidetic')]
    >>> memory.set(0, "state", 0 * memory.get(0, "state")).get(0, "state").abs().max().item()
    0.0
    """

    layers: tuple[Mapping[str, Value], ...]
    position: int

    def parts(self) -> list[Part]:
        """Every part, in the order of the layers."""
        return [Part(i, name, KINDS[name]) for i, layer in enumerate(self.layers) for name in layer]

    @property
    def batch_size(self) -> int:
        """Number of sequences."""
        return tensors(self.get(self.parts()[0].layer, self.parts()[0].part))[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(t.numel() * t.element_size() for layer in self.layers for v in layer.values() for t in tensors(v))

    def get(self, layer: int, part: str) -> Value:
        """The value of the part named ``part`` of layer ``layer``: a tensor or a :class:`KeyValue`."""
        self._check(layer, part)
        return self.layers[layer][part]

    def set(self, layer: int, part: str, value: Any) -> Memory:
        """A memory that differs in the ``part`` of a ``layer``; ``value`` has its shapes, dtype and device."""
        old = self.get(layer, part)
        fields: tuple[str, ...] = ("value",)
        if isinstance(old, tuple):
            fields = type(old)._fields
            if isinstance(value, Tensor) or len(value) != len(fields):
                what = f"{'a pair' if len(fields) == 2 else 'a tuple'} ({', '.join(fields)}) of tensors"
                raise TypeError(f"value: part {part!r} is {what}, got {type(value).__name__}")
            value = type(old)(*value)
        for name, new, was in zip(fields, tensors(value), tensors(old), strict=True):
            if not isinstance(new, Tensor):
                raise TypeError(f"{name}: expected a torch.Tensor, got {type(new).__name__}")
            if new.shape != was.shape or new.dtype != was.dtype or new.device != was.device:
                raise ValueError(
                    f"{name}: part {part!r} of layer {layer} has shape {tuple(was.shape)}, {was.dtype} on "
                    f"{was.device}; got {tuple(new.shape)}, {new.dtype} on {new.device}"
                )
        return self._replace({(layer, part): value})

    def transplant(
        self, other: Memory, *, parts: Iterable[str] | str | None = None, layers: Iterable[int] | int | None = None
    ) -> Memory:
        """This memory with what ``parts`` and ``layers`` name taken from ``other`` (all of it by default)."""
        wanted_parts = {parts} if isinstance(parts, str) else None if parts is None else set(parts)
        wanted_layers = {layers} if isinstance(layers, int) else None if layers is None else set(layers)
        here = {(p.layer, p.part) for p in self.parts()}
        if here != {(p.layer, p.part) for p in other.parts()}:
            raise ValueError("other: expected a memory with the same parts; the two come from different models")
        chosen = {
            (i, name)
            for i, name in here
            if (wanted_parts is None or name in wanted_parts) and (wanted_layers is None or i in wanted_layers)
        }
        unknown = (wanted_parts or set()) - {name for _, name in here}
        if unknown:
            raise ValueError(f"parts: no layer has {sorted(unknown)}; parts are {sorted({n for _, n in here})}")
        if wanted_layers is not None and not wanted_layers <= set(range(len(self.layers))):
            raise ValueError(f"layers: expected layers below {len(self.layers)}, got {sorted(wanted_layers)}")
        if not chosen:
            raise ValueError(f"parts, layers: no part is named by parts={parts!r}, layers={layers!r}")
        out = self
        for i, name in sorted(chosen):
            out = out.set(i, name, other.get(i, name))
        return out

    def detach(self) -> Memory:
        """The same values without their gradient history."""
        return self.map(lambda t: t.detach())

    def repeat(self, batch_size: int) -> Memory:
        """A memory of one sequence, repeated for ``batch_size`` sequences."""
        if self.batch_size != 1:
            raise ValueError(f"repeat: expected a memory of one sequence, got {self.batch_size}")
        return self.map(lambda t: t.expand(batch_size, *t.shape[1:]))

    def map(self, function: Any) -> Memory:
        """A memory with ``function`` applied to every tensor."""
        return dataclasses.replace(self, layers=tuple(map_layers(function, layer) for layer in self.layers))

    def _replace(self, new: Mapping[tuple[int, str], Value]) -> Memory:
        layers = tuple({k: new.get((i, k), v) for k, v in layer.items()} for i, layer in enumerate(self.layers))
        return dataclasses.replace(self, layers=layers)

    def _check(self, layer: int, part: str) -> None:
        if not isinstance(layer, int) or not 0 <= layer < len(self.layers):
            raise ValueError(f"layer: expected an integer from 0 to {len(self.layers) - 1}, got {layer!r}")
        if part not in self.layers[layer]:
            raise ValueError(f"part: layer {layer} has {list(self.layers[layer])}, got {part!r}")

    def __repr__(self) -> str:
        names = sorted({p.part for p in self.parts()})
        return (
            f"Memory({len(self.layers)} layers, parts {', '.join(names)}, position {self.position}, "
            f"{self.nbytes:,} bytes)"
        )


def tensors(value: Value) -> tuple[Tensor, ...]:
    """The tensors of a part's value."""
    return tuple(value) if isinstance(value, tuple) else (value,)


def map_layers(function: Callable[..., Tensor], *layers: Mapping[str, Value]) -> dict[str, Value]:
    """A layer's memory of what ``function`` makes of each tensor, or of the same tensor of several such memories."""
    out: dict[str, Value] = {}
    for part, value in layers[0].items():
        fields = [function(*each) for each in zip(*(tensors(layer[part]) for layer in layers), strict=True)]
        out[part] = type(value)(*fields) if isinstance(value, tuple) else fields[0]
    return out


def cat_layers(layers: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """Memories of one layer with their sequences one after another; none of no memories."""
    if len(layers) < 2:
        return dict(layers[0]) if layers else {}
    return map_layers(lambda *each: torch.cat(each), *layers)


def cat_memories(memories: Sequence[Memory]) -> Memory:
    """Memories of the same shapes and position with their sequences one after another."""
    layers = tuple(cat_layers(each) for each in zip(*(memory.layers for memory in memories), strict=True))
    return Memory(layers, memories[0].position)


def append(register: KeyValue, key: Tensor, value: Tensor) -> KeyValue:
    """The register with new tokens behind the old ones (the new ones themselves where it was empty)."""
    if register.key.shape[1] == 0:
        return KeyValue(key, value)
    return KeyValue(torch.cat([register.key, key], 1), torch.cat([register.value, value], 1))


def last(register: KeyValue, size: int) -> KeyValue:
    """The newest ``size`` tokens; copied, so that the older ones can be freed."""
    if register.key.shape[1] <= size:
        return register
    return KeyValue(register.key[:, -size:].clone(), register.value[:, -size:].clone())
