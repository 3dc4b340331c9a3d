"""A model of transformers that speaks the protocol of HybridLM: ids and memory in, logits and memory out."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from ..lm import LMOutput, check_ids, check_memory
from ..memory import KeyValue, Memory, Value, tensors
from .cache import make_cache, read_memory
from .families import family_of
from .family import Family, Layer
from .session import Session, tapped_functions, versions_advice
from .wide import Wide

#: Versions of transformers that the adapters are for: first known, first unknown.
VERSIONS = ((5, 20), (6, 0))


@dataclass(frozen=True)
class AdaptedConfig:
    """What probes ask of a configuration.

    Parameters
    ----------
    architecture : str
        The class in transformers.
    pattern : tuple of str
        Symbol of each layer: ``M2``, ``M1``, ``GDN``, ``*``, ``SWA``, ``M2+*`` (side by side), ``*>M2`` (attention
        into Mamba2) and ``MLP`` (no memory).
    vocab_size : int
        Rows of the embedding.
    hidden_size : int
        Width of the residual stream.
    num_attention_heads : int
        Heads of the attention; of the scan where there is no attention.
    swa_window : int or None
        W of layers ``SWA``, tokens.
    """

    architecture: str
    pattern: tuple[str, ...]
    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    swa_window: int | None = None


class AdaptedLM(nn.Module):
    """A model of transformers with an explicit memory; made by :func:`adapt`.

    Parameters
    ----------
    hf : transformers.PreTrainedModel
        The model. It is used as it is, not copied.
    family : Family
        Its adapter.

    Examples
    --------
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from solomonic.models import adapt
    >>> model = adapt(LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16,
    ...     num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)).eval())
    >>> model
    AdaptedLM(LlamaForCausalLM, *-*)
    >>> ids = torch.arange(10)[None]
    >>> first = model(ids[:, :6])
    >>> rest = model(ids[:, 6:], memory=first.memory)
    >>> torch.allclose(model(ids).logits[:, 6:], rest.logits, atol=1e-5)
    True
    """

    def __init__(self, hf: Any, family: Family) -> None:
        super().__init__()
        self.hf = hf
        self.family = family
        object.__setattr__(self, "blocks", tuple(_layers(hf, family)))  # modules that hf already holds
        self.config = _config(hf, self.blocks)

    blocks: tuple[Layer, ...]
    #: Packages whose version a number depends on.
    packages = ("transformers",)

    def forward(
        self,
        ids: Tensor,
        memory: Memory | None = None,
        *,
        record: Callable[[int, str, Tensor], None] | None = None,
    ) -> LMOutput:
        """Logits of the next token at every position, and the memory after the last one.

        Parameters
        ----------
        ids : Tensor
            Token ids [B, T], T >= 1, without padding.
        memory : Memory or None
            What is carried from earlier tokens; None starts afresh.
        record : callable or None
            Called with (layer, name, value) for intermediate values, under the names that HybridLM gives them.

        Returns
        -------
        LMOutput
            ``.logits`` [B, T, vocab] and ``.memory``.

        Raises
        ------
        TypeError, ValueError
            Where ids are no integers [B, T] inside the vocabulary, the memory is another model's, the model is in
            training mode, or a tapped function was not called as often as it must be.
        RuntimeError
            Where a run is started inside another one.
        """
        check_ids(ids, self.config.vocab_size)
        if self.hf.training:
            raise ValueError("model: expected evaluation mode, got training mode; call model.eval()")
        if memory is not None:
            check_memory(memory, [list(layer.shapes) for layer in self.blocks], self.config.pattern, len(ids))
        past = 0 if memory is None else memory.position
        like = self._like()
        cache = make_cache(self.hf.config, self.blocks, memory)
        session = Session(self.family, self.blocks, cache, record)
        options: dict[str, Any] = {self.family.cache: cache, "use_cache": True, "return_dict": True}
        if any(part in layer.shapes for layer in self.blocks for part in ("kv", "window")):
            positions = torch.arange(past, past + ids.shape[1], device=ids.device)
            options["position_ids"] = positions.expand(len(ids), -1)
        with tapped_functions(session), Wide() if like.dtype == torch.float64 else nullcontext():
            out = self.hf(ids, **options)
        session.check()
        return LMOutput(out.logits, read_memory(cache, self.blocks, like, past + ids.shape[1]))

    def empty_memory(self, batch_size: int = 1) -> Memory:
        """The memory of ``batch_size`` sequences before the first token."""
        like = self._like()
        wide = torch.promote_types(like.dtype, torch.float32)
        parts = []
        for layer in self.blocks:
            held: dict[str, Value] = {}
            for part, shape in layer.shapes.items():
                if part in ("kv", "window"):
                    empty = like.new_zeros(batch_size, 0, *shape)
                    held[part] = KeyValue(empty, empty)
                else:
                    held[part] = like.new_zeros(batch_size, *shape, dtype=wide if part == "state" else like.dtype)
            parts.append(held)
        return Memory(tuple(parts), 0)

    def memory_nbytes(self, tokens: int, batch_size: int = 1) -> int:
        """Bytes of the memory of ``batch_size`` sequences after that many ``tokens``, from the sizes alone."""
        empty = self.empty_memory(1)
        fixed = empty.nbytes
        for i, layer in enumerate(self.blocks):
            for part in ("kv", "window"):
                if part in layer.shapes:
                    kept = tokens if layer.window is None else min(tokens, layer.window - 1)
                    heads, width = layer.shapes[part]
                    fixed += 2 * kept * heads * width * tensors(empty.get(i, part))[0].element_size()
        return batch_size * fixed

    def _like(self) -> Tensor:
        return self.hf.get_input_embeddings().weight

    def __repr__(self) -> str:
        return f"AdaptedLM({self.config.architecture}, {'-'.join(self.config.pattern)})"


def adapt(hf_model: Any) -> AdaptedLM:
    """Give a model of transformers an explicit memory and taps, so that every probe can be used on it.

    Parameters
    ----------
    hf_model : transformers.PreTrainedModel
        A causal language model in evaluation mode: Mamba, Mamba2, Falcon Mamba, Bamba, Falcon-H1, Granite 4, Zamba2,
        Nemotron-H, Jamba, Qwen3-Next, Llama or Mistral. It is used as it is: not copied, its weights not changed.

    Returns
    -------
    AdaptedLM
        Called with ids [B, T] and a memory, it returns logits and the memory after the last token, as
        :class:`HybridLM` does. ``.hf`` is the model that was given.

    Raises
    ------
    TypeError
        If it is no model of transformers.
    ValueError
        If there is no adapter for its architecture or for the installed version of transformers, or it is in training
        mode.

    Notes
    -----
    While a run lasts, the functions of the family's module in transformers that scan and attend are replaced by ones
    that call them and hand out what went in and came out; afterwards they are what they were. From the start of a
    text they compute the output, to the last bit as without the adapter. From a memory, scans run on the kernels of
    this package, because what transformers does there writes states in place, ignores them (Mamba, Falcon Mamba,
    Jamba) or forgets the limits of the step (Mamba2, one token at a time). Positions are always given.

    In float64 all of the model runs in float64; transformers alone would take scans, norms and rotations in float32.

    Examples
    --------
    >>> import torch
    >>> from transformers import Mamba2Config, Mamba2ForCausalLM
    >>> from solomonic.models import adapt
    >>> model = adapt(Mamba2ForCausalLM(Mamba2Config(vocab_size=32, hidden_size=16, state_size=8, num_heads=4,
    ...     head_dim=8, n_groups=1, num_hidden_layers=2)).eval())
    >>> model(torch.arange(10)[None]).memory.parts()[:2]
    [Part(layer=0, part='conv', kind='eidetic'), Part(layer=0, part='state', kind='fading')]
    """
    if isinstance(hf_model, AdaptedLM):
        return hf_model
    if not is_of_transformers(hf_model):
        raise TypeError(f"hf_model: expected a model of transformers, got {type(hf_model).__name__}")
    check_version()
    family = family_of(hf_model)
    if hf_model.training:
        raise ValueError("hf_model: expected evaluation mode, got training mode; call model.eval()")
    return AdaptedLM(hf_model, family)


def is_of_transformers(model: object) -> bool:
    """Whether a class of transformers is among the ancestors of the model's, without importing it."""
    return isinstance(model, nn.Module) and any(
        each.__module__.split(".")[0] == "transformers" and each.__name__ == "PreTrainedModel"
        for each in type(model).__mro__
    )


