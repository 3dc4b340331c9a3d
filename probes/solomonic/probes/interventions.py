"""What is done to a memory: one edit, its checks, and its application to the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solomonic.kernels import RidgeState
from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import KeyValue, StoredTokens, Value

__all__ = ["OPS", "Edit", "apply", "as_interventions", "times_of"]

#: What an edit can do, and whether it takes a value.
OPS = {
    "set": "needs",
    "add": "needs",
    "scale": "needs",
    "zero": "refuses",
    "mean": "may",
    "resample": "may",
    "freeze": "refuses",
    "interchange": "may",
}
_WITH_OTHERS = ("mean", "resample", "interchange")


@dataclass(frozen=True, eq=False)
class Edit:
    r"""One change of a memory, after the token at ``time`` has been read: ``do(x := op(x, value))``.

    Parameters
    ----------
    layer : int
        The layer.
    part : str
        The part of its memory: ``"state"``, ``"conv"``, ``"window"``, ``"fading_tokens"``, ``"eidetic"`` or ``"kv"``.
    time : int
        Position of the token after which the memory is changed; what the model says up to it stays as it is.
    op : {"set", "add", "scale", "zero", "mean", "resample", "freeze", "interchange"}
        ``set``, ``add``: to or by ``value``. ``scale``: times ``value``. ``zero``. ``mean``: to the mean over the
        prompts, or over those of ``value``. ``resample``: to what the memory of the next prompt holds, or that of
        ``value``. ``freeze``: from here on the part does not change. ``interchange``: as ``resample``, within
        ``subspace`` alone.
    value : number, array, Tensor, pair or Memory, optional
        Broadcast over what is edited: [B, H', P, N] or less for a state with H' chosen heads, and a pair (key, value)
        for a register. For ``mean``, ``resample`` and ``interchange`` a :class:`~solomonic.models.Memory` to take it
        from.
    heads : int or iterable of int, optional
        Heads of the state, or key heads of a register; all by default. A convolution has none.
    slots : int or iterable of int, optional
        Tokens of a register or a convolution by their place in it, negative ones from the newest; all by default.
    subspace : array_like [n, k], optional
        For ``interchange``: orthonormal columns over what a head holds: the P N numbers of a state, the D of a key or
        value, the C of a convolution.
    until : int, optional
        For ``freeze``: the last token at which the part is kept; the end of the text by default.

    Raises
    ------
    TypeError, ValueError
        Where an argument cannot be what it is meant for; whether layer, part, heads and shapes fit a model is checked
        when it is used.

    Examples
    --------
    >>> from solomonic.probes import Edit
    >>> Edit(layer=0, part="state", time=10, op="scale", value=0.5, heads=[1])
    Edit(layer 0, state, time 10, scale, heads [1])
    """

    layer: int
    part: str
    time: int
    op: str
    value: Any = None
    heads: Any = None
    slots: Any = None
    subspace: Any = None
    until: int | None = None

    def __post_init__(self) -> None:
        _whole(self.layer, "layer")
        _whole(self.time, "time")
        if not isinstance(self.part, str):
            raise TypeError(f"part: expected the name of a part of the memory, got {self.part!r}")
        if self.op not in OPS:
            raise ValueError(f"op: expected one of {', '.join(OPS)}, got {self.op!r}")
        if OPS[self.op] == "needs" and self.value is None:
            raise ValueError(f"value: op {self.op!r} needs a value, got None")
        if OPS[self.op] == "refuses" and self.value is not None:
            raise ValueError(f"value: op {self.op!r} takes none; leave it out, or use op 'set'")
        if self.op in _WITH_OTHERS and self.value is not None and not isinstance(self.value, Memory):
            raise TypeError(f"value: op {self.op!r} takes a Memory, got {type(self.value).__name__}; or use op 'set'")
        if self.op not in _WITH_OTHERS and isinstance(self.value, Memory):
            raise TypeError(f"value: op {self.op!r} takes numbers, got a Memory; take a part of it with .get")
        if (self.subspace is not None) != (self.op == "interchange"):
            raise ValueError("subspace: expected orthonormal columns for op 'interchange', and for no other op")
        if self.until is not None:
            if self.op != "freeze":
                raise ValueError("until: only op 'freeze' lasts")
            if _whole(self.until, "until") < self.time:
                raise ValueError(f"until: expected at least time = {self.time}, got {self.until}")
        for name in ("heads", "slots"):
            object.__setattr__(self, name, _places(getattr(self, name), name))
        if self.subspace is not None:
            object.__setattr__(self, "subspace", _orthonormal(self.subspace))

    def __repr__(self) -> str:
        where = "".join(f", {n} {list(v)}" for n in ("heads", "slots") if (v := getattr(self, n)) is not None)
        return f"Edit(layer {self.layer}, {self.part}, time {self.time}, {self.op}{where})"


def as_interventions(edits: Any, model: HybridLM | AdaptedLM, length: int | None = None) -> list[tuple[Edit, ...]]:
    """Interventions, each of one or more edits, checked against a model and a length of text (None: unknown)."""
    if isinstance(edits, Edit):
        edits = [edits]
    if not isinstance(edits, Iterable):
        raise TypeError(f"edits: expected an Edit or a list of them, got {type(edits).__name__}")
    found = [(each,) if isinstance(each, Edit) else tuple(each) for each in edits]
    if not found or not all(found):
        raise ValueError("edits: expected at least one Edit in every intervention, got none: nothing would change")
    empty = model.empty_memory().layers
    for group in found:
        for each in group:
            if not isinstance(each, Edit):
                raise TypeError(f"edits: expected Edits, got {type(each).__name__}")
            if not 0 <= each.layer < len(empty):
                raise ValueError(f"layer: expected a layer from 0 to {len(empty) - 1}, got {each.layer}")
            if each.part not in empty[each.layer]:
                raise ValueError(
                    f"part: layer {each.layer} ({model.config.pattern[each.layer]}) has "
                    f"{', '.join(empty[each.layer]) or 'no memory'}, got {each.part!r}"
                )
            if length is not None and each.time > length - 2:
                raise ValueError(
                    f"time: expected 0 to {length - 2}, got {each.time}: an edit acts after its token, and a text of "
                    f"{length} tokens has none to show it later"
                )
        _not_frozen(group)
    return found


def times_of(group: Sequence[Edit], length: int) -> tuple[int, ...]:
    """The tokens after which an intervention touches the memory of a text."""
    found: set[int] = set()
    for each in group:
        found.add(each.time)
        if each.op == "freeze":
            found.update(range(each.time, min(length - 1, (length if each.until is None else each.until) + 1)))
    return tuple(sorted(found))


def apply(
    memory: Memory, edit: Edit, rows: slice = slice(None), kept: Value | None = None
) -> tuple[Memory, Value | None]:
    """A memory with some rows edited, and what a freeze keeps (given back as ``kept`` at later times)."""
    value = memory.get(edit.layer, edit.part)
    if edit.op == "freeze":
        kept = _cut(value, rows) if kept is None else kept
        return _put(memory, edit, _same_length(value, kept, edit), rows), kept
    parts = _fields(value)
    donor = None if not isinstance(edit.value, Memory) else _donor(edit, memory)
    given = _given(edit, parts)
    new, touched = {}, 0
    for name, old in parts.items():
        index = _index(edit, value, name, old, rows)
        chosen = old[index]
        touched += chosen.numel()
        other = None if donor is None else _fields(donor)[name]
        if other is not None and other.shape[1:] != old.shape[1:]:
            raise ValueError(
                f"value: {edit} takes from a memory with shape {tuple(other.shape)}, and this one has "
                f"{tuple(old.shape)}; prompts of equal length have registers of equal length"
            )
        changed = old.clone()
        source = None if other is None else other[_index(edit, value, name, other, slice(None))]
        changed[index] = _changed(edit, chosen, given[name], source, name)
        new[name] = changed
    if not touched:
        raise ValueError(f"edits: {edit} touches nothing: the part holds no numbers there after {edit.time + 1} tokens")
    whole = new["value"] if isinstance(value, Tensor) else value._replace(**new)
    return memory.set(edit.layer, edit.part, whole), None


def _changed(edit: Edit, chosen: Tensor, given: Any, other: Tensor | None, name: str) -> Tensor:
    if edit.op == "zero":
        return torch.zeros_like(chosen)
    if edit.op in _WITH_OTHERS:
        if other is None and len(chosen) < 2:
            raise ValueError(f"value: {edit} takes from other prompts, and there is one; give a Memory as value")
        if edit.op == "mean":
            return (chosen if other is None else other).mean(0, keepdim=True).expand_as(chosen)
        source = chosen.roll(-1, 0) if other is None else other.expand_as(chosen)
        return source if edit.op == "resample" else _interchanged(edit, chosen, source)
    value = torch.as_tensor(given, dtype=chosen.dtype, device=chosen.device)
    if not bool(value.isfinite().all()):
        raise ValueError(f"value: expected finite numbers, got NaN or infinity in the value of {edit}")
    try:
        value = value.expand_as(chosen)
    except RuntimeError:
        what = "" if name == "value" else f" of the {name}s"
        raise ValueError(
            f"value: {edit} edits {tuple(chosen.shape)} numbers{what}, and {tuple(value.shape)} does not broadcast to "
            "that"
        ) from None
    return value if edit.op == "set" else chosen + value if edit.op == "add" else chosen * value


def _interchanged(edit: Edit, chosen: Tensor, source: Tensor) -> Tensor:
    """x + Q Q' (source - x) over what a head holds."""
    Q = torch.as_tensor(edit.subspace, dtype=chosen.dtype, device=chosen.device)
    gap = source - chosen
    gap = gap.flatten(2) if edit.part == "state" else gap
    if gap.shape[-1] != len(Q):
        raise ValueError(f"subspace: a head of {edit} holds {gap.shape[-1]} numbers, got columns of {len(Q)}")
    return chosen + (gap @ Q @ Q.mT).view_as(chosen)


def _fields(value: Value) -> dict[str, Tensor]:
    """The tensors of a part that edits act on."""
    if isinstance(value, Tensor):
        return {"value": value}
    names = ("key", "value") if isinstance(value, KeyValue | StoredTokens) else value._fields
    return {name: getattr(value, name) for name in names}


def _given(edit: Edit, parts: dict[str, Tensor]) -> dict[str, Any]:
    """The value for each tensor of the part."""
    value = edit.value
    if value is None or isinstance(value, Memory):
        return dict.fromkeys(parts)
    if len(parts) == 1 or not isinstance(value, tuple | list):
        if len(parts) > 1 and not (isinstance(value, int | float) or getattr(value, "ndim", 1) == 0):
            raise TypeError(
                f"value: {edit} needs a pair ({', '.join(parts)}) or one number, got {type(value).__name__}"
            )
        return dict.fromkeys(parts, value)
    if len(value) != len(parts):
        raise TypeError(f"value: {edit} needs {len(parts)} values ({', '.join(parts)}), got {len(value)}")
    return dict(zip(parts, value, strict=True))


def _index(edit: Edit, value: Value, name: str, tensor: Tensor, rows: slice) -> tuple[Any, ...]:
    """Which entries of a tensor of the part an edit chooses; its axes stay."""
    index: list[Any] = [rows] + [slice(None)] * (tensor.ndim - 1)
    register = isinstance(value, KeyValue | StoredTokens)
    for what, places, axis in (
        ("heads", edit.heads, 2 if register else 1 if edit.part != "conv" or isinstance(value, RidgeState) else None),
        ("slots", edit.slots, 1 if register or edit.part == "conv" else None),
    ):
        if places is None:
            continue
        if axis is None:
            raise ValueError(f"{what}: part {edit.part!r} of layer {edit.layer} has no {what}")
        size = tensor.shape[axis]
        wrong = [p for p in places if not -size <= p < size or (what == "heads" and p < 0)]
        if wrong:
            raise ValueError(f"{what}: {edit} names {wrong[0]}, and there are {size} after {edit.time + 1} tokens")
        index[axis] = _run_or_list(places, size)
    lists = sum(isinstance(i, list) for i in index)
    if lists > 1:  # two lists would be paired with each other
        heads = index[2]
        index[1], index[2] = torch.tensor(index[1])[:, None], torch.tensor(heads)[None, :]
    return tuple(index)


def _run_or_list(places: Sequence[int], size: int) -> slice | list[int]:
    """A slice where the places are consecutive."""
    found = [p % size for p in places]
    if found == list(range(found[0], found[0] + len(found))):
        return slice(found[0], found[-1] + 1)
    return found


def _donor(edit: Edit, memory: Memory) -> Value:
    """The same part of the memory that an edit takes from."""
    other = edit.value
    parts = [(p.layer, p.part) for p in other.parts()]
    if (edit.layer, edit.part) not in parts:
        raise ValueError(f"value: the memory has no {edit.part!r} in layer {edit.layer}; is it another model's?")
    found = other.get(edit.layer, edit.part)
    if type(found) is not type(memory.get(edit.layer, edit.part)):
        raise ValueError(f"value: {edit.part!r} of layer {edit.layer} is of another kind there; is it another model's?")
    return found


def _same_length(value: Value, kept: Value, edit: Edit) -> Value:
    for now, then in zip(_tensors(value), _tensors(kept), strict=True):
        if now.shape[1:] != then.shape[1:]:
            raise ValueError(
                f"edits: {edit} keeps a register that still grows, from {then.shape[1]} to {now.shape[1]} tokens; "
                "freeze it once it is full"
            )
    return kept


def _put(memory: Memory, edit: Edit, value: Value, rows: slice) -> Memory:
    old = memory.get(edit.layer, edit.part)
    if not sum(t.numel() for t in _tensors(old)):
        raise ValueError(f"edits: {edit} touches nothing: the part holds no numbers there after {edit.time + 1} tokens")
    new = []
    for was, part in zip(_tensors(old), _tensors(value), strict=True):
        changed = was.clone()
        changed[rows] = part
        new.append(changed)
    return memory.set(edit.layer, edit.part, new[0] if isinstance(old, Tensor) else type(old)(*new))


def _cut(value: Value, rows: slice) -> Value:
    return value[rows] if isinstance(value, Tensor) else type(value)(*(t[rows] for t in value))


def _tensors(value: Value) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _not_frozen(group: Sequence[Edit]) -> None:
    for frozen in (each for each in group if each.op == "freeze"):
        for other in group:
            same = (other.layer, other.part) == (frozen.layer, frozen.part)
            last = np.inf if frozen.until is None else frozen.until
            if other is not frozen and same and frozen.time <= other.time <= last:
                raise ValueError(f"edits: {other} would change what {frozen} keeps; edit it before it is frozen")


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{name}: expected a whole number of at least 0, got {value!r}")
    return int(value)


def _places(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    found = [value] if isinstance(value, int | np.integer) else list(value)
    if not found or not all(isinstance(p, int | np.integer) and not isinstance(p, bool) for p in found):
        raise ValueError(f"{name}: expected whole numbers, at least one, got {value!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name}: expected each once, got {found}")
    return tuple(int(p) for p in found)


def _orthonormal(value: Any) -> np.ndarray:
    Q = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
    if Q.ndim != 2 or not 0 < Q.shape[1] <= Q.shape[0]:
        raise ValueError(f"subspace: expected columns [n, k] with k <= n, got shape {Q.shape}")
    gap = float(np.abs(Q.T @ Q - np.eye(Q.shape[1])).max())
    if not gap <= 1e-5:
        raise ValueError(f"subspace: expected orthonormal columns; Q'Q differs from I by {gap:.2g}")
    return Q
