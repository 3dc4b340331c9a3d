"""How much of a state is left after a lag, and how long half of it lasts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .inputs import as_count, as_lags, as_layers, as_level, as_rng, log_spaced
from .labelled import provenance_of, units
from .over_prompts import prompt_interval
from .run import Trace, as_trace
from .statistics import kaplan_meier

__all__ = ["retention"]

QUANTILES = (0.1, 0.5, 0.9)
#: Sums of logarithms that are this close to the logarithm of the level have reached it.
_ROUNDING = 1e-9

_UNITS = {
    "retention": ("retention R(t + lag, t), geometric mean over t", "1"),
    "retention_interval": ("confidence interval of retention, prompts redrawn", "1"),
    "log_retention": ("logarithm of the retention, mean over t", "nat"),
    "log_retention_interval": ("confidence interval of log_retention, prompts redrawn", "nat"),
    "retention_quantile": ("retention R(t + lag, t), quantile over t", "1"),
    "starts": ("number of starting points", "1"),
    "half_life": ("median time until the retention is at most the level (Kaplan-Meier)", "token"),
    "half_life_interval": ("confidence interval of half_life, starting points taken as independent", "token"),
    "half_life_prompt_interval": ("confidence interval of half_life, prompts redrawn", "token"),
    "half_life_median": ("half-life, median over the heads of all layers", "token"),
    "half_life_median_interval": ("confidence interval of half_life_median, prompts redrawn", "token"),
    "censored": ("share of the starting points whose end was not seen", "1"),
    "censored_interval": ("confidence interval of censored, prompts redrawn", "1"),
    "survival": ("share of the starting points that keep more than the level (Kaplan-Meier)", "1"),
    "survival_interval": ("confidence interval of survival, prompts redrawn", "1"),
    "half_life_rate": ("half-life at the mean rate, log(level) / mean(log decay)", "token"),
    "half_life_rate_interval": ("confidence interval of half_life_rate, prompts redrawn", "token"),
    "mean_log_decay_interval": ("confidence interval of mean_log_decay, prompts redrawn", "nat/token"),
    "mean_log_decay": ("mean of the log decay: the Lyapunov exponent at frozen gates", "nat/token"),
    "lag": ("lag", "token"),
}


def retention(
    trace: Trace,
    *,
    lags: Iterable[int] | None = None,
    heads: Iterable[int] | int | None = None,
    level: float = 0.5,
    confidence: float = 0.95,
    resamples: int = 500,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Retention of the state of every head against lag, and its half-life.

    .. math:: R(t, s) = \prod_{k=s+1}^{t} a_k = \exp \sum_{k=s+1}^{t} \log a_k,
              \qquad \tau_{1/2}(s) = \min \{\tau : R(s + \tau, s) \le 1/2\}

    The gates are frozen at the values they had in the run: this is what is left of the state itself, not what the
    model makes of it (see :func:`fading`).

    Parameters
    ----------
    trace : Trace
        A run; its layers with state space heads are measured.
    lags : iterable of int, optional
        Lags in tokens, from 1 to T - 1; by default about 48, evenly spaced in their logarithm.
    heads : int or iterable of int, optional
        The heads to measure; all by default. In a layer whose channels have decays of their own (Mamba), channels:
        there are many, and a thousand decays take a few seconds.
    level : float, default 0.5
        What must be left, between 0 and 1.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 500
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, head, lag, quantile, bound.

        - ``retention`` (layer, head, lag): geometric mean over starting points and prompts; ``log_retention`` is
          its logarithm, which does not underflow.
        - ``retention_quantile`` (quantile, layer, head, lag): quantiles 0.1, 0.5, 0.9 over starting points.
        - ``starts`` (lag): number of starting points, which shrinks with the lag.
        - ``half_life`` (layer, head): median over starting points by Kaplan-Meier, tokens; infinite where fewer
          than half of them were seen to end. ``half_life_interval`` and ``half_life_prompt_interval`` (bound,
          layer, head); the latter is NaN for one prompt. ``censored`` (layer, head), ``survival`` (layer, head,
          lag). ``half_life_median`` is the median over all heads, with ``half_life_median_interval`` (bound) over
          prompts.
        - ``half_life_rate`` (layer, head): log(level) / mean(log decay), tokens. ``mean_log_decay`` (layer, head).
        - ``retention``, ``log_retention``, ``survival``, ``censored``, ``half_life_rate`` and ``mean_log_decay`` have
          an ``_interval`` (bound, ...) over prompts, NaN for one. ``retention_quantile`` describes how starting points
          differ and has none.

        Coordinates ``symbol`` and ``kind`` (layer). Where every channel and state has a decay of its own (kind
        "diagonal"), the entries along head are those decays, and the coordinates ``channel`` and ``state`` (head) say
        whose. Of a gated delta rule (kind "delta") the decay is that of its gate: what is left in the directions that
        no later key touches, and the most that is left in any.

        Attributes: provenance of the trace, ``level``, ``confidence``, ``error`` of the trace.

    Raises
    ------
    ValueError
        If no traced layer has state space heads, the trace's error is over its tolerance, the run has one token,
        or a lag is not shorter than the run.

    Notes
    -----
    Sums are taken in float64. A starting point s whose retention stays above the level up to the end of the run is
    right-censored at T - 1 - s. ``half_life_interval`` has Greenwood's variance with limits on the log(-log) scale
    and takes starting points as independent; neighbouring ones share almost all of their decays, so that it is too
    narrow for a claim about other texts. ``half_life_prompt_interval`` redraws whole prompts (bootstrap, percentile),
    which are independent.

    References
    ----------
    Dao and Gu (arXiv:2405.21060) for the decay of a head; Kaplan and Meier, J. Am. Stat. Assoc. 53 (1958).

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import retention, trace
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> kept = retention(trace(model, torch.arange(200) % 16))
    >>> bool((kept.retention.diff("lag") < 0).all())
    True
    >>> kept.half_life.dims
    ('layer', 'head')
    """
    as_trace(trace)
    level = as_level(level, "level")
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    if not trace.state_layers:
        symbols = "-".join(trace.pattern[i] for i in trace.layers)
        raise ValueError(f"trace: its layers ({symbols}) have no state space heads, so no retention to measure")
    trace.require()
    if trace.steps < 2:
        raise ValueError("trace: expected a run of at least 2 tokens, got 1")
    steps = trace.steps
    chosen = as_lags(log_spaced(1, steps - 1, 48) if lags is None else lags, steps)
    arguments = {"lags": chosen, "heads": heads, "level": level, "confidence": confidence, "resamples": resamples}
    layers = trace.state_layers
    picked = as_layers(heads, min(trace.heads(i) for i in layers), name="heads") if heads is not None else slice(None)
    decays = [trace.log_decay(i)[:, :, list(picked) if isinstance(picked, tuple) else picked] for i in layers]
    modes = _modes(decays[0], picked)
    decays = [each.reshape(*each.shape[:2], -1) for each in decays]
    sums = np.stack([np.cumsum(each, 1) for each in decays])  # layer, prompt, time, head
    sums = np.moveaxis(sums, 3, 1)  # layer, head, prompt, time
    shape = sums.shape[:2]
    by_prompt = np.empty((trace.prompts, *shape, chosen.size))
    quantiles = np.empty((len(QUANTILES), *shape, chosen.size))
    for i, lag in enumerate(chosen):
        logs = sums[..., lag:] - sums[..., :-lag]
        by_prompt[..., i] = np.moveaxis(logs.mean(-1), -1, 0)
        quantiles[..., i] = np.quantile(logs.reshape(*shape, -1), QUANTILES, axis=-1)
    mean = by_prompt.mean(0)
    half_life = np.empty(shape)
    interval = np.empty((2, *shape))
    picks = generator.integers(trace.prompts, size=(resamples, trace.prompts))
    censored = np.empty((trace.prompts, *shape))
    survival = np.empty((*shape, chosen.size))
    survival_interval = np.empty((2, *survival.shape))
    redrawn = np.empty((*shape, resamples))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    places = list(np.ndindex(*shape))
    for place in tqdm(places, disable=not progress, unit="head", desc="retention"):
        durations, seen = half_lives(sums[place], level)
        curve = kaplan_meier(durations.ravel(), seen.ravel(), confidence=confidence)
        curves = _over_prompts(durations, seen, picks)
        reached = curves <= 0.5 + 1e-12
        redrawn[place] = np.where(reached.any(1), reached.argmax(1), np.inf)
        half_life[place], interval[0][place], interval[1][place] = curve.quantile(0.5)
        censored[(slice(None), *place)] = 1 - seen.mean(1)
        survival[place] = curve.at(chosen)
        at = curves[:, np.minimum(chosen, curves.shape[1] - 1)]
        survival_interval[(slice(None), *place)] = np.quantile(at, tails, axis=0)
    if trace.prompts == 1:
        redrawn[...] = survival_interval[...] = np.nan
    of_head = np.quantile(redrawn, tails, axis=-1, method="inverted_cdf")
    of_all = np.quantile(np.median(redrawn, (0, 1)), tails, method="inverted_cdf")
    options = {"confidence": confidence, "resamples": resamples, "rng": generator}
    log_interval = prompt_interval(by_prompt, **options)
    rates = np.stack([each.mean(1) for each in decays], 1)  # prompt, layer, head
    rate, rate_interval = rates.mean(0), prompt_interval(rates, **options)
    with np.errstate(divide="ignore"):  # both are increasing in the mean log decay
        half_life_rate, rate_life = np.log(level) / rate, np.log(level) / rate_interval
    per_head = ("layer", "head")
    dataset = xr.Dataset(
        {
            "retention": ((*per_head, "lag"), np.exp(mean)),
            "retention_interval": (("bound", *per_head, "lag"), np.exp(log_interval)),
            "log_retention": ((*per_head, "lag"), mean),
            "log_retention_interval": (("bound", *per_head, "lag"), log_interval),
            "retention_quantile": (("quantile", *per_head, "lag"), np.exp(quantiles)),
            "starts": ("lag", trace.prompts * (steps - chosen)),
            "half_life": (per_head, half_life),
            "half_life_interval": (("bound", *per_head), interval),
            "half_life_prompt_interval": (("bound", *per_head), of_head),
            "half_life_median": ((), float(np.median(half_life))),
            "half_life_median_interval": ("bound", of_all),
            "censored": (per_head, censored.mean(0)),
            "censored_interval": (("bound", *per_head), prompt_interval(censored, **options)),
            "survival": ((*per_head, "lag"), survival),
            "survival_interval": (("bound", *per_head, "lag"), survival_interval),
            "half_life_rate": (per_head, half_life_rate),
            "half_life_rate_interval": (("bound", *per_head), rate_life),
            "mean_log_decay": (per_head, rate),
            "mean_log_decay_interval": (("bound", *per_head), rate_interval),
        },
        coords={
            "layer": list(layers),
            **modes,
            "lag": chosen,
            "quantile": list(QUANTILES),
            "bound": ["lower", "upper"],
            "symbol": ("layer", [trace.pattern[i] for i in layers]),
            "kind": ("layer", [trace.kind(i) for i in layers]),
        },
        attrs={
            **provenance_of(trace, "retention", arguments),
            "seed": seed,
            "level": level,
            "confidence": confidence,
            "error": trace.error,
        },
    )
    return units(dataset, _UNITS)


