"""Triton kernels in the interpreter, with what it hides brought to light.

Inside `guarded`, every kernel that starts gets copies of its tensors between guard bands: what surrounds a tensor,
and what lies between its rows, is NaN (or a large number), so a read out of bounds spreads NaN and a write out of
bounds changes the band, which is checked. The grid is run backwards, so that programs which rely on each other's
order give other numbers.
"""

import sys
from contextlib import contextmanager

import torch
from torch import Tensor

from solomonic.kernels.triton.launch import intercept

BAND = 64  # elements on either side


def _fill(dtype):
    return torch.nan if dtype.is_floating_point else (True if dtype == torch.bool else 77)


class Guarded:
    """A copy of a tensor, with its strides, inside a band."""

    def __init__(self, original: Tensor):
        self.original = original
        sizes = zip(original.shape, original.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in sizes) if original.numel() else 0
        # Alignment is a promise to the compiler: the band keeps it.
        self.buffer = torch.full((span + 2 * BAND,), _fill(original.dtype), dtype=original.dtype)
        self.view = self.buffer.as_strided(original.shape, original.stride(), BAND)
        self.view.copy_(original.detach())
        inside = torch.zeros_like(self.buffer, dtype=torch.bool)
        inside.as_strided(original.shape, original.stride(), BAND).fill_(True)
        self.outside = ~inside

    def check(self, name, kernel):
        band = self.buffer[self.outside]
        fine = band.isnan() if band.is_floating_point() else band == _fill(band.dtype)
        assert bool(fine.all()), f"{kernel}: wrote out of the bounds of {name}"

    def back(self):
        self.original.detach().copy_(self.view)


def _backwards(*bounds):
    """`range` for the interpreter: backwards where it walks the grid, as it is elsewhere (in scans)."""
    walks = sys._getframe(1).f_code.co_name == "__call__"
    return reversed(range(*bounds)) if walks else range(*bounds)


@contextmanager
def guarded(*, backwards=True):
    """Run all kernels inside with guard bands; gives the list of the names of those that ran."""
    from triton.runtime import interpreter

    ran = []

    def start(launch):
        guards = {n: Guarded(a) for n, a in launch.arguments.items() if isinstance(a, Tensor)}
        kernel = launch.kernel.fn.__name__ if hasattr(launch.kernel, "fn") else launch.kernel.__name__
        ran.append(kernel)
        arguments = launch.arguments | {n: g.view for n, g in guards.items()}
        if backwards:
            interpreter.range = _backwards  # type: ignore[attr-defined]
        try:
            launch.kernel[launch.grid](**arguments, **launch.options)
        finally:
            vars(interpreter).pop("range", None)
        for name, guard in guards.items():
            guard.check(name, kernel)
            guard.back()

    with intercept(start):
        yield ran
