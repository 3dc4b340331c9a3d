"""How much of a memory a text uses: Hankel singular values of every head at cuts along it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .inputs import as_count, as_cuts, as_level, as_rng, as_tolerance
from .labelled import provenance_of, units
from .over_prompts import mean_of_known, prompt_interval
from .registers import weights_by_lag
from .run import Trace, as_trace

__all__ = ["effective_state"]

_UNITS = {
    "singular_value": ("Hankel singular value of one channel of a head at a cut", "1"),
    "rank": ("number of singular values above the tolerance", "1"),
    "order": ("least number of modes that hold the share of the sum of the singular values", "1"),
    "entropy_size": ("exponential of the entropy of the normalised singular values", "1"),
    "order_mean": ("order, mean over cuts and prompts", "1"),
    "order_mean_interval": ("confidence interval of order_mean, prompts redrawn", "1"),
    "order_curve": ("order, mean over the heads of a layer and prompts", "1"),
    "order_curve_interval": ("confidence interval of order_curve, prompts redrawn", "1"),
    "nominal": ("numbers that a channel of the head can hold at that cut", "1"),
    "cut": ("cut between the tokens before it and the others", "token"),
}


def effective_state(
    trace: Trace,
    *,
    cuts: Iterable[int] | int = 16,
    share: float = 0.999,
    tol: float | None = None,
    confidence: float = 0.95,
    resamples: int = 500,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Effective state size of every head along a text: the spectrum of its Hankel operator at every cut.

    .. math:: H_i = \mathcal O_i \mathcal R_i, \qquad (H_i)_{ts} = C_t\, \Phi(t, s)\, B_s, \quad s < i \le t,

    the map from the inputs before a cut to the outputs after it at the gates of the run. Its rank is the least state
    that could carry the past to the future there; its singular values say how much each direction carries. A head
    with P channels runs P equal copies of one channel's system, so the numbers are those of a channel. (In Mamba every
    channel is a head of its own.)

    Parameters
    ----------
    trace : Trace
        A run. Its state space heads are measured; attention heads too where it holds the registers
        (``trace(..., attention=True)``): there :math:`(H_i)_{ts}` is the weight of token s in the read-out at t.
    cuts : int or iterable of int, default 16
        Cuts from 1 to T - 1, or how many evenly spaced ones.
    share : float, default 0.999
        What share of the sum of the singular values ``order`` must hold.
    tol : float, optional
        Singular values up to ``tol`` times the largest of their cut do not count in ``rank``; by default what rounding
        leaves in float64, eps * max(cut, T - cut).
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
        Dims part, prompt, layer, head, cut, mode, bound. ``part`` is ``"state"`` or ``"attention"``; entries of layers
        that have no such part are NaN.

        - ``singular_value`` (part, prompt, layer, head, cut, mode), largest first.
        - ``rank``, ``order``, ``entropy_size``, and ``nominal``, the size at hand: N for a state, for attention the
          tokens in reach at that cut, those whose summaries are read counted apart (part, prompt, layer, head, cut).
        - ``order_mean`` (part, layer, head), over cuts and prompts, and ``order_curve`` (part, layer, cut), over heads
          and prompts, each with its bootstrap interval over prompts (NaN for one prompt).

        Attributes: provenance of the trace, ``share``, ``tol`` (0: what rounding leaves), ``error`` of the trace.

    Raises
    ------
    TypeError, ValueError
        If this is no trace, its error is over its tolerance, it has neither state space heads nor registers, or a cut
        lies outside the text.

    Notes
    -----
    Gates are frozen at their values in the run. Everything is done on square roots of the Gramians (QR of
    :math:`\mathcal O_i` and :math:`\mathcal R_i`), in float64. Attention over all the past costs an SVD of i by T - i
    a cut and head; a window only one of its size. T = 1024 with 4 layers of 4 heads, 16 cuts: about two seconds for
    the states, ten with windows of 64 and fading tokens.

    References
    ----------
    Parnichkun et al., "Quantifying memory utilization with effective state-size" (arXiv:2504.19561), for the rank and
    the entropy; van der Veen and Dewilde, "Time-varying system theory for computational networks" (1991).

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import effective_state, trace
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0).double()
    >>> size = effective_state(trace(model, torch.arange(24) % 16), cuts=[1, 3, 12, 23])
    >>> size["rank"].sel(part="state", layer=0, head=0).values[0]
    array([1., 3., 8., 1.])
    """
    as_trace(trace)
    share = as_level(share, "share")
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    tol = None if tol is None else as_tolerance(tol)
    generator, seed = as_rng(rng)
    trace.require()
    held = [i for i in trace.attention_layers if "q" in trace.records[i]]
    if not trace.state_layers and not held:
        hint = "; make it with trace(..., attention=True)" if trace.attention_layers else ""
        raise ValueError(f"trace: it has neither state space heads nor registers to measure{hint}")
    steps = trace.steps
    chosen = as_cuts(cuts, steps)
    parts = ["state"] * bool(trace.state_layers) + ["attention"] * bool(held)
    jobs = [("state", i) for i in trace.state_layers] + [("attention", i) for i in held]
    found: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    with tqdm(total=len(jobs) * chosen.size, disable=not progress, unit="cut", desc="effective state") as bar:
        for part, layer in jobs:
            walk = _states(trace, layer, chosen) if part == "state" else _registers(trace, layer, chosen)
            rows = []
            for row in walk:
                rows.append(row)
                bar.update()
            values, nominal = zip(*rows, strict=True)
            most = max(v.shape[-1] for v in values)
            stacked = np.stack([np.pad(v, ((0, 0), (0, 0), (0, most - v.shape[-1]))) for v in values], 2)
            found[part, layer] = stacked, np.array(nominal)
    heads = max(values.shape[1] for values, _ in found.values())
    modes = max(values.shape[3] for values, _ in found.values())
    shape = (len(parts), trace.prompts, len(trace.layers), heads, chosen.size)
    singular = np.full((*shape, modes), np.nan)
    nominal = np.full(shape, np.nan)
    for (part, layer), (values, size) in found.items():
        place = (parts.index(part), slice(None), trace.layers.index(layer), slice(values.shape[1]))
        singular[place] = 0.0
        singular[(*place, slice(None), slice(values.shape[3]))] = values
        nominal[place] = size
    longest = np.maximum(chosen, steps - chosen)
    limit = (np.finfo(float).eps * longest if tol is None else np.full(chosen.size, tol))[:, None]
    rank, order, entropy = sizes(singular, limit, share)
    options: dict[str, Any] = {
        "confidence": confidence,
        "resamples": resamples,
        "within": (0, np.inf),
        "rng": generator,
    }
    mean, curve = np.moveaxis(order.mean(-1), 1, 0), np.moveaxis(mean_of_known(order, 3), 1, 0)
    per_cut = ("part", "prompt", "layer", "head", "cut")
    dataset = xr.Dataset(
        {
            "singular_value": ((*per_cut, "mode"), singular),
            "rank": (per_cut, rank),
            "order": (per_cut, order),
            "entropy_size": (per_cut, entropy),
            "nominal": (per_cut, nominal),
            "order_mean": (("part", "layer", "head"), mean.mean(0)),
            "order_mean_interval": (("bound", "part", "layer", "head"), prompt_interval(mean, **options)),
            "order_curve": (("part", "layer", "cut"), curve.mean(0)),
            "order_curve_interval": (("bound", "part", "layer", "cut"), prompt_interval(curve, **options)),
        },
        coords={
            "part": parts,
            "prompt": np.arange(trace.prompts),
            "layer": list(trace.layers),
            "head": np.arange(heads),
            "cut": chosen,
            "mode": np.arange(modes),
            "bound": ["lower", "upper"],
            "symbol": ("layer", [trace.pattern[i] for i in trace.layers]),
        },
        attrs={
            **provenance_of(
                trace, "effective_state", {"cuts": chosen, "share": share, "tol": tol, "confidence": confidence}
            ),
            "seed": seed,
            "share": share,
            "tol": 0.0 if tol is None else tol,
            "error": trace.error,
            "confidence": confidence,
        },
    )
    return units(dataset, _UNITS)


