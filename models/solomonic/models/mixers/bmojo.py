"""Full B'MOJO layers (``BMO``): a window, fading tokens, and stored tokens that an innovation test has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solomonic.kernels import InnovationSelection, InnovationState, memory_attention, select_innovations
from solomonic.kernels.select_innovations.plan import Plan

from ..config import HybridConfig
from ..memory import KeyValue, StoredTokens, Value, append, last
from ..rope import Rotary
from .bmojo_f import BMojoF
from .mixer import Record, part_nbytes


class BMojo(BMojoF):
    """B'MOJO (Zancato et al., arXiv 2407.06324, Algorithm 1 and appendix B.2) in its chunked form.

    Memory is refreshed where a chunk of W tokens begins, at s = 0, W, 2W, ...; queries s .. s+W-1 read in one softmax

    - the inputs t-W+1 .. t [paper],
    - fading tokens: the m_f outputs f_{s-m_f} .. f_{s-1} of the state space layer [paper, m_f = 1], or, with m_f = W,
      the sliding f_{t-2W+1} .. f_{t-W} [released],
    - the m_e stored tokens of greatest innovation |f_j - mean(f_{j-1} .. f_{j-k})| among those that have left the
      window, j <= s-W [test and budget: paper; span, norm, refresh and candidates: ours]. What is stored is the key and
      value of the layer's input; the selection is hard and has no gradient.

    Decoding token by token refreshes at the same boundaries and gives the same numbers. The memory is that of the
    state space layer, the registers of inputs and fading tokens, and the stored and waiting tokens.
    """

    name = "bmojo"

    def __init__(self, config: HybridConfig, symbol: str = "BMO") -> None:
        super().__init__(config)
        self.size = config.eidetic_tokens
        self.sliding = config.fading_tokens is None or config.fading_tokens == self.window
        self.fading = self.window if config.fading_tokens is None else config.fading_tokens

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        parts = super().empty(batch_size, like)
        if not self.fading:
            del parts["fading_tokens"]
        if self.size:
            key, value = parts["window"]  # type: ignore[misc]
            wide = torch.promote_types(like.dtype, torch.float32)
            none = torch.zeros(batch_size, 0, dtype=torch.int64, device=like.device)
            past = like.new_zeros(batch_size, 0, self._past_width)
            parts["eidetic"] = StoredTokens(key, value, none, like.new_zeros(batch_size, 0, dtype=wide), none, past)
        return parts

    def sizes(self, tokens: int) -> dict[str, int]:
        token = 2 * self.config.num_key_value_heads * self.config.head_dim
        out = super().sizes(tokens)
        if not self.sliding:
            out["fading_tokens"] = token * len(self._held(tokens))
        if not self.fading:
            del out["fading_tokens"]
        if self.size:
            past = min(tokens, self.config.innovation_span) * self._past_width
            out["eidetic"] = (token + 3) * self._plan(tokens).columns_after + past
        return out

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        out = part_nbytes(self.sizes(tokens), width)
        if self.size:  # positions are int64, scores float32 at least
            out["eidetic"] += self._plan(tokens).columns_after * (2 * (8 - width) + max(width, 4) - width)
        return out

    def forward(
        self, h: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        if self.config.bmojo_positions == "none":
            at = Rotary(torch.ones_like(tables.cos), torch.zeros_like(tables.sin), tables.position)
        else:
            at = tables
        f, parts = self.ssm(h, past, tables, record)
        q, q_fading, inputs, fading = self.bmojo_attn.project(h, f, at)
        window = past["window"]
        assert isinstance(window, KeyValue)
        window = append(window, *inputs)
        parts["window"] = last(window, self.window)
        stored: list[
            tuple[Tensor, Tensor, Tensor, Tensor]
        ] = []  # keys, values, first query, and the one after the last
        options: dict[str, Any] = {}
        register = None
        if self.fading:
            held = past["fading_tokens"]
            assert isinstance(held, KeyValue)
            register = append(held, *fading)
            if self.sliding:
                options["fading"] = tuple(register) if q_fading is None else (q_fading, *register)
                parts["fading_tokens"] = last(register, 2 * self.window)
            else:
                intervals, kept = self._frozen(tables.position, h.shape[1], h)
                enter, leave = (each.expand(len(h), -1) for each in intervals)
                stored.append((register.key, register.value, enter, leave))
                parts["fading_tokens"] = KeyValue(register.key[:, kept], register.value[:, kept])
        chosen = None
        if self.size:
            tokens = past["eidetic"]
            assert isinstance(tokens, StoredTokens)
            chosen = self._select(f, tokens, tables.position)
            pairs = append(KeyValue(tokens.key, tokens.value), *inputs)
            stored.append((pairs.key, pairs.value, chosen.enter, chosen.exit))
            parts["eidetic"] = _kept(pairs, chosen)
        own_query = None if self.sliding else q_fading  # frozen fading tokens with their own query
        query, key, value, eidetic = _sources(q, own_query, window, stored)
        if eidetic is not None:
            options["eidetic"] = eidetic
        scale = self.config.head_dim**-0.5
        read = memory_attention(query, key, value, window=self.window, position=tables.position, scale=scale, **options)
        if record is not None:
            found = {"ssm_out": f, "q": q, "k": window.key, "v": window.value, "read": read.out}
            if q_fading is not None:
                found["q_fading"] = q_fading
            if register is not None:
                found.update(k_fading=register.key, v_fading=register.value)
            if chosen is not None:
                found.update(innovation=chosen.score, enter=chosen.enter, exit=chosen.exit)
            found.update({f"lse_{n}": v for n, v in vars(read.lse).items() if v is not None})
            for name, each in found.items():
                record(name, each)
        return self.bmojo_attn.o_proj(read.out.flatten(2)), parts

    @property
    def _past_width(self) -> int:
        """Channels of the past outputs that the innovation test needs."""
        return 0 if self.config.innovation_norm == "random" else self.config.hidden_size

    def _plan(self, tokens: int) -> Plan:
        return Plan(0, tokens, self.size, self.window, self.window)

    def _select(self, f: Tensor, tokens: StoredTokens, position: int) -> InnovationSelection:
        """The innovation test on the outputs f of the state space layer."""
        state = None
        if position:
            state = InnovationState(tokens.past, tokens.position, tokens.score, tokens.admitted, position)
        options: dict[str, Any] = {"size": self.size, "window": self.window, "state": state}
        if self.config.innovation_norm == "random":
            places = torch.arange(position, position + f.shape[1], device=f.device)
            return select_innovations(None, score=_scramble(places, tokens.score.dtype).expand(len(f), -1), **options)
        return select_innovations(f, span=self.config.innovation_span, norm=self.config.innovation_norm, **options)

    def _held(self, tokens: int) -> list[int]:
        """Positions of the frozen fading tokens kept after so many tokens: those of this chunk, and of the next."""
        start = tokens // self.window * self.window
        now = range(max(0, start - self.fading), start)
        return [*now, *range(start + self.window - self.fading, tokens)]

    def _frozen(self, position: int, length: int, like: Tensor) -> tuple[tuple[Tensor, Tensor], list[int]]:
        """When frozen fading tokens, the held ones and the new, may be read; and which of them to keep."""
        places = [*self._held(position), *range(position, position + length)]
        enter, leave = [], []
        for place in places:
            start = (place // self.window + 1) * self.window
            seen = place >= start - self.fading
            enter.append(start if seen else 0)
            leave.append(start + self.window if seen else 0)
        after = set(self._held(position + length))
        kept = [i for i, place in enumerate(places) if place in after]
        return (torch.tensor(enter, device=like.device)[None], torch.tensor(leave, device=like.device)[None]), kept


def _kept(pairs: KeyValue, chosen: InnovationSelection) -> StoredTokens:
    """Keys and values of the tokens that the state after a selection holds."""
    index = chosen.kept[..., None, None]
    key, value = (t.gather(1, index.expand(-1, -1, *t.shape[2:])) for t in pairs)
    state = chosen.state
    return StoredTokens(key, value, state.position, state.score, state.enter, state.past)


def _sources(
    q: Tensor, own: Tensor | None, window: KeyValue, stored: list[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor] | None]:
    """Queries, keys and values of the window, and the eidetic source: frozen fading tokens first, then stored ones.

    Where the fading tokens have queries of their own, both queries stand side by side, and a key has zeros where the
    other one stands: one softmax, with each source read by its query.
    """
    key = window.key
    keys = [each[0] for each in stored]
    if own is not None and stored:
        q = torch.cat([q, own], -1)
        key = torch.nn.functional.pad(key, (0, own.shape[-1]))
        width = own.shape[-1]
        keys = [torch.nn.functional.pad(k, (width, 0) if i == 0 else (0, width)) for i, k in enumerate(keys)]
    if not stored:
        return q, key, window.value, None
    if len(stored) == 1:
        return q, key, window.value, (keys[0], *stored[0][1:])
    rest = (torch.cat([each[i] for each in stored], 1) for i in (1, 2, 3))
    return q, key, window.value, (torch.cat(keys, 1), *rest)  # type: ignore[return-value]


def _scramble(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """A number in [0, 1) for every position that looks random and is the same in every run: the control."""
    x = positions * 0x9E3779B1 & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return ((x ^ (x >> 16)).double() / 2**32).to(dtype)
