"""The families that there is an adapter for, by architecture name, and those that there cannot be one for."""

from __future__ import annotations

from . import (
    bamba,
    falcon_h1,
    falcon_mamba,
    granitemoehybrid,
    jamba,
    llama,
    mamba,
    mamba2,
    mistral,
    nemotron_h,
    qwen3_next,
    zamba2,
)
from .family import Family

_MODULES = (
    bamba,
    falcon_h1,
    falcon_mamba,
    granitemoehybrid,
    jamba,
    llama,
    mamba,
    mamba2,
    mistral,
    nemotron_h,
    qwen3_next,
    zamba2,
)

#: Architecture -> its family.
FAMILIES: dict[str, Family] = {name: each.FAMILY for each in _MODULES for name in each.FAMILY.architectures}

#: Architectures that are refused, with the reason.
REFUSED = {
    "RecurrentGemmaForCausalLM": "it keeps its state in attributes of its modules and calls no scan that could be "
    "tapped",
    "RwkvForCausalLM": "its steps and its full forward do not agree in transformers 5.23, so that it has no memory to "
    "speak of",
    "ZambaForCausalLM": "its scan is written out inside the mixer, not called as a function",
}


def family_of(model: object) -> Family:
    """The family of a model of transformers, by the name of its class."""
    names = [each.__name__ for each in type(model).__mro__]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
        if name in REFUSED:
            raise ValueError(f"model: {name} has no adapter: {REFUSED[name]}")
    raise ValueError(
        f"model: there is no adapter for {names[0]}; expected one of {', '.join(sorted(FAMILIES))}. To add a family, "
        "see 'Add an adapter' in CONTRIBUTING.md"
    )
