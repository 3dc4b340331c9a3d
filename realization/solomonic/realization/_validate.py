"""Checks of arguments: each error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def describe(value: Any) -> str:
    """Say what came, in few words: the shape and dtype of an array, the type and value of anything else."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def to_numpy(value: Any, name: str) -> Array:
    """Convert arrays, lists and torch tensors (detached, moved to the CPU) to a NumPy array.

    Tensors are recognised by their methods, so torch is never imported. Types that NumPy lacks (bfloat16,
    float16 variants) go through float64, which holds each of their values exactly.
    """
    if hasattr(value, "detach") and hasattr(value, "cpu") and hasattr(value, "numpy"):
        try:
            tensor = value.detach().cpu()
            if hasattr(tensor, "resolve_conj"):
                tensor = tensor.resolve_conj()
            if tensor.is_floating_point():
                tensor = tensor.double()
            return np.asarray(tensor.numpy())
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise TypeError(
                f"{name}: expected a tensor that can be read on the CPU, got a tensor of dtype "
                f"{getattr(value, 'dtype', '?')} on device {getattr(value, 'device', '?')} ({error}); "
                f"convert it to a dense CPU tensor first"
            ) from error
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a rectangular array of numbers, got {describe(value)}") from error


def as_array(
    value: Any,
    name: str,
    *,
    ndim: int | tuple[int, ...] | None = None,
    shape: tuple[int | str, ...] | None = None,
    real: bool = False,
    allow_empty: bool = False,
) -> Array:
    """Return ``value`` as a float64 or complex128 array after checking its kind, dimensions and finiteness.

    Parameters
    ----------
    value : array_like or torch.Tensor
        The argument as the caller gave it.
    name : str
        The argument's name, for the error.
    ndim : int or tuple of int, optional
        Allowed numbers of dimensions.
    shape : tuple of int or str, optional
        Expected shape; a string stands for a free dimension of that name.
    real : bool
        Refuse complex entries.
    allow_empty : bool
        Accept dimensions of length 0.

    Returns
    -------
    ndarray
        A float64 or complex128 array.

    Raises
    ------
    TypeError
        Not an array of numbers, or complex where real is promised.
    ValueError
        Wrong shape, empty, NaN or infinite.
    """
    array = to_numpy(value, name)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype} ({describe(value)})")
    if real and array.dtype.kind == "c":
        raise TypeError(f"{name}: expected a real array, got a complex one ({describe(array)})")
    if shape is not None:
        fits = array.ndim == len(shape) and all(
            isinstance(want, str) or want == got for want, got in zip(shape, array.shape, strict=False)
        )
        if not fits:
            wanted = "[" + ", ".join(str(s) for s in shape) + "]"
            raise ValueError(f"{name}: expected shape {wanted}, got {list(array.shape)}")
    elif ndim is not None:
        allowed = (ndim,) if isinstance(ndim, int) else ndim
        if array.ndim not in allowed:
            wanted = " or ".join(str(d) for d in allowed)
            raise ValueError(f"{name}: expected {wanted} dimensions, got shape {list(array.shape)}")
    if array.size == 0 and not allow_empty:
        raise ValueError(f"{name}: expected a non-empty array, got shape {list(array.shape)}")
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise ValueError(f"{name}: expected finite numbers, got {count} entries that are NaN or infinite")
    return array


def as_square(value: Any, name: str, *, real: bool = False, allow_empty: bool = False) -> Array:
    """Return ``value`` as a square float64 or complex128 matrix, or say why it is none."""
    array = as_array(value, name, ndim=2, real=real, allow_empty=allow_empty)
    if array.shape[0] != array.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {list(array.shape)}")
    return array


def as_scaled_square(value: Any, name: str) -> Array:
    """Return a square matrix whose entries have squares that neither overflow nor vanish, or say to scale it."""
    array = as_square(value, name)
    largest = float(np.abs(array).max())
    if largest and not 1e-140 <= largest <= 1e140:
        raise ValueError(
            f"{name}: expected a largest entry between 1e-140 and 1e140 in modulus, or all zero, got {largest:.3g}; "
            f"scale {name}, and with it what is in its unit"
        )
    return array


def as_number(value: Any, name: str, expected: str, accept: Callable[[float], bool] = lambda number: True) -> float:
    """Return ``value`` as a finite float that ``accept`` takes; ``expected`` says in words what it takes."""
    try:
        number = float(to_numpy(value, name))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}") from error
    if not (np.isfinite(number) and accept(number)):
        raise ValueError(f"{name}: expected {expected}, got {number!r}")
    return number


def as_index(value: Any, name: str, low: int, high: int) -> int:
    """Return ``value`` as an int in ``[low, high]``, or say what came."""
    try:
        integer = value.__index__()
    except AttributeError as error:
        raise TypeError(f"{name}: expected an integer, got {describe(value)}") from error
    if not low <= integer <= high:
        raise ValueError(f"{name}: expected an integer from {low} to {high}, got {integer}")
    return integer


def frozen(array: Array) -> Array:
    """Return the array, made read-only (results are values)."""
    array.setflags(write=False)
    return array
