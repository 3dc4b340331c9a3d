"""An edit of a memory: what it changes, where and when, and how it is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory, StoredTokens
from solomonic.models.memory import tensors

__all__ = ["Edit"]

OPS = ("set", "add", "scale", "zero", "mean", "resample", "freeze")
_NEED_VALUE = ("set", "add", "scale")
#: The axis of the heads, by part; registers of tokens have their slots on axis 1.
_HEADS = {"state": 1, "window": 2, "fading_tokens": 2, "eidetic": 2, "kv": 2}


@dataclass(frozen=True, eq=False)
class Edit:
    r"""A change of one part of a model's memory, after token ``time`` has been read out.

    .. math:: m_t \leftarrow m_t + (f(m_t) - m_t)\, Q Q^\top, \qquad Q = 1 \text{ where no subspace is given},

    with f the ``op``. Outputs up to ``time`` stay as they are; all that follows sees the change. Carried out by
    :func:`edit` and :func:`editing`.

    Parameters
    ----------
    layer : int
        The layer.
    part : str
        The part of its memory: ``"conv"``, ``"state"``, ``"window"``, ``"fading_tokens"``, ``"eidetic"`` or ``"kv"``.
    time : int
        The token after which the memory is changed, from 0, counted from the first token that the memory has seen.
    op : str
        ``"set"``, ``"add"`` and ``"scale"`` take a ``value``; ``"zero"`` takes none. ``"mean"`` puts in the mean over
        the prompts of the call, ``"resample"`` the value of another prompt drawn at random; with a ``value``, the mean
        of its samples, or one of them. ``"freeze"`` holds the part as it is after token ``time``: what the tokens
        after it would write is discarded.
    value : float, array_like, tensor or tuple of them
        What is set, added or multiplied with: a number, or an array of the shape of what is changed, with or without
        the axis of the prompts. Of ``"mean"`` and ``"resample"``: samples, [samples, ...] of that shape. Of
        ``"freeze"``: for how many tokens it holds; by default to the end. A part of several tensors (keys and values)
        takes a tuple, or name one by ``field``. Gradients flow through it.
    heads : int or sequence of int, optional
        Heads that are changed; all of them by default. Registers of tokens have those of the keys and values.
    slots : int or sequence of int, optional
        Tokens of a register that are changed, oldest first; negative ones count from the newest. All by default.
    field : str, optional
        One tensor of a part that has several: ``"key"``, ``"value"``, ``"gram"``, ``"content"``.
    subspace : array_like [size, k], optional
        Orthonormal columns Q: only the component in their span is changed, ``size`` being the number of entries that
        are changed for one prompt, in the order of the axes. With ``"set"`` that is an interchange in a subspace.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, a value is missing, not wanted or not finite, or the columns are not
        orthonormal. What depends on the model is checked where the edit is carried out.

    References
    ----------
    Geiger et al. (arXiv:2303.02536), distributed interchange interventions, for the subspace.

    Examples
    --------
    >>> from solomonic.probes import Edit
    >>> Edit(0, "state", 11, "scale", 0.5, heads=(0, 3))
    Edit(layer 0, state, after token 11: scale, heads 0 3)
    """

    layer: int
    part: str
    time: int
    op: str
    value: Any = None
    heads: Any = None
    slots: Any = None
    field: str | None = None
    subspace: Any = None

    def __post_init__(self) -> None:
        for name in ("layer", "time"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 0:
                raise ValueError(f"{name}: expected a whole number of at least 0, got {given!r}")
            object.__setattr__(self, name, int(given))
        if not isinstance(self.part, str):
            raise TypeError(f"part: expected the name of a part, got {type(self.part).__name__}")
        if self.op not in OPS:
            raise ValueError(f"op: expected one of {', '.join(OPS)}, got {self.op!r}")
        object.__setattr__(self, "heads", _numbers(self.heads, "heads", least=0))
        object.__setattr__(self, "slots", _numbers(self.slots, "slots", least=None))
        object.__setattr__(self, "value", self._checked_value())
        if self.subspace is not None:
            object.__setattr__(self, "subspace", _columns(self.subspace))

    def _checked_value(self) -> Any:
        value = self.value
        if value is None:
            if self.op in _NEED_VALUE:
                raise ValueError(f"value: op {self.op!r} needs one, a number or an array; got None")
            return None
        if self.op == "zero":
            raise ValueError("value: op 'zero' takes none; use op='set' to put a value in")
        if self.op == "freeze":
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"value: op 'freeze' holds for a whole number of tokens, at least 1; got {value!r}")
            return int(value)
        if isinstance(value, tuple):
            return tuple(_finite(each, f"value[{i}]") for i, each in enumerate(value))
        return _finite(value, "value")

    @property
    def last(self) -> float:
        """The last token that the edit holds for: ``time``, or the end of the span of a freeze."""
        if self.op != "freeze":
            return self.time
        return float("inf") if self.value is None else self.time + self.value

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow through the value."""
        value = self.value if isinstance(self.value, tuple) else (self.value,)
        return any(isinstance(each, Tensor) and each.requires_grad for each in value)

    def __repr__(self) -> str:
        more = [f"{n} {' '.join(map(str, v))}" for n, v in (("heads", self.heads), ("slots", self.slots)) if v]
        more += [self.field] if self.field else []
        more += [f"subspace of {self.subspace.shape[1]}"] if self.subspace is not None else []
        return f"Edit({', '.join([f'layer {self.layer}', self.part, f'after token {self.time}: {self.op}', *more])})"


