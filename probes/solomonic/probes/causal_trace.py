"""Where a difference between two texts is remembered: patches of the memory over layer, time and part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import linear
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory
from solomonic.models.memory import Value
from solomonic.models.rope import rotary_tables

from .divergence import kl_bits
from .inputs import as_cuts, as_ids, as_layers, as_level, as_model, as_rng
from .labelled import provenance, units
from .statistics import bootstrap_interval

__all__ = ["causal_trace"]

_UNITS = {
    "effect": ("how far the patch moves the prediction towards the other text's", "bit"),
    "normalised": ("effect over that of the whole memory; of the means, over prompts", "1"),
    "normalised_interval": ("confidence interval of normalised, prompts redrawn", "1"),
    "first_order": ("the effect by the gradient, to first order", "bit"),
    "control_effect": ("effect of another patch of the same place", "bit"),
    "total": ("effect of the whole memory: between the two texts", "bit"),
    "time": ("token after which the memory is patched", "token"),
}
_CONTROLS = ("random", "shuffled")


class _Site(NamedTuple):
    layer: int
    part: str


def causal_trace(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    other: Any,
    *,
    times: int | Iterable[int] = 16,
    layers: Iterable[int] | int | None = None,
    parts: Iterable[str] | str | None = None,
    contrast: tuple[int, int] | None = None,
    controls: Iterable[str] = (),
    first_order: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Put parts of one text's memory into the run of another, one at a time, and see how far the prediction goes over.

    .. math:: e(l, p, t) = v\bigl(m_t[l, p := m_t^{\ast}]\bigr) - v(m_t), \qquad
              v(m) = -\mathrm{KL}\bigl(p^{\ast}\,\|\,p(\cdot \mid m, u_{t+1:T})\bigr),

    with m the memory of ``ids`` and m* that of ``other`` after token t, and p* the prediction at the end of ``other``.
    With ``contrast`` v is the difference of two logits. The whole effect, v* - v, is 1 in ``normalised``.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids, other : array_like of int
        The text that is run and the one that is patched in, [T] or [prompts, T], of one length. They may differ before
        the last patch; tokens after a patch are those of ``ids``.
    times : int or iterable of int, default 16
        After which tokens to patch, from 0 to T - 2; a number asks for so many, evenly spaced.
    layers : int or iterable of int, optional
        Layers; all by default.
    parts : str or iterable of str, optional
        Parts of the memory; all by default.
    contrast : (int, int), optional
        Tokens a and b: v is the logit of a minus that of b, in the model's units.
    controls : iterable of {"random", "shuffled"}
        Patches that should do less: a move of the same norm in a random direction, and the other text's memory of the
        next prompt.
    first_order : bool, default False
        Whether to estimate all effects by one backward pass, grad v . (m* - m).
    confidence : float, default 0.95
        Nominal coverage of the interval.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of random directions and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, time, site (coordinates layer, part, kind), bound, control.

        - ``effect`` (prompt, time, site) and ``total`` (prompt).
        - ``normalised`` (time, site): mean effect over mean total, with ``normalised_interval``; NaN where the texts
          predict the same.
        - ``control_effect`` (control, prompt, time, site), ``first_order`` (prompt, time, site), where asked for.

        Attributes: provenance, and ``agreement``, the rank correlation of ``first_order`` with ``effect``.

    Raises
    ------
    TypeError, ValueError
        If texts have different lengths, a time, layer or part does not exist, or the prediction has NaN.

    Notes
    -----
    What is before a patch is read once. Layers below a patched one are not touched by it, so their outputs are those of
    the plain run; all patches of one time run side by side, each from its own layer up. A patch that equals what is
    there is not run, and its effect is exactly 0: so is every one before the texts differ.

    Parts interact, so effects need not add up to the total. A patch makes a memory that no text leads to: read the
    controls. Registers of one time hold the same tokens at all layers only in attention without windows.

    References
    ----------
    Meng et al., "Locating and editing factual associations in GPT" (arXiv:2202.05262), for causal traces; Nanda,
    "Attribution patching" (2023) and Syed et al. (arXiv:2310.10348), for the first-order estimate.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import causal_trace
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (2, 12), generator=torch.Generator().manual_seed(0))
    >>> other = ids.clone()
    >>> other[:, 8] = (ids[:, 8] + 1) % 16
    >>> found = causal_trace(model, ids, other, times=[4, 9])
    >>> [f"{l} {p}" for l, p in zip(found.layer.values.tolist(), found.part.values.tolist())]
    ['0 conv', '0 state', '1 window']
    >>> bool(abs(found.effect.sel(time=4)).max() < 1e-5)  # nothing differs before token 8
    True
    """
    model = as_model(model)
    text, source = as_ids(ids, model, least=2), as_ids(other, model, name="other", least=2)
    if text.shape != source.shape:
        raise ValueError(
            f"other: expected the shape of ids, {tuple(text.shape)}, got {tuple(source.shape)}; patches need texts of "
            "one length, position for position"
        )
    length = text.shape[1]
    when = as_cuts(times if isinstance(times, int | np.integer) else [t + 1 for t in times], length) - 1
    sites = _sites(model, layers, parts)
    wanted = tuple(controls) if not isinstance(controls, str) else (controls,)
    if unknown := [name for name in wanted if name not in _CONTROLS]:
        raise ValueError(f"controls: expected {' or '.join(_CONTROLS)}, got {unknown[0]!r}")
    if "shuffled" in wanted and len(text) < 2:
        raise ValueError("controls: 'shuffled' takes the memory of another prompt, and there is one")
    confidence = as_level(confidence, "confidence")
    pair = _pair(contrast, model.config.vocab_size)
    generator, seed = as_rng(rng)
    noise = torch.Generator().manual_seed(int(generator.integers(2**62)))
    with torch.no_grad():
        goal = model(source).logits[:, -1]
        plain = model(text).logits[:, -1]
        if not bool(goal.isfinite().all() and plain.isfinite().all()):
            raise ValueError("model: its logits at the end of the texts have NaN or infinities; check its weights")
        base = _score(plain, goal, pair)
        total = _score(goal, goal, pair) - base
        effect = np.empty((1 + len(wanted), len(text), when.size, len(sites)))
        run, hidden = _both(model, text, source, when)
        for place, (mine, theirs) in enumerate(tqdm(run, disable=not progress, unit="time", desc="causal trace")):
            patches = [[_part(theirs, site) for site in sites]]
            patches += [[_control(name, mine, theirs, site, noise) for site in sites] for name in wanted]
            ends = _ends(model, text, mine, sites, patches, hidden, plain)
            scores = np.stack([_score(end, goal, pair) for end in ends])  # [patches sites, prompts]
            effect[:, :, place] = np.moveaxis(scores.reshape(len(patches), len(sites), -1) - base, 1, 2)
    normalised, interval = _normalised(effect[0], total, confidence, resamples, generator)
    dims = ("prompt", "time", "site")
    data: dict[str, Any] = {
        "effect": (dims, effect[0]),
        "total": ("prompt", total),
        "normalised": (("time", "site"), normalised),
        "normalised_interval": (("bound", "time", "site"), interval),
    }
    if wanted:
        data["control_effect"] = (("control", *dims), effect[1:])
    arguments = {"ids": text, "other": source, "times": when, "contrast": pair, "controls": list(wanted)}
    attrs = {**provenance("causal_trace", model=model, arguments=arguments, seed=seed), "confidence": confidence}
    if first_order:
        estimate = _first_order(model, text, source, when, sites, goal, pair)
        data["first_order"] = (dims, estimate)
        attrs["agreement"] = _agreement(estimate, effect[0])
    kinds = {(p.layer, p.part): p.kind for p in model.empty_memory().parts()}
    coords: dict[str, Any] = {
        "prompt": np.arange(len(text)),
        "time": when,
        "layer": ("site", [site.layer for site in sites]),
        "part": ("site", [site.part for site in sites]),
        "kind": ("site", [kinds[site] for site in sites]),
        "bound": ["lower", "upper"],
    }
    if wanted:
        coords["control"] = list(wanted)
    found = units(xr.Dataset(data, coords, attrs), _UNITS)
    if pair is not None:
        for name in ("effect", "total", "first_order", "control_effect"):
            if name in found:
                found[name].attrs["units"] = "logit"
    return found


