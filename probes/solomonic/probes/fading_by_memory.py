"""Through which memory an influence travels: fading split exactly by transplants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory

from .divergence import kl_bits
from .fading import default_lags, draw_others
from .inputs import as_count, as_ids, as_lags, as_level, as_model, as_rng, finite
from .labelled import provenance, units
from .over_prompts import prompt_interval, ratio_of_means
from .ratios import ratio_interval

__all__ = ["fading_by_memory"]

_UNITS = {
    "kl": ("divergence of the prediction after replacing the token at that lag", "bit"),
    "subset_kl": ("the same where only these parts of the memory know of the replacement", "bit"),
    "alone": ("divergence where only this part knows of it", "bit"),
    "needed": ("divergence that is lost where this part alone does not know of it", "bit"),
    "shapley": ("Shapley value of the part: its share of the divergence, exact in sum", "bit"),
    "kl_mean": ("divergence, mean over prompts", "bit"),
    "kl_mean_interval": ("confidence interval of kl_mean, prompts redrawn", "bit"),
    "shapley_mean": ("Shapley value, mean over prompts", "bit"),
    "shapley_mean_interval": ("confidence interval of shapley_mean, prompts redrawn", "bit"),
    "share": ("shapley_mean over kl_mean", "1"),
    "share_interval": ("confidence interval of share, prompts redrawn", "1"),
    "lag": ("lag behind the last token", "token"),
}

#: 2^parts runs for each prompt and lag.
_MOST_PARTS = 8


def fading_by_memory(
    model: HybridLM | AdaptedLM,
    ids: Any,
    *,
    lags: Iterable[int] | None = None,
    ahead: int = 1,
    replacements: Any = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Replace the token at a lag, let only some parts of the memory know of it, and measure the prediction.

    .. math:: v(S) = \mathrm{KL}\bigl(p(\cdot \mid m)\,\|\, p(\cdot \mid m[S := m'])\bigr), \qquad
              \phi_k = \sum_{S \not\ni k} \frac{|S|!\,(K - |S| - 1)!}{K!}\, \bigl(v(S \cup k) - v(S)\bigr),

    with m the memory before the last tokens of the text as it is, m' that of the text with the token replaced, and
    m[S := m'] the first with the parts S of all layers transplanted from the second. The K parts are those that the
    model has: conv, state, window, fading_tokens, eidetic, kv. The Shapley values :math:`\phi_k` sum to v(all), the
    whole influence.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Windows of real text [prompts, T] (or one, [T]).
    lags : iterable of int, optional
        Lags in tokens, from ``ahead`` to T - 1; by default those of :func:`fading`.
    ahead : int, default 1
        How many tokens are read after the transplant. With 1 the question is what holds the influence when the last
        token is read; with more, what carried it across an earlier cut.
    replacements : array_like of int, optional
        As for :func:`fading`.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the replacements and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, lag, part, subset, bound.

        - ``kl`` (prompt, lag) = v(all); ``subset_kl`` (subset, prompt, lag), subsets named ``"conv+state"``;
          ``alone`` = v({k}) and ``needed`` = v(all) - v(all but k) (part, prompt, lag); ``shapley`` (part, prompt,
          lag).
        - ``kl_mean`` (lag), ``shapley_mean`` (part, lag), and ``share`` (part, lag): shapley_mean over kl_mean, NaN
          where nothing arrives. Each has an ``_interval`` (bound, ...), NaN for one prompt; that of ``share`` computes
          the ratio anew for the prompts of every resample, and is NaN where one has prompts alone of which nothing
          arrives.

        Attributes: provenance with the seed and checks: ``sum_error``, the largest deviation of the sum of the Shapley
        values from the whole, bits.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens of the model, a lag is out of its range, or no other token is there to put in.

    Notes
    -----
    A memory with parts from two texts is a chimera that no text leads to; v(S) says what the parts carry as the model
    reads them, which is the question here, and not what a text could do. Parts interact: ``alone`` and ``needed``
    differ by as much, and the Shapley value lies between where the interactions have one sign.

    Cost: for every prompt T plus twice the sum of the lags in tokens, and 2^K runs of ``ahead`` tokens for each lag.

    References
    ----------
    Shapley, "A value for n-person games" (1953); Pearl, "Direct and indirect effects" (2001), for effects through one
    mediator.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import fading_by_memory
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (4, 20), generator=torch.Generator().manual_seed(0))
    >>> split = fading_by_memory(model, ids, lags=[1, 8], rng=0)
    >>> split.part.values.tolist()
    ['conv', 'state', 'window']
    >>> bool(abs(split.shapley.sum("part") - split.kl).max() < 1e-12)
    True
    """
    model = as_model(model)
    tokens = as_ids(ids, model, least=2)
    steps = tokens.shape[1]
    ahead = as_count(ahead, "ahead")
    if ahead >= steps:
        raise ValueError(f"ahead: expected less than the {steps} tokens of the text, got {ahead}")
    chosen = default_lags(model.config, steps) if lags is None else as_lags(lags, steps)
    if lags is None:
        chosen = chosen[chosen >= ahead]
    elif chosen[0] < ahead:
        raise ValueError(
            f"lags: expected at least ahead = {ahead}, got {chosen[0]}: the token must stand before the cut"
        )
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    pool = tokens if replacements is None else as_ids(np.ravel(replacements), model, name="replacements")
    replaced = draw_others(tokens.numpy()[:, steps - 1 - chosen], pool.numpy().ravel(), generator)
    parts = list(dict.fromkeys(part.part for part in model.empty_memory().parts()))
    if len(parts) > _MOST_PARTS:
        raise ValueError(f"model: it has {len(parts)} parts of memory; at most {_MOST_PARTS} can be told apart")
    subsets = [set(group) for size in range(len(parts) + 1) for group in combinations(parts, size)]
    values = np.zeros((len(subsets), len(tokens), chosen.size))
    with tqdm(total=len(tokens) * chosen.size, disable=not progress, unit="run", desc="fading by memory") as bar:
        for place, clean, changed in _memories(model, tokens, chosen, torch.from_numpy(replaced), ahead):
            values[:, :, place] = _divergences(model, tokens[:, steps - ahead :], clean, changed, subsets)
            bar.update(len(tokens))
    shapley = shapley_values(values, subsets, parts)
    whole = values[-1]
    alone = np.stack([values[subsets.index({part})] for part in parts])
    needed = np.stack([whole - values[subsets.index(set(parts) - {part})] for part in parts])
    by_prompt = np.moveaxis(shapley, 1, 0)
    both = np.stack([by_prompt, np.broadcast_to(whole[:, None], by_prompt.shape)], 1)
    options = {"confidence": confidence, "resamples": resamples, "rng": generator}
    per_part = ("part", "prompt", "lag")
    data = {
        "kl": (("prompt", "lag"), whole),
        "subset_kl": (("subset", "prompt", "lag"), values),
        "alone": (per_part, alone),
        "needed": (per_part, needed),
        "shapley": (per_part, shapley),
        "kl_mean": ("lag", whole.mean(0)),
        "kl_mean_interval": (("bound", "lag"), prompt_interval(whole, **options)),
        "shapley_mean": (("part", "lag"), by_prompt.mean(0)),
        "shapley_mean_interval": (("bound", "part", "lag"), prompt_interval(by_prompt, **options)),
        "share": (("part", "lag"), ratio_of_means(both, 0)),
        "share_interval": (("bound", "part", "lag"), ratio_interval(both[:, 0], both[:, 1], confidence=confidence)),
    }
    kinds = {part.part: part.kind for part in model.empty_memory().parts()}
    coords = {
        "part": parts,
        "kind": ("part", [kinds[part] for part in parts]),
        "subset": ["+".join(part for part in parts if part in subset) or "none" for subset in subsets],
        "prompt": np.arange(len(tokens)),
        "lag": chosen,
        "bound": ["lower", "upper"],
    }
    arguments = {"ids": tokens, "lags": chosen, "ahead": ahead, "confidence": confidence, "resamples": resamples}
    checks = {"sum_error": float(np.abs(shapley.sum(0) - whole).max())}
    attrs = {
        **provenance("fading_by_memory", model=model, arguments=arguments, seed=seed, checks=checks),
        "ahead": ahead,
        "tokens": steps,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def shapley_values(values: np.ndarray, subsets: Sequence[set[str]], players: Sequence[str]) -> np.ndarray:
    """Shapley values [players, ...] of a game given by its values [subsets, ...]."""
    count = len(players)
    place = {frozenset(subset): i for i, subset in enumerate(subsets)}
    out = np.zeros((count, *values.shape[1:]))
    for k, player in enumerate(players):
        for subset in subsets:
            if player not in subset:
                size = len(subset)
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                out[k] += weight * (values[place[frozenset(subset | {player})]] - values[place[frozenset(subset)]])
    return out


@torch.no_grad()
def _memories(
    model: HybridLM | AdaptedLM, tokens: Tensor, lags: np.ndarray, replaced: Tensor, ahead: int
) -> Iterator[tuple[int, Memory, Memory]]:
    """For each lag: its place, and the memories of all prompts before the last tokens, as it is and changed."""
    steps = tokens.shape[1]
    stop = steps - ahead
    before = model.empty_memory(len(tokens))
    for place in range(lags.size - 1, -1, -1):
        position = steps - 1 - int(lags[place])
        if position > before.position:
            before = model(tokens[:, before.position : position], memory=before).memory
        other = tokens[:, position:stop].clone()
        other[:, 0] = replaced[:, place]
        # Both runs have the same shapes: what is not affected is equal to the last bit.
        clean = model(tokens[:, position:stop], memory=before).memory
        yield place, clean, model(other, memory=before).memory


@torch.no_grad()
def _divergences(
    model: HybridLM | AdaptedLM, last: Tensor, clean: Memory, changed: Memory, subsets: Sequence[set[str]]
) -> np.ndarray:
    """v(S) [subsets, prompts]; a run for each subset, of one shape, so that equal memories give equal bits."""
    base = finite(model(last, memory=clean).logits[:, -1], "its logits")
    found = [np.zeros(len(last))]
    for subset in subsets[1:]:
        mixed = clean.transplant(changed, parts=subset)
        found.append(kl_bits(base, finite(model(last, memory=mixed).logits[:, -1], "its logits")).numpy())
    return np.stack(found)
