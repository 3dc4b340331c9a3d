"""What a state tells of an input that long ago: linear and Fisher memory curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from solomonic.realization import TimeVaryingSystem, shift_register

from .inputs import as_count, as_lags, as_level, as_rng, as_tolerance, log_spaced
from .labelled import provenance_of, units
from .over_prompts import mean_of_known, prompt_interval, ratio_of_means
from .ratios import ratio_interval
from .run import Trace, as_trace

__all__ = ["memory_curve"]

#: Longest register whose Fisher curve is computed from its system; longer ones have it in closed form.
_REGISTER = 64

_UNITS = {
    "linear": ("share of the variance of a white input that the state tells linearly", "1"),
    "linear_total": ("sum of the linear curve: the rank of the controllability matrix", "1"),
    "fisher": ("Fisher information about an input of unit norm, noise of variance 1 in every state and step", "1"),
    "fisher_total": ("sum of the Fisher curve", "1"),
    "fisher_total_mean": ("sum of the Fisher curve, mean over prompts", "1"),
    "fisher_total_interval": ("confidence interval of fisher_total_mean, prompts redrawn", "1"),
    "linear_curve": ("linear curve of a layer, mean over its heads and prompts", "1"),
    "linear_curve_interval": ("confidence interval of linear_curve, prompts redrawn", "1"),
    "fisher_curve": ("Fisher curve of a layer, mean over its heads and prompts", "1"),
    "fisher_curve_interval": ("confidence interval of fisher_curve, prompts redrawn", "1"),
    "decoded": ("share of the variance of the text's own input that a linear read-out finds, held out", "1"),
    "decoded_interval": ("confidence interval of decoded, prompts redrawn for the fits that were made", "1"),
    "decoded_now": ("the same from the current input alone", "1"),
    "decoded_now_interval": ("confidence interval of decoded_now, prompts redrawn likewise", "1"),
    "decoded_curve": ("decoded, mean over the heads of a layer", "1"),
    "decoded_curve_interval": ("confidence interval of decoded_curve, prompts redrawn likewise", "1"),
    "nominal": ("numbers that a channel of the head holds", "1"),
    "lag": ("lag of the input", "token"),
    "decoded_lag": ("lag of the input", "token"),
}


class _Curves(NamedTuple):
    """Curves [prompts, heads, lags] of a layer."""

    linear: np.ndarray
    fisher: np.ndarray


def memory_curve(
    trace: Trace,
    *,
    time: int | None = None,
    lags: Iterable[int] | None = None,
    samples: int = 64,
    tol: float | None = None,
    confidence: float = 0.95,
    resamples: int = 500,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""What the state of each head tells of the input a lag ago, linearly and against noise.

    .. math:: r_k = \Phi(t, t-k) B_{t-k}, \qquad
              m(k) = r_k^\top \Bigl(\sum_j r_j r_j^\top\Bigr)^{+} r_k, \qquad
              J(k) = r_k^\top \Bigl(\sum_{s \le t} \Phi(t,s) \Phi(t,s)^\top\Bigr)^{-1} r_k

    m is the share of the variance of a white input that its best linear read-out finds, at the gates of the run; J is
    the Fisher information about the input, of unit norm, when noise of variance 1 enters every state at every step.
    Both have theorems on their sums, which are checked on every call:

    - :math:`\sum_k m(k)` is the rank of the controllability matrix, so at most N.
    - :math:`\sum_k J(k) = 1` where all decays of a head are one (they commute with their transposes); a register of W
      tokens has J(k) = 1 / (k + 1), and W in sum as its gain grows: the difference between fading and eidetic memory
      in one number.

    Parameters
    ----------
    trace : Trace
        A run.
    time : int, optional
        The token after which the state is read, from 1 to T - 1; the last one by default.
    lags : iterable of int, optional
        Lags of ``decoded``, from 1 to T - 2; by default about 16, evenly spaced in their logarithm up to T / 2.
    samples : int, default 64
        Places of the text from which inputs are decoded.
    tol : float, optional
        Relative tolerance of the rank; by default what rounding leaves.
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
        Dims part ("state", "register"), prompt, layer, head, lag (0 to ``time``), decoded_lag, bound; NaN where a
        layer has no such part.

        - ``linear``, ``fisher`` (part, prompt, layer, head, lag); ``linear_total``, ``fisher_total`` (part, prompt,
          layer, head); ``fisher_total_mean`` with ``fisher_total_interval`` (NaN for one prompt); ``linear_curve`` and
          ``fisher_curve`` (part, layer, lag), means over heads and prompts, with intervals; ``nominal`` (part, layer).
        - ``decoded`` and ``decoded_now`` (layer, head, decoded_lag): the text is not white, so here is what a ridge
          read-out of the state finds of the text's own inputs, in prompts that were held out, beside what the current
          input alone tells of them; ``decoded_curve`` (layer, decoded_lag), mean over heads. NaN for one prompt. Their
          intervals redraw prompts for the fits that were made.

        Attributes: provenance and ``normal_error`` and ``rank_error``, the deviations from the two theorems.

    Raises
    ------
    TypeError, ValueError
        If this is no trace, its error is over its tolerance, the run has less than two tokens or neither state space
        heads nor registers, or an argument is out of its range.

    Notes
    -----
    Look at the curves; a sum says little alone. The linear total is a rank, and nearly always full. Registers are
    those of windows and of attention over all the past (as long as the run then); what a softmax reads of them is
    :func:`effective_state`.

    References
    ----------
    Jaeger, "Short term memory in echo state networks" (2002); Ganguli, Huh and Sompolinsky, "Memory traces in dynamical
    systems", PNAS 105 (2008); Ballarin, Grigoryeva and Ortega (arXiv:2305.01457) for the linear total.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import memory_curve, trace
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> curve = memory_curve(trace(model, torch.arange(40) % 16))
    >>> curve.fisher_total.sel(part="state", layer=0).values.round(6)
    array([[1., 1.]])
    >>> curve.linear_total.sel(part="register", layer=1).values
    array([[4., 4.]])
    """
    run = as_trace(trace).require()
    confidence, samples = as_level(confidence, "confidence"), as_count(samples, "samples")
    resamples = as_count(resamples, "resamples")
    tol = None if tol is None else as_tolerance(tol)
    generator, seed = as_rng(rng)
    steps = run.steps
    if steps < 2:
        raise ValueError("trace: expected a run of at least 2 tokens, got 1")
    registers = {i: run.windows[i] for i in run.attention_layers}
    if not run.state_layers and not registers:
        raise ValueError(
            f"trace: its layers ({'-'.join(run.pattern[i] for i in run.layers)}) have no memory to measure"
        )
    at = steps - 1 if time is None else int(run._times(time)[0])
    if at < 1:
        raise ValueError(f"time: expected a token from 1 to {steps - 1}, got {at}")
    heads = max([run.heads(i) for i in run.state_layers] + [run.records[i]["lse_window"].shape[2] for i in registers])
    parts = ["state"] * bool(run.state_layers) + ["register"] * bool(registers)
    shape = (len(parts), run.prompts, len(run.layers), heads, at + 1)
    linear, fisher = np.full(shape, np.nan), np.full(shape, np.nan)
    nominal = np.full((len(parts), len(run.layers)), np.nan)
    normal_error = rank_error = 0.0
    for layer in tqdm(run.state_layers, disable=not progress, unit="layer", desc="memory curve"):
        found, ranks = _state(run, layer, at, tol)
        place = (0, slice(None), run.layers.index(layer), slice(found.linear.shape[1]))
        linear[place], fisher[place] = found
        nominal[0, place[2]] = run.records[layer]["B"].shape[3]
        rank_error = max(rank_error, float(np.abs(found.linear.sum(-1) - ranks).max()))
        if run.kind(layer) == "scalar":
            normal_error = max(normal_error, float(np.abs(found.fisher.sum(-1) - 1).max()))
    for layer, window in registers.items():
        size = at + 1 + run.past if window is None else window
        place = (len(parts) - 1, slice(None), run.layers.index(layer), slice(run.records[layer]["lse_window"].shape[2]))
        linear[place], fisher[place] = _register(size, at + 1)
        nominal[len(parts) - 1, place[2]] = size
    totals = [np.where(np.isnan(each[..., 0]), np.nan, np.nansum(each, -1)) for each in (linear, fisher)]
    chosen = _lags(lags, steps)
    decoded, now = _decoded(run, chosen, samples, heads)
    per_head = ("part", "prompt", "layer", "head")
    by_lag = ("layer", "head", "decoded_lag")
    curves = {
        name: np.moveaxis(mean_of_known(each, 3), 1, 0) for name, each in (("linear", linear), ("fisher", fisher))
    }
    options = {"confidence": confidence, "resamples": resamples, "within": (0, np.inf), "rng": generator}
    data = {
        "linear": ((*per_head, "lag"), linear),
        "fisher": ((*per_head, "lag"), fisher),
        "linear_total": (per_head, totals[0]),
        "fisher_total": (per_head, totals[1]),
        "fisher_total_mean": (("part", "layer", "head"), totals[1].mean(1)),
        "fisher_total_interval": (
            ("bound", "part", "layer", "head"),
            prompt_interval(np.moveaxis(totals[1], 1, 0), **options),
        ),
        "nominal": (("part", "layer"), nominal),
        "decoded": (by_lag, _told(decoded, 0)),
        "decoded_interval": (("bound", *by_lag), _told_interval(decoded, confidence)),
        "decoded_now": (by_lag, _told(now, 0)),
        "decoded_now_interval": (("bound", *by_lag), _told_interval(now, confidence)),
        "decoded_curve": (("layer", "decoded_lag"), _told_by_layer(decoded, 0)),
        "decoded_curve_interval": (
            ("bound", "layer", "decoded_lag"),
            prompt_interval(decoded, _told_by_layer, **{**options, "within": (-np.inf, 1)}),
        ),
    }
    for name, curve in curves.items():
        data[f"{name}_curve"] = (("part", "layer", "lag"), curve.mean(0))
        data[f"{name}_curve_interval"] = (("bound", "part", "layer", "lag"), prompt_interval(curve, **options))
    coords = {
        "part": parts,
        "prompt": np.arange(run.prompts),
        "layer": list(run.layers),
        "head": np.arange(heads),
        "lag": np.arange(at + 1),
        "decoded_lag": chosen,
        "bound": ["lower", "upper"],
        "symbol": ("layer", [run.pattern[i] for i in run.layers]),
    }
    arguments = {"time": at, "lags": chosen, "samples": samples, "tol": tol, "confidence": confidence}
    attrs = {
        **provenance_of(run, "memory_curve", arguments),
        "seed": seed,
        "time": at,
        "error": run.error,
        "normal_error": normal_error,
        "rank_error": rank_error,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def linear_curve(reach: np.ndarray, tol: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Squared norms of the columns of [..., N, T] whitened by their sum of squares, and the rank [...]."""
    _, values, right = np.linalg.svd(reach, full_matrices=False)
    limit = np.finfo(float).eps * max(reach.shape[-2:]) if tol is None else tol
    kept = (values > limit * values[..., :1]) & (values > 0)
    return np.einsum("...rt,...r->...t", right**2, kept.astype(float)), kept.sum(-1)


def _state(run: Trace, layer: int, at: int, tol: float | None) -> tuple[_Curves, np.ndarray]:
    """Curves of the state space heads of a layer by lag, and the ranks [prompts, heads]."""
    write = np.moveaxis(run.B(layer)[:, : at + 1], 1, 2)  # [prompts, heads, T, N]
    size = np.linalg.norm(write, axis=-1, keepdims=True)
    unit = write / np.where(size > 0, size, 1.0)
    if run.kind(layer) == "delta":
        return _dense(run, layer, at, unit, tol)
    decay = np.moveaxis(run.log_decay(layer)[:, : at + 1], 1, 2)
    sums = np.cumsum(decay if decay.ndim == 4 else decay[..., None], 2)
    left = np.exp(sums[:, :, -1:] - sums)
    linear, rank = linear_curve(np.swapaxes(left * write, -1, -2), tol)
    fisher = ((left * unit) ** 2 / (left**2).sum(2, keepdims=True)).sum(-1)
    return _Curves(linear[..., ::-1], fisher[..., ::-1]), rank


def _dense(run: Trace, layer: int, at: int, unit: np.ndarray, tol: float | None) -> tuple[_Curves, np.ndarray]:
    """The same of heads with dense transitions."""
    linear, fisher = np.empty(unit.shape[:3]), np.empty(unit.shape[:3])
    rank = np.empty(unit.shape[:2])
    for p, h in np.ndindex(*unit.shape[:2]):
        system = run.system(layer, h, prompt=p)
        curve, rank[p, h] = linear_curve(system.controllability(0, at + 1), tol)
        linear[p, h] = curve[::-1]
        alike = TimeVaryingSystem(system.A[: at + 1], unit[p, h][:, :, None], system.C[: at + 1])
        fisher[p, h] = alike.fisher_memory(at)[:, 0]
    return _Curves(linear, fisher), rank


def _register(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Curves of a register of ``size`` tokens at lags 0 .. count - 1: it holds what it holds, and adds noise."""
    lag = np.arange(count)
    if size <= _REGISTER:
        register = shift_register(size, size)
        system = TimeVaryingSystem(register.A, register.B, register.C)
        fisher, (linear, _) = system.fisher_memory(size - 1)[:, 0], linear_curve(system.controllability(0, size))
        linear, fisher = (np.pad(v, (0, max(0, count - size)))[:count] for v in (linear[::-1], fisher))
        return linear, fisher
    return np.where(lag < size, 1.0, 0.0), np.where(lag < size, 1 / (lag + 1), 0.0)


def _lags(lags: Iterable[int] | None, steps: int) -> np.ndarray:
    if lags is None:
        return log_spaced(1, max(1, steps // 2), 16)
    return as_lags(lags, steps - 1 if steps > 2 else steps)


def _decoded(run: Trace, lags: np.ndarray, samples: int, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out squares [prompts, 2, layers, heads, lags] that the state, and the current input alone, leave of earlier
    inputs, and those of the inputs themselves."""
    out, now = (np.full((run.prompts, 2, len(run.layers), heads, lags.size), np.nan) for _ in range(2))
    if run.prompts < 2:
        return out, now
    first = int(lags.max())
    times = np.unique(np.linspace(first, run.steps - 1, samples).round().astype(int))
    for layer in run.state_layers:
        states = run.states(layer, times=times)  # [prompts, times, heads, P, N]
        u = run.u(layer)
        scale = np.sqrt((u**2).mean((0, 1)))
        u = u / np.where(scale > 0, scale, 1.0)
        states = states / np.where(scale > 0, scale, 1.0)[..., None]
        row = run.layers.index(layer)
        for head in range(states.shape[2]):
            x, here = states[:, :, head], u[:, times, head]
            past = np.stack([u[:, times - k, head] for k in lags], -1)
            out[:, :, row, head] = _held_out(x, past)
            now[:, :, row, head] = _held_out(here[..., None], past)
    return out, now


def _held_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squares [prompts, 2, lags] of y [prompts, times, P, lags] that x [prompts, times, P, N] does not explain, and of
    y itself, each half of the prompts fitted to the other."""
    half = len(x) // 2
    squares = np.empty((len(x), 2, y.shape[-1]))
    for fit, held in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        a, b = x[fit].reshape(-1, x.shape[-1]), y[fit].reshape(-1, y.shape[-1])
        at, mean = a.mean(0), b.mean(0)
        a, b = a - at, b - mean
        gram = a.T @ a
        ridge = 1e-6 * np.trace(gram) / len(gram) + 1e-300
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), a.T @ b)
        target = y[held] - mean
        squares[held, 0] = ((target - (x[held] - at) @ weights) ** 2).sum((1, 2))
        squares[held, 1] = (target**2).sum((1, 2))
    return squares


def _told(squares: np.ndarray, axis: int) -> np.ndarray:
    """The share that is explained, from what is left and the whole on the axis after that of the prompts."""
    return 1 - ratio_of_means(squares, axis)


def _told_interval(squares: np.ndarray, confidence: float) -> np.ndarray:
    """Fieller's interval [2, ...] of that share over prompts."""
    return 1 - ratio_interval(squares[:, 0], squares[:, 1], confidence=confidence, within=(0, np.inf))[::-1]


def _told_by_layer(squares: np.ndarray, axis: int) -> np.ndarray:
    return mean_of_known(_told(squares, axis), -2)
