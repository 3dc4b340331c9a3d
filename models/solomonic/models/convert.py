"""Hybrid models primed with the attention weights of a transformer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .config import parse_pattern
from .lm import HybridLM
from .mixers import Attention, BMojoF, Mamba2
from .mixers.gated_linear import GatedLinear


def prime(
    model: HybridLM,
    pattern: str | tuple[str, ...],
    *,
    rng: int | np.random.Generator | None = None,
    decay: str = "slow",
    **options: Any,
) -> HybridLM:
    """A hybrid model that begins with the weights of a transformer.

    Embeddings, MLPs and norms are copied, and so is a layer that keeps its symbol. Where attention becomes another
    mixer, its projections become those of the mixer:

    - sliding windows, and the attention of B'MOJO: all projections and norms as they are (both sets where untied);
    - Mamba2: x from W_v, B from W_k, C from W_q, their norms from those of k and q, z from (W_o' + W_v) / 2 with the
      heads of W_v repeated, the output from W_o;
    - GDN and GKA: q, k, v and output as they are, the gate as z.

    Convolutions, decays and strengths begin at random.

    Parameters
    ----------
    model : HybridLM
        A model whose layers to be converted are attention (``*`` or ``SWA``).
    pattern : str or tuple of str
        Symbols of the new model, as many as the old one has.
    rng : int, Generator or None
        Seed of what begins at random.
    decay : str
        Initial decays, see :class:`HybridLM`.
    **options
        Further fields of :class:`HybridConfig`: windows, the mixer inside B'MOJO, stored tokens.

    Returns
    -------
    HybridLM
        A new model in the dtype of the old one, ready to train; see ``start`` and ``parameters`` of :func:`train`.

    Raises
    ------
    ValueError
        If the number of layers differs, or a layer to convert is no attention.

    References
    ----------
    "Priming" (arXiv 2605.08301); the map of weights is that of the published code.

    Examples
    --------
    >>> from solomonic.models import load, prime
    >>> primed = prime(load("transformer"), "*-BMO-*-BMF", bmojo_window=64, eidetic_tokens=8, rng=0)
    >>> primed.config.pattern
    ('*', 'BMO', '*', 'BMF')
    """
    symbols = parse_pattern(pattern) if isinstance(pattern, str) else tuple(pattern)
    old = model.config.pattern
    if len(symbols) != len(old):
        raise ValueError(f"pattern: expected {len(old)} layers as the model has, got {len(symbols)}")
    for i, (was, becomes) in enumerate(zip(old, symbols, strict=True)):
        if was != becomes and was not in ("*", "SWA"):
            raise ValueError(f"pattern: layer {i} is {was!r}: only attention (*, SWA) can become {becomes!r}")
    config = dataclasses.replace(model.config, pattern=symbols, **options)
    out = HybridLM(config, rng=rng, decay=decay).to(model.model.embed_tokens.weight.dtype)
    with torch.no_grad():
        kept = {
            name: value
            for name, value in model.state_dict().items()
            if not any(name.startswith(f"model.layers.{i}.{layer.mixer_name}.") for i, layer in enumerate(model.layers))
        }
        out.load_state_dict(kept, strict=False)
        for source, target in zip(model.layers, out.layers, strict=True):
            here, there = source.mixer, target.mixer
            assert isinstance(there, nn.Module)
            if type(here) is type(there):
                there.load_state_dict(here.state_dict())  # type: ignore[attr-defined]
            else:
                assert isinstance(here, Attention)
                _prime(here, there)
    return out


def _prime(source: Attention, target: nn.Module) -> None:
    """Fill what a mixer has from attention."""
    if isinstance(target, BMojoF):
        weights = source.state_dict()
        if not target.bmojo_attn.tied:
            weights |= {f"{n.replace('.', '_.')}": v for n, v in weights.items() if not n.startswith("o_proj")}
        target.bmojo_attn.load_state_dict(weights)
        _prime(source, target.ssm)
    elif isinstance(target, Mamba2):
        z, x, B, C, _ = target.in_proj.weight.split(target.split)
        for part, value in ((z, _gate(source)), (x, source.v_proj.weight), (B, source.k_proj.weight)):
            part.copy_(value)
        C.copy_(source.q_proj.weight)
        target.out_proj.weight.copy_(source.o_proj.weight)
        if target.config.use_qk_norm:
            target.B_norm.weight.copy_(source.k_norm.weight)
            target.C_norm.weight.copy_(source.q_norm.weight)
    elif isinstance(target, GatedLinear):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            getattr(target, name).weight.copy_(getattr(source, name).weight)
        target.g_proj.weight.copy_(_gate(source))
    else:
        raise TypeError(f"prime: no way from attention to {type(target).__name__}")


def _gate(source: Attention) -> Tensor:
    """(W_o' + W_v) / 2 [H D, d], the heads of W_v repeated."""
    config = source.config
    values = source.v_proj.weight.unflatten(0, (config.num_key_value_heads, config.head_dim))
    repeated = values.repeat_interleave(config.num_attention_heads // config.num_key_value_heads, 0).flatten(0, 1)
    return (source.o_proj.weight.T + repeated) / 2
