"""The language model: decoder layers around the mixers, a head, and an explicit memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .config import HybridConfig
from .memory import Memory, Value
from .mixers import MIXERS, Mixer, Record
from .mixers.attention import init_projection
from .mixers.gated_linear import GatedLinear
from .mixers.mamba2 import Mamba2
from .norm import RMSNorm
from .rope import Rotary, rotary_tables

#: Receives (layer, name, value) of intermediate values during a forward pass.
Recorder = Callable[[int, str, Tensor], None]


@dataclass(frozen=True, eq=False)
class LMOutput:
    """What a forward pass returns.

    Parameters
    ----------
    logits : Tensor
        Those of the next token at every position [B, T, vocab].
    memory : Memory
        What the model carries after the last token.
    """

    logits: Tensor
    memory: Memory

    def __repr__(self) -> str:
        return f"LMOutput(logits {tuple(self.logits.shape)}, {self.memory!r})"


class HybridLM(nn.Module):
    """A decoder-only language model whose layers are attention, sliding windows, Mamba2 or B'MOJO-F.

    Every layer computes x + Mixer(norm(x)) and then x + MLP(norm(x)), as in Qwen3; parameters have the published names.

    Parameters
    ----------
    config : HybridConfig
        The architecture.
    rng : int, numpy.random.Generator or None
        Seed of the initial weights.
    decay : {"slow", "default"}
        Initial decays of the state space layers: ``"slow"`` spreads A over 1 .. 16 with steps near 0.01 (half-lives
        from 4 to 70 tokens), ``"default"`` draws A from U(1, 16) and steps from 0.001 .. 0.1 as Mamba2 does.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> config = HybridConfig(pattern="BMF-*", vocab_size=32, hidden_size=32, intermediate_size=32,
    ...                       num_attention_heads=2, num_key_value_heads=1, head_dim=16, bmojo_window=4)
    >>> model = HybridLM(config, rng=0)
    >>> ids = torch.arange(10)[None]
    >>> whole = model(ids).logits
    >>> first = model(ids[:, :6])
    >>> rest = model(ids[:, 6:], memory=first.memory)
    >>> torch.allclose(whole[:, 6:], rest.logits, atol=1e-5)
    True
    """

    def __init__(
        self, config: HybridConfig, *, rng: int | np.random.Generator | None = None, decay: str = "slow"
    ) -> None:
        super().__init__()
        if decay not in ("slow", "default"):
            raise ValueError(f"decay: expected 'slow' or 'default', got {decay!r}")
        self.config = config
        self.model = _Body(config)
        for layer, size in zip(self.layers, config.state_sizes or (), strict=False):
            if size is not None and size < config.head_dim:
                mamba2_of(layer.mixer).reduce_state(size)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if not self.model.embed_tokens.weight.is_meta:
            self._init_weights(np.random.default_rng(rng), decay)

    def forward(self, ids: Tensor, memory: Memory | None = None, *, record: Recorder | None = None) -> LMOutput:
        """Logits of the next token at every position, and the memory after the last one.

        Parameters
        ----------
        ids : Tensor
            Token ids [B, T], T >= 1.
        memory : Memory or None
            What is carried from earlier tokens; None starts afresh.
        record : callable or None
            Called with (layer, name, value) for intermediate values; used by the probes.

        Returns
        -------
        LMOutput
            ``.logits`` [B, T, vocab] and ``.memory``.

        Raises
        ------
        TypeError, ValueError
            Where ids are no integers [B, T] inside the vocabulary, or the memory is another model's.
        """
        check_ids(ids, self.config.vocab_size)
        x = self.model.embed_tokens(ids)
        if memory is None:
            memory = self.empty_memory(len(ids))
        else:
            parts_of = [list(layer.mixer.sizes(0)) for layer in self.layers]
            check_memory(memory, parts_of, self.config.pattern, len(ids))
        tables = rotary_tables(self.config, memory.position, ids.shape[1], x)
        parts = []
        for i, layer in enumerate(self.layers):
            tap = None if record is None else _at_layer(record, i)
            x, after = layer(x, memory.layers[i], tables, tap)
            parts.append(after)
        x = self.model.norm(x)
        head = self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight
        return LMOutput(nn.functional.linear(x, head), Memory(tuple(parts), memory.position + ids.shape[1]))

    @property
    def layers(self) -> list[DecoderLayer]:
        """The decoder layers."""
        return cast(list[DecoderLayer], list(self.model.layers))

    def empty_memory(self, batch_size: int = 1) -> Memory:
        """The memory of ``batch_size`` sequences before the first token."""
        like = self.model.embed_tokens.weight
        return Memory(tuple(layer.mixer.empty(batch_size, like) for layer in self.layers), 0)

    def memory_nbytes(self, tokens: int, batch_size: int = 1) -> int:
        """Bytes of the memory of ``batch_size`` sequences after that many ``tokens``, from the sizes alone."""
        width = self.model.embed_tokens.weight.element_size()
        total = 0
        for layer in self.layers:
            total += sum(layer.mixer.nbytes(tokens, width).values())
        return total * batch_size

    def _init_weights(self, rng: np.random.Generator, decay: str) -> None:
        """Projections with variance 1 / fan in, those into the residual stream smaller by sqrt(2 layers)."""
        torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        into_residual = 1 / math.sqrt(2 * len(self.layers))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                inner = name.rsplit(".", 1)[-1] not in ("o_proj", "out_proj", "down_proj")
                init_projection(module, 1.0 if inner else into_residual, torch_rng)
            elif isinstance(module, nn.Embedding):
                # A tied embedding is also the head: smaller, so that logits start near 0.
                std = 1 / math.sqrt(self.config.hidden_size) if self.config.tie_word_embeddings else 1.0
                nn.init.normal_(module.weight, std=std, generator=torch_rng)
            elif isinstance(module, nn.Conv1d):
                nn.init.uniform_(module.weight, -0.5, 0.5, generator=torch_rng)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Mamba2 | GatedLinear):
                heads = self.config.num_attention_heads
                if decay == "slow":
                    rate = np.geomspace(1, 16, heads)
                    step = np.full(heads, 0.01)
                else:
                    rate = rng.uniform(1, 16, heads)
                    step = np.maximum(np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), heads)), 1e-4)
                with torch.no_grad():
                    module.A_log.copy_(torch.from_numpy(np.log(rate)))
                    module.dt_bias.copy_(torch.from_numpy(np.log(np.expm1(step))))


class _Body(nn.Module):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, symbol) for symbol in config.pattern)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class DecoderLayer(nn.Module):
    """One layer: a mixer and a gated MLP, each behind a norm and around the residual stream."""

    def __init__(self, config: HybridConfig, symbol: str) -> None:
        super().__init__()
        mixer = MIXERS[symbol](config, symbol)
        self.mixer_name = mixer.name
        self.add_module(mixer.name, cast(nn.Module, mixer))
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    @property
    def mixer(self) -> Mixer:
        """The sequence mixer, whatever its published name is."""
        return getattr(self, self.mixer_name)

    def forward(
        self, x: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        h = self.input_layernorm(x)
        mixed, parts = self.mixer(h, past, tables, record)
        x = x + mixed
        x = x + self.mlp(self.post_attention_layernorm(x))
        if record is not None:
            record("mixer_in", h)
            record("mixer_out", mixed)
            record("hidden", x)
        return x, parts


class MLP(nn.Module):
    """W_down (silu(W_gate a) * W_up a)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d, width = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(d, width, bias=False)
        self.up_proj = nn.Linear(d, width, bias=False)
        self.down_proj = nn.Linear(width, d, bias=False)

    def forward(self, a: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(a)) * self.up_proj(a))


