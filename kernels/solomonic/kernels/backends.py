"""Which implementations exist here, and which one a call gets.

Every operation has the same two implementations: ``reference``, a plain loop in float64 that serves as the
definition, and ``cpu``, the fast path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Backend", "available_backends", "choose", "transformed"]

Backend = Literal["auto", "reference", "cpu", "triton"]

_AVAILABLE = ("reference", "cpu")
_AUTO = "cpu"


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run in this installation.

    Returns
    -------
    tuple of str
        Each name is accepted by the argument ``backend`` of every operation in `solomonic.kernels`.

    Examples
    --------
    >>> from solomonic.kernels import available_backends
    >>> available_backends()
    ('reference', 'cpu')
    """
    return _AVAILABLE


def choose(backend: str, implementations: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Pick the implementation that `backend` names.

    Parameters
    ----------
    backend : str
        ``"auto"``, ``"reference"``, ``"cpu"`` or ``"triton"``.
    implementations : mapping of str to callable
        What the operation offers, by backend name.

    Returns
    -------
    callable
        The implementation; ``"auto"`` gives the fast path.

    Raises
    ------
    TypeError
        If `backend` is not a string.
    ValueError
        If the backend is unknown, or known but not in this version.
    """
    if not isinstance(backend, str):
        raise TypeError(f"backend: expected a string, got {type(backend).__name__}")
    name = _AUTO if backend == "auto" else backend
    if name in implementations:
        chosen = implementations[name]
        return _in_full_precision(chosen) if torch.is_autocast_enabled("cpu") else chosen
    offered = ", ".join(repr(known) for known in ("auto", *_AVAILABLE))
    if name == "triton":
        raise ValueError(f"backend: 'triton' is not in this version; choose one of {offered}")
    raise ValueError(f"backend: expected one of {offered}, got {backend!r}")


def _in_full_precision(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Keep autocast out: it would round the sums inside an operation, which are promised in full precision."""

    def call(*arguments: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return implementation(*arguments)

    return call


def transformed(*tensors: Tensor | None) -> bool:
    """Whether a function transform or forward-mode differentiation is at work on `tensors`.

    Hand-written backward passes know nothing of those; the operations then take their composed form.

    Parameters
    ----------
    *tensors : torch.Tensor or None
        Arguments of the operation.

    Returns
    -------
    bool
        True inside `torch.func` transforms, and for dual tensors.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)
