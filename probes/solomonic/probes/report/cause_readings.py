"""What the figures about causal effects say, in sentences that carry the measured numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..significance import discoveries, paired_test
from .error_readings import signed
from .memory_readings import part_name
from .say import count, share, small

#: Expected share of false ones among the memories that are said to differ from their control.
_LEVEL = 0.05

#: Nat: logits of runs in float32 that should be the same differ by less.
_ROUNDING = 1e-5

#: What is put in besides the memory of the own beginning, as one says it.
_CONTROLS = {"resample": "the memory that another window leaves", "random": "a random change of the same norm"}

#: The columns of the table of one model.
HEAD = ("Layer and memory", "Total effect, nat", "Directly, nat", "Through other layers, nat")


def pairs_said(data: xr.Dataset) -> str:
    """What was exchanged, and in which windows."""
    last = count(_tail(data), "token")
    gap = float((data["source_difference"] - data["base_difference"]).mean())
    return (
        f"All but the last {last} of a window of {data.attrs['tokens']} are exchanged for those of another one. Then "
        "the memory of one layer, or a part of it, is put back as the window's own beginning had left it. What that "
        "does to the last prediction is an effect of that memory alone. It is measured on the logit difference of the "
        f"two tokens whose probabilities the exchange changes most: by {small(gap, 'nat')} on average over "
        f"{count(data.sizes['prompt'], 'window')}, of {data.attrs['candidates']} those whose prediction changes most."
    )


def strongest(data: xr.Dataset) -> str:
    """The layer whose memory carries most, early and late, and the part."""
    first, final = data.isel(time=0), data.isel(time=-1)
    whole = "all" if "all" in data["part"].to_numpy() else str(data["part"].to_numpy()[0])
    told = f"Right after the beginning most is carried by layer {_restored(first.sel(part=whole))}"
    if data.sizes["time"] > 1:
        told += f"; just before the last token by layer {_restored(final.sel(part=whole))}"
    told += "."
    parts = [str(each) for each in data["part"].to_numpy() if each != "all"]
    if len(parts) > 1:
        effect = first["effect_mean"].sel(part=parts, path="total").transpose("part", "layer").to_numpy()
        p, l = np.unravel_index(int(np.argmax(np.nan_to_num(effect, nan=-np.inf))), effect.shape)
        at = first.sel(part=parts[p]).isel(layer=int(l))
        ways = [_with_interval(at, "effect", path) for path in ("direct", "indirect")]
        told += (
            f" Of single parts it is the {part_name(parts[p])} of layer {int(at['layer'])}: "
            f"{_with_interval(at, 'effect', 'total')} nat, {ways[0]} read by the last token from that memory itself "
            f"and {ways[1]} through what other layers have written since."
        )
    return told


def controlled(data: xr.Dataset) -> str:
    """How many effects are not those of any other memory, by sign flips of whole windows."""
    name = str(data["control"].to_numpy()[0])
    made = f"As a control, {_CONTROLS[name]} is put in the same place."
    if data.sizes["prompt"] < 2:
        return f"{made} With one window the two cannot be told apart."
    first = data.isel(time=0)
    difference = first["effect"].sel(path="total") - first["control_effect"].sel(control=name)
    flat = difference.transpose("prompt", "part", "layer").to_numpy().reshape(data.sizes["prompt"], -1)
    flat = flat[:, np.isfinite(flat).all(0)]
    flat = flat[:, (np.abs(flat) > _ROUNDING).any(0)]
    if not flat.shape[1]:
        return f"{made} It does the same everywhere."
    found = int(discoveries(paired_test(flat, rng=0), level=_LEVEL).sum())
    which = count(found, "", "").strip() if found else "none"
    least = 2.0 ** (1 - data.sizes["prompt"])
    return (
        f"{made} Of {count(flat.shape[1], 'memory', 'memories')} of the table where the two differ at all, {which} "
        f"{'differs from its' if found <= 1 else 'differ from their'} control (signs of whole windows flipped, "
        f"{share(_LEVEL)} of false ones expected at most). So few windows have little power: no p-value can be below "
        f"{small(least)}."
    )


def unsaid(data: xr.Dataset) -> str:
    """What these effects do not tell."""
    one = data.sizes["part"] == 1
    return (
        "The windows were chosen for what the exchange changes, so the sizes are not those of an average text; the "
        "largest of several was picked after the measurement, so its interval is too narrow. "
        + ("" if one else "A part without the others of its layer is a memory that no text leads to. ")
        + "Where layers act together, effects do not add up to the whole, nor direct and indirect ones to the total."
    )


def late(data: xr.Dataset, window: int | None) -> str:
    """That a state which is read a window later does nothing in fewer tokens; empty where that is not so."""
    if window is None or window < _tail(data) or "fading_tokens" not in data["part"].to_numpy():
        return ""
    return (
        f"Layers of B'MOJO read their state W = {window} tokens late, and no more than {_tail(data)} follow here: that "
        "state and convolution do nothing says so, and no more."
    )


def rows(data: xr.Dataset) -> list[list[str]]:
    """The table: every layer and memory, put back right after the beginning."""
    first = data.isel(time=0)
    control = str(data["control"].to_numpy()[0])
    out = []
    for layer, symbol in zip(data["layer"].to_numpy(), data["symbol"].to_numpy(), strict=True):
        for part in sorted(data["part"].to_numpy().tolist(), key=lambda each: each != "all"):
            at = first.sel(layer=layer, part=part)
            if not np.isfinite(float(at["effect_mean"].sel(path="total"))):
                continue
            low, high = at["control_mean_interval"].sel(control=control).to_numpy()
            out.append(
                [
                    f"{layer}, {symbol}: {'all of it' if part == 'all' else part_name(part)}",
                    *(_with_interval(at, "effect", path) for path in ("total", "direct", "indirect")),
                    _bounded(float(at["control_mean"].sel(control=control)), low, high),
                ]
            )
    return out


def control_head(data: xr.Dataset) -> str:
    """The head of the control's column."""
    return {"resample": "Another window's instead, nat", "random": "Random change, nat"}[
        str(data["control"].to_numpy()[0])
    ]


