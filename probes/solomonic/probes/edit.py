"""Changing the memory of a model on its way through a text, and what its predictions make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, LMOutput, Memory
from solomonic.models.memory import Value

from .divergence import kl_bits
from .inputs import as_count, as_ids, as_level, as_model, as_rng
from .interventions import Edit, apply, as_interventions, times_of
from .labelled import provenance, units
from .statistics import bootstrap_interval

__all__ = ["EditResult", "edit", "editing"]

_UNITS = {
    "kl": ("divergence of the prediction after the edit from that before it", "bit"),
    "kl_mean": ("the same, mean over prompts", "bit"),
    "kl_mean_interval": ("confidence interval of kl_mean, prompts redrawn", "bit"),
    "surprise": ("bits that the token which follows costs more after the edit", "bit"),
    "changed": ("whether the likeliest token is another one", "1"),
    "contrast": ("change of the difference of the two logits", "logit"),
    "position": ("token at which the prediction is made", "token"),
    "time": ("token after which the memory is edited first", "token"),
}


@dataclass(frozen=True, eq=False)
class EditResult:
    """What :func:`edit` returns.

    Parameters
    ----------
    logits : Tensor
        After each intervention [interventions, prompts, T, vocab]; up to its first edit they are the baseline's.
    baseline : Tensor
        The same runs, cut at the same tokens, without it: where an edit changes nothing, the bits are equal.
    effects : xarray.Dataset
        Dims intervention, prompt, position: ``kl``, ``surprise``, ``changed``, and ``contrast`` where two tokens were
        named; ``kl_mean`` with its interval; ``time`` (intervention).
    """

    logits: Tensor
    baseline: Tensor
    effects: xr.Dataset

    def __repr__(self) -> str:
        return f"EditResult(logits {tuple(self.logits.shape)}, largest kl {float(self.effects.kl.max()):.3g} bit)"


def edit(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    edits: Edit | Sequence[Any],
    *,
    contrast: tuple[int, int] | None = None,
    batch: int = 16,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> EditResult:
    r"""Change the memory after chosen tokens of a text, and read on: the effect of ``do(x_t := ...)``.

    .. math:: m_t' = \mathrm{op}(m_t), \qquad
              \ell_{t+1:T}' = model(u_{t+1:T},\ \text{memory} = m_t')

    Since the memory obeys the split law, this is the intervention on the whole run, at no more than the cost of the
    tokens after it: what comes before is read once for all interventions.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Token ids [T] or [prompts, T].
    edits : Edit or sequence
        Interventions: each an :class:`Edit`, or a sequence of them that are made in the same run. ``[a, b]`` are two
        interventions, ``[[a, b]]`` is one.
    contrast : (int, int), optional
        Two tokens; the difference of their logits is followed.
    batch : int, default 16
        Interventions that are run side by side, where they touch the memory at the same tokens.
    confidence : float, default 0.95
        Nominal coverage of the interval over prompts.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    EditResult
        Logits with and without, and the effects. An edit that changes nothing leaves every bit. Gradients flow from
        ``.logits`` to values of edits that ask for them.

    Raises
    ------
    TypeError, ValueError
        Where layers, parts, heads, slots, times or shapes do not fit, an edit touches nothing (a register without
        tokens), changes what another one froze, or a value is not finite.

    Notes
    -----
    Edits act on the memory, so positions up to ``time`` keep their bits. What one part is set to need not fit the
    others: such a memory is one that no text leads to, and the effect says what the model makes of it.
    ``batch`` runs hold ``batch`` times the prompts' memory and logits; all logits are returned, [I, B, T, vocab].

    References
    ----------
    Pearl, Causality (2009), section 3.4, for the intervention; the split law: :func:`split_law`.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import Edit, edit
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (2, 12), generator=torch.Generator().manual_seed(0))
    >>> out = edit(model, ids, [Edit(0, "state", 5, "zero"), Edit(1, "window", 5, "zero")])
    >>> out.logits.shape
    torch.Size([2, 2, 12, 16])
    >>> bool((out.effects.kl.sel(position=slice(0, 5)) == 0).all()), bool((out.effects.kl[:, :, 6] > 0).all())
    (True, True)
    """
    model = as_model(model)
    tokens = as_ids(ids, model, least=2)
    length = tokens.shape[1]
    groups = as_interventions(edits, model, length)
    batch = as_count(batch, "batch")
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    pair = _contrast(contrast, model.config.vocab_size)
    generator, seed = as_rng(rng)
    differentiable = any(_asks_for_gradients(each.value) for group in groups for each in group)
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        logits, baseline = _run(model, tokens, groups, batch, progress)
    effects = _effects(logits.detach(), baseline, tokens, pair)
    kl = effects["kl"][1]
    effects["kl_mean"] = (("intervention", "position"), kl.mean(1))
    interval = bootstrap_interval(np.moveaxis(kl, 1, 0), confidence=confidence, resamples=resamples, rng=generator)
    effects["kl_mean_interval"] = (("bound", "intervention", "position"), interval)
    coords = {
        "intervention": ["; ".join(map(repr, group)) for group in groups],
        "time": ("intervention", [min(e.time for e in group) for group in groups]),
        "prompt": np.arange(len(tokens)),
        "position": np.arange(length),
        "bound": ["lower", "upper"],
    }
    arguments = {"ids": tokens, "edits": coords["intervention"], "contrast": pair, "batch": batch}
    attrs = {**provenance("edit", model=model, arguments=arguments, seed=seed), "confidence": confidence}
    return EditResult(logits, baseline, units(xr.Dataset(effects, coords, attrs), _UNITS))


def _asks_for_gradients(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_asks_for_gradients, value))
    return isinstance(value, Tensor) and value.requires_grad


def _run(
    model: HybridLM | AdaptedLM, tokens: Tensor, groups: list[tuple[Edit, ...]], batch: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Logits of each intervention, and of a run of the same shapes without its edits."""
    prompts, length = tokens.shape
    plans = [times_of(group, length) for group in groups]
    order = sorted(range(len(groups)), key=lambda i: plans[i])
    pieces: list[Tensor] = []  # of the text as it is, up to the first edit
    before = model.empty_memory(prompts)
    out: dict[int, Tensor] = {}
    twins: dict[int, Tensor] = {}
    with tqdm(total=len(groups), disable=not progress, unit="edit", desc="edit") as bar:
        while order:
            plan = plans[order[0]]
            count = sum(plans[i] == plan for i in order)
            same, order = order[:count], order[count:]
            if plan[0] >= before.position:
                with torch.no_grad():
                    step = model(tokens[:, before.position : plan[0] + 1], memory=before)
                pieces.append(step.logits)
                before = step.memory
            head = torch.cat(pieces, 1)
            clean = torch.empty(0)
            for start in range(0, count, batch):
                chosen = same[start : start + batch]
                tails = _tail(model, tokens, before, plan, [groups[i] for i in chosen])
                if len(clean) != len(chosen):  # runs of one shape share it
                    with torch.no_grad():
                        clean = _tail(model, tokens, before, plan, [()] * len(chosen))
                for place, i in enumerate(chosen):
                    out[i] = torch.cat([head, tails[place]], 1)
                    twins[i] = torch.cat([head, clean[place]], 1)
                bar.update(len(chosen))
    every = range(len(groups))
    return torch.stack([out[i] for i in every]), torch.stack([twins[i] for i in every])


