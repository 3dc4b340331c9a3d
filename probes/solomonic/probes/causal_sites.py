"""Runs from patched memories: one pass for all patches at a time, each starting at the layer that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import Value, cat_layers, map_layers, tensors
from solomonic.models.rope import rotary_tables

from .causal_plan import PATHS

__all__ = ["Site", "SiteRuns"]

Layer = Mapping[str, Value]


class Site(NamedTuple):
    """A patch: what the memory of a layer is after a token.

    Attributes
    ----------
    layer : int
        The layer.
    parts : mapping of str to Tensor or tuple of tensors
        All parts of its memory, for all prompts.
    """

    layer: int
    parts: Layer


@dataclass(eq=False)
class SiteRuns:
    r"""The base run of some prompts, and runs that leave it at a patch.

    A patch of layer l after token t changes nothing below l, nothing before t, and is judged by the prediction after
    the last token. So the rest of the text is run from layer l on, from the residual stream that the base run had
    there; the last layer only for its memory; the head for the last token alone. All patches at t share one pass,
    whose batch grows from layer to layer.

    The last token reads what the patch has become. Where it reads all of it, that is the total effect; where it reads
    the layer's own memory, which carried the patch by itself, and the base run's in all other layers, the direct one;
    where it reads the other layers' only, the indirect one.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model; one of transformers is run whole.
    ids : Tensor
        The base prompts [prompts, T].
    batch_size : int
        Largest number of sequences in a call.
    paths : sequence of str
        Of ``PATHS``, what is read out.
    """

    model: HybridLM | AdaptedLM
    ids: Tensor
    batch_size: int
    paths: Sequence[str] = PATHS
    tokens: int = 0
    memories: dict[int, Memory] = field(default_factory=dict)
    _streams: list[list[Tensor]] = field(default_factory=list)
    _waiting: list[tuple[Any, Tensor, Sequence[Layer]]] = field(default_factory=list)
    _rows: int = 0

    def start(self, times: Sequence[int], others: Sequence[Tensor] = ()) -> list[tuple[Tensor, dict[int, Memory]]]:
        """The base run, whose streams are kept, and with it, row by row, those of other prompts of the same shape.

        Of each the last logits [prompts, V] and the memories after these tokens.
        """
        rows = [self.ids, *others]
        joined, prompts, last = torch.cat(rows), len(self.ids), self.ids.shape[1] - 1
        self._streams = [[] for _ in self.model.config.pattern]
        found: list[dict[int, Memory]] = [{} for _ in rows]
        memory, begin, out = None, 0, None
        for stop in sorted({*(t + 1 for t in times), last, last + 1} - {0}):
            out = self.model(joined[:, begin:stop], memory=memory, record=self._record)
            memory, begin = out.memory, stop
            for i, each in enumerate(found):
                each[stop - 1] = memory.map(lambda t, i=i: t[i * prompts : (i + 1) * prompts])
        self.memories = found[0]
        self.streams = [torch.cat(pieces, 1) for pieces in self._streams[:-1] if pieces]
        self._streams = []
        assert out is not None
        return list(zip(out.logits[:, -1].split(prompts), found, strict=True))

    def _record(self, layer: int, name: str, value: Tensor) -> None:
        if name == "hidden" and isinstance(self.model, HybridLM):
            self._streams[layer].append(value[: len(self.ids)])

    def run(self, time: int, sites: Sequence[tuple[Any, Site]]) -> list[tuple[list[Any], Tensor]]:
        """Put in the patches of one time, each with a key; what is done by now: keys, logits [path, key, prompt, V]."""
        ordered = sorted(sites, key=lambda each: each[1].layer)
        step = max(1, self.batch_size // len(self.ids))
        found = []
        for i in range(0, len(ordered), step):
            group = ordered[i : i + step]
            layers = torch.tensor([site.layer for _, site in group])
            self._waiting.append(([key for key, _ in group], layers, self._carried(time, [s for _, s in group])))
            self._rows += len(self.paths) * len(group) * len(self.ids)
            if self._rows >= self.batch_size:
                found += self.finish()
        return found

    def _carried(self, time: int, sites: Sequence[Site]) -> Sequence[Layer]:
        """The memory of each layer after the last token but one; rows are site by site, prompts within."""
        if isinstance(self.model, AdaptedLM):
            return self._carried_whole(time, sites)
        prompts, last = len(self.ids), self.ids.shape[1] - 1
        base, end = self.memories[time], self.memories[last - 1]
        rest = self.ids[:, time + 1 : last]
        layers, x, active = [], None, 0
        embedded = self.model.model.embed_tokens(rest)
        tables = rotary_tables(self.model.config, time + 1, rest.shape[1], embedded)
        for i, layer in enumerate(self.model.layers):
            new = [site.parts for site in sites if site.layer == i]
            past = cat_layers([*[base.layers[i]] * active, *new])
            active += len(new)
            after = past
            if active and rest.shape[1]:
                stream = embedded if i == 0 else self.streams[i - 1][:, time + 1 : last]
                joined = [x] if x is not None else []
                x = torch.cat([*joined, *[stream] * len(new)])
                self.tokens += active * rest.numel()
                if i < len(self.model.layers) - 1:
                    x, after = layer(x, past, tables, None)
                else:
                    after = layer.mixer(layer.input_layernorm(x), past, tables, None)[1]
            after = cat_layers([*([after] if active else []), *[end.layers[i]] * (len(sites) - active)])
            assert not after or tensors(next(iter(after.values())))[0].shape[0] == prompts * len(sites)
            layers.append(after)
        return layers

    def _carried_whole(self, time: int, sites: Sequence[Site]) -> Sequence[Layer]:
        base, last = self.memories[time], self.ids.shape[1] - 1
        layers = [
            cat_layers([site.parts if site.layer == i else base.layers[i] for site in sites])
            for i in range(len(base.layers))
        ]
        if time + 1 == last:
            return layers
        rest = self.ids[:, time + 1 : last].repeat(len(sites), 1)
        self.tokens += rest.numel() * len(layers)
        return list(self.model(rest, memory=Memory(tuple(layers), time + 1)).memory.layers)

    def finish(self) -> list[tuple[list[Any], Tensor]]:
        """The last token for all patches that wait for it."""
        if not self._waiting:
            return []
        last, prompts = self.ids.shape[1] - 1, len(self.ids)
        end = self.memories[last - 1]
        keys = [key for each, _, _ in self._waiting for key in each]
        site_layer = torch.cat([each for _, each, _ in self._waiting]).repeat_interleave(prompts)
        rows = len(site_layer)
        layers = []
        for i in range(len(end.layers)):
            full = cat_layers([carried[i] for _, _, carried in self._waiting])
            if self.paths == ("total",):
                layers.append(full)
                continue
            base = map_layers(lambda t: t.repeat(len(keys), *[1] * (t.ndim - 1)), end.layers[i])
            reads = {
                "total": torch.ones(rows, dtype=torch.bool),
                "direct": site_layer == i,
                "indirect": site_layer != i,
            }
            of_layer = torch.stack([reads[path] for path in self.paths])
            layers.append(_chosen(of_layer, full, base))
        token = self.ids[:, last:].repeat(len(self.paths) * len(keys), 1)
        self.tokens += len(token) * len(layers)
        logits = self.model(token, memory=Memory(tuple(layers), last)).logits[:, -1]
        self._waiting, self._rows = [], 0
        return [(keys, logits.reshape(len(self.paths), len(keys), prompts, -1))]


def _chosen(mask: Tensor, full: Layer, base: Layer) -> dict[str, Value]:
    """Rows of one memory or of the other, for each row of a mask [variants, rows]; variants one after another."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        where = mask.to(a.device).reshape(*mask.shape, *[1] * (a.ndim - 1))
        return torch.where(where, a, b).flatten(0, 1)

    return map_layers(choose, full, base)
