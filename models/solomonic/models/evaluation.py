"""Scores of a byte model on held-out text: bits a byte, by position, and recall by distance."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .corpus import Corpus
from .lm import HybridLM

_POSITION_EDGES = (0, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
_DISTANCE_EDGES = (32, 48, 64, 96, 128, 192, 256, 384, 512)
_CONTEXTS = (0, 16, 32, 64, 128, 192, 256, 320, 384, 448)
_PREDICTED = 64  # bytes at the end of a window whose bits are compared at several lengths of context


@torch.no_grad()
def bits_per_token(model: HybridLM, rows: Tensor, *, batch_size: int = 8) -> Tensor:
    """-log2 p(x_t | x_<t) for every token of each row but its first.

    Parameters
    ----------
    model : HybridLM
        The model.
    rows : Tensor
        Token ids [n, T + 1].
    batch_size : int
        Rows at a time.

    Returns
    -------
    Tensor
        Bits, float64 [n, T].

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import bits_per_token, load
    >>> rows = torch.tensor([list(b"import os\\nimport sys\\n")])
    >>> bool(bits_per_token(load("transformer"), rows).mean() < 8)
    True
    """
    out = []
    for part in rows.split(batch_size):
        log_p = model(part[:, :-1]).logits.double().log_softmax(-1)
        out.append(-log_p.gather(-1, part[:, 1:, None])[..., 0] / math.log(2))
    return torch.cat(out)


def windows(text: np.ndarray, context: int, *, most: int | None = None) -> Tensor:
    """Rows of ``context + 1`` bytes that together predict each byte once; evenly spread ones if there are too many."""
    starts = np.arange(0, len(text) - context, context)
    if most is not None and most < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
    return torch.from_numpy(text[starts[:, None] + np.arange(context + 1)].astype(np.int64))


@torch.no_grad()
def score(model: HybridLM, corpus: Corpus, *, context: int = 512, most: int | None = None) -> dict[str, Any]:
    """The ``validation`` entry of a model's card.

    Parameters
    ----------
    model : HybridLM
        A model of bytes (vocabulary 256).
    corpus : Corpus
        Its validation bytes are used.
    context : int
        Length of the windows, bytes.
    most : int or None
        Use no more windows than this; None takes every validation byte once.

    Returns
    -------
    dict
        ``bits_per_byte`` on the plain text, the same by position in the window; ``bits_per_byte_by_context``: bits of
        the same last 64 bytes with more and more bytes before them, with the gain over the next shorter context and
        its standard error (a paired comparison, which positions in a window are not); and ``recall``: bits and
        accuracy of the bytes of values that are referred back to, by distance in bytes to where the value last stood.

    Examples
    --------
    >>> from solomonic.models import load, score, stdlib_corpus
    >>> card = score(load("deadbeat"), stdlib_corpus(), most=2)
    >>> sorted(card)
    ['bits_per_byte', 'bits_per_byte_by_context', 'bits_per_byte_by_position', 'context', 'recall', 'windows']
    """
    plain = bits_per_token(model, windows(corpus.validation_plain, context, most=most))
    edges = [e for e in _POSITION_EDGES if e < context] + [context]
    by_position = [float(plain[:, a:b].mean()) for a, b in pairwise(edges)]
    return {
        "bits_per_byte": float(plain.mean()),
        "bits_per_byte_by_position": {"edges": edges, "bits": by_position},
        "bits_per_byte_by_context": _by_context(model, corpus, context, most),
        "recall": _recall(model, corpus, context, most),
        "context": context,
        "windows": len(plain),
    }


def _by_context(model: HybridLM, corpus: Corpus, context: int, most: int | None) -> dict[str, list]:
    rows = windows(corpus.validation_plain, context, most=min(most or 384, 384))
    lengths = [c for c in _CONTEXTS if c < context - _PREDICTED] + [context - _PREDICTED]
    # The byte before the predicted ones is always there; c more stand before it.
    bits = [bits_per_token(model, rows[:, -_PREDICTED - 1 - c :])[:, -_PREDICTED:].mean(1) for c in lengths]
    gains = [before - after for before, after in pairwise(bits)]
    return {
        "context": lengths,
        "bits": [float(b.mean()) for b in bits],
        "gain": [0.0, *(float(g.mean()) for g in gains)],
        "standard_error": [0.0, *(float(g.std() / math.sqrt(len(g))) for g in gains)],
    }


def _recall(model: HybridLM, corpus: Corpus, context: int, most: int | None) -> dict[str, list]:
    starts = np.arange(0, len(corpus.validation) - context, context)
    if most is not None and most < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
    bits: list[np.ndarray] = []
    hits: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    for chosen in np.array_split(starts, max(1, len(starts) // 8)):
        rows = torch.from_numpy(corpus.validation[chosen[:, None] + np.arange(context + 1)].astype(np.int64))
        log_p = model(rows[:, :-1]).logits.double().log_softmax(-1)
        for i, start in enumerate(chosen):
            low, high = np.searchsorted(corpus.recall[:, 0], [start + 1, start + context + 1])
            where, distance = corpus.recall[low:high, 0] - start, corpus.recall[low:high, 1]
            inside = distance <= where  # the earlier value is in the window too
            where, distance = torch.from_numpy(where[inside]), distance[inside]
            answer = rows[i, where]
            bits.append((-log_p[i, where - 1, answer] / math.log(2)).numpy())
            hits.append((log_p[i, where - 1].argmax(-1) == answer).numpy())
            distances.append(distance)
    bit, hit, distance = (np.concatenate(x) for x in (bits, hits, distances))
    chosen = [(distance >= a) & (distance < b) for a, b in pairwise(_DISTANCE_EDGES)]
    return {
        "edges": list(_DISTANCE_EDGES),
        "count": [int(c.sum()) for c in chosen],
        "bits": [float(bit[c].mean()) if c.any() else None for c in chosen],
        "accuracy": [float(hit[c].mean()) if c.any() else None for c in chosen],
    }
