"""Is what a B'MOJO layer stores what the future needs? Tokens taken out and put in, against their innovation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM
from solomonic.models.tasks import IGNORED

from .divergence import kl_bits
from .eviction_runs import Change, Prefix, read_on, read_prefix
from .inputs import NothingToMeasure, as_count, as_ids, as_layers, as_level, as_model, as_rng
from .labelled import provenance, units
from .significance import paired_test
from .statistics import bootstrap_interval

__all__ = ["eviction"]

_CHOICES = ("kept", "oracle", "random", "none")
_UNITS = {
    "score": ("innovation of the token", "1"),
    "stored": ("whether the layer has stored the token", "1"),
    "replaced": ("position of the stored token in whose place the token was put; -1 for stored ones", "token"),
    "kl": ("divergence of the predictions without the token from those with it", "bit"),
    "loss": ("loss without the token minus that with it, mean over what is asked for", "bit"),
    "effect": ("causal effect of the token on what follows", "bit"),
    "swap": ("loss after the swap minus that of the run as it was; below 0 the token is worth more", "bit"),
    "rank_correlation": ("Spearman correlation of score and effect over the tokens", "1"),
    "rank_correlation_mean": ("mean of the rank correlation over prompts", "1"),
    "stored_effect": ("mean effect of a stored token", "bit"),
    "other_effect": ("mean effect of a token that is not stored", "bit"),
    "stored_effect_mean": ("mean effect of a stored token, mean over prompts", "bit"),
    "other_effect_mean": ("mean effect of a token that is not stored, mean over prompts", "bit"),
    "difference": ("mean effect of stored tokens minus that of others, mean over prompts", "bit"),
    "p": ("p-value of the difference, signs of the prompts flipped", "1"),
    "share": ("share of the summed effects of all tokens", "1"),
    "share_mean": ("mean of the share over prompts", "1"),
    "set_loss": ("loss with this set of tokens stored", "bit"),
    "token": ("position of the token", "token"),
    "time": ("position of the token after which is predicted", "token"),
}


def eviction(
    model: HybridLM | AdaptedLM,
    ids: Any,
    *,
    cut: int | None = None,
    targets: Any = None,
    layers: Iterable[int] | int | None = None,
    replace: str = "lowest",
    by: str = "kl",
    hold: bool = True,
    batch_size: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""The eidetic value test: what every token that left the window is worth if it is stored, against its innovation.

    .. math:: e_j = \frac1n \sum_{t=1}^{n} \mathrm{KL}\bigl(p_t(m_j \cup j) \,\|\, p_t(m_j)\bigr)

    with :math:`p_t` the predictions along the rest of the text, and :math:`m_j` the stored tokens of one layer after a
    prefix without one of them: without j where it is stored; else without the one s in whose place j is put, with its
    true key and value. One layer is changed at a time; what the others hold stays.

    Parameters
    ----------
    model : HybridLM
        A model with ``BMO`` layers that store tokens.
    ids : array_like of int
        Texts [T] or [prompts, T].
    cut : int, optional
        How many tokens are read before memories are changed, more than W and less than T. By default the largest
        multiple of W that is at most T / 2: at multiples of W memory is refreshed, and all that left the window was
        considered.
    targets : array_like of int, optional
        What is to be said after each token, of the shape of ``ids``; negative where nothing is asked. By default the
        next token.
    layers : int or iterable of int, optional
        ``BMO`` layers; all of them by default.
    replace : {"lowest", "random"}, default "lowest"
        Whose place a token takes that was not stored: the stored one's of lowest innovation, or a random one's.
    by : {"kl", "loss"}, default "kl"
        What ``effect`` is: the divergence, mean over the tokens that follow, or the loss, mean over what is asked for.
    hold : bool, default True
        Whether the token in question stays until the end of the text. Else it goes when later tokens of greater
        innovation come, a token that was put in when the one that it replaced would have gone; then tokens of high
        score have more effect for no other reason than that they stay longer.
    batch_size : int, optional
        How many changed memories share a call; all those of a prompt by default.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the prompts for the intervals, and flips of the test.
    rng : int, numpy.random.Generator or None
        Source of random slots, shuffled scores, random sets, resamples and flips.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, prompt, token (all that the innovation test has considered, by position), time, choice, ranking,
        bound.

        - ``score``, ``stored``, ``replaced``, ``effect``, ``loss`` (layer, prompt, token); ``kl`` the same and time.
        - ``swap`` (layer, prompt, token): what putting in a token *in place of* a stored one does to the loss of the
          run as it was; NaN for stored ones.
        - ``rank_correlation`` (ranking, layer, prompt) of scores and effects, and of shuffled scores; its mean and
          interval over prompts.
        - ``stored_effect``, ``other_effect`` (layer, prompt), their means and intervals; ``difference`` (layer),
          interval, and ``p``.
        - ``share`` (choice, layer, prompt) of the summed effects (of those above 0) that lies in the set that is kept,
          in the oracle set of as many tokens with the largest effects, and in a random set; mean and interval.
        - ``set_loss`` (choice, layer, prompt): the loss that was measured with these sets stored, and with none.

        A layer that has stored all tokens has NaN where others are needed. Attributes: provenance, with the ``checks``
        ``changed`` (the share of evictions that changed a logit) and ``null`` (the largest difference of logits where
        nothing was evicted).

    Raises
    ------
    TypeError, ValueError
        If a layer stores no tokens, nothing has left the window, nothing is asked for after the cut, or a logit is NaN.
    NothingToMeasure
        If a layer has stored nothing of a text, or no eviction changes any logit.

    Notes
    -----
    The slot of an evicted token is filled at the next refresh. The sets have the scores of the slots that they take,
    the tokens of largest effect the highest ones. Effects of single tokens do not add up to that of a set: two tokens
    may hold the same. So ``share`` is an account of single effects, and ``set_loss`` is measured. The oracle knows the
    future, and is the best set as far as effects add up. With N tokens of which m are stored, a prompt and layer costs
    N + m + 3 readings of the rest of the text, from its memory, and holds as many logits.

    References
    ----------
    Zancato et al., "B'MOJO" (arXiv:2407.06324), Algorithm 1, for the innovation test; Pearl, "Causality" (2009),
    section 3.4, for interventions.

    Examples
    --------
    >>> from solomonic.models import load, recall_rows
    >>> from solomonic.probes import eviction
    >>> rows = recall_rows(4, rng=0)
    >>> found = eviction(load("recall-bmojo"), rows.ids, cut=32, targets=rows.targets)
    >>> dict(found.effect.sizes), found.stored.sum("token").values.min().item()
    ({'layer': 2, 'prompt': 4, 'token': 25}, 16)
    """
    model = as_model(model)
    texts = as_ids(ids, model, least=2)
    model, chosen = _eidetic_layers(model, layers)
    cut = _as_cut(cut, model.config.bmojo_window, texts.shape[1])
    asked = _as_targets(targets, texts, cut, model.config.vocab_size)
    for name, given, known in (("replace", replace, ("lowest", "random")), ("by", by, ("kl", "loss"))):
        if given not in known:
            raise ValueError(f"{name}: expected {known[0]!r} or {known[1]!r}, got {given!r}")
    if not isinstance(hold, bool | np.bool_):
        raise TypeError(f"hold: expected True or False, got {hold!r}")
    if batch_size is not None:
        batch_size = as_count(batch_size, "batch_size", 2)
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    device = next(model.parameters()).device
    with torch.no_grad():
        prefix = read_prefix(model, texts[:, :cut].to(device), chosen)
        tables = [
            _prompt(model, prefix, prompt, texts[prompt, cut:].to(device), asked[prompt].to(device), chosen, cut,
                    (replace, by, bool(hold), batch_size), generator)
            for prompt in tqdm(range(len(texts)), disable=not progress, unit="prompt", desc="eviction")
        ]  # fmt: skip
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("layer", "prompt", "token"), _stacked(tables, name))
        for name in ("score", "stored", "replaced", "loss", "effect", "swap")
    }
    data["kl"] = (("layer", "prompt", "token", "time"), _stacked(tables, "kl"))
    data["set_loss"] = (("choice", "layer", "prompt"), np.moveaxis(_stacked(tables, "set_loss"), -1, 0))
    coords = {
        "layer": list(chosen),
        "prompt": np.arange(len(texts)),
        "token": np.arange(_considered(model, cut)),
        "time": np.arange(cut, texts.shape[1]),
        "choice": list(_CHOICES),
        "ranking": ["score", "shuffled"],
        "bound": ["lower", "upper"],
    }
    changed = float(np.mean(np.concatenate([table["changed"] for table in tables])))
    if changed == 0:
        raise NothingToMeasure("model: no eviction changes any of the logits that follow; what is stored is not read")
    checks = {"changed": changed, "null": max(float(table["null"]) for table in tables)}
    arguments = {"ids": texts, "cut": cut, "targets": targets, "layers": chosen, "replace": replace, "by": by,
                 "hold": bool(hold), "batch_size": batch_size, "confidence": confidence,
                 "resamples": resamples}  # fmt: skip
    attrs = {
        **provenance("eviction", model=model, arguments=arguments, seed=seed, checks=checks),
        "cut": cut,
        "replace": replace,
        "by": by,
        "confidence": confidence,
    }
    result = xr.Dataset(data, coords, attrs)
    return units(result.assign(_summary(result, by, confidence, resamples, generator)), _UNITS)