def _agreement(estimate: np.ndarray, effect: np.ndarray) -> float:
    """Rank correlation; NaN where one of the two is constant."""
    if np.ptp(estimate) == 0 or np.ptp(effect) == 0:
        return float("nan")
    found: Any = spearmanr(estimate.ravel(), effect.ravel())
    return float(found.statistic)


def _sites(model: HybridLM | AdaptedLM, layers: Any, parts: Any) -> list[_Site]:
    every = model.empty_memory().parts()
    chosen = as_layers(layers, len(model.config.pattern))
    names = None if parts is None else [parts] if isinstance(parts, str) else list(parts)
    there = {p.part for p in every}
    if names is not None and (unknown := [name for name in names if name not in there]):
        raise ValueError(f"parts: this model has {', '.join(sorted(there))}, got {unknown[0]!r}")
    found = [_Site(p.layer, p.part) for p in every if p.layer in chosen and (names is None or p.part in names)]
    if not found:
        raise ValueError(f"layers, parts: no layer of {list(chosen)} has any of {names}")
    return found


def _pair(value: Any, vocabulary: int) -> tuple[int, int] | None:
    if value is None:
        return None
    found = tuple(value) if isinstance(value, tuple | list) else ()
    if len(found) != 2 or not all(isinstance(v, int | np.integer) and 0 <= v < vocabulary for v in found):
        raise ValueError(f"contrast: expected two tokens from 0 to {vocabulary - 1}, got {value!r}")
    return int(found[0]), int(found[1])