def _tail(
    model: HybridLM | AdaptedLM, tokens: Tensor, before: Memory, plan: tuple[int, ...], groups: Sequence[Any]
) -> Tensor:
    """Logits [interventions, prompts, ...] after the first edit, of interventions that share their times."""
    prompts, count = len(tokens), len(groups)
    ids = tokens.repeat(count, 1)
    memory = before.map(lambda t: t.repeat(count, *[1] * (t.ndim - 1)))
    kept: dict[tuple[int, int], Value] = {}
    found = []
    for i, time in enumerate(plan):
        for k, group in enumerate(groups):
            rows = slice(k * prompts, (k + 1) * prompts)
            for j, each in enumerate(group):
                if each.time == time or (k, j) in kept:
                    memory, value = apply(memory, each, rows, kept.get((k, j)))
                    _remember(kept, (k, j), each, value, time)
        stop = plan[i + 1] + 1 if i + 1 < len(plan) else ids.shape[1]
        step = model(ids[:, time + 1 : stop], memory=memory)
        found.append(step.logits)
        memory = step.memory
    return torch.cat(found, 1).unflatten(0, (count, prompts))


def _remember(kept: dict[Any, Value], key: Any, each: Edit, value: Value | None, time: int) -> None:
    """What a freeze keeps, until it ends."""
    if value is not None:
        kept[key] = value
    if each.until is not None and time >= each.until:
        kept.pop(key, None)


