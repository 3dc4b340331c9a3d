"""Models spread over several devices, by accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .lm import HybridLM

Places = dict[str, Any]


def placement(
    model: HybridLM, device_map: str | Mapping[str, str | int], dtype: torch.dtype, max_memory: Mapping[Any, Any] | None
) -> Places:
    """Module -> device for a model on the meta device; ValueError if it does not fit."""
    accelerate = _accelerate()
    from accelerate.utils import convert_file_size_to_int, get_max_memory

    free = {
        k: convert_file_size_to_int(v)
        for k, v in get_max_memory(None if max_memory is None else dict(max_memory)).items()
    }
    if isinstance(device_map, str):
        if device_map != "auto":
            raise ValueError(f"device_map: expected 'auto' or a dictionary module -> device, got {device_map!r}")
        places = accelerate.infer_auto_device_map(
            model.to(dtype), max_memory=dict(free), no_split_module_classes=["DecoderLayer"], dtype=dtype
        )
    elif isinstance(device_map, Mapping):
        places = dict(device_map)
    else:
        raise TypeError(f"device_map: expected 'auto' or a dictionary, got {type(device_map).__name__}")
    modules = {name for name, _ in model.named_modules()}
    unknown = sorted(set(places) - modules)
    if unknown:
        raise ValueError(f"device_map: the model has no module {', '.join(unknown)}; it has model, model.layers.0, ...")
    used: dict[Any, int] = {}
    for name, parameter in model.named_parameters():
        device = device_of(name, places)
        used[device] = used.get(device, 0) + parameter.numel() * dtype.itemsize
    for device, needed in used.items():
        if device == "disk":
            raise ValueError(
                f"device_map: {needed:,} bytes of the model fit on no device (room: {_room(free)}); "
                "use a narrower dtype, or a machine with more memory"
            )
        if needed > free.get(device, 0):
            raise ValueError(
                f"device_map: {needed:,} bytes on {device!r}, which has room for {free.get(device, 0):,}; "
                f"move modules elsewhere (room: {_room(free)}), or use a narrower dtype"
            )
    return places


def device_of(name: str, places: Places) -> Any:
    """The device of a parameter: that of the longest prefix of its name in the map."""
    prefix = name
    while prefix not in places:
        if not prefix:
            raise ValueError(f"device_map: names no device for {name}; give '' -> device for what is left")
        prefix = prefix.rpartition(".")[0]
    return places[prefix]


def spread(model: HybridLM, places: Places) -> HybridLM:
    """The model with hooks that bring inputs to the device of each module, where there are several."""
    if len(set(places.values())) > 1:
        _accelerate().dispatch_model(model, places)
    return model


def _room(free: Mapping[Any, int]) -> str:
    return ", ".join(f"{device}: {size:,}" for device, size in free.items()) or "none"


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError as error:
        raise ImportError(
            "device_map: needs accelerate, which is not installed; pip install 'solomonic[hub]'"
        ) from error
    return accelerate
