"""Where and when a difference between two prompts is held: patches of every layer, time and part of the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import map_layers

from .causal_attribution import agreement, attribute
from .causal_plan import ALL, CONTROLS, Plan, as_controls, as_paths, as_plan, subset
from .causal_sites import Site, SiteRuns
from .divergence import kl_bits
from .edit import as_answers, difference, finite
from .inputs import as_count, as_ids, as_level, as_model, as_rng
from .labelled import provenance, units
from .ratios import ratio_interval
from .statistics import bootstrap_interval

__all__ = ["causal_trace"]

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
    "attribution_mean_interval": ("confidence interval of attribution_mean, prompts redrawn", "nat"),
    "agreement_interval": ("confidence interval of agreement, prompts redrawn", "1"),
    "agreement": ("agreement of the first-order estimates with the exact effects", "1"),
    "base_difference": ("logit difference of the base run", "nat"),
    "source_difference": ("logit difference of the source run", "nat"),
    "time": ("token after which the memory is patched", "token"),
}


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
    paths: Iterable[str] | str | None = None,
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
    paths : str or iterable of str, optional
        Which effects: ``"total"``, which always is among them, ``"direct"`` and ``"indirect"``; all by default.
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
        Dims prompt, path (of ``paths``), part, layer, time, control, statistic, bound; NaN where a layer
        does not have a part, and where no exact effect was asked for.

        - ``effect``, ``normalised``, ``kl`` (from the base run), ``kl_source`` (prompt, path, part, layer, time), and
          ``effect_mean``, ``normalised_mean`` with intervals over prompts.
        - ``control_effect`` (prompt, control, part, layer, time), ``control_mean`` with intervals.
        - ``attribution`` (prompt, part, layer, time), ``attribution_mean``, and ``agreement`` (statistic): pearson,
          spearman, share of equal signs, slope, over all patches with exact effects and all prompts. Both with
          intervals; that of ``agreement`` is from 200 resamples at most.
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
    plan = as_plan(model, clean, corrupt, layers, times, parts)
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    batch_size = as_count(batch_size, "batch_size")
    chosen_controls = as_controls(controls, len(clean))
    generator, seed = as_rng(rng)
    if exact is not None:
        subset(plan, as_count(exact, "exact"), generator)
    pair = None if answers is None else as_answers(answers, model, clean)
    device = next(model.parameters()).device
    base_ids, source_ids = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    chosen_paths = as_paths(paths)
    run = _Sweep(model, base_ids.to(device), source_ids.to(device), plan, chosen_paths, batch_size, generator)
    with torch.no_grad():
        run.prepare(direction == "denoise", pair, chosen_controls)
        run.measure(chosen_controls, progress)
    estimate = (
        attribute(model, run.ids, run.two, run.runs.memories, run.donors, plan)
        if attribution
        else np.full(run.effect.shape[:1] + plan.exists.shape, np.nan)
    )
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
                "paths": chosen_paths,
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


class _Sweep:
    """The base and the source run, and what every patch does to the last prediction."""

    def __init__(
        self,
        model: HybridLM | AdaptedLM,
        base: Tensor,
        source: Tensor,
        plan: Plan,
        paths: tuple[str, ...],
        batch_size: int,
        random: np.random.Generator,
    ) -> None:
        self.model, self.ids, self.source_ids, self.plan, self.random = model, base, source, plan, random
        self.runs = SiteRuns(model, base, batch_size, paths)
        shape = (len(base), *plan.exists.shape)
        self.effect = np.full((len(base), len(paths), *plan.exists.shape), np.nan)
        self.kl, self.kl_source = self.effect.copy(), self.effect.copy()
        self.control = {each: np.full(shape, np.nan) for each in CONTROLS}
        self.sites = 0

    def prepare(self, denoise: bool, pair: np.ndarray | None, controls: Sequence[str]) -> None:
        """The runs and their memories, and the tokens of the logit difference."""
        others = [self.source_ids]
        if "shuffle" in controls:
            order = np.stack([self.random.permutation(self.ids.shape[1]) for _ in range(len(self.ids))])
            others.append(self.source_ids.gather(1, torch.from_numpy(order).to(self.ids.device)))
        (base, _), (source, self.donors), *more = self.runs.start(self.plan.times.tolist(), others)
        self.base, self.source = finite(base, "the base run"), finite(source, "the source run")
        self.shuffled = more[0][1] if more else {}
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
                donors["shuffle"] = self.shuffled[time]
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

        def changed(a: Tensor, b: Tensor) -> Tensor:
            if not a.is_floating_point():
                return a
            noise = torch.randn(a.shape, generator=torch_random, dtype=torch.float64).to(a)
            change = torch.nan_to_num(b - a)  # scores of empty slots are minus infinity in both
            size = change.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1).clamp_min(1e-30)
            return a + noise * size.reshape(-1, *[1] * (a.ndim - 1))

        layers = tuple(map_layers(changed, *pair) for pair in zip(base.layers, donor.layers, strict=True))
        return Memory(layers, base.position)

    def _note(self, found: Sequence[tuple[list[Any], Tensor]]) -> None:
        for keys, logits in found:
            if not torch.isfinite(logits).all():
                wrong = int(torch.isfinite(logits).all(-1).all(-1).all(0).long().argmin())
                finite(logits, f"the run with {self._name(keys[wrong][1:])} put in")
            after = difference(logits, self.two.expand(*logits.shape[:3], -1)).cpu().numpy() - self.before
            kl, kl_source = (kl_bits(each.expand_as(logits), logits).cpu().numpy() for each in (self.base, self.source))
            for k, (kind, *at) in enumerate(keys):
                if kind != "patch":
                    self.control[kind][(slice(None), *at)] = after[0, k]
                    continue
                index = (slice(None), slice(None), *at)
                self.effect[index], self.kl[index] = after[:, k].T, kl[:, k].T
                self.kl_source[index] = kl_source[:, k].T

    def _name(self, at: Sequence[int]) -> str:
        p, layer, place = at
        return f"{self.plan.parts[p]} of layer {self.plan.layers[layer]} after token {self.plan.times[place]}"


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

    def interval(values: np.ndarray) -> np.ndarray:
        return bootstrap_interval(values, confidence=confidence, resamples=resamples, rng=random)

    both = np.stack([run.effect, np.broadcast_to(wide, run.effect.shape)], 1)
    control = np.zeros((len(gap), len(controls), *plan.exists.shape))
    for i, each in enumerate(controls):
        control[:, i] = run.control[each]
    pairs = np.stack([estimate, run.effect[:, 0]], 1)
    data: dict[str, Any] = {
        "effect": (("prompt", *dims), run.effect),
        "effect_mean": (dims, run.effect.mean(0)),
        "effect_mean_interval": (("bound", *dims), interval(run.effect)),
        "normalised": (("prompt", *dims), normalised),
        "normalised_mean": (dims, _ratio(both, 0)),
        "normalised_mean_interval": (("bound", *dims), ratio_interval(both[:, 0], both[:, 1], confidence=confidence)),
        "kl": (("prompt", *dims), run.kl),
        "kl_source": (("prompt", *dims), run.kl_source),
        "control_effect": (("prompt", "control", *dims[1:]), control),
        "control_mean": (("control", *dims[1:]), control.mean(0)),
        "control_mean_interval": (("bound", "control", *dims[1:]), interval(control)),
        "attribution": (("prompt", *dims[1:]), estimate),
        "attribution_mean": (dims[1:], estimate.mean(0)),
        "attribution_mean_interval": (("bound", *dims[1:]), interval(estimate)),
        "agreement": ("statistic", _agreement(pairs, 0)),
        "agreement_interval": (
            ("bound", "statistic"),
            bootstrap_interval(pairs, _agreement, confidence=confidence, resamples=min(resamples, 200), rng=random),
        ),
        "base_difference": ("prompt", run.before),
        "source_difference": ("prompt", run.after),
        "answer": ("prompt", run.two[:, 0].cpu().numpy()),
        "other": ("prompt", run.two[:, 1].cpu().numpy()),
    }
    coords = {
        "prompt": np.arange(len(gap)),
        "path": list(run.runs.paths),
        "part": plan.parts,
        "layer": list(plan.layers),
        "symbol": ("layer", [pattern[i] for i in plan.layers]),
        "time": plan.times,
        "control": list(controls),
        "statistic": ["pearson", "spearman", "sign", "slope"],
        "bound": ["lower", "upper"],
    }
    return data, coords


def _agreement(pairs: np.ndarray, axis: int) -> np.ndarray:
    """How well estimates agree with exact effects, which stand on the axis after that of the prompts."""
    return agreement(pairs[:, 0], pairs[:, 1]) if axis == 0 else np.stack([_agreement(each, 0) for each in pairs])


def _ratio(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean effect over mean gap; the two stand on the axis after the samples."""
    mean = values.mean(axis)
    effect, gap = np.take(mean, 0, axis), np.take(mean, 1, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gap != 0, effect / gap, np.nan)