def _eidetic_layers(
    model: HybridLM | AdaptedLM, layers: Iterable[int] | int | None
) -> tuple[HybridLM, tuple[int, ...]]:
    """The model and the layers asked for, which must store tokens; all that do for None."""
    pattern = model.config.pattern
    held = [i for i, parts in enumerate(model.empty_memory().layers) if "eidetic" in parts]
    if not held or not isinstance(model, HybridLM):
        raise ValueError(
            f"model: expected one with BMO layers that store tokens (eidetic_tokens of at least 1), this one is "
            f"{'-'.join(pattern)}; with_eidetic gives a B'MOJO model stored tokens"
        )
    chosen = tuple(held) if layers is None else as_layers(layers, len(pattern))
    lacking = [i for i in chosen if i not in held]
    if lacking:
        raise ValueError(f"layers: expected layers that store tokens, some of {held}; layer {lacking[0]} is "
                         f"{pattern[lacking[0]]}")  # fmt: skip
    return model, chosen


def _as_cut(cut: int | None, window: int, length: int) -> int:
    """How many tokens are read first: at least one has left the window, and at least one follows."""
    if length <= window:
        raise ValueError(
            f"ids: expected texts of more than W = {window} tokens, so that some have left the window, got {length}"
        )
    if cut is None:
        return max(window, length // 2 // window * window)
    cut = as_count(cut, "cut")
    if not window <= cut < length:
        raise ValueError(
            f"cut: expected at least W = {window}, so that a token has left the window, and less than the {length} "
            f"tokens of a text, got {cut}"
        )
    return cut


def _considered(model: HybridLM, cut: int) -> int:
    """How many tokens have left the window at the last refresh."""
    window = model.config.bmojo_window
    return cut // window * window - window + 1


def _as_targets(targets: Any, texts: Tensor, cut: int, size: int) -> Tensor:
    """What is asked for after each token that follows the cut [prompts, n]; IGNORED where nothing is."""
    if targets is None:
        asked = torch.cat([texts[:, 1:], torch.full_like(texts[:, :1], IGNORED)], 1)
    else:
        asked = targets if isinstance(targets, Tensor) else torch.as_tensor(np.asarray(targets))
        if asked.dtype == torch.bool or asked.is_floating_point() or asked.is_complex():
            raise TypeError(f"targets: expected integers, got {asked.dtype}")
        asked = asked.detach().to("cpu", torch.int64)
        asked = asked[None] if asked.ndim == 1 else asked
        if asked.shape != texts.shape:
            raise ValueError(f"targets: expected the shape of ids, {tuple(texts.shape)}, got {tuple(asked.shape)}")
        if int(asked.max()) >= size:
            raise ValueError(f"targets: expected tokens below {size}, negative where nothing is asked, got "
                             f"{int(asked.max())}")  # fmt: skip
    asked = asked[:, cut:]
    empty = torch.where((asked >= 0).sum(1) == 0)[0].tolist()
    if empty:
        what = "targets: " if targets is not None else "cut: "
        raise ValueError(f"{what}nothing is asked for after token {cut} in prompt {empty[0]}; give longer texts, cut "
                         "earlier, or leave that prompt out")  # fmt: skip
    return asked


def _prompt(
    model: HybridLM,
    prefix: Prefix,
    prompt: int,
    follow: Tensor,
    asked: Tensor,
    layers: tuple[int, ...],
    cut: int,
    options: tuple[str, str, bool, int | None],
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Everything measured on one prompt, its arrays [layer, ...]."""
    replace, by, hold, batch_size = options
    count = _considered(model, cut)
    slots = [prefix.slots(layer, prompt) for layer in layers]
    variants: list[list[Change]] = [[]]  # the run as it was comes first
    # By layer and token: what it replaced, the variant that holds it, and the one that lacks it.
    replaced, with_it, without = np.full((3, len(layers), count), -1)
    with_it[:] = 0
    for row, (layer, held) in enumerate(zip(layers, slots, strict=True)):
        places = list(held)
        if not places:
            raise NothingToMeasure(f"model: layer {layer} has stored nothing after {cut} tokens")
        for token, slot in held.items():
            without[row, token] = len(variants)
            variants.append([Change(layer, slot, -1)])
            if hold:
                with_it[row, token] = len(variants)
                variants.append([Change(layer, slot, token, True)])
        for token in sorted({*range(count)} - {*held}):
            place = places[0 if replace == "lowest" else random.integers(len(places))]
            replaced[row, token], without[row, token], with_it[row, token] = place, without[row, place], len(variants)
            variants.append([Change(layer, held[place], token, hold)])
    variants.append([])  # and last
    logits = read_on(model, prefix, prompt, follow, variants, batch_size)
    base, loss = logits[0], _loss(logits, asked)
    shape, stored = (len(layers), count), replaced < 0
    pairs = zip(with_it.ravel(), without.ravel(), strict=True)
    kl = torch.stack([kl_bits(logits[one], logits[other]) for one, other in pairs]).cpu().numpy()
    kl = kl.reshape(*shape, -1)
    change = loss[without] - loss[with_it]
    table = {
        "score": np.stack([prefix.scores[layer][prompt, :count] for layer in layers]),
        "stored": stored,
        "replaced": replaced,
        "kl": kl,
        "loss": change,
        "effect": kl.mean(-1) if by == "kl" else change,
        "swap": np.where(stored, np.nan, loss[with_it] - loss[0]),
        "changed": (logits[without[stored]] != base).flatten(1).any(1).cpu().numpy(),
        "null": (logits[-1].double() - base.double()).abs().max().cpu().numpy(),
    }
    sets = _sets(layers, slots, table["effect"], random)
    found = _loss(read_on(model, prefix, prompt, follow, sets, batch_size), asked).reshape(len(layers), -1)
    table["set_loss"] = np.concatenate([np.full((len(layers), 1), loss[0]), found], 1)
    return table


def _sets(
    layers: tuple[int, ...], slots: list[dict[int, int]], effect: np.ndarray, random: np.random.Generator
) -> list[list[Change]]:
    """For every layer the oracle set, a random set and none, in place of what is stored; best slots first."""
    variants = []
    for layer, held, values in zip(layers, slots, effect, strict=True):
        places = list(held.values())[::-1]
        best = np.argsort(-values, kind="stable")[: len(places)]
        drawn = random.permutation(len(values))[: len(places)]
        for chosen in (best, drawn, np.full(len(places), -1)):
            variants.append([Change(layer, *pair) for pair in zip(places, chosen.tolist(), strict=True)])
    return variants


def _loss(logits: Tensor, asked: Tensor) -> np.ndarray:
    """Mean loss [variants] in bits over what is asked for."""
    where = asked >= 0
    log_p = torch.log_softmax(logits[:, where].double(), -1)
    picked = log_p.gather(-1, asked[where].expand(len(logits), -1)[..., None])[..., 0]
    return (-picked.mean(-1) / np.log(2)).cpu().numpy()


def _stacked(tables: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """An array of every prompt as [layer, prompt, ...]."""
    return np.stack([table[name] for table in tables], 1)


def _summary(
    result: xr.Dataset, by: str, confidence: float, resamples: int, random: np.random.Generator
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Correlations, differences and shares, with intervals over prompts."""
    score, effect, stored = (result[name].to_numpy() for name in ("score", "effect", "stored"))
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "rng": random}
    rank = np.stack([_spearman(score, effect), _spearman(random.permuted(score, axis=-1), effect)])
    here, there = _mean(effect, stored), _mean(effect, ~stored)
    share = np.stack(_shares(effect, stored))
    out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "rank_correlation": (("ranking", "layer", "prompt"), rank),
        "stored_effect": (("layer", "prompt"), here),
        "other_effect": (("layer", "prompt"), there),
        "share": (("choice", "layer", "prompt"), share),
    }
    for name, dims, values in (
        ("rank_correlation_mean", ("ranking", "layer"), rank),
        ("difference", ("layer",), here - there),
        ("share_mean", ("choice", "layer"), share),
    ):
        mean, interval = _over_prompts(values, options)
        out[name], out[f"{name}_interval"] = (dims, mean), (("bound", *dims), interval)
    p = [paired_test(row[np.isfinite(row)], resamples=resamples, rng=random) if np.isfinite(row).any() else np.nan
         for row in here - there]  # fmt: skip
    out["p"] = (("layer",), np.array(p))
    options["within"] = (0.0 if by == "kl" else -np.inf, np.inf)
    for name, values in (("stored_effect_mean", here), ("other_effect_mean", there)):
        mean, interval = _over_prompts(values, options)
        out[name], out[f"{name}_interval"] = (("layer",), mean), (("bound", "layer"), interval)
    return out