def _score(logits: Tensor, goal: Tensor, pair: tuple[int, int] | None) -> np.ndarray:
    """v of each prompt, from the logits at the end [prompts, vocab]."""
    if pair is not None:
        return (logits[:, pair[0]] - logits[:, pair[1]]).double().numpy()
    return -kl_bits(goal, logits).numpy()


class _Hidden(NamedTuple):
    """Inputs of every layer in the plain run [prompts, T, d]; none for models that are run whole."""

    inputs: list[Tensor]


def _both(model: HybridLM | AdaptedLM, text: Tensor, source: Tensor, times: np.ndarray) -> tuple[Any, _Hidden]:
    """The memories of both texts after each of the times, one after the other, and the plain run's hidden states."""
    inputs: list[Tensor] = []
    if isinstance(model, HybridLM):
        tapped: dict[int, Tensor] = {}

        def record(layer: int, name: str, value: Tensor) -> None:
            if name == "hidden":
                tapped[layer] = value

        model(text, record=record)
        inputs = [model.model.embed_tokens(text), *(tapped[i] for i in range(len(model.layers) - 1))]

    def walk() -> Iterable[tuple[Memory, Memory]]:
        both, memory = torch.cat([text, source]), model.empty_memory(2 * len(text))
        for time in times.tolist():
            memory = model(both[:, memory.position : time + 1], memory=memory).memory
            mine, theirs = (memory.map(lambda t, i=i: t.chunk(2)[i]) for i in range(2))
            yield mine, theirs

    return _Sized(walk(), times.size), _Hidden(inputs)


class _Sized:
    """An iterator that knows its length, for the progress bar."""

    def __init__(self, items: Iterable[Any], length: int) -> None:
        self.items, self.length = items, length

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return self.length


def _part(memory: Memory, site: _Site) -> Value:
    return memory.get(site.layer, site.part)


def _mapped(value: Value, function: Any, *others: Value) -> Value:
    if isinstance(value, Tensor):
        return function(value, *others)
    return type(value)(*(function(*each) for each in zip(value, *others, strict=True)))  # type: ignore[arg-type]


def _control(name: str, mine: Memory, theirs: Memory, site: _Site, noise: torch.Generator) -> Value:
    if name == "shuffled":
        return _mapped(_part(theirs, site), lambda t: t.roll(-1, 0))

    def moved(own: Tensor, other: Tensor) -> Tensor:
        if not own.is_floating_point():
            return own
        gap = (other - own).flatten(1)
        step = torch.randn(gap.shape, generator=noise, dtype=torch.float64).to(gap.dtype)
        step = step * (gap.norm(dim=1) / step.norm(dim=1).clamp(min=1e-30))[:, None] if gap.numel() else step
        return own + step.view_as(own)

    return _mapped(_part(mine, site), moved, _part(theirs, site))


def _stack(values: Sequence[Value]) -> Value:
    return _mapped(values[0], lambda *ts: torch.cat(ts, 0), *values[1:])


def _ends(
    model: HybridLM | AdaptedLM,
    text: Tensor,
    memory: Memory,
    sites: Sequence[_Site],
    patches: Sequence[Sequence[Value]],
    hidden: _Hidden,
    plain: Tensor,
) -> list[Tensor]:
    """Logits at the end of the text [prompts, vocab] for each patch of each list, in that order.

    A patch that is what is there already is not run: the texts agree so far, or a register holds nothing that differs.
    """
    jobs = [(site, value) for values in patches for site, value in zip(sites, values, strict=True)]
    found = [plain] * len(jobs)
    order = [i for i, (site, value) in enumerate(jobs) if not _equal(value, _part(memory, site))]
    order.sort(key=lambda i: jobs[i][0].layer)
    if not order:
        return found
    if isinstance(model, HybridLM):
        last = _upwards(model, text, memory, [jobs[i] for i in order], hidden)
    else:
        rest = text[:, memory.position :].repeat(len(order), 1)
        copies = [memory.set(site.layer, site.part, value) for site, value in (jobs[i] for i in order)]
        stacked = tuple(
            {name: _stack([copy.layers[i][name] for copy in copies]) for name in layer}
            for i, layer in enumerate(memory.layers)
        )
        last = model(rest, memory=Memory(stacked, memory.position)).logits[:, -1]
    for place, i in enumerate(order):
        found[i] = last.unflatten(0, (len(order), -1))[place]
    return found