def check_version() -> None:
    """Raise where the installed transformers is missing or outside of the range that the adapters know."""
    try:
        found = version("transformers")
    except PackageNotFoundError:
        raise ImportError(f"transformers: not installed; {versions_advice()}") from None
    numbers = tuple(int(each) for each in re.findall(r"\d+", found)[:2])
    if not VERSIONS[0] <= numbers < VERSIONS[1]:
        low, high = (".".join(map(str, each)) for each in VERSIONS)
        raise ValueError(f"transformers: the adapters know versions from {low} to before {high}, got {found}; "
                         f"{versions_advice()}")  # fmt: skip


def _layers(hf: Any, family: Family) -> list[Layer]:
    try:
        return list(family.layers(hf))
    except AttributeError as error:
        raise ValueError(
            f"hf_model: {type(hf).__name__} does not look as the adapter for {family.name!r} expects ({error}); "
            f"{versions_advice()}"
        ) from error


def _config(hf: Any, layers: tuple[Layer, ...]) -> AdaptedConfig:
    windows = {layer.window for layer in layers if layer.window is not None}
    assert len(windows) <= 1
    heads = getattr(hf.config, "num_attention_heads", None)
    if heads is None or not any("kv" in layer.shapes or "window" in layer.shapes for layer in layers):
        heads = next(layer.shapes["state"][0] for layer in layers if "state" in layer.shapes)
    return AdaptedConfig(
        architecture=type(hf).__name__,
        pattern=tuple(layer.symbol for layer in layers),
        vocab_size=hf.get_input_embeddings().weight.shape[0],
        hidden_size=hf.config.hidden_size,
        num_attention_heads=heads,
        swa_window=next(iter(windows), None),
    )
