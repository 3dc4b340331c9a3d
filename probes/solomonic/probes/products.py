"""Products with Jacobians, from a state to the logits that follow and from inputs to a state, never formed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vjp

from solomonic.models import AdaptedLM, HybridLM, Memory

__all__ = ["InputsToState", "StateToLogits", "embedding_table", "replaced_embeddings"]


def embedding_table(model: HybridLM | AdaptedLM) -> torch.nn.Embedding:
    """The embedding of a model."""
    found = model.hf.get_input_embeddings() if isinstance(model, AdaptedLM) else model.model.embed_tokens
    assert isinstance(found, torch.nn.Embedding)
    return found


@contextlib.contextmanager
def replaced_embeddings(model: HybridLM | AdaptedLM, embedded: Tensor) -> Iterator[None]:
    """While it lasts the model reads these embeddings [B, T, d] in the place of those of its tokens."""
    hook = embedding_table(model).register_forward_hook(lambda module, arguments, output: embedded)
    try:
        yield
    finally:
        hook.remove()


class _Products(NamedTuple):
    """Products with the derivative J of a function at one point.

    Attributes
    ----------
    pull, push : callable
        J' w and J v. Taking back is linear in w, so that its own derivative, taken back, is J v: one run backward
        through what was kept, where a run with tangents costs several.
    """

    pull: Callable[..., tuple[Tensor]]
    push: Callable[..., tuple[Tensor]]

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor], at: Tensor) -> _Products:
        out, pull = vjp(function, at)[:2]
        return cls(pull, vjp(lambda w: pull(w)[0], torch.zeros_like(out))[1])


@dataclass(frozen=True, eq=False)
class StateToLogits:
    r"""The derivative J of the logits of the next tokens by the state of one layer, at one memory.

    .. math:: J = \partial\, [\ell_c, \dots, \ell_{c+\tau-1}] / \partial h_{c-1}, \qquad
              \ell_t \in \mathbb R^V \text{ after token } t,

    with the tokens held fixed. Logits count up to a constant each, so their mean is taken off.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model.
    memory : Memory
        Of one sequence, after the tokens before the cut.
    ids : Tensor
        The tokens after the cut, [1, tau].
    layer : int
        Whose state.
    rows : int
        Products computed at a time; memory grows with rows * tau * V.

    Notes
    -----
    All products are taken at one point, so that the run that they go through is kept, one for each number of rows.
    """

    model: HybridLM | AdaptedLM
    memory: Memory
    ids: Tensor
    layer: int
    rows: int = 8
    _kept: dict[int, _Products] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> Tensor:
        """The state [H, P, N]."""
        value = self.memory.get(self.layer, "state")
        assert isinstance(value, Tensor)
        return value[0].detach()

    @property
    def inputs(self) -> int:
        """Number n of entries of the state."""
        return self.state.numel()

    def logits(self, states: Tensor) -> Tensor:
        """Centred logits [rows, tau, V] with the states [rows, H, P, N] in place."""
        count = len(states)
        memory = self.memory.repeat(count).set(self.layer, "state", states)
        out = self.model(self.ids.expand(count, -1), memory=memory).logits
        return out - out.mean(-1, keepdim=True)

    def forward(self, directions: Tensor) -> Tensor:
        """J v [k, tau V] for directions [k, n]."""
        return torch.cat([self._along(part).flatten(1) for part in directions.split(self.rows)])

    def gram(self, directions: Tensor) -> Tensor:
        """J' J v [k, n] for directions [k, n]: a forward and a reverse product each."""
        return torch.cat([self._back(self._along(part)) for part in directions.split(self.rows)])

    def start(self, count: int, generator: np.random.Generator) -> Tensor:
        """J' w [count, n] for normal w: directions that are seen, with the energy of J in the mean of their squares."""
        shape = (self.ids.shape[1], self.model.config.vocab_size)
        found = []
        for size in _sizes(count, self.rows):
            w = torch.from_numpy(generator.standard_normal((size, *shape))).to(self.state)
            found.append(self._back(w - w.mean(-1, keepdim=True)))
        return torch.cat(found)

    def _along(self, directions: Tensor) -> Tensor:
        return self._products(size := len(directions)).push(directions.view(size, *self.state.shape))[0].detach()

    def _back(self, outputs: Tensor) -> Tensor:
        return self._products(size := len(outputs)).pull(outputs)[0].detach().reshape(size, -1)

    def forget(self) -> None:
        """Let go of the runs that are kept."""
        self._kept.clear()

    def _products(self, size: int) -> _Products:
        if size not in self._kept:
            self._kept[size] = _Products.of(self.logits, self.state.expand(size, *self.state.shape).clone())
        return self._kept[size]


