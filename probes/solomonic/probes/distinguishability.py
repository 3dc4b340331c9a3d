"""How many memories can be told apart by what the model says next, and after how many tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import expit, logit
from scipy.stats import t as student
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory

from .inputs import as_count, as_ids, as_layers, as_level, as_model
from .labelled import provenance, units
from .over_prompts import share_interval

__all__ = ["distinguishability"]

_UNITS = {
    "token": ("token said with this memory", "1"),
    "agreeing": ("tokens said before the first that differs", "token"),
    "alike": ("share of the pairs of memories that have said the same so far", "1"),
    "alike_interval": ("confidence interval of alike, over memories", "1"),
    "classes": ("groups of memories that have said the same so far", "1"),
    "after": ("tokens said", "token"),
}


def distinguishability(
    model: HybridLM | AdaptedLM,
    ids: Any,
    *,
    parts: Iterable[str] | str | None = None,
    layers: Iterable[int] | int | None = None,
    horizon: int = 32,
    future: str = "greedy",
    confidence: float = 0.95,
    progress: bool = False,
) -> xr.Dataset:
    r"""The distinguishability curve: which share of the pairs of memories still says the same after so many tokens.

    .. math:: D(\tau) = \frac{2}{K (K - 1)} \sum_{i < j}
              \mathbb 1\bigl[\, y_1(m_i) = y_1(m_j), \dots, y_\tau(m_i) = y_\tau(m_j) \,\bigr]

    with :math:`m_1, \dots, m_K` the memories after K texts, and y what the model says from them, greedily. By default
    the memories are whole; with ``parts`` or ``layers`` all are that of the first text, with these parts of the others
    transplanted into it: then the question is which states of these parts can be told apart in one context.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Texts [K, T] of one length, at least two. All but the last token of each is read into its memory; then all read
        the last token of the first text.
    parts : str or iterable of str, optional
        Parts to transplant ("state", "window", ...).
    layers : int or iterable of int, optional
        Layers to transplant.
    horizon : int, default 32
        Largest number tau of tokens.
    future : {"greedy", "text"}, default "greedy"
        Whether each memory reads on in what it has said itself (feedback), or all read what the first one said
        (teacher forcing), and only the tokens that they would say are compared.
    confidence : float, default 0.95
        Nominal coverage of the interval.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims memory, other, after (0 to ``horizon``), time, bound.

        - ``alike`` (after), 1 at 0, with its interval; ``classes`` (after), 1 at 0 and at most K.
        - ``agreeing`` (memory, other): tokens before the first that differs, at most ``horizon``.
        - ``token`` (memory, time).

        Attributes: ``future``, ``what`` (what differs between the memories), provenance.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two texts or tokens, the logits are NaN, or a part or layer is not the model's.

    Notes
    -----
    Two memories that are never told apart are indistinguishable for this horizon: in a B'MOJO-F layer states are, for
    the first W tokens, since they are not read until then. The interval is that of the jackknife over memories on the
    scale of the logit, since pairs share memories; how often it covers stands in *Intervals, tests and how many
    prompts*. Each memory costs ``horizon`` tokens.

    References
    ----------
    Liu, Soatto et al., "Observability of latent states in generative AI models" (arXiv:2405.14061): indistinguishable
    trajectories; Arvesen, "Jackknifing U-statistics", Ann. Math. Stat. 40 (1969), for the interval.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import distinguishability
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=6), rng=0)
    >>> ids = torch.randint(16, (5, 30), generator=torch.Generator().manual_seed(0))
    >>> curve = distinguishability(model, ids, parts="state", horizon=6)  # within W tokens the state is not read
    >>> float(curve.alike[-1]), int(curve.classes[-1])
    (1.0, 1)
    """
    model = as_model(model)
    texts = as_ids(ids, model, least=2)
    if len(texts) < 2:
        raise ValueError("ids: expected at least two texts [K, T] whose memories are compared, got one")
    horizon = as_count(horizon, "horizon")
    confidence = as_level(confidence, "confidence")
    if future not in ("greedy", "text"):
        raise ValueError(f"future: expected 'greedy' or 'text', got {future!r}")
    with torch.no_grad():
        memory = model(texts[:, :-1]).memory
        what = "all of the memory"
        if parts is not None or layers is not None:
            memory, what = _transplanted(memory, parts, layers)
        tokens = _said(model, memory, texts[:1, -1:], horizon, future, progress)
    same = tokens[:, None] == tokens[None]
    so_far = np.cumprod(same, -1, dtype=np.int64)
    count = len(texts)
    pair = ~np.eye(count, dtype=bool)
    alike = np.concatenate([[1.0], so_far[pair].mean(0)])
    classes = [1, *(len({tuple(row[:k]) for row in tokens.tolist()}) for k in range(1, horizon + 1))]
    data = {
        "alike": ("after", alike),
        "alike_interval": (("bound", "after"), alike_interval(so_far, confidence)),
        "classes": ("after", classes),
        "agreeing": (("memory", "other"), so_far.sum(-1)),
        "token": (("memory", "time"), tokens),
    }
    coords = {
        "memory": np.arange(count),
        "other": np.arange(count),
        "after": np.arange(horizon + 1),
        "time": texts.shape[1] + np.arange(horizon),
        "bound": ["lower", "upper"],
    }
    arguments = {"ids": texts, "parts": parts, "layers": layers, "horizon": horizon, "future": future}
    attrs = {
        **provenance("distinguishability", model=model, arguments=arguments),
        "future": future,
        "what": what,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _transplanted(memory: Memory, parts: Any, layers: Any) -> tuple[Memory, str]:
    """The first memory for every sequence, with parts of the others in place, and what differs."""
    count = memory.batch_size
    names = None if parts is None else {parts} if isinstance(parts, str) else {*parts}
    chosen = None if layers is None else as_layers(layers, len(memory.layers))
    first = memory.map(lambda t: t[:1]).repeat(count)
    mixed = first.transplant(memory, parts=names, layers=chosen)
    what = " and ".join(sorted(names)) if names else "all parts"
    return mixed, what + (f" of layers {', '.join(map(str, chosen))}" if chosen is not None else "")


def _said(
    model: HybridLM | AdaptedLM, memory: Memory, first: Tensor, horizon: int, future: str, progress: bool
) -> np.ndarray:
    """Greedy tokens [memories, horizon] after the token ``first``."""
    count = memory.batch_size
    read, said = first.expand(count, -1), []
    for _ in tqdm(range(horizon), disable=not progress, unit="token", desc="distinguishability"):
        out = model(read, memory=memory)
        last, memory = out.logits[:, -1], out.memory
        if not torch.isfinite(last).all():
            raise ValueError("model: its logits are NaN or infinite; it says nothing that can be compared")
        token = last.argmax(-1, keepdim=True)
        said.append(token)
        read = token if future == "greedy" else token[:1].expand(count, -1)
    return torch.cat(said, 1).cpu().numpy()


def alike_interval(so_far: np.ndarray, confidence: float) -> np.ndarray:
    r"""Bounds [2, horizon + 1] of the share of alike pairs of other memories; NaN where only two are there.

    .. math:: \operatorname{logit} D \pm t_{K-1}\, \frac{\sigma}{D (1 - D)}, \qquad
              \sigma^2 = \frac{\operatorname{var}_i J_i}{K} + \frac{D (1 - D)}{K (K - 1)}

    with :math:`J_i` the jackknife's pseudo-values over memories; the last term is for pairs that are alike as often for
    each memory, where the first is too small. Where all pairs, or none, are alike, the bound is the share of pairs of a
    class whose share of the memories the score test does not reject, of which all, or one, of K were seen.
    """
    count = len(so_far)
    if count < 3:
        return np.full((2, so_far.shape[-1] + 1), np.nan)
    pairs = count * (count - 1)
    by_memory = so_far.sum(1) - 1.0  # [memory, time]
    total = by_memory.sum(0)
    share = total / pairs
    left_out = (total - 2 * by_memory) / ((count - 1) * (count - 2))
    pseudo = count * share - (count - 1) * left_out
    spread = share * (1 - share)
    error = np.sqrt(pseudo.var(0, ddof=1) / count + spread / pairs)
    reach = student.ppf((1 + confidence) / 2, count - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        width = reach / spread
        bounds = expit(logit(share) + np.stack([-width, width]))
    limits = share_interval(np.arange(count)[:, None] < [count, 1], confidence)
    bounds[:, total == pairs] = [[limits[0, 0] ** 2], [1.0]]
    bounds[:, total == 0] = [[0.0], [limits[1, 1] ** 2]]
    return np.concatenate([np.ones((2, 1)), bounds], 1)