def as_interventions(edits: Any) -> list[tuple[Edit, ...]]:
    """Interventions: each an edit, or edits that are carried out together."""
    if isinstance(edits, Edit):
        return [(edits,)]
    if not isinstance(edits, Iterable):
        raise TypeError(f"edits: expected an Edit or a sequence of them, got {type(edits).__name__}")
    out = []
    for i, each in enumerate(edits):
        group = (each,) if isinstance(each, Edit) else tuple(each) if isinstance(each, list | tuple) else (each,)
        for one in group:
            if not isinstance(one, Edit):
                raise TypeError(f"edits[{i}]: expected an Edit or a sequence of them, got {type(one).__name__}")
        if not group:
            raise ValueError(f"edits[{i}]: an intervention without an edit touches nothing")
        out.append(group)
    if not out:
        raise ValueError("edits: expected at least one edit, got none: nothing would be touched")
    return out


def check(edits: Sequence[Edit], model: HybridLM | AdaptedLM) -> None:
    """Refuse edits of layers, parts and heads that the model does not have, and of parts that are frozen."""
    pattern = model.config.pattern
    empty = model.empty_memory()
    for e in edits:
        if e.layer >= len(pattern):
            raise ValueError(f"layer: expected a layer from 0 to {len(pattern) - 1}, got {e.layer} in {e!r}")
        parts = empty.layers[e.layer]
        if e.part not in parts:
            held = list(parts) or "no memory"
            raise ValueError(f"part: layer {e.layer} ({pattern[e.layer]}) has {held}, got {e.part!r}")
        names = getattr(parts[e.part], "_fields", ())
        if e.field is not None and e.field not in fields_of(parts[e.part]):
            what = f"has {fields_of(parts[e.part])}" if names else "is one tensor: leave field out"
            raise ValueError(f"field: part {e.part!r} of layer {e.layer} {what}; got {e.field!r}")
        if e.heads is not None:
            axis = _HEADS.get(e.part)
            if axis is None:
                raise ValueError(f"heads: part {e.part!r} has none, got {e.heads} in {e!r}")
            count = tensors(parts[e.part])[0].shape[axis]
            if max(e.heads) >= count:
                raise ValueError(
                    f"heads: part {e.part!r} of layer {e.layer} has heads 0 to {count - 1}, got {max(e.heads)}"
                )
        if e.slots is not None and e.part == "state":
            raise ValueError("slots: a state has none; its axes are heads, channels and state")
    for frozen in (e for e in edits if e.op == "freeze"):
        for e in edits:
            apart = frozen.heads is not None and e.heads is not None and not set(frozen.heads) & set(e.heads)
            same = (e.layer, e.part) == (frozen.layer, frozen.part) and e is not frozen and not apart
            if same and frozen.time < e.time <= frozen.last:
                raise ValueError(
                    f"edits: {e!r} is on a part that {frozen!r} holds until "
                    f"{'the end' if frozen.value is None else f'token {frozen.time + frozen.value}'}; edit it before, "
                    "or end the freeze earlier (value= is its length in tokens)"
                )


def fields_of(value: Any) -> tuple[str, ...]:
    """The fields of a part that an edit can change: those that hold numbers with a meaning by themselves."""
    if isinstance(value, StoredTokens):
        return ("key", "value")
    return getattr(value, "_fields", ("",))


