"""Where and when a difference between two prompts is held: patches of every layer, time and part of the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import tensors

from .causal_sites import PATHS, Site, SiteRuns
from .divergence import kl_bits
from .edit import as_answers, difference, finite
from .inputs import as_count, as_ids, as_layers, as_level, as_model, as_rng, log_spaced
from .labelled import provenance, units
from .statistics import bootstrap_interval

__all__ = ["causal_trace"]

#: The name that stands for all parts of a layer.
ALL = "all"
CONTROLS = ("resample", "random", "shuffle")
DIRECTIONS = ("denoise", "noise")

_UNITS = {
    "effect": ("effect of the patch on the logit difference", "nat"),
    "effect_mean": ("effect of the patch on the logit difference, mean over prompts", "nat"),
    "effect_mean_interval": ("confidence interval of effect_mean, prompts redrawn", "nat"),
    "normalised": ("effect over the difference between the two runs", "1"),
    "normalised_mean": ("mean effect over the mean difference between the two runs", "1"),
    "normalised_mean_interval": ("confidence interval of normalised_mean, prompts redrawn", "1"),
    "kl": ("divergence of the patched prediction from that of the base run", "bit"),
    "kl_source": ("divergence of the patched prediction from that of the source run", "bit"),
    "control_effect": ("total effect of the control on the logit difference", "nat"),
    "control_mean": ("total effect of the control, mean over prompts", "nat"),
    "control_mean_interval": ("confidence interval of control_mean, prompts redrawn", "nat"),
    "attribution": ("first-order estimate of the total effect", "nat"),
    "attribution_mean": ("first-order estimate of the total effect, mean over prompts", "nat"),
    "agreement": ("agreement of the first-order estimates with the exact effects", "1"),
    "base_difference": ("logit difference of the base run", "nat"),
    "source_difference": ("logit difference of the source run", "nat"),
    "time": ("token after which the memory is patched", "token"),
}


@dataclass(eq=False)
class _Plan:
    """What is patched, in arrays [part, layer, time]."""

    parts: list[str]
    layers: tuple[int, ...]
    times: np.ndarray
    exists: np.ndarray
    exact: np.ndarray


def causal_trace(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    clean_ids: Any,
    corrupt_ids: Any,
    *,
    layers: Iterable[int] | int | None = None,
    times: Iterable[int] | None = None,
    parts: Iterable[str] | str | None = None,
    direction: str = "denoise",
    answers: tuple[Any, Any] | None = None,
    controls: Iterable[str] | None = None,
    attribution: bool = True,
    exact: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    batch_size: int = 64,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Put parts of the memory of one run into another, for every layer and time, and measure the last prediction.

    .. math:: \mathrm{TE} = \Delta(b;\, m_{l,t} := m'_{l,t}) - \Delta(b), \qquad
              \mathrm{normalised} = \frac{\mathrm{TE}}{\Delta(s) - \Delta(b)}, \qquad
              \Delta = \ell(\text{answer}) - \ell(\text{other}),

    with b the base run, s the source run, m and m' their memories of layer l after token t. The direct effect is what
    reaches the last token through the memory of layer l itself; the indirect effect what reaches it through the
    memories of the other layers, which later tokens wrote under the patch. Where the two interact they do not add up to
    the total.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    clean_ids, corrupt_ids : array_like of int
        Prompts [T] or [prompts, T] of one shape, in pairs that differ in some tokens, best in tokens replaced by tokens
        of the same kind.
    layers : int or iterable of int, optional
        Layers that are patched; all by default.
    times : iterable of int, optional
        Tokens after which they are, from the first that differs to T - 2; by default up to 64, evenly spaced in the
        logarithm of their distance from the last token.
    parts : str or iterable of str, optional
        Parts of the memory that are patched, one at a time; ``"all"`` stands for all of a layer's. By default each that
        the model has, and ``"all"`` where a layer has several.
    direction : {"denoise", "noise"}
        ``"denoise"`` puts memories of the clean run into the corrupt one (is it enough?), ``"noise"`` those of the
        corrupt run into the clean one (is it needed?). The two are not each other's mirror.
    answers : pair, optional
        (answer, other), each a token or one for each prompt; by default what the clean and the corrupt run hold most
        likely, and where that is the same token, this one and the clean run's second.
    controls : iterable of str, optional
        What is put in besides: ``"resample"``, the memory of another prompt of the source; ``"random"``, the base run's
        with a change of the same norm in a random direction; ``"shuffle"``, that of the source prompt with its tokens
        in random order. All of them by default, but ``"resample"`` only where there are several prompts.
    attribution : bool, default True
        Whether to estimate all effects to first order by one backward pass.
    exact : int, optional
        For how many patches drawn at random the exact effects are computed; by default for all.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts.
    batch_size : int, default 64
        Largest number of sequences in a call.
    rng : int, numpy.random.Generator or None
        Source of the controls, of the subset and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, path (total, direct, indirect), part, layer, time, control, statistic, bound; NaN where a layer
        does not have a part, and where no exact effect was asked for.

        - ``effect``, ``normalised``, ``kl`` (from the base run), ``kl_source`` (prompt, path, part, layer, time), and
          ``effect_mean``, ``normalised_mean`` with intervals over prompts.
        - ``control_effect`` (prompt, control, part, layer, time), ``control_mean`` with intervals.
        - ``attribution`` (prompt, part, layer, time), ``attribution_mean``, and ``agreement`` (statistic): pearson,
          spearman, share of equal signs, slope, over all patches with exact effects and all prompts.
        - ``base_difference``, ``source_difference`` (prompt), ``answer``, ``other`` (prompt).

    Raises
    ------
    TypeError, ValueError
        If the prompts differ in shape or not at all, if a layer, a part or a time is not there, or comes before the
        first token that differs, where a patch touches nothing; if a logit is NaN.

    Notes
    -----
    A part without the others of its layer makes a memory that no text leads to; ``"all"`` does so for the layer only in
    relation to the other layers. Compare with the controls.

    Prefixes are read once. What follows a patch is run from its layer on, the last layer only for its memory, the head
    for the last token; all patches at a time share a pass. Models of transformers are run whole. The cost is that of
    the tokens that follow the patches, and so smallest for times near the end. ``checks`` says how many (token, layer)
    pairs were run, next to those of whole forward passes.

    The first-order estimate is the derivative of the logit difference of the base run times the change. It is one
    backward pass for all patches, and wrong where the model is far from linear: see ``agreement``.

    References
    ----------
    Vig et al. (arXiv:2004.12265), direct and indirect effects; Meng et al. (arXiv:2202.05262), causal tracing; Zhang
    and Nanda (arXiv:2309.16042), metrics and replacement of tokens; Nanda, "Attribution patching" (2023).

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import causal_trace
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> clean = torch.randint(16, (4, 12), generator=torch.Generator().manual_seed(0))
    >>> corrupt = clean.clone()
    >>> corrupt[:, 3] = (corrupt[:, 3] + 1) % 16
    >>> found = causal_trace(model, clean, corrupt)
    >>> found.effect_mean.sizes
    Frozen({'path': 3, 'part': 4, 'layer': 2, 'time': 8})
    >>> found.part.values.tolist()
    ['conv', 'state', 'window', 'all']
    """
    model = as_model(model)
    clean, corrupt = as_ids(clean_ids, model, name="clean_ids"), as_ids(corrupt_ids, model, name="corrupt_ids")
    if clean.shape != corrupt.shape:
        raise ValueError(
            f"corrupt_ids: expected the shape of clean_ids, {tuple(clean.shape)}, got {tuple(corrupt.shape)}; memories "
            "can be put in each other's place only at the same time"
        )
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected 'denoise' or 'noise', got {direction!r}")
    plan = _plan(model, clean, corrupt, layers, times, parts)
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    batch_size = as_count(batch_size, "batch_size")
    chosen_controls = _controls(controls, len(clean))
    generator, seed = as_rng(rng)
    if exact is not None:
        _subset(plan, as_count(exact, "exact"), generator)
    pair = None if answers is None else as_answers(answers, model, clean)
    device = next(model.parameters()).device
    base_ids, source_ids = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    run = _Sweep(model, base_ids.to(device), source_ids.to(device), plan, batch_size, generator)
    with torch.no_grad():
        run.prepare(direction == "denoise", pair)
        run.measure(chosen_controls, progress)
    estimate = run.attribute() if attribution else np.full(run.effect.shape[:1] + plan.exists.shape, np.nan)
    data, coords = _variables(run, estimate, chosen_controls, model, confidence, resamples, generator)
    full = int(run.sites) * base_ids.numel() * len(model.config.pattern)
    attrs = {
        **provenance(
            "causal_trace",
            model=model,
            arguments={
                "clean_ids": clean,
                "corrupt_ids": corrupt,
                "layers": plan.layers,
                "times": plan.times,
                "parts": plan.parts,
                "direction": direction,
                "answers": pair,
                "controls": chosen_controls,
                "exact": exact,
                "confidence": confidence,
                "resamples": resamples,
            },
            seed=seed,
            checks={"patches": int(run.sites), "tokens_by_layers": run.runs.tokens, "of_full_forwards": full},
        ),
        "direction": direction,
        "tokens": clean.shape[1],
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def default_times(first: int, length: int, count: int = 64) -> np.ndarray:
    """Up to ``count`` tokens from ``first`` to ``length`` - 2, evenly spaced in the logarithm of their lag."""
    last = length - 1
    most = last - first
    if most <= count:
        return np.arange(first, last)
    asked = count
    while (lags := log_spaced(1, most, asked)).size < count:
        asked += 1
    return np.sort(last - lags[np.unique(np.linspace(0, lags.size - 1, count).round().astype(int))])


def _plan(model: HybridLM | AdaptedLM, clean: Tensor, corrupt: Tensor, layers: Any, times: Any, parts: Any) -> _Plan:
    differs = (clean != corrupt).any(0).nonzero()
    steps = clean.shape[1]
    if not len(differs):
        raise ValueError("corrupt_ids: the prompts are the same as clean_ids: there is nothing to trace")
    first = int(differs[0])
    if first > steps - 2:
        raise ValueError(
            f"corrupt_ids: only the last token differs, {first}; a patch after it is read by no token. Add one"
        )
    if times is None:
        chosen = default_times(first, steps)
    else:
        chosen = np.atleast_1d(np.asarray(list(times)))
        if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise ValueError(f"times: expected whole numbers, at least one, got {chosen.tolist()}")
        if chosen.min() < first or chosen.max() > steps - 2:
            bad = int(chosen.min()) if chosen.min() < first else int(chosen.max())
            raise ValueError(
                f"times: expected tokens from {first}, the first that differs between the prompts, to {steps - 2}, the "
                f"last that another follows; got {bad}, where a patch would touch nothing"
            )
        chosen = np.unique(chosen).astype(np.int64)
    which = as_layers(layers, len(model.config.pattern))
    of_layer = [list(model.empty_memory().layers[i]) for i in which]
    known = list(dict.fromkeys(part for found in of_layer for part in found))
    if not known:
        raise ValueError(f"layers: none of {list(which)} has a memory")
    if parts is None:
        names = known + ([ALL] if any(len(found) > 1 for found in of_layer) else [])
    else:
        names = list(dict.fromkeys([parts] if isinstance(parts, str) else list(parts)))
        bad = [name for name in names if name != ALL and name not in known]
        if bad or not names:
            raise ValueError(f"parts: expected some of {[*known, ALL]}, got {bad or names}")
    exists = np.array([[bool(found) if name == ALL else name in found for found in of_layer] for name in names])
    exists = np.repeat(exists[:, :, None], chosen.size, 2)
    return _Plan(names, which, chosen, exists, exists.copy())


def _controls(controls: Any, prompts: int) -> list[str]:
    if controls is None:
        return [each for each in CONTROLS if each != "resample" or prompts > 1]
    chosen = list(dict.fromkeys([controls] if isinstance(controls, str) else list(controls)))
    bad = [each for each in chosen if each not in CONTROLS]
    if bad:
        raise ValueError(f"controls: expected some of {', '.join(CONTROLS)}, got {bad[0]!r}")
    if "resample" in chosen and prompts < 2:
        raise ValueError("controls: 'resample' takes the memory of another prompt, and there is one only; give several")
    return chosen


def _subset(plan: _Plan, count: int, random: np.random.Generator) -> None:
    places = np.flatnonzero(plan.exists)
    if count > places.size:
        raise ValueError(f"exact: expected at most the {places.size} patches that there are, got {count}")
    plan.exact = np.zeros_like(plan.exists)
    plan.exact.flat[random.choice(places, count, replace=False)] = True


class _Sweep:
    """The base and the source run, and what every patch does to the last prediction."""

    def __init__(
        self,
        model: HybridLM | AdaptedLM,
        base: Tensor,
        source: Tensor,
        plan: _Plan,
        batch_size: int,
        random: np.random.Generator,
    ) -> None:
        self.model, self.ids, self.source_ids, self.plan, self.random = model, base, source, plan, random
        self.runs = SiteRuns(model, base, batch_size)
        shape = (len(base), *plan.exists.shape)
        self.effect = np.full((len(base), 3, *plan.exists.shape), np.nan)
        self.kl, self.kl_source = self.effect.copy(), self.effect.copy()
        self.control = {each: np.full(shape, np.nan) for each in CONTROLS}
        self.sites = 0

    def prepare(self, denoise: bool, pair: np.ndarray | None) -> None:
        """The two runs and their memories, and the tokens of the logit difference."""
        self.base = finite(self.runs.start(self.plan.times.tolist()), "the base run")
        self.source, self.donors = _memories(self.model, self.source_ids, self.plan.times)
        self.source = finite(self.source, "the source run")
        if pair is None:
            clean, corrupt = (self.source, self.base) if denoise else (self.base, self.source)
            two = clean.topk(2, -1).indices
            other = corrupt.argmax(-1)
            other = torch.where(other == two[:, 0], two[:, 1], other)
            self.two = torch.stack([two[:, 0], other], -1)
        else:
            self.two = torch.as_tensor(pair.T.copy(), device=self.ids.device)
        self.before = difference(self.base, self.two).cpu().numpy()
        self.after = difference(self.source, self.two).cpu().numpy()

    def measure(self, controls: Sequence[str], progress: bool) -> None:
        """All patches, and their controls."""
        shuffled: dict[int, Memory] = {}
        if "shuffle" in controls:
            order = np.stack([self.random.permutation(self.ids.shape[1]) for _ in range(len(self.ids))])
            mixed = self.source_ids.gather(1, torch.from_numpy(order).to(self.ids.device))
            shuffled = _memories(self.model, mixed, self.plan.times)[1]
        rolled = torch.arange(len(self.ids))
        if "resample" in controls:
            order = torch.from_numpy(self.random.permutation(len(self.ids)))
            rolled[order] = order.roll(1)
        for place, time in enumerate(tqdm(self.plan.times.tolist(), disable=not progress, desc="causal trace")):
            donor = self.donors[time]
            donors = {"patch": donor}
            if "resample" in controls:
                donors["resample"] = donor.map(lambda t: t[rolled.to(t.device)])
            if "shuffle" in controls:
                donors["shuffle"] = shuffled[time]
            if "random" in controls:
                donors["random"] = self._random(self.runs.memories[time], donor)
            sites = []
            for p, l in np.argwhere(self.plan.exact[:, :, place]).tolist():
                layer = self.plan.layers[l]
                own = self.runs.memories[time].layers[layer]
                for kind, memory in donors.items():
                    new = memory.layers[layer]
                    name = self.plan.parts[p]
                    parts = new if name == ALL else {**own, name: new[name]}
                    sites.append(((kind, p, l, place), Site(layer, parts)))
            self.sites += len(sites)
            self._note(self.runs.run(time, sites))
        self._note(self.runs.finish())

    def _random(self, base: Memory, donor: Memory) -> Memory:
        """The base memory with changes of the norms that the donor's have, in random directions."""
        torch_random = torch.Generator().manual_seed(int(self.random.integers(2**62)))
        layers = []
        for here, there in zip(base.layers, donor.layers, strict=True):
            new: dict[str, Any] = {}
            for part, value in here.items():
                fields = []
                for a, b in zip(tensors(value), tensors(there[part]), strict=True):
                    if not a.is_floating_point():
                        fields.append(a)
                        continue
                    noise = torch.randn(a.shape, generator=torch_random, dtype=torch.float64).to(a)
                    change = torch.nan_to_num(b - a)  # scores of empty slots are minus infinity in both
                    size = change.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1).clamp_min(1e-30)
                    fields.append(a + noise * size.reshape(-1, *[1] * (a.ndim - 1)))
                new[part] = type(value)(*fields) if isinstance(value, tuple) else fields[0]
            layers.append(new)
        return Memory(tuple(layers), base.position)

    def _note(self, found: Sequence[tuple[Any, Tensor]]) -> None:
        for (kind, *at), logits in found:
            logits = finite(logits, f"the run with {self._name(at)} put in")
            after = difference(logits, self.two.expand(3, -1, -1)).cpu().numpy() - self.before
            if kind != "patch":
                self.control[kind][(slice(None), *at)] = after[0]
                continue
            index = (slice(None), slice(None), *at)
            self.effect[index] = after.T
            self.kl[index] = kl_bits(self.base.expand_as(logits), logits).cpu().numpy().T
            self.kl_source[index] = kl_bits(self.source.expand_as(logits), logits).cpu().numpy().T

    def _name(self, at: Sequence[int]) -> str:
        p, layer, place = at
        return f"{self.plan.parts[p]} of layer {self.plan.layers[layer]} after token {self.plan.times[place]}"

    def attribute(self) -> np.ndarray:
        """First-order estimates [prompts, part, layer, time]: the derivative of the base run times the change."""
        last, memory, begin = self.ids.shape[1] - 1, None, 0
        held: dict[int, list[dict[str, list[Tensor]]]] = {}
        out = None
        with torch.enable_grad():
            for stop in [*(self.plan.times + 1).tolist(), last + 1]:
                out = self.model(self.ids[:, begin:stop], memory=memory)
                memory, begin = out.memory, stop
                if stop <= last:
                    memory, held[stop - 1] = _with_leaves(memory)
            assert out is not None
            logits = out.logits[:, -1].double().gather(-1, self.two)
            score = (logits[:, 0] - logits[:, 1]).sum()
            leaves = [z for layers in held.values() for layer in layers for fields in layer.values() for z in fields]
            grads = iter(torch.autograd.grad(score, leaves, allow_unused=True))
        estimate = np.full((len(self.ids), *self.plan.exists.shape), np.nan)
        for place, time in enumerate(self.plan.times.tolist()):
            for i, layer in enumerate(held[time]):
                each = {}
                for part, fields in layer.items():
                    slopes = [next(grads) for _ in fields]
                    each[part] = self._products(time, i, part, slopes)
                if i not in self.plan.layers or not each:
                    continue
                column = self.plan.layers.index(i)
                for p, name in enumerate(self.plan.parts):
                    if name == ALL:
                        estimate[:, p, column, place] = sum(each.values())
                    elif name in each:
                        estimate[:, p, column, place] = each[name]
        return estimate

    def _products(self, time: int, layer: int, part: str, slopes: Sequence[Tensor | None]) -> np.ndarray:
        base, donor = (tensors(m.layers[layer][part]) for m in (self.runs.memories[time], self.donors[time]))
        total = np.zeros(len(self.ids))
        floats = [(a, b) for a, b in zip(base, donor, strict=True) if a.is_floating_point()]
        for (a, b), slope in zip(floats, slopes, strict=True):
            if slope is not None:
                change = torch.nan_to_num((b - a).double(), posinf=0.0, neginf=0.0)
                total += (change * slope.double()).flatten(1).sum(1).cpu().numpy()
        return total


