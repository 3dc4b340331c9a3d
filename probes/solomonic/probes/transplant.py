"""Go on with a text from a memory of which parts come from another one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory, generate

from .inputs import as_count, as_ids, as_layers, as_model

__all__ = ["ChimeraWarning", "Transplant", "transplant"]

#: Parts whose entries stand for tokens at positions.
_REGISTERS = ("window", "fading_tokens", "eidetic", "kv")


class ChimeraWarning(UserWarning):
    """A layer's memory is put together from two texts: no text leads to it.

    Examples
    --------
    >>> import warnings
    >>> from solomonic.probes import ChimeraWarning
    >>> warnings.simplefilter("ignore", ChimeraWarning)
    """


@dataclass(frozen=True, eq=False)
class Transplant:
    """What :func:`transplant` returns.

    Parameters
    ----------
    logits : Tensor
        After the tokens that were read with the transplanted memory [prompts, n, vocabulary].
    baseline : Tensor
        The same with the receiver's own memory.
    ids : Tensor
        What was generated from the transplanted memory [prompts, tokens].
    baseline_ids : Tensor
        What was generated from the receiver's own.
    memory : Memory
        The transplanted memory, before those tokens.
    chimera : mapping of int to pair
        For every layer of which some parts were taken and others not: (parts taken, parts left). Empty where none is
        mixed.
    """

    logits: Tensor
    baseline: Tensor
    ids: Tensor
    baseline_ids: Tensor
    memory: Memory
    chimera: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]]

    def __repr__(self) -> str:
        mixed = f"chimera in layers {' '.join(map(str, self.chimera))}" if self.chimera else "no layer is mixed"
        return f"Transplant({self.logits.shape[1]} tokens read, {self.ids.shape[1]} generated; {mixed})"


def transplant(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    receiver_ids: Any,
    donor_ids: Any,
    *,
    parts: Iterable[str] | str | None = None,
    layers: Iterable[int] | int | None = None,
    continuation: Any = None,
    tokens: int = 0,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: int | None = 0,
    progress: bool = False,
) -> Transplant:
    r"""Read two texts, put parts of the memory of the second into that of the first, and go on with the first.

    .. math:: m_{l,k} := m'_{l,k} \quad \text{for the layers } l \text{ and parts } k \text{ that are named}.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    receiver_ids : array_like of int
        The text that goes on, [T] or [prompts, T].
    donor_ids : array_like of int or Memory
        The text whose memory is taken, [T'] or [prompts, T'], for one prompt or as many; or a memory.
    parts : str or iterable of str, optional
        Parts that travel; all by default. A state without the convolution and the window of its layer makes a chimera:
        that is allowed, and said.
    layers : int or iterable of int, optional
        Layers whose parts travel; all by default.
    continuation : array_like of int, optional
        Tokens that are read after the transplant, [n] or [prompts, n]. By default the last token of each text is held
        back, and the receiver's read after the transplant.
    tokens : int, default 0
        How many more are generated, with the transplant and without, from the same random numbers.
    temperature, top_k, top_p
        See :func:`solomonic.models.generate`.
    rng : int or None
        Seed of the sampling.
    progress : bool, default False
        Whether to show a progress bar: six runs, those of the two texts, and two that read and two that generate.

    Returns
    -------
    Transplant
        ``.logits``, ``.baseline``, ``.ids``, ``.baseline_ids``, ``.memory``, ``.chimera``.

    Raises
    ------
    TypeError, ValueError
        If a part or layer is not there, or one that was named gives nothing; if the texts differ in length and a
        register of tokens travels; if a memory is of another shape; if ids are no tokens.

    Warns
    -----
    ChimeraWarning
        If some parts of a layer are taken and others not.

    Notes
    -----
    States and convolutions have no positions: they travel between texts of different lengths. Keys are rotated by the
    positions that their tokens had, so registers travel between texts of one length only.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import load
    >>> from solomonic.probes import transplant
    >>> one, other = torch.tensor(list(b"import os\\n")), torch.tensor(list(b"def f(x):\\n"))
    >>> done = transplant(load("fading"), one, other, tokens=8)
    >>> done
    Transplant(1 tokens read, 8 generated; no layer is mixed)
    """
    model = as_model(model)
    device = next(model.parameters()).device
    receiver = as_ids(receiver_ids, model, name="receiver_ids", least=1 if continuation is not None else 2)
    tokens = as_count(tokens, "tokens", 0)
    if continuation is None:
        receiver, follow = receiver[:, :-1], receiver[:, -1:]
    else:
        follow = as_ids(continuation, model, name="continuation")
        if len(follow) not in (1, len(receiver)):
            raise ValueError(f"continuation: expected one or {len(receiver)} prompts, got {len(follow)}")
        follow = follow.expand(len(receiver), -1)
    receiver, follow = receiver.to(device), follow.to(device)
    named_parts = None if parts is None else [parts] if isinstance(parts, str) else list(parts)
    named_layers = as_layers(layers, len(model.config.pattern))
    chosen = _chosen(model, named_parts, named_layers, layers is not None)
    bar = tqdm(total=6, disable=not progress, unit="run", desc="transplant")
    with bar, torch.no_grad():
        donor = _donor(model, donor_ids, len(receiver), hold=continuation is None)
        if donor.position != receiver.shape[1]:
            moved = sorted({part for part in _REGISTERS for found in chosen.values() if part in found})
            if moved:
                raise ValueError(
                    f"donor_ids: {', '.join(moved)} hold tokens at positions and travel only between texts of one "
                    f"length; the receiver has {receiver.shape[1]} tokens before the transplant, the donor "
                    f"{donor.position}. Make them equally long, or take parts=('conv', 'state')"
                )
        bar.update()
        own = model(receiver).memory
        bar.update()
        mixed = own
        for layer, found in chosen.items():
            for part in found:
                mixed = mixed.transplant(donor, layers=layer, parts=part)
        chimera = {
            layer: (tuple(found), tuple(left))
            for layer, found in chosen.items()
            if (left := [part for part in own.layers[layer] if part not in found])
        }
        if chimera:
            layer, (found, left) = next(iter(chimera.items()))
            warnings.warn(
                f"transplant: a chimera: layer {layer} has {', '.join(found)} of the donor and {', '.join(left)} of "
                f"the receiver ({len(chimera)} layers are mixed), which no text leads to",
                ChimeraWarning,
                stacklevel=2,
            )
        changed, plain = model(follow, mixed), model(follow, own)
        bar.update(2)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rng": rng}
        said = generate(model, follow, tokens, memory=mixed, **options).ids
        bar.update()
        unchanged = generate(model, follow, tokens, memory=own, **options).ids
        bar.update()
    return Transplant(changed.logits, plain.logits, said, unchanged, mixed, chimera)


def _chosen(
    model: HybridLM | AdaptedLM, parts: list[str] | None, layers: tuple[int, ...], named: bool
) -> dict[int, list[str]]:
    """The parts that travel, by layer; every layer and part that was named gives something."""
    held = model.empty_memory().layers
    known = sorted({part for layer in held for part in layer})
    if parts is not None:
        bad = [part for part in parts if part not in known]
        if bad or not parts:
            raise ValueError(f"parts: expected some of {known}, got {bad or parts}")
    chosen = {i: [part for part in held[i] if parts is None or part in parts] for i in layers}
    empty = [i for i, found in chosen.items() if not found]
    if named and empty:
        raise ValueError(f"layers: layer {empty[0]} ({model.config.pattern[empty[0]]}) has {list(held[empty[0]])}, "
                         f"nothing of {parts}; leave it out")  # fmt: skip
    lacking = [part for part in parts or () if not any(part in found for found in chosen.values())]
    if lacking:
        raise ValueError(f"parts: none of the layers {list(layers)} has {lacking}; leave it out")
    chosen = {i: found for i, found in chosen.items() if found}
    if not chosen:
        raise ValueError(f"layers: none of {list(layers)} has a memory; nothing would travel")
    return chosen


def _donor(model: HybridLM | AdaptedLM, donor: Any, prompts: int, *, hold: bool) -> Memory:
    if isinstance(donor, Memory):
        memory = donor
    else:
        ids = as_ids(donor, model, name="donor_ids", least=2 if hold else 1).to(next(model.parameters()).device)
        memory = model(ids[:, :-1] if hold else ids).memory
    expected = [list(layer) for layer in model.empty_memory().layers]
    if [list(layer) for layer in memory.layers] != expected:
        raise ValueError(f"donor_ids: expected a memory with the parts {expected}; this one is another model's")
    if memory.batch_size != prompts:
        if memory.batch_size != 1:
            raise ValueError(f"donor_ids: expected one prompt or {prompts}, as the receiver has; got "
                             f"{memory.batch_size}")  # fmt: skip
        memory = memory.repeat(prompts)
    return memory
