"""A trace as a Dataset: sequences of all layers with named dimensions, NaN where a layer has no such thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .labelled import units

if TYPE_CHECKING:
    from .run import Trace

__all__ = ["REGISTERS", "to_dataset", "to_numpy"]

#: The taps that are registers and what reads them.
REGISTERS = ("q", "k", "v", "q_fading", "k_fading", "v_fading")

_UNITS = {
    "ids": ("token", "1"),
    "log_decay": ("logarithm of the decay a_t", "nat/token"),
    "key": ("key of a delta rule: what is held under it is taken out", "1"),
    "beta": ("strength of a delta rule", "1"),
    "dt": ("step of the state space head", "1"),
    "B": ("input map dt_t B_t: h_t = a_t h_(t-1) + u_t B_t'", "1"),
    "C": ("read-out map: y_t = h_t C_t + D u_t", "1"),
    "D": ("feed-through", "1"),
    "u": ("input: x_t after the short convolution", "1"),
    "y": ("output of the state space head", "1"),
    "initial_state": ("state before the first token", "1"),
    "fading_mass": ("share of the attention mass on fading tokens", "1"),
    "lse_window": ("log-sum-exp of the scores of the window", "nat"),
    "lse_fading": ("log-sum-exp of the scores of the fading tokens", "nat"),
    "time": ("token of the run", "token"),
    "position": ("position of a token in a register", "token"),
    "window": ("window W (0: none)", "token"),
}


def to_dataset(trace: Trace) -> xr.Dataset:
    """What :meth:`Trace.to_dataset` describes."""
    wide = np.float64 if trace.logits.dtype == torch.float64 else np.float32
    data: dict[str, Any] = {"ids": (("prompt", "time"), trace.ids.numpy())}
    _add_states(trace, data, wide)
    per_head = ("prompt", "layer", "time", _attention_dims(trace)[0])
    for name, layers in (("lse_window", trace.attention_layers), ("lse_fading", trace.fading_layers)):
        if layers:
            data[name] = (
                per_head,
                _stack({i: to_numpy(trace.records[i][name]) for i in layers}, trace.layers, 1, wide),
            )
    if trace.fading_layers:
        found = {i: trace.fading_mass(i) for i in trace.fading_layers}
        data["fading_mass"] = (per_head, _stack(found, trace.layers, 1, wide))
    coords: dict[str, Any] = {
        "prompt": np.arange(trace.prompts),
        "layer": list(trace.layers),
        "time": np.arange(trace.past, trace.past + trace.steps),
        "symbol": ("layer", [trace.pattern[i] for i in trace.layers]),
        "kind": ("layer", [trace.kind(i) if i in trace.state_layers else "" for i in trace.layers]),
        "window": ("layer", [trace.windows[i] or 0 for i in trace.layers]),
    }
    held = [i for i in trace.attention_layers if "q" in trace.records[i]]
    if held:
        _add_registers(trace, data, coords, held, wide)
    attrs = {**trace.provenance, "error": trace.error, "tolerance": trace.tolerance}
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _add_states(trace: Trace, data: dict[str, Any], wide: type) -> None:
    if not trace.state_layers:
        return
    kinds = {i: trace.kind(i) for i in trace.state_layers}
    per_head = ("prompt", "layer", "time", "head")
    decays = {i: trace.log_decay(i) for i in kinds}
    dims: tuple[str, ...] = per_head
    if "diagonal" in kinds.values():
        dims = (*per_head, "state")
        orders = {i: trace.records[i]["B"].shape[3] for i in kinds}
        decays = {i: v if v.ndim == 4 else np.repeat(v[..., None], orders[i], 3) for i, v in decays.items()}
    data["log_decay"] = (dims, _stack(decays, trace.layers, 1, np.float64))
    stepped = [i for i, kind in kinds.items() if kind != "delta"]
    erased = [i for i, kind in kinds.items() if kind == "delta"]
    for name, layers, dims in (
        ("dt", stepped, per_head),
        ("beta", erased, per_head),
        ("key", erased, (*per_head, "state")),
        ("B", kinds, (*per_head, "state")),
        ("C", kinds, (*per_head, "state")),
        ("u", kinds, (*per_head, "channel")),
        ("y", kinds, (*per_head, "channel")),
    ):
        if layers:
            data[name] = (dims, _stack({i: getattr(trace, name)(i) for i in layers}, trace.layers, 1, wide))
    data["D"] = (("layer", "head"), _stack({i: trace.D(i) for i in kinds}, trace.layers, 0, wide))
    if trace.initial:
        found = {i: trace.initial_state(i) for i in kinds}
        data["initial_state"] = (("prompt", "layer", "head", "channel", "state"), _stack(found, trace.layers, 1, wide))


def _attention_dims(trace: Trace) -> tuple[str, str]:
    """Names of the dims of heads and channels of the attention: those of the states where they are as many."""
    if not (trace.state_layers and trace.attention_layers):
        return "head", "channel"
    state, attention = trace.records[trace.state_layers[0]]["y"], trace.records[trace.attention_layers[0]]
    heads = attention["lse_window"].shape[2] == state.shape[2]
    channels = "v" not in attention or {attention["q"].shape[3], attention["v"].shape[3]} == {state.shape[3]}
    return "head" if heads else "attention_head", "channel" if channels else "attention_channel"


def _add_registers(trace: Trace, data: dict, coords: dict, held: list[int], dtype: type) -> None:
    found = {i: trace.registers(i) for i in held}
    longest = max(taps[name].shape[1] for taps in found.values() for name in taps)
    coords["position"] = np.arange(trace.past + trace.steps - longest, trace.past + trace.steps)
    head, channel = _attention_dims(trace)
    for name in REGISTERS:
        here = {i: taps[name] for i, taps in found.items() if name in taps}
        if not here:
            continue
        padded = {
            i: np.pad(v, ((0, 0), (longest - v.shape[1], 0), (0, 0), (0, 0)), constant_values=np.nan)
            for i, v in here.items()
        }
        dims = ("prompt", "layer", "position", head if name.startswith("q") else "kv_head", channel)
        data[name] = (dims, _stack(padded, trace.layers, 1, dtype))


def _stack(found: Mapping[int, np.ndarray], layers: tuple[int, ...], axis: int, dtype: Any) -> np.ndarray:
    """Arrays by layer along a new axis, NaN for the layers that have none."""
    some = next(iter(found.values()))
    empty = np.full(some.shape, np.nan, dtype)
    return np.stack([found[i].astype(dtype) if i in found else empty for i in layers], axis)


def to_numpy(value: Tensor) -> np.ndarray:
    """A tensor in float64 on the CPU."""
    return value.detach().to("cpu", torch.float64).numpy()
