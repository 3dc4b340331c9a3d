"""Which implementations exist here, and which one a call gets.

Every operation has a ``reference``, a plain loop in float64 that serves as the definition, and a ``cpu`` path,
fast torch operations that run on any device. Some have a ``triton`` path for GPUs.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Backend", "Implementation", "available_backends", "choose", "default_backend", "transformed"]

Backend = Literal["auto", "reference", "cpu", "triton"]
Implementation = Callable[..., Any] | str

# In the order in which ``"auto"`` tries them, by the kind of device.
_ORDER = {"cuda": ("triton", "cpu", "reference")}
_ORDER_ELSEWHERE = ("cpu", "reference")
_NAMES = ("reference", "cpu", "triton")
_SWITCH = "SOLOMONIC_BACKEND"

_log = logging.getLogger("solomonic.kernels")
_told: set[tuple[str, str, str]] = set()
_default: ContextVar[str | None] = ContextVar("default_backend", default=None)


@cache
def _installed(package: str) -> bool:
    """Whether `package` can be imported; it is not imported for that."""
    return find_spec(package) is not None


def _interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run in this installation.

    Returns
    -------
    tuple of str
        Each name is accepted by the argument ``backend`` of the operations in `solomonic.kernels`.
        ``"reference"`` and ``"cpu"`` are always there, for every operation; ``"triton"`` where Triton is
        installed and there is a GPU, or its interpreter is on (``TRITON_INTERPRET=1``).

    Examples
    --------
    >>> from solomonic.kernels import available_backends
    >>> available_backends()[:2]
    ('reference', 'cpu')
    """
    found = ["reference", "cpu"]
    if _installed("triton") and (_interpreted() or torch.cuda.is_available()):
        found.append("triton")
    return tuple(found)


@contextmanager
def default_backend(name: str) -> Iterator[None]:
    """Turn dispatch off: inside, ``backend="auto"`` means the backend `name` and nothing else.

    The environment variable ``SOLOMONIC_BACKEND`` does the same for a whole process. A call that the backend
    cannot serve is then an error; it does not fall to another one.

    Parameters
    ----------
    name : {"reference", "cpu", "triton", "auto"}
        The backend; ``"auto"`` turns dispatch on again.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import default_backend, short_conv
    >>> with default_backend("reference"):
    ...     short_conv(torch.ones(1, 3, 1), torch.ones(1, 2)).y.flatten().tolist()
    [1.0, 2.0, 2.0]
    """
    _check_name(name)
    token = _default.set(name)
    try:
        yield
    finally:
        _default.reset(token)


def _check_name(name: str, argument: str = "backend") -> None:
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a string, got {type(name).__name__}")
    if name not in ("auto", *_NAMES):
        known = ", ".join(repr(known) for known in ("auto", *_NAMES))
        raise ValueError(f"{argument}: expected one of {known}, got {name!r}")


def _wanted(backend: str) -> str:
    """What the call asks for, after the switch."""
    _check_name(backend)
    if backend == "auto":
        forced = _default.get() or os.environ.get(_SWITCH) or "auto"
        _check_name(forced, _SWITCH)
        return forced
    return backend


def _obstacle(name: str, implementations: Mapping[str, Implementation], device: torch.device) -> str | None:
    """Why the backend `name` cannot run on `device` at all; None if it can."""
    if name not in implementations:
        return "this operation does not offer it"
    if name == "triton":
        if not _installed("triton"):
            return "Triton is not installed (pip install 'solomonic[triton]')"
        if device.type != "cuda" and not _interpreted():
            return f"it needs tensors on a GPU, and these are on {device} (TRITON_INTERPRET=1 runs it there)"
    return None


def choose(
    backend: str,
    implementations: Mapping[str, Implementation],
    *,
    device: torch.device | None = None,
    lacking: Mapping[str, str | None] | None = None,
    operation: str = "",
) -> Callable[..., Any]:
    """Pick the implementation of a call.

    Parameters
    ----------
    backend : str
        ``"auto"``, or the name of a backend, which is then taken or refused.
    implementations : mapping of str to callable or str
        What the operation offers, by backend name; ``"module:function"`` is imported when it is chosen.
    device : torch.device, optional
        Where the tensors are; the CPU if not given. ``"auto"`` tries ``"triton"`` first on a GPU.
    lacking : mapping of str to str, optional
        Why a backend cannot serve this call, by backend name; None where it can. ``"auto"`` passes over such
        backends, and each reason is logged once.
    operation : str
        The operation's name, for the log.

    Returns
    -------
    callable
        The implementation.

    Raises
    ------
    TypeError
        If `backend` is not a string.
    ValueError
        If the backend is unknown, cannot run here, or lacks what the call asks for.
    """
    device = device or torch.device("cpu")
    lacking = lacking or {}
    wanted = _wanted(backend)
    if wanted != "auto":
        reason = _obstacle(wanted, implementations, device) or lacking.get(wanted)
        if reason is not None:
            offered = ", ".join(
                repr(name)
                for name in ("auto", *implementations)
                if _obstacle(name, implementations, device) is None or name == "auto"
            )
            raise ValueError(f"backend: {wanted!r} cannot serve this call: {reason}; choose one of {offered}")
        return _ready(implementations[wanted], device)
    order = [name for name in _ORDER.get(device.type, _ORDER_ELSEWHERE) if name in implementations]
    for name in order:
        reason = _obstacle(name, implementations, device) or lacking.get(name)
        if reason is None:
            return _ready(implementations[name], device)
        _tell(operation, name, reason)
    raise ValueError(f"{operation}: no backend serves this call: {dict(lacking)}")


def _tell(operation: str, name: str, reason: str) -> None:
    """Log once that `operation` passes over a backend, and why."""
    if (operation, name, reason) not in _told:
        _told.add((operation, name, reason))
        _log.warning("%s: backend %r is passed over: %s", operation, name, reason)


def _ready(implementation: Implementation, device: torch.device) -> Callable[..., Any]:
    """Import what is named by a string, and keep autocast out."""
    if isinstance(implementation, str):
        module, _, function = implementation.partition(":")
        implementation = getattr(importlib.import_module(module), function)
    assert callable(implementation)
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return _in_full_precision(implementation, device.type)
    return implementation


def _in_full_precision(implementation: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Keep autocast out: it would round the sums inside an operation, which are promised in full precision."""

    def call(*arguments: Any, **named: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return implementation(*arguments, **named)

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