def apply(e: Edit, memory: Memory, random: np.random.Generator) -> Memory:
    """The memory with the edit carried out (a freeze starts with nothing)."""
    if e.op == "freeze":
        return memory
    pick = _Picks(random)  # the same prompts or samples for all tensors of the part
    return _change(e, memory, lambda i, name, region: _wanted(e, i, name, region, pick))


def hold(e: Edit, before: Memory, after: Memory) -> Memory:
    """The memory after one more token, with what a freeze holds as it was before that token."""
    held, new = before.get(e.layer, e.part), after.get(e.layer, e.part)
    if any(a.shape != b.shape for a, b in zip(tensors(held), tensors(new), strict=True)):
        raise ValueError(
            f"edits: {e!r}: part {e.part!r} grew from {tuple(tensors(held)[0].shape)} to "
            f"{tuple(tensors(new)[0].shape)} with the token; only a part of fixed size can be frozen, such as a state, "
            "or a window once it is full"
        )
    if e.heads is None and e.slots is None and e.field is None and e.subspace is None:
        return after.set(e.layer, e.part, held)  # all fields, the positions of stored tokens too
    one = held if isinstance(held, tuple) else (held,)
    fields = getattr(held, "_fields", ("",))
    return _change(e, after, lambda i, name, region: _region(e, one[fields.index(name)]))


def _change(e: Edit, memory: Memory, wanted: Any) -> Memory:
    value = memory.get(e.layer, e.part)
    if isinstance(value, StoredTokens) and e.op == "resample" and e.value is None and _whole(e):
        fields: tuple[str, ...] = value._fields  # a whole set of stored tokens, with its positions and scores
    else:
        fields = fields_of(value) if e.field is None else (e.field,)
    if isinstance(value, StoredTokens):
        _check_stored(e, value)
    new: dict[str, Tensor] = {}
    for i, name in enumerate(fields):
        old = value if isinstance(value, Tensor) else getattr(value, name)
        assert isinstance(old, Tensor)
        at = _index(e, old)
        region = old[at]
        if region.numel() == 0 and name != "past":
            raise ValueError(
                f"edits: {e!r} touches nothing: part {e.part!r} of layer {e.layer} is empty there (shape "
                f"{tuple(old.shape)}); edit it at a later time"
            )
        target = wanted(i, name, region)
        if e.subspace is not None:
            target = _project(e, region, target)
        if _whole(e):
            new[name] = target
        else:
            copy = old.clone()
            copy[at] = target
            new[name] = copy
    if isinstance(value, Tensor):
        return memory.set(e.layer, e.part, new[""])
    return memory.set(e.layer, e.part, value._replace(**new))


def _whole(e: Edit) -> bool:
    return e.heads is None and e.slots is None


def _index(e: Edit, value: Tensor) -> tuple[Any, ...]:
    """The index of what an edit changes in a tensor of a part."""
    if _whole(e):
        return (Ellipsis,)
    slots: Any = slice(None)
    if e.slots is not None:
        count = value.shape[1]
        bad = [s for s in e.slots if not -count <= s < count]
        if bad:
            raise ValueError(
                f"slots: part {e.part!r} of layer {e.layer} holds {count} tokens after token {e.time}, got slot "
                f"{bad[0]}; an empty slot cannot be edited"
            )
        slots = torch.tensor([s % count for s in e.slots], device=value.device)
        if len(set(slots.tolist())) < len(slots):
            raise ValueError(f"slots: {list(e.slots)} name a slot of {count} twice")
    if e.part not in _HEADS:
        return (slice(None), slots)
    heads: Any = slice(None) if e.heads is None else torch.tensor(e.heads, device=value.device)
    if _HEADS[e.part] == 1:
        return (slice(None), heads)
    both = isinstance(slots, Tensor) and isinstance(heads, Tensor)
    return (slice(None), slots[:, None] if both else slots, heads)


def _check_stored(e: Edit, value: StoredTokens) -> None:
    """Slots of stored tokens that hold none."""
    if e.slots is None or not value.score.shape[1]:
        return
    count = value.score.shape[1]
    for slot in e.slots:
        if -count <= slot < count and bool(torch.isneginf(value.score[:, slot]).any()):
            raise ValueError(
                f"slots: slot {slot} of {e.part!r} in layer {e.layer} is empty in a prompt after token {e.time}; "
                "an empty slot cannot be edited"
            )