@dataclass(frozen=True, eq=False)
class InputsToState:
    r"""The derivative J of the state of one layer by the embeddings of the tokens before it.

    .. math:: J = \partial h_T / \partial (e_{T-L+1}, \dots, e_T), \qquad e_t \in \mathbb R^d

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model.
    memory : Memory
        Of one sequence, before these tokens.
    ids : Tensor
        The tokens [1, L].
    layer : int
        Whose state.
    rows : int
        Products computed at a time.
    """

    model: HybridLM | AdaptedLM
    memory: Memory
    ids: Tensor
    layer: int
    rows: int = 8
    _kept: dict[int, _Products] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> torch.nn.Embedding:
        """The embedding of the model."""
        return embedding_table(self.model)

    @cached_property
    def embedded(self) -> Tensor:
        """Embeddings [L, d] of the tokens."""
        return self.table.weight.detach()[self.ids[0]]

    @cached_property
    def state(self) -> Tensor:
        """The state [H, P, N] after the tokens."""
        return self.states(self.embedded[None])[0].detach()

    @property
    def inputs(self) -> int:
        """Number n of entries of the state."""
        return self.state.numel()

    def states(self, embedded: Tensor) -> Tensor:
        """States [rows, H, P, N] after the embeddings [rows, L, d]."""
        memory = self.memory.repeat(len(embedded))
        with replaced_embeddings(self.model, embedded):
            found = self.model(self.ids.expand(len(embedded), -1), memory=memory).memory.get(self.layer, "state")
        assert isinstance(found, Tensor)
        return found

    def forward(self, moves: Tensor) -> Tensor:
        """J v [k, n] for moves of the embeddings [k, L d]."""
        out = []
        for part in moves.split(self.rows):
            product = self._products(size := len(part)).push(part.view(size, *self.embedded.shape))[0]
            out.append(product.detach().reshape(size, -1))
        return torch.cat(out)

    def reverse(self, directions: Tensor) -> Tensor:
        """J' w [k, L d] for directions of the state [k, n]."""
        out = []
        for part in directions.split(self.rows):
            product = self._products(size := len(part)).pull(part.view(size, *self.state.shape))[0]
            out.append(product.detach().reshape(size, -1))
        return torch.cat(out)

    def forget(self) -> None:
        """Let go of the runs that are kept."""
        self._kept.clear()

    def _products(self, size: int) -> _Products:
        if size not in self._kept:
            self._kept[size] = _Products.of(self.states, self.embedded.expand(size, *self.embedded.shape).clone())
        return self._kept[size]

    def gram(self, directions: Tensor) -> Tensor:
        """J J' w [k, n] for directions [k, n]."""
        return self.forward(self.reverse(directions))

    def start(self, count: int, generator: np.random.Generator) -> Tensor:
        """J v [count, n] for normal moves v, with the energy of J in the mean of their squares."""
        drawn = generator.standard_normal((count, self.embedded.numel()))
        return self.forward(torch.from_numpy(drawn).to(self.embedded))


def _sizes(count: int, most: int) -> list[int]:
    """Numbers of rows that make up ``count``, at most so many at a time."""
    return [min(most, count - first) for first in range(0, count, most)]
