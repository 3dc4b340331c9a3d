"""Labelled results: provenance in the attributes of a Dataset, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from solomonic.models.files import whole_file

__all__ = ["fingerprint", "load_dataset", "provenance", "save_dataset", "versions"]

_PACKAGES = ("solomonic", "torch", "numpy", "xarray")


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on, ``more`` of them where given."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters, as ``sha256:<64 hex digits>``."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return f"sha256:{digest.hexdigest()}"


def provenance(
    probe: str,
    *,
    model: nn.Module | None = None,
    arguments: Mapping[str, Any] | None = None,
    seed: int | str | None = None,
    checks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The attributes that every Dataset of a probe has.

    Parameters
    ----------
    probe : str
        Name of the function that made the Dataset.
    model : HybridLM or AdaptedLM, optional
        Gives ``checkpoint`` (:func:`fingerprint`), ``pattern`` and ``dtype``.
    arguments : mapping, optional
        The arguments of the call; arrays are given by their shape and a hash. Stored as JSON.
    seed : int or str, optional
        What the random numbers were drawn from.
    checks : mapping, optional
        What the probe proved about itself. Stored as JSON.

    Returns
    -------
    dict
        Strings and integers only, so that netCDF can hold them. ``versions``, ``arguments`` and ``checks`` are JSON.
    """
    attrs: dict[str, Any] = {"probe": probe, "versions": _json(versions(*getattr(model, "packages", ())))}
    if model is not None:
        attrs["checkpoint"] = fingerprint(model)
        attrs["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
        pattern = getattr(getattr(model, "config", None), "pattern", None)
        if pattern is not None:
            attrs["pattern"] = "-".join(pattern)
    if seed is not None:
        attrs["seed"] = seed
    attrs["arguments"] = _json({k: summary(v) for k, v in (arguments or {}).items()})
    attrs["checks"] = _json(checks or {})
    return attrs


def provenance_of(trace: Any, probe: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a probe of a trace: those of the trace, with this probe's name and arguments added."""
    attrs = dict(trace.provenance)
    earlier = json.loads(attrs.get("arguments", "{}"))
    attrs["probe"] = probe
    attrs["arguments"] = _json({**{k: summary(v) for k, v in arguments.items()}, "trace": earlier})
    return attrs


def summary(value: Any) -> Any:
    """What JSON can hold of an argument; an array is its shape and the first 16 hex digits of its SHA-256."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return {"shape": list(data.shape), "sha256": hashlib.sha256(data.tobytes()).hexdigest()[:16]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): summary(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [summary(v) for v in value]
    return type(value).__name__


def save_dataset(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a Dataset as netCDF; the file appears whole or not at all.

    Parameters
    ----------
    dataset : xarray.Dataset
        What a probe returned.
    path : str or path
        The file; folders above it are made. One that is there is replaced once the new one is complete.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        If `dataset` is no Dataset.
    OSError
        If the file cannot be written: nothing is left of it then.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> from solomonic.probes import load_dataset, save_dataset
    >>> file = save_dataset(xr.Dataset({"kl": ("lag", [0.5, 0.0])}), tempfile.mkdtemp() + "/fading.nc")
    >>> load_dataset(file).kl.values
    array([0.5, 0. ])
    """
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset: expected an xarray.Dataset, got {type(dataset).__name__}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, this is a folder")
    with whole_file(path) as beside:
        dataset.to_netcdf(beside, engine="h5netcdf")
    return path


def load_dataset(path: str | Path) -> xr.Dataset:
    """Read a Dataset that :func:`save_dataset` wrote, all of it, and close the file.

    Parameters
    ----------
    path : str or path
        The netCDF file.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a netCDF file, or a damaged one.

    Examples
    --------
    >>> from solomonic.probes import load_dataset
    >>> load_dataset("nowhere.nc")
    Traceback (most recent call last):
    FileNotFoundError: nowhere.nc: no such file
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: not a whole netCDF file: {error}") from None


def label(variable: xr.DataArray | xr.Variable, long_name: str, units: str) -> None:
    """Say what a variable is, and its unit."""
    variable.attrs.update(long_name=long_name, units=units)


def units(dataset: xr.Dataset, table: Mapping[str, tuple[str, str]]) -> xr.Dataset:
    """Set ``long_name`` and ``units`` of the variables and coordinates in a table; those not there are left out."""
    for name, (long_name, unit) in table.items():
        if name in dataset.variables:
            dataset[name].attrs.update(long_name=long_name, units=unit)
    return dataset


def _json(value: Any) -> str:
    return json.dumps(_finite(value), sort_keys=True)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
