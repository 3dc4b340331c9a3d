"""Small checks of arguments. Each failure names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = [
    "check_floating",
    "check_like",
    "check_positive_int",
    "check_rank",
    "check_reset",
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
