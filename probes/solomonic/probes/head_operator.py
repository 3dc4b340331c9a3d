"""What a head does as an operator on its inputs: hidden attention, receptive field, contraction."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .inputs import as_level, as_rng
from .labelled import provenance_of, units
from .over_prompts import prompt_interval
from .run import Trace, as_trace

__all__ = ["hidden_attention", "receptive_field"]

_ROWS_AT_ONCE = 1 << 24

_UNITS = {
    "weight": ("weight of an input in an output at the gates of the run", "1"),
    "distance": ("mean distance of the inputs that an output reads, by the size of their weights", "token"),
    "distance_mean": ("mean distance, mean over prompts", "token"),
    "distance_mean_interval": ("confidence interval of distance_mean, prompts redrawn", "token"),
    "span": ("lag within which the share of the weights lies", "token"),
    "mass": ("sum of the absolute weights", "1"),
    "lyapunov": ("exponent at frozen gates: mean log decay", "nat/token"),
    "lyapunov_interval": ("confidence interval of lyapunov, prompts redrawn", "nat/token"),
    "lyapunov_spread": ("standard deviation of the mean log decay over stretches of the text", "nat/token"),
    "lag": ("lag behind the output", "token"),
    "time": ("token of the output", "token"),
}


def hidden_attention(trace: Trace, layer: int, head: int, *, times: Any = None) -> xr.Dataset:
    r"""The matrix by which a state space head mixes its inputs: attention that was never computed.

    .. math:: y_t = \sum_{s \le t} \alpha_{ts} u_s + D u_t + C_t^\top \Phi(t, -1) h_{-1}, \qquad
              \alpha_{ts} = C_t^\top \Bigl(\prod_{k=s+1}^{t} a_k\Bigr) B_s

    Parameters
    ----------
    trace : Trace
        A run.
    layer : int
        A traced layer with state space heads.
    head : int
        The head.
    times : int or sequence of int, optional
        Tokens of the run whose row is wanted; all by default.

    Returns
    -------
    xarray.Dataset
        ``weight`` (prompt, time, lag), lags 0 to T - 1; weights of inputs that do not exist are 0. They may be negative
        and need not sum to 1. Attribute ``D``: what stands on top at lag 0.

    Raises
    ------
    TypeError, ValueError
        If this is no trace, its error is over its tolerance, or there is no such layer, head or token.

    Notes
    -----
    With B already holding the step, a row is exactly the derivative of y_t by the inputs u at frozen gates. The whole
    derivative has the paths through the gates on top.

    References
    ----------
    Ali, Zimerman and Wolf, "The hidden attention of Mamba models" (arXiv:2403.01590), equation 11.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import hidden_attention, trace
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> hidden_attention(trace(model, torch.arange(12)), 0, 1).weight.sizes
    Frozen({'prompt': 1, 'time': 12, 'lag': 12})
    """
    run = as_trace(trace).require()
    if run.kind(layer) == "delta":
        raise ValueError(
            f"layer: layer {layer} ({run.pattern[layer]}) has dense transitions; its whole operator is "
            "trace.system(layer, head).operator()"
        )
    part = run._heads(layer, head)
    rows = np.arange(run.steps) if times is None else run._times(times)
    weight = _weights(run, layer, part, rows)[:, 0]
    lag = np.arange(run.steps)
    place = rows[:, None] - lag
    inside = place >= 0
    by_lag = np.where(inside, np.take_along_axis(weight, np.where(inside, place, 0)[None], -1), 0.0)
    return units(
        xr.Dataset(
            {"weight": (("prompt", "time", "lag"), by_lag)},
            {"prompt": np.arange(run.prompts), "time": rows, "lag": lag},
            {
                **provenance_of(run, "hidden_attention", {"layer": layer, "head": head}),
                "layer": layer,
                "head": head,
                "D": float(run.D(layer)[head]),
            },
        ),
        _UNITS,
    )


def receptive_field(
    trace: Trace,
    *,
    share: float = 0.9,
    stretch: int = 64,
    confidence: float = 0.95,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""How far back the heads of a model read, and how fast their states contract.

    .. math:: d = \frac{\sum_s (t - s)\, \lvert\alpha_{ts}\rvert}{\sum_s \lvert\alpha_{ts}\rvert}, \qquad
              \lambda = \frac1T \sum_t \log a_t

    for the last quarter of the outputs t, where the past is long; alpha is the hidden attention of a state space head
    (:func:`hidden_attention`) or the weights of an attention head.

    Parameters
    ----------
    trace : Trace
        A run. Attention heads are measured where it holds the registers (``trace(..., attention=True)``).
    share : float, default 0.9
        Of the absolute weights, for ``span``.
    stretch : int, default 64
        Tokens of the stretches for ``lyapunov_spread``.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the resamples of the bootstrap over prompts.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims part ("state", "attention"), prompt, layer, head, bound; NaN where a layer has no such part.

        - ``distance`` (part, prompt, layer, head), mean over the outputs, tokens; ``distance_mean`` (part, layer,
          head) with its interval (NaN for one prompt). Fading tokens stand at the lag of the token they replace.
        - ``span`` (part, prompt, layer, head): lag within which ``share`` of the mean absolute weights lies.
        - ``mass`` (part, prompt, layer, head): mean sum of absolute weights (1 for attention).
        - ``lyapunov`` (layer, head): exponent at frozen gates, nat a token, of the slowest state, with its interval
          over prompts; ``lyapunov_spread``, its standard deviation over stretches: how much the text moves it.

    Raises
    ------
    TypeError, ValueError
        If this is no trace, its error is over its tolerance, or it has neither state space heads nor registers.

    Notes
    -----
    Delta rules have dense transitions and are left out; the attribute ``left_out`` names their layers. The exponent is
    exact: a diagonal product has the mean of its logarithms. A distance of a text of T tokens cannot exceed T, so heads
    that hardly forget are measured too short; compare ``span`` with T.

    References
    ----------
    Ben-Kish et al., "DeciMamba" (arXiv:2406.14528), for the mean distance; Ali, Zimerman and Wolf (arXiv:2403.01590).

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import receptive_field, trace
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> field = receptive_field(trace(model, torch.arange(200) % 16))
    >>> bool((field.distance.sel(part="state") < 200).all())
    True
    """
    run = as_trace(trace).require()
    share, confidence = as_level(share, "share"), as_level(confidence, "confidence")
    if isinstance(stretch, bool) or not isinstance(stretch, int | np.integer) or stretch < 1:
        raise ValueError(f"stretch: expected a whole number of tokens, got {stretch!r}")
    generator, seed = as_rng(rng)
    held = [i for i in run.attention_layers if "q" in run.records[i]]
    states = [i for i in run.state_layers if run.kind(i) != "delta"]
    if not states and not held:
        hint = "; make it with trace(..., attention=True)" if run.attention_layers else ""
        raise ValueError(f"trace: it has neither state space heads nor registers to measure{hint}")
    rows = np.arange(run.steps - max(1, run.steps // 4), run.steps)
    found: dict[tuple[str, int], np.ndarray] = {}
    jobs = [*(("state", i) for i in states), *(("attention", i) for i in held)]
    for part, layer in tqdm(jobs, disable=not progress, unit="layer", desc="receptive field"):
        if part == "state":
            each = [_by_lag(_weights(run, layer, slice(h, h + 1), rows)[:, 0], rows) for h in range(run.heads(layer))]
        else:
            heads = run.records[layer]["q"].shape[2]
            each = [np.asarray(run.attention(layer, h, times=rows).weight).mean(1) for h in range(heads)]
        found[part, layer] = np.stack(each, 1)
    parts = list(dict.fromkeys(part for part, _ in found))
    count = max(value.shape[1] for value in found.values())
    shape = (len(parts), run.prompts, len(run.layers), count)
    distance, span, mass = (np.full(shape, np.nan) for _ in range(3))
    for (part, layer), value in found.items():
        place = (parts.index(part), slice(None), run.layers.index(layer), slice(value.shape[1]))
        total = value.sum(-1)
        lag = np.arange(value.shape[-1])
        with np.errstate(invalid="ignore", divide="ignore"):
            distance[place] = (value * lag).sum(-1) / total
            inside = value.cumsum(-1) / total[..., None] >= share - 1e-12
        span[place] = np.where(total > 0, inside.argmax(-1), np.nan)
        mass[place] = total
    exponent, spread = np.full((run.prompts, len(run.layers), count), np.nan), np.full((len(run.layers), count), np.nan)
    for layer in states:
        decay = run.log_decay(layer)
        decay = decay if decay.ndim == 3 else decay.max(-1)  # the slowest of a channel
        whole = decay.shape[1] // stretch * stretch
        at = (run.layers.index(layer), slice(decay.shape[2]))
        exponent[(slice(None), *at)] = decay.mean(1)
        if whole:
            blocks = decay[:, :whole].reshape(decay.shape[0], -1, stretch, decay.shape[2]).mean(2)
            spread[at] = blocks.std((0, 1))
    per_head = ("part", "prompt", "layer", "head")
    options: dict[str, Any] = {"confidence": confidence, "resamples": 999, "rng": generator}
    interval = prompt_interval(np.moveaxis(distance, 1, 0), within=(0, np.inf), **options)
    data = {
        "distance": (per_head, distance),
        "distance_mean": (("part", "layer", "head"), distance.mean(1)),
        "distance_mean_interval": (("bound", "part", "layer", "head"), interval),
        "span": (per_head, span),
        "mass": (per_head, mass),
        "lyapunov": (("layer", "head"), exponent.mean(0)),
        "lyapunov_interval": (("bound", "layer", "head"), prompt_interval(exponent, **options)),
        "lyapunov_spread": (("layer", "head"), spread),
    }
    coords = {
        "part": parts,
        "prompt": np.arange(run.prompts),
        "layer": list(run.layers),
        "head": np.arange(count),
        "bound": ["lower", "upper"],
        "symbol": ("layer", [run.pattern[i] for i in run.layers]),
    }
    attrs = {
        **provenance_of(run, "receptive_field", {"share": share, "stretch": stretch, "confidence": confidence}),
        "seed": seed,
        "share": share,
        "confidence": confidence,
        "error": run.error,
        "left_out": ", ".join(f"layer {i} ({run.pattern[i]})" for i in run.state_layers if i not in states),
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _weights(run: Trace, layer: int, heads: slice, rows: np.ndarray) -> np.ndarray:
    """alpha [prompts, H, rows, T] of some heads, 0 above the diagonal."""
    decay = run.log_decay(layer)[:, :, heads]
    sums = np.cumsum(decay if decay.ndim == 4 else decay[..., None], 1)
    sums, B, C = (np.moveaxis(value, 1, 2) for value in (sums, run.B(layer)[:, :, heads], run.C(layer)[:, :, heads]))
    out = np.zeros((*B.shape[:2], rows.size, run.steps))
    step = max(1, _ROWS_AT_ONCE // (run.steps * B.shape[0] * B.shape[1]))
    column = np.arange(run.steps)
    rates = sums.shape[-1]
    for start in range(0, rows.size, step):
        part = rows[start : start + step]
        above = column > part[:, None]
        for n in range(rates):
            own = slice(None) if rates == 1 else slice(n, n + 1)
            log = sums[..., n]
            power = np.minimum(log[..., part][..., None] - log[..., None, :], 0.0)
            power[..., above] = -np.inf
            out[..., start : start + step, :] += np.exp(power) * (C[..., part, own] @ np.swapaxes(B[..., own], -1, -2))
    return out


def _by_lag(weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over rows of the absolute weights [prompts, rows, T] at each lag; rows that do not reach it count as 0."""
    total = np.zeros((weight.shape[0], weight.shape[2]))
    for place, t in enumerate(rows):
        total[:, : t + 1] += np.abs(weight[:, place, : t + 1][:, ::-1])
    return total / rows.size