def _tail(data: xr.Dataset) -> int:
    """The last tokens, which are not exchanged."""
    return int(data.attrs["tokens"]) - 1 - int(data["time"][0])


def _restored(at: xr.Dataset) -> str:
    """The layer with the largest total effect, as a share of the difference."""
    place = int(np.argmax(np.nan_to_num(at["normalised_mean"].sel(path="total").to_numpy(), nan=-np.inf)))
    one = at.isel(layer=place)
    value = float(one["normalised_mean"].sel(path="total"))
    low, high = one["normalised_mean_interval"].sel(path="total").to_numpy()
    bounds = f" ({share(low)} to {share(high)})" if np.isfinite([low, high]).all() else ""
    return f"{int(one['layer'])}: {share(value)}{bounds} of the difference comes back"


def _with_interval(at: xr.Dataset, name: str, path: str) -> str:
    low, high = at[f"{name}_mean_interval"].sel(path=path).to_numpy()
    return _bounded(float(at[f"{name}_mean"].sel(path=path)), low, high)


def _bounded(value: float, low: Any, high: Any) -> str:
    """A number in nat with its interval, where it has one.

    >>> _bounded(0.5, 0.25, 0.75), _bounded(0.0, 0.0, 0.0), _bounded(1e-7, -1e-6, 1e-6)
    ('+0.50 (+0.25 to +0.75)', 'exactly 0', '0, to rounding')
    >>> _bounded(-0.001, float("nan"), float("nan"))
    '−0.0010'
    """
    if value == low == high == 0:
        return "exactly 0"
    if max(abs(value), abs(low), abs(high)) < _ROUNDING:
        return "0, to rounding"
    if not np.isfinite([low, high]).all():
        return signed(value)
    return f"{signed(value)} ({signed(float(low))} to {signed(float(high))})"