def sizes(singular: np.ndarray, limit: Any, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank at a relative limit, modes for a share of the sum, and exp(entropy) of singular values [..., modes].

    NaN where the singular values are; 0, 0 and 0 where all of them are 0.
    """
    top = singular[..., :1]
    total = singular.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(total > 0, singular / total, 0.0)
        logs = np.where(part > 0, np.log(part), 0.0)
    rank = ((singular > limit * top) & (singular > 0)).sum(-1).astype(float)
    order = ((part.cumsum(-1) < share).sum(-1) + 1).astype(float)
    entropy = np.exp(-(part * logs).sum(-1))
    for value in (order, entropy):
        value[total[..., 0] == 0] = 0.0
    for value in (rank, order, entropy):
        value[np.isnan(top[..., 0])] = np.nan
    return rank, order, entropy


def hankel_singular_values(log_decay: np.ndarray, B: np.ndarray, C: np.ndarray, cut: int) -> np.ndarray:
    """Of h_t = a_t h_{t-1} + B_t u_t, y_t = C_t' h_t: log_decay [..., T, 1 or N], B and C [..., T, N]."""
    sums = np.cumsum(log_decay, -2)
    before = sums[..., cut - 1 : cut, :]
    reach = np.exp(before - sums[..., :cut, :]) * B[..., :cut, :]
    see = np.exp(sums[..., cut:, :] - before) * C[..., cut:, :]
    left, right = np.linalg.qr(see, mode="r"), np.linalg.qr(reach, mode="r")
    return np.linalg.svd(left @ np.swapaxes(right, -1, -2), compute_uv=False)


def _states(trace: Trace, layer: int, cuts: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Singular values [prompts, H, modes] and N, cut by cut."""
    B, C = (np.moveaxis(value, 1, 2) for value in (trace.B(layer), trace.C(layer)))
    if trace.kind(layer) == "delta":
        systems = [[trace.system(layer, head, prompt=p) for head in range(B.shape[1])] for p in range(trace.prompts)]
        for cut in map(int, cuts):
            yield _padded([[each.hankel_singular_values(cut) for each in row] for row in systems]), float(B.shape[-1])
        return
    decay = np.moveaxis(trace.log_decay(layer), 1, 2)
    decay = decay[..., None] if decay.ndim == 3 else decay
    for cut in cuts:
        yield hankel_singular_values(decay, B, C, int(cut)), float(B.shape[-1])


def _padded(values: list[list[np.ndarray]]) -> np.ndarray:
    most = max(each.size for row in values for each in row)
    return np.stack([[np.pad(each, (0, most - each.size)) for each in row] for row in values])


def _registers(trace: Trace, layer: int, cuts: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """The same of the read-out of registers, and how many values are in reach."""
    taps = trace.registers(layer)
    window, steps = trace.windows[layer], trace.steps
    sources = 2 if "k_fading" in taps else 1
    for cut in map(int, cuts):
        if window is None:
            weight = _full(taps, trace.past, np.arange(cut, steps))
            yield np.linalg.svd(weight[..., trace.past : trace.past + cut], compute_uv=False), float(cut)
            continue
        rows = np.arange(cut, min(steps, cut + sources * window - 1))
        reach = min(cut, sources * window - 1)
        lag = rows[:, None] - (cut - 1) + np.arange(reach)
        values = []
        for head in range(taps["q"].shape[2]):
            weight, fading = weights_by_lag(taps, window, trace.past, rows, head)
            blocks = [_at(weight[..., fading == kind], lag - window * kind) for kind in range(sources)]
            values.append(np.linalg.svd(np.concatenate(blocks, -1), compute_uv=False))
        yield np.stack(values, 1), float(min(cut, window - 1) + (sources - 1) * min(cut, 2 * window - 1))


def _full(taps: dict[str, np.ndarray], past: int, rows: np.ndarray) -> np.ndarray:
    """Weights [prompts, H, rows, S] of attention over all the past."""
    q, k = taps["q"][:, rows], taps["k"]
    k = np.repeat(k, q.shape[2] // k.shape[2], 2)
    score = np.einsum("brhk,bshk->bhrs", q, k, optimize=True) / np.sqrt(q.shape[3])
    score = np.where(np.arange(k.shape[1]) <= (rows + past)[:, None], score, -np.inf)
    weight = np.exp(score - score.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def _at(weight: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Weights [prompts, rows, lags] at a lag for every row and column, 0 outside."""
    inside = (lag >= 0) & (lag < weight.shape[-1])
    rows = np.arange(len(lag))[:, None]
    return np.where(inside, weight[:, rows, np.where(inside, lag, 0)], 0.0)