def _memories(model: HybridLM | AdaptedLM, ids: Tensor, times: np.ndarray) -> tuple[Tensor, dict[int, Memory]]:
    """The last logits of a run, and its memories after some tokens."""
    memory, begin, kept = None, 0, {}
    out = None
    for stop in [*(times + 1).tolist(), ids.shape[1]]:
        out = model(ids[:, begin:stop], memory=memory)
        memory, begin = out.memory, stop
        kept[stop - 1] = memory
    assert out is not None
    return out.logits[:, -1], kept


def _with_leaves(memory: Memory) -> tuple[Memory, list[dict[str, list[Tensor]]]]:
    """The memory with zeros added to it that ask for gradients, and these."""
    layers, leaves = [], []
    for layer in memory.layers:
        new: dict[str, Any] = {}
        zeros: dict[str, list[Tensor]] = {}
        for part, value in layer.items():
            fields, zeros[part] = [], []
            for t in tensors(value):
                if not t.is_floating_point():
                    fields.append(t)
                    continue
                zeros[part].append(torch.zeros_like(t, requires_grad=True))
                fields.append(t + zeros[part][-1])
            new[part] = type(value)(*fields) if isinstance(value, tuple) else fields[0]
        layers.append(new)
        leaves.append(zeros)
    return Memory(tuple(layers), memory.position), leaves


