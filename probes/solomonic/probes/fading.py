"""Memory fading from end to end: how much a token still matters for the prediction, against how long ago it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedConfig, AdaptedLM, HybridConfig, HybridLM, Memory

from .divergence import kl_bits
from .inputs import as_count, as_ids, as_lags, as_level, as_model, as_rng, log_spaced, within
from .labelled import provenance, units
from .over_prompts import prompt_interval, share_interval
from .statistics import bootstrap_interval
from .taps import has_fading_tokens, layer_window

__all__ = ["default_lags", "fading", "reach"]

#: Tokens of one forward pass where no batch size is given, and bytes of the logits that are held.
_TOKENS = 6144
_LOGITS = 1 << 28
#: What a call costs over the cost of its tokens, in tokens of one prompt.
_CALL = 4

_UNITS = {
    "kl": ("divergence of the prediction after replacing the token at that lag", "bit"),
    "kl_mean": ("divergence, mean over prompts", "bit"),
    "kl_mean_interval": ("confidence interval of the mean divergence", "bit"),
    "kl_median": ("divergence, median over prompts", "bit"),
    "kl_median_interval": ("confidence interval of the median divergence", "bit"),
    "share_zero": ("share of the prompts whose logits stay the same to the last bit", "1"),
    "share_zero_interval": ("confidence interval of share_zero (Wilson)", "1"),
    "top1_change": ("share of the prompts whose most likely token changes", "1"),
    "top1_change_interval": ("confidence interval of top1_change (Wilson)", "1"),
    "original": ("token at that lag", "1"),
    "replacement": ("token put in its place", "1"),
    "fading_mass": ("share of the attention mass on fading tokens, at positions of at least 2W", "1"),
    "fading_mass_interval": ("confidence interval of fading_mass, prompts redrawn", "1"),
    "lag": ("lag behind the last token", "token"),
    "window": ("window W (0: none)", "token"),
}


def fading(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    lags: Iterable[int] | None = None,
    windows: int | None = None,
    replacements: Any = None,
    batch_size: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Replace the token at a lag and measure what that does to the prediction after the last token.

    .. math:: F(\tau) = \mathrm{KL}\bigl(p(\cdot \mid u_{\le T})\,\|\, p(\cdot \mid u_{\le T},\ u_{T-\tau} := v)\bigr)

    It is the one measure of decay that means the same for state space layers, windows and full attention.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; one of transformers is adapted on the way in (:func:`solomonic.models.adapt`).
    ids : array_like of int
        Windows of real text [prompts, T] (or one, [T]), T at least 2 tokens. The prediction is the one after the
        last token.
    lags : iterable of int, optional
        Lags in tokens, from 1 to T - 1; lag 0 would be the last token itself. By default :func:`default_lags`.
    windows : int, optional
        How many of the prompts are used, drawn without replacement; all by default.
    replacements : array_like of int, optional
        Tokens from whose empirical distribution v is drawn, given that it differs from what it replaces; by
        default those of ``ids``.
    batch_size : int, optional
        Prompts in one forward pass; by default as many as make about 4096 tokens.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts; prompts are redrawn together for all lags.
    rng : int, numpy.random.Generator or None
        Source of the replacements and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, lag, bound, layer, head.

        - ``kl`` (prompt, lag), bits. ``kl_mean`` and ``kl_median`` (lag), with ``kl_mean_interval`` (bootstrap,
          bias-corrected and accelerated) and ``kl_median_interval`` (percentile) over (bound, lag), NaN for one
          prompt.
        - ``share_zero`` (lag): share of the prompts whose logits are the same to the last bit, which is where
          ``kl`` is exactly 0.0 because nothing at all arrived. ``top1_change`` (lag). Both with Wilson's interval,
          which has a width at 0 and 1, too.
        - ``original``, ``replacement`` (prompt, lag): the tokens.
        - ``fading_mass`` (layer, head): mean share of the attention mass on fading tokens at positions of at
          least 2W, with its interval over prompts; NaN for layers that have none, and where T is at most 2W.
        - coordinates ``symbol`` and ``window`` (layer).

        Attributes: ``cut`` (the first lag from which on all logits of all prompts stay the same to the last bit,
        -1 if there is none), ``last_influence`` (the largest lag with any effect, 0 if there is none), ``reach``
        (what theory says the largest such lag can be, -1 where the past has no end; :func:`reach`), ``tokens``
        (T), provenance with the seed and checks.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens of the model, a lag is below 1 or not shorter than the prompts, no other token is
        there to put in, or a logit is NaN.

    Notes
    -----
    Logits are taken to float64 before the softmax, and the divergence is summed in a form without cancellation:
    there is no floor. The clean and the changed run of a lag start from the same memory and have the same shape, row
    by row, so that what is not affected is equal to the last bit; ``checks`` says that a repeated clean run was.

    Only what follows the replaced token is computed, from the clean memory at that place: the cost is about that of
    T plus the sum of the lags, in tokens for each prompt.

    In low precision an influence can be rounded away: exactly 0.0 then says less. In float32 that happens below about
    1e-14 bits, which is where a trained window model is just before its cut; load the model in float64 to see the last
    lag itself. Means ride on a few prompts; look at medians.

    References
    ----------
    Zhang and Nanda (arXiv:2309.16042) on replacing tokens by tokens rather than by noise.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import fading
    >>> model = HybridLM(HybridConfig(pattern="SWA-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (8, 20), generator=torch.Generator().manual_seed(0))
    >>> curve = fading(model, ids, rng=0)
    >>> curve.attrs["reach"], curve.attrs["last_influence"], curve.attrs["cut"]
    (6, 6, 7)
    """
    model = as_model(model)
    tokens = as_ids(ids, model, least=2)
    config = model.config
    steps = tokens.shape[1]
    chosen = default_lags(config, steps) if lags is None else as_lags(lags, steps)
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    pool = tokens if replacements is None else as_ids(np.ravel(_array(replacements)), model, name="replacements")
    arguments = {
        "ids": tokens,
        "lags": chosen,
        "windows": windows,
        "replacements": None if replacements is None else pool,
        "batch_size": batch_size,
        "confidence": confidence,
        "resamples": resamples,
    }
    if windows is not None:
        count = as_count(windows, "windows")
        if count > len(tokens):
            raise ValueError(f"windows: expected at most the {len(tokens)} prompts of ids, got {count}")
        tokens = tokens[np.sort(generator.choice(len(tokens), count, replace=False))]
    original = tokens.numpy()[:, steps - 1 - chosen]
    replaced = draw_others(original, pool.numpy().ravel(), generator)
    run = _Run(model, tokens, chosen, torch.from_numpy(replaced))
    kl, same, changed = run.measure(run.batch_size(batch_size), progress)
    ordered = np.flatnonzero(~same.all(0))
    last = int(chosen[ordered[-1]]) if ordered.size else 0
    beyond = chosen[chosen > last]
    mass = run.fading_mass()
    data: dict[str, Any] = {
        "kl": (("prompt", "lag"), kl),
        "kl_mean": ("lag", kl.mean(0)),
        "kl_mean_interval": (("bound", "lag"), _interval(kl, "mean", confidence, resamples, generator)),
        "kl_median": ("lag", np.median(kl, 0)),
        "kl_median_interval": (
            ("bound", "lag"),
            _interval(kl, "median", confidence, resamples, generator),
        ),
        "share_zero": ("lag", same.mean(0)),
        "share_zero_interval": (("bound", "lag"), share_interval(same, confidence)),
        "top1_change": ("lag", changed.mean(0)),
        "top1_change_interval": (("bound", "lag"), share_interval(changed, confidence)),
        "original": (("prompt", "lag"), original),
        "replacement": (("prompt", "lag"), replaced),
        "fading_mass": (("layer", "head"), mass.mean(0)),
        "fading_mass_interval": (
            ("bound", "layer", "head"),
            prompt_interval(mass, confidence=confidence, resamples=resamples, within=(0, 1), rng=generator),
        ),
    }
    layers = range(len(config.pattern))
    coords = {
        "prompt": np.arange(len(tokens)),
        "lag": chosen,
        "bound": ["lower", "upper"],
        "layer": list(layers),
        "head": np.arange(config.num_attention_heads),
        "symbol": ("layer", list(config.pattern)),
        "window": ("layer", [layer_window(config, i) or 0 for i in layers]),
    }
    attrs = {
        **provenance(
            "fading",
            model=model,
            arguments=arguments,
            seed=seed,
            checks={"repeated_run_equal": run.repeatable, "forward_tokens": run.cost},
        ),
        "cut": int(beyond[0]) if beyond.size else -1,
        "last_influence": last,
        "reach": reach(config),
        "tokens": steps,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def reach(config: HybridConfig | AdaptedConfig) -> int:
    r"""The largest lag at which a token can matter, :math:`\sum_l (W_l - 1)`; -1 where there is no such bound.

    Query t of a layer with window W reads the tokens t-W+1 .. t, so each layer adds W - 1.

    Parameters
    ----------
    config : HybridConfig or AdaptedConfig
        The architecture. State space layers and attention over all the past have no bound.

    Returns
    -------
    int
        Lag in tokens, or -1.

    Examples
    --------
    >>> from solomonic.models import HybridConfig
    >>> from solomonic.probes import reach
    >>> reach(HybridConfig(pattern="SWA-SWA-SWA-SWA", swa_window=64))
    252
    >>> reach(HybridConfig(pattern="M2-SWA", swa_window=64))
    -1
    """
    if any(symbol not in ("SWA", "MLP") for symbol in config.pattern):
        return -1
    return sum((layer_window(config, i) or 1) - 1 for i in range(len(config.pattern)))


def default_lags(config: HybridConfig | AdaptedConfig, length: int, *, count: int = 20) -> np.ndarray:
    """Lags that show a fading curve: evenly spaced in their logarithm, and dense where the structure may show.

    Parameters
    ----------
    config : HybridConfig or AdaptedConfig
        Its windows give the structural points: W - 1 and W, 2W - 1 and 2W, the reach and the lag after it.
    length : int
        Tokens T of a prompt.
    count : int, default 20
        How many are evenly spaced; structural points come on top.

    Returns
    -------
    ndarray of int
        Ascending, from 1 to T - 1.

    Examples
    --------
    >>> from solomonic.models import HybridConfig
    >>> from solomonic.probes import default_lags
    >>> default_lags(HybridConfig(pattern="SWA-SWA", swa_window=8), 32, count=5)
    array([ 1,  2,  6,  7,  8,  9, 12, 13, 14, 15, 16, 17, 20, 31])
    """
    length = as_count(length, "length", 2)
    lags = [*log_spaced(1, length - 1, as_count(count, "count"))]
    for width in {layer_window(config, i) for i in range(len(config.pattern))} - {None}:
        assert width is not None
        for edge in (width, 2 * width):
            lags += [edge - 2, edge - 1, edge, edge + 1]
        lags += [round(1.5 * width), round(2.5 * width)]
    last = reach(config)
    if last > 0:
        lags += [last - 1, last, last + 1]
    return within(lags, 1, length - 1)


def draw_others(tokens: np.ndarray, pool: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws from the empirical distribution of ``pool``, each given that it differs from its entry in ``tokens``."""
    values, counts = np.unique(pool, return_counts=True)
    place = np.searchsorted(values, tokens)
    known = (place < values.size) & (values[np.minimum(place, values.size - 1)] == tokens)
    own = np.where(known, counts[np.minimum(place, values.size - 1)], 0)
    if (own == pool.size).any():
        raise ValueError(f"replacements: expected a token other than {values[0]} to put in its place, got none")
    ends = np.cumsum(counts)
    rank = np.floor(generator.random(tokens.shape) * (pool.size - own)).astype(np.int64)
    start = np.where(known, ends[np.minimum(place, values.size - 1)] - own, pool.size)
    rank += np.where(rank >= start, own, 0)
    return values[np.searchsorted(ends, rank, side="right")]


def grouped(lags: Sequence[int], call: int = _CALL) -> list[list[int]]:
    """Descending lags in groups whose runs start at the same token, that of the largest lag of the group.

    Runs go from start to start in the same steps, so every further group costs the longer lags a call more: about
    ``call`` tokens. The groups are those of the least cost.
    """
    order = sorted(lags, reverse=True)
    best = [0.0] * (len(order) + 1)
    cut = [0] * len(order)
    for i in range(len(order) - 1, -1, -1):
        costs = [(j - i) * (order[i] + 1) + call * j + best[j] for j in range(i + 1, len(order) + 1)]
        best[i] = min(costs)
        cut[i] = i + 1 + costs.index(best[i])
    groups, i = [], 0
    while i < len(order):
        groups.append(order[i : cut[i]])
        i = cut[i]
    return groups


@dataclass(eq=False)
class _Run:
    """Clean and changed runs of all prompts, and the attention mass of the clean ones.

    The clean run goes through the text in segments that end where a group of lags starts. A changed run starts from
    the clean memory at the start of its group and goes through the same segments in the same rows: all its
    operations have the shapes that the clean run's had.
    """

    model: HybridLM | AdaptedLM
    ids: Tensor
    lags: np.ndarray
    replaced: Tensor

    def __post_init__(self) -> None:
        self.cost = 0
        self.repeatable = True
        self._mass: dict[int, np.ndarray] = {}
        self._positions: dict[int, int] = {}
        config = self.model.config
        self._fading = [i for i, symbol in enumerate(config.pattern) if has_fading_tokens(symbol)]
        self._device = next(self.model.parameters()).device
        self._groups = grouped([int(lag) for lag in self.lags])
        length = self.ids.shape[1]
        self._starts = [length - 1 - group[0] for group in self._groups]
        self._stops = [*self._starts[1:], length]

    def batch_size(self, given: int | None) -> int:
        """Prompts in one pass."""
        if given is not None:
            return as_count(given, "batch_size")
        longest = max(b - a for a, b in zip([0, *self._starts], self._stops, strict=False))
        logits = 4 * self.model.config.vocab_size
        fit = min(_TOKENS // longest, _LOGITS // (logits * (longest + self.lags.size)))
        blocks = -(-len(self.ids) // max(1, fit))
        return -(-len(self.ids) // blocks)

    def measure(self, batch: int, progress: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Divergence [prompts, lags] in bits, whether the logits stayed the same, whether the top token changed."""
        shape = (len(self.ids), len(self.lags))
        kl, same, changed = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
        blocks = range(0, len(self.ids), batch)
        with tqdm(total=len(blocks) * len(self.lags), desc="fading", disable=not progress) as bar:
            for first in blocks:
                rows = slice(first, min(first + batch, len(self.ids)))
                clean, others = self._block(rows, bar)
                for column, lag in enumerate(self.lags):
                    other = others[int(lag)]
                    kl[rows, column] = kl_bits(clean, other).numpy()
                    same[rows, column] = (clean == other).all(-1).numpy()
                    changed[rows, column] = (clean.argmax(-1) != other.argmax(-1)).numpy()
        return kl, same, changed

    def _block(self, rows: slice, bar: Any) -> tuple[Tensor, dict[int, Tensor]]:
        """Last logits of some prompts: clean, and by the lag whose token was replaced."""
        ids = self.ids[rows].to(self._device)
        replaced = self.replaced[rows].to(self._device)
        memory = self.model.empty_memory(len(ids))
        if self._starts[0] > 0:
            memory = self._clean(ids[:, : self._starts[0]], memory, rows)[1]
        column = {int(lag): i for i, lag in enumerate(self.lags)}
        others, logits, last = {}, None, memory
        for i, (group, start, stop) in enumerate(zip(self._groups, self._starts, self._stops, strict=True)):
            for lag in group:
                changed = ids.clone()
                changed[:, ids.shape[1] - 1 - lag] = replaced[:, column[lag]]
                others[lag] = self._rest(changed, memory, i, f"the run with the token at lag {lag} replaced")
                bar.update()
            if i == len(self._groups) - 1:
                last = memory
            logits, memory = self._clean(ids[:, start:stop], memory, rows)
        assert logits is not None
        clean = _finite(logits[:, -1].cpu(), "the clean run")
        if rows.start == 0:
            again = self._rest(ids, last, len(self._groups) - 1, "the clean run")
            self.repeatable = bool((clean == again).all())
        return clean, others

    def _rest(self, ids: Tensor, memory: Memory, group: int, what: str) -> Tensor:
        """Logits after the last token, from the start of a group on."""
        logits = None
        for start, stop in zip(self._starts[group:], self._stops[group:], strict=True):
            with torch.inference_mode():
                out = self.model(ids[:, start:stop], memory=memory)
            self.cost += ids.shape[0] * (stop - start)
            logits, memory = out.logits, out.memory
        assert logits is not None
        return _finite(logits[:, -1].cpu(), what)

    def _clean(self, ids: Tensor, memory: Memory, rows: slice) -> tuple[Tensor, Memory]:
        """A segment of the clean run; counts the attention mass of its fading tokens."""
        held: dict[tuple[int, str], Tensor] = {}

        def record(layer: int, name: str, value: Tensor) -> None:
            if name in ("lse_window", "lse_fading"):
                held[layer, name] = value

        with torch.inference_mode():
            out = self.model(ids, memory=memory, record=record if self._fading else None)
        self.cost += ids.numel()
        for layer in self._fading:
            full = 2 * (layer_window(self.model.config, layer) or 0)
            skip = max(full - memory.position, 0)
            if skip < ids.shape[1]:
                share = torch.sigmoid(held[layer, "lse_fading"] - held[layer, "lse_window"])[:, skip:].double()
                total = self._mass.setdefault(layer, np.zeros((len(self.ids), share.shape[2])))
                total[rows] += share.sum(1).cpu().numpy()
                self._positions[layer] = self._positions.get(layer, 0) + share.shape[1] * (rows.start == 0)
        return out.logits, out.memory

    def fading_mass(self) -> np.ndarray:
        """Mean share [prompts, layers, H] of the attention mass on fading tokens; NaN where there is none."""
        config = self.model.config
        out = np.full((len(self.ids), len(config.pattern), config.num_attention_heads), np.nan)
        for layer, total in self._mass.items():
            out[:, layer] = total / self._positions[layer]
        return out


def _finite(logits: Tensor, what: str) -> Tensor:
    if not torch.isfinite(logits).all():
        raise ValueError(f"model: {what} gave logits that are NaN or infinite; there is no divergence of those")
    return logits


def _interval(
    kl: np.ndarray, statistic: str, confidence: float, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    return bootstrap_interval(kl, statistic, confidence=confidence, resamples=resamples, within=(0, np.inf), rng=rng)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
