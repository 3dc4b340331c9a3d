"""Generating tokens, greedily or by sampling, with bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .lm import HybridLM
from .memory import Memory

if TYPE_CHECKING:
    from .adapters import AdaptedLM


@dataclass(frozen=True, eq=False)
class Generation:
    """What :func:`generate` returns.

    Generation can go on from ``logits`` and ``memory``.

    Parameters
    ----------
    ids : Tensor
        The new tokens [B, n].
    logits : Tensor
        Those of the token that would come next [B, vocab].
    memory : Memory
        What the model carries after the last new token.
    """

    ids: Tensor
    logits: Tensor
    memory: Memory

    def __repr__(self) -> str:
        return f"Generation(ids {tuple(self.ids.shape)}, {self.memory!r})"


@torch.no_grad()
def generate(
    model: HybridLM | AdaptedLM,
    ids: Tensor,
    tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    memory: Memory | None = None,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> Generation:
    """Continue prompts: x_t ~ softmax(logits / temperature), or the most likely token where the temperature is 0.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model.
    ids : Tensor
        Prompts [B, T], all of one length, T >= 1.
    tokens : int
        How many tokens to add.
    temperature : float
        0 takes the most likely token.
    top_k : int or None
        Sample among the k most likely tokens.
    top_p : float or None
        Sample among the most likely tokens whose probabilities reach p, in (0, 1].
    memory : Memory or None
        What is carried from before the prompt.
    rng : int, numpy.random.Generator or None
        For sampling.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Generation
        ``.ids`` [B, tokens], ``.logits`` [B, vocab] and ``.memory``.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the prompt is empty or outside the vocabulary.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import generate, load
    >>> prompt = torch.tensor([list(b"import os\\nimport ")])
    >>> generate(load("deadbeat"), prompt, 8).ids.shape
    torch.Size([1, 8])
    """
    if not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"tokens: expected a whole number of at least 0, got {tokens!r}")
    if not temperature >= 0 or not math.isfinite(temperature):
        raise ValueError(f"temperature: expected a finite number of at least 0, got {temperature!r}")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k: expected a positive integer, got {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number in (0, 1], got {top_p!r}")
    random = np.random.default_rng(rng)
    out = model(ids, memory)
    new: list[Tensor] = []
    for _ in tqdm(range(tokens), disable=not progress, unit="token"):
        new.append(_choose(out.logits[:, -1], temperature, top_k, top_p, random)[:, None])
        out = model(new[-1], out.memory)
    return Generation(torch.cat(new, 1) if new else ids[:, :0], out.logits[:, -1], out.memory)


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, random: np.random.Generator
) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    scores, order = (logits.double() / temperature).sort(-1, descending=True)
    p = scores.softmax(-1)
    if top_k is not None:
        p[:, top_k:] = 0
    if top_p is not None:
        p[(p.cumsum(-1) - p) >= top_p] = 0  # keeps the token that crosses p
    cumulative = p.cumsum(-1)
    threshold = torch.from_numpy(random.random((len(logits), 1))).to(cumulative) * cumulative[:, -1:]
    rank = torch.searchsorted(cumulative, threshold, right=True).clamp(max=p.shape[-1] - 1)
    return order.gather(-1, rank)[:, 0]
