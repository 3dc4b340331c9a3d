"""Small checks of arguments. Each failure names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = [
    "check_floating",
    "check_gates",
    "check_like",
    "check_positive_int",
    "check_rank",
    "check_reset",
    "check_scale",
    "check_shape",
    "check_tensor",
    "compute_dtype",
]

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are taken in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_tensor(name: str, value: object) -> torch.Tensor:
    """Raise TypeError unless `value` is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    return value


def check_floating(name: str, value: torch.Tensor) -> None:
    """Raise TypeError unless `value` is real floating point."""
    check_tensor(name, value)
    if value.dtype not in _FLOATS:
        raise TypeError(f"{name}: expected a dtype of float64, float32, float16 or bfloat16, got {value.dtype}")


def check_rank(name: str, value: torch.Tensor, letters: str) -> None:
    """Raise ValueError unless `value` has one dimension per letter of the layout, such as ``"B T H P"``."""
    names = letters.split()
    if value.dim() != len(names):
        raise ValueError(
            f"{name}: expected {len(names)} dimensions [{', '.join(names)}], got {value.dim()} with shape "
            f"{tuple(value.shape)}"
        )


def check_shape(name: str, value: torch.Tensor, shape: Sequence[int], letters: str) -> None:
    """Raise ValueError unless `value` has exactly this shape."""
    check_rank(name, value, letters)
    if tuple(value.shape) != tuple(shape):
        layout = ", ".join(letters.split())
        raise ValueError(
            f"{name}: expected shape [{layout}] = {tuple(shape)}, got {tuple(value.shape)}",
        )


def check_like(
    name: str,
    value: torch.Tensor,
    other_name: str,
    other: torch.Tensor,
    *,
    dtypes: Sequence[torch.dtype] = (),
) -> None:
    """Raise unless `value` is on the device of `other` and has its dtype (or one of the further `dtypes`)."""
    check_floating(name, value)
    if value.device != other.device:
        raise ValueError(f"{name}: expected device {other.device} as {other_name} has, got {value.device}")
    if value.dtype != other.dtype and value.dtype not in dtypes:
        allowed = " or ".join(str(d) for d in dict.fromkeys((other.dtype, *dtypes)))
        raise TypeError(f"{name}: expected dtype {allowed} to go with {other_name}, got {value.dtype}")


def check_reset(name: str, value: torch.Tensor, like: torch.Tensor) -> None:
    """Raise unless `value` is a boolean [B, T] tensor on the device of `like`."""
    check_tensor(name, value)
    if value.dtype != torch.bool:
        raise TypeError(f"{name}: expected dtype torch.bool, got {value.dtype}")
    check_shape(name, value, like.shape[:2], "B T")
    if value.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {value.device}")


def check_positive_int(name: str, value: object) -> int:
    """Raise unless `value` is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int of at least 1, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected an int of at least 1, got {value}")
    return value


def check_scale(scale: object, width: int) -> float:
    """The factor on the scores of heads of `width` channels: as given, or ``width ** -0.5``."""
    if scale is None:
        return max(width, 1) ** -0.5
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale: expected a float, got {type(scale).__name__}")
    if not math.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale}")
    return float(scale)


def check_gates(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gates: dict[str, torch.Tensor], reset: torch.Tensor | None
) -> None:
    """Raise unless q [B, T, H, K], k [B, T, G, K], v [B, T, G, V], gates [B, T, H] and reset [B, T] go together."""
    check_floating("q", q)
    check_rank("q", q, "B T H K")
    batch, time, heads, width = q.shape
    check_like("k", k, "q", q)
    check_rank("k", k, "B T G K")
    groups = k.shape[2]
    if groups < 1 or heads % groups:
        raise ValueError(f"k: expected a number of heads that divides H = {heads}, got {groups}")
    check_shape("k", k, (batch, time, groups, width), "B T G K")
    check_like("v", v, "q", q)
    check_rank("v", v, "B T G V")
    check_shape("v", v, (batch, time, groups, v.shape[3]), "B T G V")
    for name, gate in gates.items():
        check_like(name, gate, "q", q, dtypes=(compute_dtype(q.dtype),))
        check_shape(name, gate, (batch, time, heads), "B T H")
    if reset is not None:
        check_reset("reset", reset, q)
