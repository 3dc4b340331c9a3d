"""Change the memory at a moment and measure what becomes of the future."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, LMOutput, Memory
from solomonic.models.memory import cat_memories

from .divergence import kl_bits
from .edits import Edit, apply, as_interventions, check, hold
from .inputs import as_count, as_ids, as_level, as_model, as_rng
from .labelled import provenance, units
from .over_prompts import prompt_interval

__all__ = ["EditResult", "edit", "editing"]

_UNITS = {
    "kl": ("divergence of the prediction from that of the run without the edit", "bit"),
    "logit_difference": ("logit of the answer minus that of the other token, after the edit", "nat"),
    "baseline_difference": ("logit of the answer minus that of the other token, without the edit", "nat"),
    "effect": ("total effect of the edit on the logit difference", "nat"),
    "kl_mean": ("divergence, mean over prompts", "bit"),
    "kl_mean_interval": ("confidence interval of kl_mean, prompts redrawn", "bit"),
    "effect_mean": ("effect, mean over prompts", "nat"),
    "effect_mean_interval": ("confidence interval of effect_mean, prompts redrawn", "nat"),
    "answer": ("token whose logit counts for the difference", "1"),
    "other": ("token whose logit counts against it", "1"),
    "time": ("token", "token"),
}


@dataclass(frozen=True, eq=False)
class EditResult:
    """What :func:`edit` returns.

    Parameters
    ----------
    logits : Tensor
        [interventions, prompts, T, vocabulary].
    baseline : Tensor
        Without an edit [prompts, T, vocabulary].
    effects : xarray.Dataset
        What the interventions did to the predictions.
    """

    logits: Tensor
    baseline: Tensor
    effects: xr.Dataset

    def __repr__(self) -> str:
        count, prompts, steps, _ = self.logits.shape
        return f"EditResult({count} interventions, {prompts} prompts, {steps} tokens)"


def edit(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    edits: Edit | Sequence[Edit | Sequence[Edit]],
    *,
    together: bool = False,
    answers: tuple[Any, Any] | None = None,
    batch_size: int = 1,
    confidence: float = 0.95,
    resamples: int = 500,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> EditResult:
    r"""Change the memory after a token, let the model read on, and compare with the run that was left alone.

    .. math:: y_s(\mathrm{do}(m_t := m')), \quad s > t; \qquad
              \mathrm{effect}_s = \Delta_s(\mathrm{do}(m_t := m')) - \Delta_s, \quad
              \Delta_s = \ell_s(\text{answer}) - \ell_s(\text{other}).

    The text is read up to the edit, the :class:`~solomonic.models.Memory` is changed, and the reading goes on: by the
    split law that is the run itself, with the change in it. What comes before is read once for all interventions.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Token ids [T] or [prompts, T].
    edits : Edit or sequence
        The interventions: each an :class:`Edit`, or a sequence of them that are carried out together, in their order.
    together : bool, default False
        Whether all ``edits`` are one intervention.
    answers : pair, optional
        (answer, other) of the logit difference, each a token or one for each prompt. By default the two that are most
        likely without an edit, token by token.
    batch_size : int, default 1
        How many interventions at one time share a call. One at a time has the shapes of the baseline, so that what an
        edit does not touch is equal to the last bit; more are faster where what is left of the text is short.
    confidence : float, default 0.95
        Nominal coverage of the intervals over prompts.
    resamples : int, default 500
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the draws of ``"resample"`` and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    EditResult
        ``.logits`` [interventions, prompts, T, vocabulary], ``.baseline`` [prompts, T, vocabulary] and ``.effects``, a
        Dataset with dims intervention, prompt, time: ``kl``, ``logit_difference``, ``effect``;
        ``baseline_difference`` (prompt, time), ``answer`` and ``other`` (prompt, time); ``kl_mean`` and ``effect_mean``
        (intervention, time) with intervals over prompts (studentized bootstrap; NaN for one). Where a value requires
        gradients, logits have them.

    Raises
    ------
    TypeError, ValueError
        If an edit is of a layer, part, head or slot that is not there, comes after all tokens but the last, has a value
        of the wrong shape, touches nothing or touches a frozen part; if ids are no tokens; if a logit is NaN.

    Notes
    -----
    Every run is cut where an intervention of the call has an edit, the baseline too, so that the logits up to the edit
    are the baseline's own and an edit that adds 0 gives identical bits. A freeze reads token by token while it lasts.
    For a sweep over many times use :func:`causal_trace`, which is made for it.

    Changing one part of a layer and not the others makes a memory that no text leads to; the effect says what the
    part carries as the model reads it.

    References
    ----------
    Pearl, "Causality" (2009), section 3.4, for do; Zhang and Nanda (arXiv:2309.16042) for the logit difference.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import Edit, edit
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> done = edit(model, torch.arange(12), [Edit(0, "state", 5, "zero"), Edit(0, "state", 5, "zero", heads=0)])
    >>> done
    EditResult(2 interventions, 1 prompts, 12 tokens)
    >>> torch.equal(done.logits[0, :, :6], done.baseline[:, :6]), bool(done.effects.kl[0, 0, 6] > 0)
    (True, True)
    """
    model = as_model(model)
    tokens = as_ids(ids, model, least=2)
    interventions = as_interventions(edits)
    if together:
        interventions = [tuple(e for group in interventions for e in group)]
    steps = tokens.shape[1]
    for group in interventions:
        check(group, model)
        for e in group:
            if e.time > steps - 2:
                raise ValueError(
                    f"time: expected a token from 0 to {steps - 2}, which others of the {steps} tokens follow, got "
                    f"{e.time} in {e!r}; to generate after an edit, use editing"
                )
    batch_size = as_count(batch_size, "batch_size")
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    pair = None if answers is None else as_answers(answers, model, tokens)
    device = next(model.parameters()).device
    grad = torch.is_grad_enabled() and any(e.requires_grad for group in interventions for e in group)
    with torch.set_grad_enabled(grad):
        baseline, logits = _runs(model, tokens.to(device), interventions, batch_size, generator, progress)
    effects = _effects(baseline, logits, pair, interventions)
    options = {"confidence": confidence, "resamples": resamples, "rng": generator}
    for name in ("kl", "effect"):
        values = np.moveaxis(effects[name].to_numpy(), 1, 0)
        bounds = prompt_interval(values, **options)
        effects[f"{name}_mean"] = (("intervention", "time"), values.mean(0))
        effects[f"{name}_mean_interval"] = (
            ("bound", "intervention", "time"),
            np.maximum(bounds, 0.0) if name == "kl" else bounds,  # a divergence is not negative
        )
    effects = units(effects.assign_coords(bound=["lower", "upper"]), _UNITS)
    arguments = {
        "ids": tokens,
        "edits": [[repr(e) for e in group] for group in interventions],
        "answers": None if pair is None else pair,
        "batch_size": batch_size,
        "confidence": confidence,
        "resamples": resamples,
    }
    changed = (logits.detach() != baseline.detach()).flatten(1).any(1)
    checks = {"changed": int(changed.sum()), "interventions": len(interventions)}
    effects.attrs.update(provenance("edit", model=model, arguments=arguments, seed=seed, checks=checks))
    return EditResult(logits, baseline.detach() if not grad else baseline, effects)


@contextmanager
def editing(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    edits: Edit | Sequence[Edit],
    *,
    rng: int | np.random.Generator | None = 0,
) -> Iterator[HybridLM | AdaptedLM]:
    """While it lasts, every run of the model has its memory changed after the tokens that the edits name.

    Times are counted from the first token that the memory has seen: a run that goes on from a memory of 10 tokens is at
    time 10. So edits are carried out in prefill, in pieces and in :func:`solomonic.models.generate` alike.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model. One of transformers is adapted: call what the context gives.
    edits : Edit or sequence of Edit
        They are carried out together, in their order.
    rng : int, numpy.random.Generator or None
        Source of the draws of ``"resample"``.

    Yields
    ------
    HybridLM or AdaptedLM
        The model to call; with one of this package, the one that was given.

    Raises
    ------
    TypeError, ValueError
        As :func:`edit`; and at the end, if an edit was never carried out because no run came to its token.
    RuntimeError
        If the model is being edited already.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import generate, load
    >>> from solomonic.probes import Edit, editing
    >>> model, prompt = load("fading"), torch.tensor([list(b"import os")])
    >>> with editing(model, [Edit(layer, "state", 8, "zero") for layer in range(4)]):
    ...     forgot = generate(model, prompt, 8)
    >>> bool((forgot.ids == generate(model, prompt, 8).ids).all())
    False
    """
    model = as_model(model)
    group = tuple(e for each in as_interventions(edits) for e in each)
    check(group, model)
    generator, _ = as_rng(rng)
    if "forward" in vars(model):
        raise RuntimeError("model: it is being edited already; give all edits to one editing")
    forward = model.forward
    done: set[int] = set()

    def edited(ids: Tensor, memory: Memory | None = None, *, record: Callable[..., None] | None = None) -> LMOutput:
        past = 0 if memory is None else memory.position
        cuts = boundaries(group, past, past + ids.shape[1]) if isinstance(ids, Tensor) and ids.ndim == 2 else []
        if record is not None and len(cuts) > 1:
            raise ValueError(
                f"record: the run is cut at tokens {cuts[:-1]} by the edits, and taps are not joined; read up to the "
                "edit, and record from its memory on"
            )
        if not cuts:
            return forward(ids, memory, record=record)
        return _read(forward, ids, memory, group, cuts, generator, record, done)

    model.forward = edited  # type: ignore[method-assign]
    try:
        yield model
    finally:
        del model.forward
    for i, e in enumerate(group):
        if i not in done:
            raise ValueError(f"edits: {e!r} was never carried out: no run came to token {e.time}")


def boundaries(edits: Iterable[Edit], past: int, stop: int) -> list[int]:
    """Where a run over the tokens from ``past`` to ``stop`` must be cut, with its end; empty for no tokens."""
    found = {stop} if stop > past else set()
    for e in edits:
        if past <= e.time < stop:
            found.add(e.time + 1)
        if e.op == "freeze":
            found.update(range(max(e.time + 1, past + 1), int(min(e.last + 1, stop)) + 1))
    return sorted(found)


def _read(
    forward: Callable[..., LMOutput],
    ids: Tensor,
    memory: Memory | None,
    edits: Sequence[Edit],
    cuts: Sequence[int],
    random: np.random.Generator,
    record: Callable[..., None] | None = None,
    done: set[int] | None = None,
) -> LMOutput:
    """A run in pieces that end at the cuts, with the edits carried out on the memory between them."""
    past = start = 0 if memory is None else memory.position
    logits = []
    for stop in cuts:
        out = forward(ids[:, start - past : stop - past], memory, record=record)
        after = out.memory
        for e in edits:
            if e.op == "freeze" and e.time < stop - 1 <= e.last:
                assert memory is not None
                after = hold(e, memory, after)
        for i, e in enumerate(edits):
            if e.time == stop - 1:
                after = apply(e, after, random)
                if done is not None:
                    done.add(i)
        logits.append(out.logits)
        memory, start = after, stop
    assert memory is not None
    return LMOutput(logits[0] if len(logits) == 1 else torch.cat(logits, 1), memory)


def _runs(
    model: HybridLM | AdaptedLM,
    ids: Tensor,
    interventions: Sequence[tuple[Edit, ...]],
    batch_size: int,
    random: np.random.Generator,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Logits of the baseline [prompts, T, vocabulary] and of all interventions."""
    prompts, steps = ids.shape
    cuts = boundaries([e for group in interventions for e in group], 0, steps)
    first = [min(e.time for e in group) + 1 for group in interventions]
    kept: dict[int, Memory] = {}
    pieces, memory, start = [], None, 0
    for stop in cuts:
        out = model(ids[:, start:stop], memory=memory)
        pieces.append(out.logits)
        memory, start = out.memory, stop
        if stop in first:
            kept[stop] = memory
    baseline = torch.cat(pieces, 1)
    rows: list[Tensor | None] = [None] * len(interventions)
    with tqdm(total=len(interventions), disable=not progress, unit="edit", desc="edit") as bar:
        for at in sorted(kept):
            here = [i for i, where in enumerate(first) if where == at]
            # Interventions with later edits run alone: those act on the rows of one intervention.
            single = [i for i in here if all(e.time == at - 1 and e.op != "freeze" for e in interventions[i])]
            alone = [[i] for i in here if i not in single]
            groups = [single[i : i + batch_size] for i in range(0, len(single), batch_size)] + alone
            rest = [stop for stop in cuts if stop > at]
            for group in groups:
                changed = [_edited(kept[at], interventions[i], at - 1, random) for i in group]
                joined = changed[0] if len(group) == 1 else cat_memories(changed)
                later = [e for e in interventions[group[0]] if e.op == "freeze" or e.time >= at]
                tokens = ids[:, at:].repeat(len(group), 1)
                out = _read(model.__call__, tokens, joined, later, rest, random)
                for i, part in zip(group, out.logits.split(prompts), strict=True):
                    rows[i] = torch.cat([baseline[:, :at], part], 1)
                bar.update(len(group))
    return baseline, torch.stack([row for row in rows if row is not None])


def _edited(memory: Memory, edits: Sequence[Edit], time: int, random: np.random.Generator) -> Memory:
    for e in edits:
        if e.time == time:
            memory = apply(e, memory, random)
    return memory


def as_answers(answers: Any, model: HybridLM | AdaptedLM, ids: Tensor) -> np.ndarray:
    """The tokens of the logit difference, [2, prompts]."""
    if not isinstance(answers, list | tuple | np.ndarray | Tensor) or len(answers) != 2:
        raise ValueError(f"answers: expected a pair (answer, other), got {answers!r}")
    out = []
    for each in answers:
        value = as_ids(np.atleast_1d(np.asarray(each)), model, name="answers")[0]
        if len(value) not in (1, len(ids)):
            raise ValueError(f"answers: expected a token, or one for each of {len(ids)} prompts, got {len(value)}")
        out.append(np.broadcast_to(value.numpy(), (len(ids),)))
    pair = np.stack(out)
    if (pair[0] == pair[1]).any():
        raise ValueError(f"answers: the answer and the other token are the same, {int(pair[0][pair[0] == pair[1]][0])}")
    return pair


def _effects(
    baseline: Tensor, logits: Tensor, pair: np.ndarray | None, interventions: Sequence[tuple[Edit, ...]]
) -> xr.Dataset:
    base = finite(baseline, "the run without an edit")
    _, prompts, steps, _ = logits.shape
    if pair is None:
        two = base.topk(2, -1).indices
    else:
        two = torch.as_tensor(pair.T.copy(), device=base.device)[:, None].expand(prompts, steps, 2)
    before = difference(base, two)
    kl, after = [], []
    for each, group in zip(logits, interventions, strict=True):
        found = finite(each, f"the run with {list(group)}")
        kl.append(kl_bits(base, found).cpu().numpy())
        after.append(difference(found, two).cpu().numpy())
    dims = ("intervention", "prompt", "time")
    data = {
        "kl": (dims, np.stack(kl)),
        "logit_difference": (dims, np.stack(after)),
        "effect": (dims, np.stack(after) - before.cpu().numpy()),
        "baseline_difference": (dims[1:], before.cpu().numpy()),
        "answer": (dims[1:], two[..., 0].cpu().numpy()),
        "other": (dims[1:], two[..., 1].cpu().numpy()),
    }
    coords = {
        "intervention": np.arange(len(logits)),
        "edits": ("intervention", [" and ".join(map(repr, group)) for group in interventions]),
        "first_time": ("intervention", [min(e.time for e in group) for group in interventions]),
        "prompt": np.arange(prompts),
        "time": np.arange(steps),
    }
    return units(xr.Dataset(data, coords), _UNITS)


def difference(logits: Tensor, two: Tensor) -> Tensor:
    """Logit of the first token minus that of the second, in float64."""
    found = logits.double().gather(-1, two)
    return found[..., 0] - found[..., 1]


def finite(logits: Tensor, what: str) -> Tensor:
    """Logits without their gradients; NaN is refused."""
    if not torch.isfinite(logits).all():
        raise ValueError(f"model: {what} gave logits that are NaN or infinite; there is no effect of those")
    return logits.detach()