def _spearman(score: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Rank correlations along the last axis; NaN where one of the two is constant, or there are fewer than three."""
    out = np.full(score.shape[:-1], np.nan)
    if score.shape[-1] < 3:
        return out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        for place in np.ndindex(out.shape):
            out[place] = spearmanr(score[place], effect[place])[0]
    return out


def _mean(effect: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mean effect of some tokens along the last axis; NaN where there is none."""
    count = which.sum(-1)
    return np.where(count > 0, np.where(which, effect, 0.0).sum(-1) / np.maximum(count, 1), np.nan)


def _shares(effect: np.ndarray, stored: np.ndarray) -> list[np.ndarray]:
    """Shares of the summed positive effects, in the order of the choices; NaN where no effect is above 0."""
    gain = np.maximum(effect, 0.0)
    total, count = gain.sum(-1), stored.sum(-1)
    total = np.where(total > 0, total, np.nan)
    ordered = np.cumsum(-np.sort(-gain, -1), -1)
    best = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None], -1)[..., 0]
    held = np.where(stored, gain, 0.0).sum(-1)
    return [held / total, best / total, count / gain.shape[-1] + 0 * total, 0 * total]


def _over_prompts(values: np.ndarray, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last axis and its interval [2, ...]; prompts that are NaN are left out."""
    mean, interval = np.full(values.shape[:-1], np.nan), np.full((2, *values.shape[:-1]), np.nan)
    for place in np.ndindex(mean.shape):
        known = values[place][np.isfinite(values[place])]
        if known.size:
            mean[place] = known.mean()
            interval[(slice(None), *place)] = bootstrap_interval(known, **options)
    return mean, interval
