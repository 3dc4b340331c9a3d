"""Float64 that stays float64: transformers computes scans, norms and rotations of every model in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_GROUPED_MM: Any = getattr(torch, "_grouped_mm", None)


class Wide(TorchFunctionMode):
    """Takes every request for float32 as one for float64.

    In a float64 model ``x.float()``, ``x.to(torch.float32)`` and ``softmax(x, dtype=torch.float32)`` would round to
    float32 on the way; under this mode they do not.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if each is torch.float32 else each for each in args)
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        if func is _GROUPED_MM:  # the product of experts, which torch has in float32 and narrower only
            return _grouped_mm(args[0], args[1], kwargs["offs"])
        return func(*args, **kwargs)


def _grouped_mm(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Rows up to each end times the matrix of their group."""
    out, start = [], 0
    for end, matrix in zip(ends.tolist(), matrices, strict=True):
        out.append(rows[start:end] @ matrix)
        start = end
    return torch.cat([*out, rows.new_zeros(len(rows) - start, matrices.shape[-1])])
