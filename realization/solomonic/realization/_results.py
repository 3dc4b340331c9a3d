"""What every result of this wing offers: a table for notebooks, and a file that gives the same result back."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from ._html import table
from ._npz import load_npz, save_npz
from ._systems import Matrices, as_matrices, to_statespace
from ._validate import Array

__all__ = ["Result", "held"]

Kind = TypeVar("Kind", bound=type)


class Result:
    """Mixin of frozen dataclasses of arrays, numbers, texts, tuples, mappings, systems and other results."""

    #: The results by name, and named tuples in them: a file names its parts, and only these are made from it.
    _kinds: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Result._kinds[cls.__name__] = cls

    def _repr_html_(self) -> str:
        rows = [[each.name, _short(getattr(self, each.name))] for each in _fields(type(self))]
        return table(["", ""], rows, caption=repr(self))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result to ``path`` (.npz, added where it is missing), whole or not at all; return where it is."""
        arrays: dict[str, Array] = {}
        return save_npz(path, type(self).__name__, arrays, {"fields": _pack_fields(self, arrays)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a result of this class that ``save`` wrote to ``path``; nothing but arrays and JSON is read."""
        arrays, words = load_npz(path, cls.__name__)
        try:
            return _make(cls, words["fields"], arrays)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"path: expected a whole {cls.__name__}, got {str(path)!r}, whose content does not fit one "
                f"({type(error).__name__}: {error}); it is damaged or of another version, save the result again"
            ) from error


def held(kind: Kind) -> Kind:
    """Decorate a named tuple that results hold, so that it is one again when it is read."""
    Result._kinds[kind.__name__] = kind
    return kind


def _fields(kind: Any) -> list[Any]:
    return list(fields(kind))


def _short(value: Any) -> str:
    """A value in few words: arrays and systems by their sizes unless they are small."""
    if isinstance(value, np.ndarray):
        small = value.size <= 16
        return np.array2string(value, precision=4) if small else f"{list(value.shape)}, {value.dtype}"
    if isinstance(value, complex):
        return f"{value:.6g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        more = ", ..." if len(value) > 8 else ""
        return f"({', '.join(_short(each) for each in value[:8])}{more})"
    text = str(value)
    return text if len(text) <= 400 else text[:397] + "..."


def _pack_fields(result: Result, arrays: dict[str, Array]) -> dict[str, Any]:
    return {each.name: _pack(getattr(result, each.name), arrays) for each in _fields(type(result))}


def _pack(value: Any, arrays: dict[str, Array]) -> Any:
    """Turn a value into JSON; arrays go into ``arrays``, and their names into the JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if type(value).__name__ in Result._kinds and isinstance(value, tuple):
        parts = zip(value._fields, value, strict=True)  # pyright: ignore[reportAttributeAccessIssue]
        return {"kind": type(value).__name__, "fields": {name: _pack(each, arrays) for name, each in parts}}
    if isinstance(value, tuple):
        return {"tuple": [_pack(each, arrays) for each in value]}
    if isinstance(value, dict):
        return {"mapping": {name: _pack(each, arrays) for name, each in value.items()}}
    if isinstance(value, Result):
        return {"kind": type(value).__name__, "fields": _pack_fields(value, arrays)}
    m = as_matrices(value, "system")  # what is left is a control.StateSpace
    return {"system": [_pack(each, arrays) for each in m]}


def _unpack(value: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "complex" in value:
        return complex(*value["complex"])
    if "tuple" in value:
        return tuple(_unpack(each, arrays) for each in value["tuple"])
    if "mapping" in value:
        return {name: _unpack(each, arrays) for name, each in value["mapping"].items()}
    if "system" in value:
        return to_statespace(Matrices(*(_unpack(each, arrays) for each in value["system"])))
    return _make(Result._kinds[value["kind"]], value["fields"], arrays)


def _make(kind: Any, words: dict[str, Any], arrays: dict[str, Array]) -> Any:
    return kind(**{name: _unpack(each, arrays) for name, each in words.items()})
