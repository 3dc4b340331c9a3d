"""Taps: what a layer hands out while it runs, and the proof that every one of them fired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from solomonic.models import HybridConfig, HybridLM, LMOutput, Memory

__all__ = ["expected_taps", "has_attention", "has_fading_tokens", "has_state", "layer_window", "tapped"]

_STATE = ("x", "dt", "log_decay", "B", "C", "D", "y")
_ATTENTION = ("q", "k", "v", "read", "lse_window")
_FADING = ("ssm_out", "k_fading", "v_fading", "lse_fading")
_LAYER = ("mixer_in", "mixer_out", "hidden")


def has_state(symbol: str) -> bool:
    """Whether a layer of this symbol has a state space head."""
    return symbol in ("M2", "BMF")


def has_attention(symbol: str) -> bool:
    """Whether a layer of this symbol reads registers by a softmax."""
    return symbol in ("*", "SWA", "BMF")


def has_fading_tokens(symbol: str) -> bool:
    """Whether a layer of this symbol reads fading tokens."""
    return symbol == "BMF"


def layer_window(config: HybridConfig, layer: int) -> int | None:
    """W of a layer in tokens; None where it has no window."""
    return {"SWA": config.swa_window, "BMF": config.bmojo_window}.get(config.pattern[layer])


def expected_taps(config: HybridConfig, layer: int) -> frozenset[str]:
    """The names that a layer must hand out."""
    symbol = config.pattern[layer]
    names = [*_LAYER]
    if has_state(symbol):
        names += _STATE
    if has_attention(symbol):
        names += _ATTENTION
    if has_fading_tokens(symbol):
        names += _FADING
        if not config.tie_attn_weights:
            names.append("q_fading")
    return frozenset(names)


def tapped(
    model: HybridLM,
    ids: Tensor,
    memory: Memory | None,
    layers: Collection[int],
    finish: Callable[[int, Mapping[str, Tensor]], None],
) -> tuple[LMOutput, int]:
    """Run the model; ``finish`` gets the taps of each layer in ``layers`` when the layer is through.

    Returns the output and the number of taps that fired. Raises ValueError where one did not fire, or fired twice.
    """
    held: dict[int, dict[str, Tensor]] = {i: {} for i in layers}
    done: set[int] = set()
    fired = 0

    def record(layer: int, name: str, value: Tensor) -> None:
        nonlocal fired
        if layer not in held:
            return
        if name in held[layer] or layer in done:
            raise ValueError(f"model: tap {name!r} of layer {layer} fired twice in one run")
        fired += 1
        held[layer][name] = value.detach()
        if name == "hidden":
            missing = expected_taps(model.config, layer) - set(held[layer])
            if missing:
                raise ValueError(_silent(model, layer, missing))
            done.add(layer)
            finish(layer, held[layer])
            held[layer] = {}

    device = next(model.parameters()).device
    with torch.no_grad():
        out = model(ids.to(device), memory=memory, record=record)
    for layer in layers:
        if layer not in done:
            raise ValueError(_silent(model, layer, expected_taps(model.config, layer) - set(held[layer])))
    return out, fired


def _silent(model: HybridLM, layer: int, missing: Collection[str]) -> str:
    return (
        f"model: layer {layer} ({model.config.pattern[layer]}) never fired the taps {', '.join(sorted(missing))}; "
        "its mixer must call record(name, value) for each, or nothing can be said of it"
    )