def _contrast(value: Any, vocabulary: int) -> tuple[int, int] | None:
    if value is None:
        return None
    found = tuple(value) if isinstance(value, tuple | list) else ()
    if len(found) != 2 or not all(isinstance(v, int | np.integer) and 0 <= v < vocabulary for v in found):
        raise ValueError(f"contrast: expected two tokens from 0 to {vocabulary - 1}, got {value!r}")
    return int(found[0]), int(found[1])


def _effects(logits: Tensor, clean: Tensor, tokens: Tensor, pair: tuple[int, int] | None) -> dict[str, Any]:
    """Effects of each intervention against the run of the same shapes without it."""
    dims = ("intervention", "prompt", "position")
    rows: dict[str, list[np.ndarray]] = {"kl": [], "surprise": [], "changed": []}
    if pair is not None:
        rows["contrast"] = []
    for after, before in zip(logits, clean, strict=True):
        rows["kl"].append(kl_bits(before, after).numpy())
        rows["changed"].append((after.argmax(-1) != before.argmax(-1)).numpy())
        rows["surprise"].append(np.pad(_surprise(after, tokens) - _surprise(before, tokens), ((0, 0), (0, 1)),
                                       constant_values=np.nan))  # fmt: skip
        if pair is not None:
            gap = (after - before).double()
            rows["contrast"].append((gap[..., pair[0]] - gap[..., pair[1]]).numpy())
    return {name: (dims, np.stack(found)) for name, found in rows.items()}


def _surprise(logits: Tensor, tokens: Tensor) -> np.ndarray:
    """Bits of the token that follows [prompts, T - 1]."""
    log_p = logits[:, :-1].double().log_softmax(-1)
    return (-log_p.gather(-1, tokens[:, 1:, None])[..., 0] / np.log(2)).numpy()


@contextmanager
def editing(model: HybridLM | AdaptedLM, edits: Edit | Sequence[Any]) -> Iterator[HybridLM | AdaptedLM]:
    """While it lasts, the model edits its own memory as it reads: in forward passes, in chunks and in ``generate``.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model; it is the same object, and as before afterwards.
    edits : Edit or sequence of Edit
        All are made in every sequence that passes their times. Times are positions in the sequence, so a run may come
        in pieces: the memory knows its position.

    Yields
    ------
    HybridLM or AdaptedLM
        The model.

    Raises
    ------
    ValueError
        As :func:`edit`; and at the end where no run passed the time of an edit, which then touched nothing.

    Notes
    -----
    An edit at ``time`` acts on the memory that the pass over that token gives back. A freeze reads token by token from
    its time on.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM, generate
    >>> from solomonic.probes import Edit, editing
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> prompt = torch.tensor([[3, 1, 4, 1, 5]])
    >>> with editing(model, Edit(0, "state", time=4, op="zero")):
    ...     other = generate(model, prompt, 4)
    >>> other.ids.shape
    torch.Size([1, 4])
    """
    if not isinstance(model, HybridLM | AdaptedLM):
        raise TypeError(f"model: expected a HybridLM or an AdaptedLM (adapt(model)), got {type(model).__name__}")
    flat = [edits] if isinstance(edits, Edit) else list(edits)
    (group,) = as_interventions([flat], model)
    plain = model.forward
    kept: dict[Any, Value] = {}
    done: set[int] = set()

    def forward(ids: Tensor, memory: Memory | None = None, **named: Any) -> LMOutput:
        if memory is None:
            memory = model.empty_memory(len(ids))
        start, found = memory.position, []
        if start == 0:
            kept.clear()
        end = start + ids.shape[1]
        stops = sorted({t + 1 for t in _touched(group, start, end)} | {end})
        for stop in stops:
            step = plain(ids[:, memory.position - start : stop - start], memory=memory, **named)
            found.append(step.logits)
            memory = step.memory
            for j, each in enumerate(group):
                if each.time == stop - 1 or j in kept:
                    memory, value = apply(memory, each, kept=kept.get(j))
                    _remember(kept, j, each, value, stop - 1)
                    done.add(j)
        return LMOutput(torch.cat(found, 1), memory)

    model.forward = forward  # type: ignore[method-assign]
    try:
        yield model
    finally:
        del model.forward
    missed = [each for j, each in enumerate(group) if j not in done]
    if missed:
        raise ValueError(f"edits: {missed[0]} touched nothing: no run passed token {missed[0].time}")


def _touched(group: Sequence[Edit], start: int, end: int) -> Iterator[int]:
    """The tokens of a piece after which the memory is touched."""
    for each in group:
        last = each.time
        if each.op == "freeze":
            last = end - 1 if each.until is None else each.until
        yield from range(max(each.time, start), min(last, end - 1) + 1)
