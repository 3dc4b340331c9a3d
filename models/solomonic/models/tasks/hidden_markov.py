"""Tokens of hidden Markov models, with what an observer who knows the model believes after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import positive


@dataclass(frozen=True, eq=False)
class HiddenMarkovRows:
    """Rows of a hidden Markov model.

    Parameters
    ----------
    ids : Tensor
        Tokens [B, T], int64.
    beliefs : Tensor
        Probability of each hidden state after each token, given all tokens so far [B, T, S], float64.
    states : Tensor
        The hidden state after each token [B, T], int64.
    """

    ids: Tensor
    beliefs: Tensor
    states: Tensor

    def __repr__(self) -> str:
        return f"HiddenMarkovRows({tuple(self.ids.shape)}, {self.beliefs.shape[2]} hidden states)"


@dataclass(frozen=True, eq=False, init=False, repr=False)
class HiddenMarkov:
    r"""A hidden Markov model, given by a matrix for each token.

    .. math:: T^{(x)}_{ij} = \Pr(\text{token } x, \text{ then state } j \mid \text{state } i), \qquad
              \eta_t = \frac{\eta_{t-1} T^{(x_t)}}{\eta_{t-1} T^{(x_t)} \mathbf 1}

    with :math:`\eta_t` the belief: the probability of the states given all tokens so far.

    Parameters
    ----------
    transitions : array_like [V, S, S]
        Labelled transition matrices; their sum over the tokens has rows that sum to 1.
    start : array_like [S], optional
        Belief before the first token; by default the stationary distribution.

    Raises
    ------
    ValueError
        If a probability is negative or not finite, rows do not sum to 1, or no start is given and there are several
        stationary distributions.

    Notes
    -----
    The filter costs O(T S^2) for a row.

    References
    ----------
    Upper, "Theory and algorithms for hidden Markov models and generalized hidden Markov models" (1997), for labelled
    matrices; Shai et al., "Transformers represent belief state geometry in their residual stream" (arXiv:2405.15943),
    section 2, for beliefs.

    Examples
    --------
    >>> from solomonic.models.tasks import HiddenMarkov
    >>> golden_mean = HiddenMarkov([[[0.5, 0], [1, 0]], [[0, 0.5], [0, 0]]])   # a 1 is never followed by a 1
    >>> golden_mean.start.round(3)
    array([0.667, 0.333])
    >>> golden_mean.beliefs([[0, 1, 0]]).tolist()
    [[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]]
    """

    transitions: np.ndarray
    start: np.ndarray

    def __init__(self, transitions: Any, start: Any = None) -> None:
        value = np.array(transitions, dtype=np.float64)
        if value.ndim != 3 or value.shape[1] != value.shape[2] or not value.size:
            raise ValueError(f"transitions: expected [tokens, states, states], got shape {value.shape}")
        if not np.isfinite(value).all() or (value < 0).any():
            raise ValueError("transitions: expected probabilities, got a negative, infinite or NaN entry")
        total = value.sum((0, 2))
        if not np.allclose(total, 1.0, atol=1e-9):
            raise ValueError(f"transitions: from each state all tokens and states must sum to 1, got {total.tolist()}")
        first = _stationary(value.sum(0)) if start is None else np.array(start, dtype=np.float64)
        if first.shape != value.shape[1:2] or not (first >= 0).all() or not np.isclose(first.sum(), 1.0, atol=1e-9):
            raise ValueError(f"start: expected {value.shape[1]} probabilities that sum to 1, got {first.tolist()}")
        value.setflags(write=False)
        first.setflags(write=False)
        object.__setattr__(self, "transitions", value)
        object.__setattr__(self, "start", first)

    def __repr__(self) -> str:
        return f"HiddenMarkov({self.transitions.shape[0]} tokens, {self.transitions.shape[1]} states)"

    def sample(
        self, batch: int, *, length: int = 128, rng: int | np.random.Generator | None = None
    ) -> HiddenMarkovRows:
        """Draw rows, with their hidden states and exact beliefs.

        Parameters
        ----------
        batch, length : int
            Rows, and tokens of a row.
        rng : int, Generator or None
            Seed.

        Returns
        -------
        HiddenMarkovRows
        """
        positive(batch=batch, length=length)
        generator = np.random.default_rng(rng)
        tokens, count = self.transitions.shape[:2]
        # From each state the pairs (token, next state), as a cumulative distribution.
        cumulative = np.moveaxis(self.transitions, 0, 1).reshape(count, tokens * count).cumsum(1)
        last = np.array([np.flatnonzero(row)[-1] for row in np.diff(cumulative, prepend=0.0)])
        state = generator.choice(count, size=batch, p=self.start / self.start.sum())
        ids, states = np.empty((batch, length), dtype=np.int64), np.empty((batch, length), dtype=np.int64)
        for t in range(length):
            pair = (cumulative[state] <= generator.random((batch, 1))).sum(1)
            pair = np.minimum(pair, last[state])
            ids[:, t], state = pair // count, pair % count
            states[:, t] = state
        return HiddenMarkovRows(torch.from_numpy(ids), torch.from_numpy(self.beliefs(ids)), torch.from_numpy(states))

    def beliefs(self, ids: Any) -> np.ndarray:
        """Beliefs [B, T, S] after each token of ``ids`` [B, T]: the exact filter."""
        value = np.asarray(ids)
        if value.ndim != 2 or not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"ids: expected whole numbers [rows, T], got {value.dtype} of shape {value.shape}")
        if value.size and not (value.min() >= 0 and value.max() < len(self.transitions)):
            raise ValueError(f"ids: expected tokens from 0 to {len(self.transitions) - 1}, got {value.min()} "
                             f"to {value.max()}")  # fmt: skip
        out = np.empty((*value.shape, len(self.start)))
        belief = np.broadcast_to(self.start, (len(value), len(self.start)))
        for t in range(value.shape[1]):
            belief = np.einsum("bi,bij->bj", belief, self.transitions[value[:, t]])
            total = belief.sum(1, keepdims=True)
            if not (total > 0).all():
                raise ValueError(f"ids: row {int(np.argmin(total))} cannot come from this model: its token {t} has "
                                 "probability 0")  # fmt: skip
            belief = out[:, t] = belief / total
        return out

    def next_token(self, beliefs: Any) -> np.ndarray:
        """Probabilities [..., V] of the next token given ``beliefs`` [..., S]: what the best predictor says."""
        return np.asarray(beliefs) @ self.transitions.sum(2).T


def mess3(*, x: float = 0.05, a: float = 0.85) -> HiddenMarkov:
    r"""The process Mess3: three states that stay or move, each mostly saying its own token; beliefs are a fractal.

    .. math:: T^{(k)}_{ij} = P_{ij}\, E_{jk}, \qquad P_{ii} = 1 - 2x,\; P_{ij} = x, \qquad
              E_{jj} = a,\; E_{jk} = (1 - a) / 2

    Parameters
    ----------
    x : float, default 0.05
        Probability of moving to each of the other states.
    a : float, default 0.85
        Probability of a state's own token.

    Returns
    -------
    HiddenMarkov
        3 tokens, 3 states.

    Raises
    ------
    ValueError
        If these are no probabilities.

    References
    ----------
    Shai et al., "Transformers represent belief state geometry in their residual stream" (arXiv:2405.15943), appendix;
    Marzen and Crutchfield, "Nearly maximally predictive features and their dimensions" (2017).

    Examples
    --------
    >>> from solomonic.models.tasks import mess3
    >>> rows = mess3().sample(2, length=5, rng=0)
    >>> rows
    HiddenMarkovRows((2, 5), 3 hidden states)
    """
    for name, value, most in (("x", x, 0.5), ("a", a, 1.0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError(f"{name}: expected a probability from 0 to {most:g}, got {value!r}")
    move = np.full((3, 3), x) + (1 - 3 * x) * np.eye(3)
    say = np.full((3, 3), (1 - a) / 2) + (a - (1 - a) / 2) * np.eye(3)
    return HiddenMarkov(move[None] * say.T[:, None, :])


def _stationary(move: np.ndarray) -> np.ndarray:
    """The one distribution that a stochastic matrix leaves as it is."""
    _, values, right = np.linalg.svd(move.T - np.eye(len(move)))
    count = int((values < 1e-9).sum())
    if count != 1:
        raise ValueError(f"start: the states have {count} stationary distributions; give the belief to start from")
    found = np.abs(right[-1])
    return found / found.sum()