def _wanted(e: Edit, i: int, name: str, region: Tensor, pick: _Picks) -> Tensor:
    """What op puts in the place of a region, whatever the subspace."""
    if e.op == "zero":
        return torch.zeros_like(region)
    value = e.value
    if isinstance(value, tuple):
        expected = 1 if e.field is not None or not name else 2
        if len(value) != expected:
            raise ValueError(f"value: expected {expected} tensors for part {e.part!r}, got a tuple of {len(value)}")
        value = value[i]
    elif isinstance(value, Tensor) and value.ndim and e.field is None and name:
        raise TypeError(f"value: part {e.part!r} has several tensors: give a tuple of them, or name one by field=")
    if e.op in ("mean", "resample"):
        return _from_samples(e, value, region, pick)
    shapes = (tuple(region.shape), tuple(region.shape[1:]), ())
    if tuple(value.shape) not in shapes:
        raise ValueError(
            f"value: {e!r} changes entries of shape {shapes[1]} in each of {region.shape[0]} prompts: expected that "
            f"shape, {shapes[0]} or a number, got shape {tuple(value.shape)}"
        )
    value = value.to(region)
    if e.op == "set":
        return value.expand(region.shape)
    return region + value if e.op == "add" else region * value


def _from_samples(e: Edit, samples: Any, region: Tensor, pick: _Picks) -> Tensor:
    prompts = region.shape[0]
    if samples is None:
        if prompts < 2:
            raise ValueError(
                f"value: op {e.op!r} of one prompt is the prompt's own: give samples [samples, "
                f"{', '.join(map(str, region.shape[1:]))}] or several prompts"
            )
        if e.op == "mean":
            return region.mean(0, keepdim=True).expand(region.shape)
        return region[pick.others(prompts).to(region.device)]
    if samples.ndim != region.ndim or samples.shape[1:] != region.shape[1:] or not len(samples):
        raise ValueError(
            f"value: op {e.op!r} takes samples [samples, {', '.join(map(str, region.shape[1:]))}], got shape "
            f"{tuple(samples.shape)}"
        )
    samples = samples.to(region)
    if e.op == "mean":
        return samples.mean(0, keepdim=True).expand(region.shape)
    return samples[pick.samples(len(samples), prompts).to(region.device)]


class _Picks:
    """Random choices of one edit, drawn once."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._drawn: Tensor | None = None

    def others(self, prompts: int) -> Tensor:
        """Another prompt for each prompt."""
        if self._drawn is None:
            order = self._random.permutation(prompts)
            donors = np.empty(prompts, np.int64)
            donors[order] = np.roll(order, 1)
            self._drawn = torch.from_numpy(donors)
        return self._drawn

    def samples(self, count: int, prompts: int) -> Tensor:
        """One of the samples for each prompt."""
        if self._drawn is None:
            self._drawn = torch.from_numpy(self._random.integers(count, size=prompts))
        return self._drawn


def _region(e: Edit, value: Tensor) -> Tensor:
    return value[_index(e, value)]


def _project(e: Edit, old: Tensor, new: Tensor) -> Tensor:
    size = old[0].numel()
    if e.subspace.shape[0] != size:
        raise ValueError(f"subspace: {e!r} changes {size} entries of a prompt, got columns of {e.subspace.shape[0]}")
    q = e.subspace.to(old)
    change = (new - old).reshape(len(old), size)
    return old + ((change @ q) @ q.T).reshape(old.shape)


def _numbers(value: Any, name: str, least: int | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    found = [value] if isinstance(value, int | np.integer) else list(value)
    for each in found:
        whole = isinstance(each, int | np.integer) and not isinstance(each, bool)
        if not whole or (least is not None and each < least):
            raise ValueError(f"{name}: expected whole numbers{' of at least 0' if least == 0 else ''}, got {each!r}")
    if not found:
        raise ValueError(f"{name}: an empty selection touches nothing; leave it out for all of them")
    if len(set(found)) < len(found):
        raise ValueError(f"{name}: expected each once, got {found}")
    return tuple(int(each) for each in found)


def _finite(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected a number, an array or a tensor, got {type(value).__name__}")
        value = torch.as_tensor(array.astype(np.float64))
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return value


def _columns(value: Any) -> Tensor:
    q = _finite(value, "subspace").detach().double()
    if q.ndim != 2 or not 1 <= q.shape[1] <= q.shape[0]:
        raise ValueError(f"subspace: expected orthonormal columns [size, k], k from 1 to size, got {tuple(q.shape)}")
    error = float((q.T @ q - torch.eye(q.shape[1], dtype=q.dtype, device=q.device)).abs().max())
    if error > 1e-5:
        raise ValueError(f"subspace: expected orthonormal columns, got Q'Q off the identity by {error:.1e}; take a QR")
    return q