def mamba2_of(mixer: Mixer) -> Mamba2:
    """The Mamba2 layer that a mixer is, or has inside."""
    inside = getattr(mixer, "ssm", mixer)
    if not isinstance(inside, Mamba2):
        raise ValueError(f"layer: expected a Mamba2 layer, or one inside B'MOJO, got {type(inside).__name__}")
    return inside


def _at_layer(record: Recorder, layer: int) -> Record:
    return lambda name, value: record(layer, name, value)


def check_ids(ids: Tensor, vocab_size: int) -> None:
    """Raise unless ids are integers [B, T] inside the vocabulary, T >= 1."""
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids: expected an integer tensor [batch, time], got {kind}")
    if ids.ndim != 2:
        raise ValueError(f"ids: expected two axes [batch, time], got shape {tuple(ids.shape)}")
    if ids.shape[1] == 0:
        raise ValueError(f"ids: expected at least one token, got an empty prompt of shape {tuple(ids.shape)}")
    if ids.numel() and not ids.is_meta:
        low, high = (int(v) for v in torch.aminmax(ids))
        if low < 0 or high >= vocab_size:
            raise ValueError(f"ids: expected tokens from 0 to {vocab_size - 1}, got {low if low < 0 else high}")


def check_memory(memory: Memory, parts: Sequence[Sequence[str]], pattern: Sequence[str], batch_size: int) -> None:
    """Raise unless a memory has these parts, layer by layer, for so many sequences."""
    if len(memory.layers) != len(parts):
        raise ValueError(f"memory: expected {len(parts)} layers, got {len(memory.layers)}; is it another model's?")
    for i, expected in enumerate(parts):
        if set(memory.layers[i]) != set(expected):
            raise ValueError(
                f"memory: layer {i} is {pattern[i]!r}: expected the parts "
                f"{list(expected)}, got {list(memory.layers[i])}; is it another model's?"
            )
    if memory.batch_size != batch_size:
        raise ValueError(f"memory: holds {memory.batch_size} sequences, but ids has {batch_size}")
