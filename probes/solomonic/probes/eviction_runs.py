"""Memories with stored tokens taken out or put in, read on side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from solomonic.models import HybridLM, Memory, stored_tokens
from solomonic.models.memory import StoredTokens

from .edit import finite

__all__ = ["Change", "Prefix", "changed_memories", "read_on", "read_prefix"]


class Change(NamedTuple):
    """A slot of a layer's stored tokens gets the token of a position, for good with ``hold``; -1 empties the slot."""

    layer: int
    slot: int
    position: int
    hold: bool = False


@dataclass(frozen=True, eq=False)
class Prefix:
    """What reading the prefixes gave.

    Parameters
    ----------
    memory : Memory
        After the last token of the prefixes.
    keys, values : mapping of int to Tensor
        By layer, what it made of every token of the prefix [prompts, cut, Hkv, D]: what it stores of one.
    scores : mapping of int to ndarray
        By layer, the innovation of every token [prompts, cut].
    """

    memory: Memory
    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    scores: Mapping[int, np.ndarray]

    def slots(self, layer: int, prompt: int) -> dict[int, int]:
        """Position of every stored token -> its slot, the lowest score first; empty slots and waiting tokens are none.

        Of equal scores the later slot comes first.
        """
        tokens = stored_tokens(self.memory, layer)
        held = (tokens.position[prompt] >= 0) & (tokens.admitted[prompt] > 0)
        score = tokens.score[prompt].double().cpu().numpy()
        slots = sorted(torch.where(held)[0].tolist(), key=lambda slot: (score[slot], -slot))
        return {int(tokens.position[prompt, slot]): slot for slot in slots}


def read_prefix(model: HybridLM, ids: Tensor, layers: Sequence[int]) -> Prefix:
    """Read the prefixes, with the keys, values and innovations of every token on the way.

    Raises ValueError where what the memory holds is not what the layer made of that token.
    """
    taps: dict[tuple[int, str], Tensor] = {}

    def keep(layer: int, name: str, value: Tensor) -> None:
        if layer in layers and name in ("k", "v", "innovation"):
            taps[layer, name] = value

    out = model(ids, record=keep)
    finite(out.logits, "the prefix")
    memory = out.memory
    for layer in layers:
        tokens = stored_tokens(memory, layer)
        for name, held in (("k", tokens.key), ("v", tokens.value)):
            index = tokens.position.clamp_min(0)[..., None, None].expand_as(held)
            same = (taps[layer, name].gather(1, index) == held).flatten(2).all(-1)
            if not (same | (tokens.position < 0)).all():
                raise ValueError(
                    f"model: what layer {layer} stores is not what its tap {name!r} shows of these tokens, so no other "
                    "token can be put in its place"
                )
    scores = {
        layer: finite(taps[layer, "innovation"], "the innovation test").double().cpu().numpy() for layer in layers
    }
    return Prefix(memory, {i: taps[i, "k"] for i in layers}, {i: taps[i, "v"] for i in layers}, scores)


def changed_memories(prefix: Prefix, prompt: int, variants: Sequence[Sequence[Change]]) -> Memory:
    """The memory of one prompt once for every variant, each with its changes.

    A token that is put in has its own key and value, and the time of admission of the slot that it takes. It has the
    score of that slot too, and stays as long as what it replaces would have stayed; held, its score is infinite.
    """
    memory = prefix.memory.map(lambda t: t[prompt : prompt + 1]).repeat(len(variants))
    by_layer: dict[int, list[tuple[int, Change]]] = {}
    for row, changes in enumerate(variants):
        for change in changes:
            by_layer.setdefault(change.layer, []).append((row, change))
    for layer, found in by_layer.items():
        old = stored_tokens(memory, layer)
        key, value, position, score, admitted = (t.clone() for t in old[:5])
        rows, slots, places, hold = (
            torch.tensor(each, device=position.device)
            for each in zip(*((row, *change[1:]) for row, change in found), strict=True)
        )
        empty = places < 0
        wide, source = empty[:, None, None], places.clamp_min(0)
        key[rows, slots] = prefix.keys[layer][prompt, source].masked_fill(wide, 0.0)
        value[rows, slots] = prefix.values[layer][prompt, source].masked_fill(wide, 0.0)
        position[rows, slots] = places
        score[rows, slots] = score[rows, slots].masked_fill(hold, torch.inf).masked_fill(empty, -torch.inf)
        admitted[rows, slots] = admitted[rows, slots].masked_fill(empty, 0)
        memory = memory.set(layer, "eidetic", StoredTokens(key, value, position, score, admitted, old.past))
    return memory


def read_on(
    model: HybridLM,
    prefix: Prefix,
    prompt: int,
    follow: Tensor,
    variants: Sequence[Sequence[Change]],
    batch_size: int | None,
) -> Tensor:
    """Logits [variants, n, vocabulary] of the tokens ``follow`` [n] after each of the changed memories."""
    size = len(variants) if batch_size is None else batch_size
    logits = []
    for start in range(0, len(variants), size):
        part = variants[start : start + size]
        memory = changed_memories(prefix, prompt, part)
        logits.append(model(follow.expand(len(part), -1), memory).logits)
    return finite(torch.cat(logits), "a run with a changed memory")