def _equal(a: Value, b: Value) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    return all(map(torch.equal, a, b))


def _upwards(
    model: HybridLM, text: Tensor, memory: Memory, jobs: Sequence[tuple[_Site, Value]], hidden: _Hidden
) -> Tensor:
    """Run the patches side by side, each from its layer up: below it, nothing has changed."""
    start, prompts = memory.position, len(text)
    x = hidden.inputs[0][:0, start:]
    tables = rotary_tables(model.config, start, text.shape[1] - start, x)
    for i, layer in enumerate(model.layers):
        own = memory.layers[i]
        new = [job for job in jobs if job[0].layer == i]
        old = len(x) // prompts
        if not old and not new:
            continue
        x = torch.cat([x, hidden.inputs[i][:, start:].repeat(len(new), 1, 1)])
        past = {
            name: _stack([own[name]] * old + [value if site.part == name else own[name] for site, value in new])
            for name in own
        }
        if i < len(model.layers) - 1:
            x, _ = layer(x, past, tables)
        else:  # only its last token is asked for
            mixed, _ = layer.mixer(layer.input_layernorm(x), past, tables)
            x = x[:, -1] + mixed[:, -1]
            x = x + layer.mlp(layer.post_attention_layernorm(x))
    x = model.model.norm(x)
    head = model.model.embed_tokens.weight if model.config.tie_word_embeddings else model.lm_head.weight
    return linear(x, head)


def _normalised(
    effect: np.ndarray, total: np.ndarray, confidence: float, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean effect over mean total, and its interval, prompts redrawn together."""

    def ratio(values: np.ndarray, axis: int) -> np.ndarray:
        mean = values.mean(axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(mean[..., -1:] == 0, np.nan, mean[..., :-1] / mean[..., -1:])

    rows = np.concatenate([effect.reshape(len(effect), -1), total[:, None]], 1)
    shape = effect.shape[1:]
    bounds = bootstrap_interval(rows, ratio, confidence=confidence, resamples=resamples, rng=rng)
    return ratio(rows, 0).reshape(shape), bounds.reshape(2, *shape)


def _first_order(
    model: HybridLM | AdaptedLM,
    text: Tensor,
    source: Tensor,
    times: np.ndarray,
    sites: Sequence[_Site],
    goal: Tensor,
    pair: tuple[int, int] | None,
) -> np.ndarray:
    """grad v . (m* - m) [prompts, times, sites], by one backward pass through the whole run."""
    leaves: list[tuple[int, int, Tensor, Tensor]] = []  # (time, site, what is added, m* - m)
    with torch.enable_grad():
        mine, theirs = (model.empty_memory(len(text)) for _ in range(2))
        for place, time in enumerate(times.tolist()):
            piece = slice(mine.position, time + 1)
            mine = model(text[:, piece], memory=mine).memory
            with torch.no_grad():
                theirs = model(source[:, piece], memory=theirs).memory
            for number, site in enumerate(sites):

                def added(own: Tensor, other: Tensor, place: int = place, number: int = number) -> Tensor:
                    if not own.is_floating_point():
                        return own
                    leaf = torch.zeros_like(own, requires_grad=True)
                    leaves.append((place, number, leaf, other - own.detach()))
                    return own + leaf

                value = _mapped(_part(mine, site), added, _part(theirs, site))
                mine = mine.set(site.layer, site.part, value)
        last = model(text[:, mine.position :], memory=mine).logits[:, -1].double()
        if pair is None:
            log_q = goal.double().log_softmax(-1)
            value = (log_q.exp() * (last.log_softmax(-1) - log_q)).sum() / np.log(2)
        else:
            value = (last[:, pair[0]] - last[:, pair[1]]).sum()
        gradients = torch.autograd.grad(value, [leaf for *_, leaf, _ in leaves], allow_unused=True)
    out = np.zeros((len(text), times.size, len(sites)))
    for (place, number, _, gap), gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            out[:, place, number] += (gradient.double() * gap.double()).flatten(1).sum(1).numpy()
    return out
