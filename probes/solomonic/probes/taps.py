"""Taps: what a layer hands out while it runs, and the proof that every one of them fired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from solomonic.models import AdaptedConfig, AdaptedLM, HybridConfig, HybridLM, LMOutput, Memory

__all__ = [
    "KINDS",
    "expected_taps",
    "has_attention",
    "has_fading_tokens",
    "has_state",
    "layer_window",
    "state_kind",
    "tapped",
]

#: What a state space layer hands out, by the kind of its transitions (:func:`state_kind`).
_STATE = {
    "scalar": ("x", "dt", "log_decay", "B", "C", "D", "y"),
    "diagonal": ("x", "dt", "A", "B", "C", "D", "y"),
    "delta": ("x", "log_decay", "beta", "B", "C", "y"),
}
#: Pattern symbol -> the kind of its transitions.
KINDS = {
    **dict.fromkeys(("M2", "M2+*", "*>M2", "BMF", "BMO"), "scalar"),
    "M1": "diagonal",
    "GDN": "delta",
}
_ATTENTION = ("q", "k", "v", "read", "lse_window")
_FADING = ("ssm_out", "k_fading", "v_fading", "lse_fading")
_LAYER = ("mixer_in", "mixer_out", "hidden")


def has_state(symbol: str) -> bool:
    """Whether a layer of this symbol has a state space head."""
    return symbol in KINDS


def state_kind(config: HybridConfig | AdaptedConfig, layer: int) -> str | None:
    """How a layer's state moves: a decay a head (``"scalar"``), one a channel and state (``"diagonal"``), a gated delta
    rule (``"delta"``); None where it has no state that is linear in its input."""
    symbol = config.pattern[layer]
    if symbol in ("BMF", "BMO") and isinstance(config, HybridConfig):
        return {"mamba2": "scalar", "gdn": "delta"}.get(config.ssm_mixer)
    return KINDS.get(symbol)


def has_attention(symbol: str) -> bool:
    """Whether a layer of this symbol reads registers by a softmax that a trace rebuilds (not BMO: stored tokens)."""
    return symbol in ("*", "SWA", "BMF", "M2+*", "*>M2")


def has_fading_tokens(symbol: str) -> bool:
    """Whether a layer of this symbol reads fading tokens."""
    return symbol == "BMF"


def layer_window(config: HybridConfig | AdaptedConfig, layer: int) -> int | None:
    """W of a layer in tokens; None where it has no window."""
    symbol = config.pattern[layer]
    if symbol == "BMF" and isinstance(config, HybridConfig):
        return config.bmojo_window
    return config.swa_window if symbol == "SWA" else None


def expected_taps(config: HybridConfig | AdaptedConfig, layer: int) -> frozenset[str]:
    """The names that a layer must hand out."""
    symbol = config.pattern[layer]
    names = ["hidden"] if symbol in ("M2+*", "*>M2") else [*_LAYER]  # two mixers have no one input and output
    names += _STATE.get(state_kind(config, layer) or "", ())
    if has_attention(symbol):
        names += _ATTENTION
    if has_fading_tokens(symbol):
        names += _FADING
        if isinstance(config, HybridConfig) and not config.tie_attn_weights:
            names.append("q_fading")
    return frozenset(names)


def tapped(
    model: HybridLM | AdaptedLM,
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


def _silent(model: HybridLM | AdaptedLM, layer: int, missing: Collection[str]) -> str:
    return (
        f"model: layer {layer} ({model.config.pattern[layer]}) never fired the taps {', '.join(sorted(missing))}; "
        "its mixer must call record(name, value) for each, or nothing can be said of it"
    )