def _modes(decays: np.ndarray, picked: tuple[int, ...] | slice) -> dict[str, Any]:
    """Coordinates of the decays [prompts, T, heads] or [prompts, T, heads, states] along one axis."""
    heads = np.array(picked) if isinstance(picked, tuple) else np.arange(decays.shape[2])
    if decays.ndim == 3:
        return {"head": heads}
    states = decays.shape[3]
    channel, state = np.repeat(heads, states), np.tile(np.arange(states), heads.size)
    return {"head": channel * states + state, "channel": ("head", channel), "state": ("head", state)}


def half_lives(sums: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Tokens until the retention is at most ``level`` after each start, and whether that was seen.

    ``sums`` [prompts, T] are cumulative sums of the log decays. Starts are the states after tokens 0 .. T - 2; both
    results are [prompts, T - 1].
    """
    durations, seen = [], []
    for row in -np.asarray(sums):
        steps = row.size
        start = np.arange(steps - 1)
        target = row[:-1] - np.log(level) - _ROUNDING
        end = np.maximum(np.searchsorted(row, target, side="left"), start + 1)
        seen.append(end < steps)
        durations.append(np.where(end < steps, end, steps - 1) - start)
    return np.stack(durations), np.stack(seen)


def _over_prompts(durations: np.ndarray, seen: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """Kaplan-Meier curves [resamples, 0 .. longest duration] with whole prompts redrawn, one a row of picks."""
    prompts = len(durations)
    longest = int(durations.max())
    ends, cuts = np.zeros((prompts, longest + 1)), np.zeros((prompts, longest + 1))
    rows = np.broadcast_to(np.arange(prompts)[:, None], durations.shape)
    np.add.at(ends, (rows[seen], durations[seen]), 1)
    np.add.at(cuts, (rows[~seen], durations[~seen]), 1)
    weight = np.zeros((len(picks), prompts))
    np.add.at(weight, (np.arange(len(picks))[:, None], picks), 1)
    ended, gone = weight @ ends, weight @ (ends + cuts)
    at_risk = gone[:, ::-1].cumsum(1)[:, ::-1]
    return np.cumprod(1 - ended / np.maximum(at_risk, 1), 1)
