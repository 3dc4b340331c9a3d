"""Start a Triton kernel, or hand the start to somebody who asked for it.

Every kernel of this package is started by `launch`. Tests put guard bands around the buffers there, and the
compiler of `aot` notes which kernels a call would have started: both see what a GPU would have got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Launch", "architecture", "architecture_of", "intercept", "launch"]


@dataclass(frozen=True)
class Launch:
    """One start of a kernel.

    Attributes
    ----------
    kernel : object
        The ``triton.jit`` function.
    grid : tuple of int
        Programs along each axis.
    arguments : dict
        Values by name, constants (``tl.constexpr``) included.
    options : dict
        ``num_warps``, ``num_stages`` and ``enable_fp_fusion``.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]

    def start(self) -> None:
        """Run it on the device of its tensors, or in the interpreter."""
        devices = [a.device for a in self.arguments.values() if isinstance(a, Tensor) and a.is_cuda]
        with torch.cuda.device(devices[0]) if devices else nullcontext():
            self.kernel[self.grid](**self.arguments, **self.options)


_interceptor: ContextVar[Callable[[Launch], None] | None] = ContextVar("interceptor", default=None)
_architecture: ContextVar[str | None] = ContextVar("architecture", default=None)


@contextmanager
def intercept(function: Callable[[Launch], None]) -> Iterator[None]:
    """Hand every `Launch` to `function` instead of starting it."""
    token = _interceptor.set(function)
    try:
        yield
    finally:
        _interceptor.reset(token)


@contextmanager
def architecture(name: str) -> Iterator[None]:
    """Choose configurations as if the tensors were on a GPU of this architecture (``"sm_90"``, ``"gfx942"``)."""
    token = _architecture.set(name)
    try:
        yield
    finally:
        _architecture.reset(token)


def architecture_of(tensor: Tensor) -> str:
    """The architecture whose configurations a call with `tensor` uses; ``"sm_90"`` in the interpreter."""
    forced = _architecture.get()
    if forced is not None:
        return forced
    if not tensor.is_cuda:
        return "sm_90"
    if torch.version.hip:
        return torch.cuda.get_device_properties(tensor.device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return f"sm_{major}{minor}"


def launch(kernel: Any, grid: tuple[int, ...], *values: Any, num_warps: int, num_stages: int, **named: Any) -> None:
    """Start `kernel`.

    Parameters
    ----------
    kernel : object
        A ``triton.jit`` function.
    grid : tuple of int
        Programs along each axis; a grid without programs starts nothing.
    *values, **named
        The kernel's arguments in order and by name, constants included.
    num_warps, num_stages : int
        From the configurations of the operation.
    """
    if not all(grid):
        return
    arguments = dict(zip(kernel.arg_names, values, strict=False)) | named
    # Contraction of a product and a sum is pinned: its default changes between versions of Triton, and with
    # it the rounding and the instructions.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    started = Launch(kernel, grid, arguments, options)
    interceptor = _interceptor.get()
    if interceptor is None:
        started.start()
    else:
        interceptor(started)