def _variables(
    run: _Sweep,
    estimate: np.ndarray,
    controls: Sequence[str],
    model: HybridLM | AdaptedLM,
    confidence: float,
    resamples: int,
    random: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Any]]:
    plan, pattern = run.plan, model.config.pattern
    gap = run.after - run.before
    dims = ("path", "part", "layer", "time")
    wide = np.reshape(gap, (-1, 1, 1, 1, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        normalised = np.where(wide != 0, run.effect / wide, np.nan)

    def interval(values: np.ndarray, statistic: Any = "mean") -> np.ndarray:
        return bootstrap_interval(values, statistic, confidence=confidence, resamples=resamples, rng=random)

    both = np.stack([run.effect, np.broadcast_to(wide, run.effect.shape)], 1)
    control = np.zeros((len(gap), len(controls), *plan.exists.shape))
    for i, each in enumerate(controls):
        control[:, i] = run.control[each]
    data: dict[str, Any] = {
        "effect": (("prompt", *dims), run.effect),
        "effect_mean": (dims, run.effect.mean(0)),
        "effect_mean_interval": (("bound", *dims), interval(run.effect)),
        "normalised": (("prompt", *dims), normalised),
        "normalised_mean": (dims, _ratio(both, 0)),
        "normalised_mean_interval": (("bound", *dims), interval(both, _ratio)),
        "kl": (("prompt", *dims), run.kl),
        "kl_source": (("prompt", *dims), run.kl_source),
        "control_effect": (("prompt", "control", *dims[1:]), control),
        "control_mean": (("control", *dims[1:]), control.mean(0)),
        "control_mean_interval": (("bound", "control", *dims[1:]), interval(control)),
        "attribution": (("prompt", *dims[1:]), estimate),
        "attribution_mean": (dims[1:], estimate.mean(0)),
        "agreement": ("statistic", _agreement(estimate, run.effect[:, 0])),
        "base_difference": ("prompt", run.before),
        "source_difference": ("prompt", run.after),
        "answer": ("prompt", run.two[:, 0].cpu().numpy()),
        "other": ("prompt", run.two[:, 1].cpu().numpy()),
    }
    coords = {
        "prompt": np.arange(len(gap)),
        "path": list(PATHS),
        "part": plan.parts,
        "layer": list(plan.layers),
        "symbol": ("layer", [pattern[i] for i in plan.layers]),
        "time": plan.times,
        "control": list(controls),
        "statistic": ["pearson", "spearman", "sign", "slope"],
        "bound": ["lower", "upper"],
    }
    return data, coords


def _ratio(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean effect over mean gap; the two stand on the axis after the samples."""
    mean = values.mean(axis)
    effect, gap = np.take(mean, 0, axis), np.take(mean, 1, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gap != 0, effect / gap, np.nan)


def _agreement(estimate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Pearson's and Spearman's correlation, the share of equal signs, and the slope of the exact effects."""
    known = np.isfinite(estimate) & np.isfinite(exact)
    a, b = estimate[known], exact[known]
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.full(4, np.nan)
    pearson, spearman = np.corrcoef(a, b)[0, 1], stats.spearmanr(a, b).statistic
    return np.array([pearson, spearman, (np.sign(a) == np.sign(b)).mean(), (a @ b) / (a @ a)])
