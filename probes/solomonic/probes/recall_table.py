"""The recall study as a table: mean accuracy and its interval over seeds, each model with its better initial decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student

from .labelled import units, versions

_UNITS = {
    "accuracy": ("accuracy", "share of questions"),
    "by_lag": ("accuracy by distance to the answer", "share of questions"),
    "by_budget": ("accuracy with another number of stored tokens", "share of questions"),
    "far_by_budget": ("accuracy at the farthest distances with another number of stored tokens", "share of questions"),
    "far_by_random": (
        "accuracy at the farthest distances with another number of stored tokens, chosen at random",
        "share of questions",
    ),
    "memory": ("memory of one sequence at the end of a row", "byte"),
    "seeds": ("runs", "1"),
}


def recall_table(results: Iterable[Mapping[str, Any]], *, confidence: float = 0.95) -> xr.Dataset:
    """Mean and interval of accuracy over seeds, by model and number of pairs.

    Parameters
    ----------
    results : iterable of mapping
        What ``solomonic.models.recall_study.recall_results`` returns.
    confidence : float
        Of the intervals: Student's t over seeds, cut at 0 and 1; NaN where there is one seed.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` (model, pairs, bound), ``by_lag`` (model, pairs, lag, bound), ``by_budget``, ``far_by_budget`` and,
        with stored tokens chosen at random, ``far_by_random`` (model, pairs, stored, bound), bounds being mean, low and
        high; ``decay`` (model, pairs), which initial decay
        was chosen, by the mean accuracy on rows that are not in the table; ``seeds`` and ``memory`` (model, pairs).

    Raises
    ------
    ValueError
        If there are no results.

    Examples
    --------
    >>> run = {"model": "swa", "pairs": 4, "decay": "slow", "choice": 0.3, "by_lag": {"to 16": 0.9}, "by_budget": {},
    ...        "memory_nbytes": 1024}
    >>> table = recall_table([{**run, "seed": s, "accuracy": a} for s, a in enumerate((0.3, 0.4, 0.5))])
    >>> table.accuracy.sel(model="swa", pairs=4).values.round(3).tolist()
    [0.4, 0.152, 0.648]
    """
    results = list(results)
    if not results:
        raise ValueError("results: expected at least one run, got none; `solomonic recall` makes them")
    models, pairs = list(dict.fromkeys(r["model"] for r in results)), sorted({r["pairs"] for r in results})
    lags = list(dict.fromkeys(lag for r in results for lag in r["by_lag"]))
    stored = sorted({int(m) for r in results for m in r["by_budget"]})
    shape = (len(models), len(pairs))
    accuracy, by_lag = np.full((*shape, 3), np.nan), np.full((*shape, len(lags), 3), np.nan)
    budgets = np.full((3, *shape, len(stored), 3), np.nan)
    decay, seeds, memory = np.full(shape, "", dtype=object), np.zeros(shape, int), np.full(shape, np.nan)
    for i, model in enumerate(models):
        for j, count in enumerate(pairs):
            runs = [r for r in results if (r["model"], r["pairs"]) == (model, count)]
            if not runs:
                continue
            choice = {d: np.mean([r["choice"] for r in runs if r["decay"] == d]) for d in {r["decay"] for r in runs}}
            best = max(sorted(choice), key=lambda d: choice[d])
            runs = [r for r in runs if r["decay"] == best]
            decay[i, j], seeds[i, j], memory[i, j] = best, len(runs), runs[0]["memory_nbytes"]
            accuracy[i, j] = _interval([r["accuracy"] for r in runs], confidence)
            for k, lag in enumerate(lags):
                by_lag[i, j, k] = _interval([r["by_lag"].get(lag) for r in runs], confidence)
            for k, m in enumerate(stored):
                for b, (key, which) in enumerate((("by_budget", 0), ("by_budget", 1), ("by_budget_random", 1))):
                    values = [r.get(key, {}).get(str(m), (None, None))[which] for r in runs]
                    budgets[b, i, j, k] = _interval(values, confidence)
    data = {
        "accuracy": (("model", "pairs", "bound"), accuracy),
        "by_lag": (("model", "pairs", "lag", "bound"), by_lag),
        "by_budget": (("model", "pairs", "stored", "bound"), budgets[0]),
        "far_by_budget": (("model", "pairs", "stored", "bound"), budgets[1]),
        "far_by_random": (("model", "pairs", "stored", "bound"), budgets[2]),
        "decay": (("model", "pairs"), decay.astype(str)),
        "seeds": (("model", "pairs"), seeds),
        "memory": (("model", "pairs"), memory),
    }
    coords = {"model": models, "pairs": pairs, "lag": lags, "stored": stored, "bound": ["mean", "low", "high"]}
    attrs = {**versions(), "runs": len(results), "confidence": confidence}
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def recall_markdown(table: xr.Dataset) -> str:
    """The table as Markdown: a row for each model and number of pairs.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`recall_table`.

    Returns
    -------
    str

    Examples
    --------
    >>> run = {"model": "swa", "pairs": 4, "decay": "slow", "seed": 0, "accuracy": 0.3, "choice": 0.3,
    ...        "by_lag": {"to 16": 0.9}, "by_budget": {}, "memory_nbytes": 1024}
    >>> print(recall_markdown(recall_table([run])))
    | pairs | model | decay | seeds | memory, bytes | all | to 16 |
    |---|---|---|---|---|---|---|
    | 4 | swa | slow | 1 | 1,024 | 0.30 | 0.90 |
    """
    lags = [str(lag) for lag in table["lag"].values]
    head = ["pairs", "model", "decay", "seeds", "memory, bytes", "all", *lags]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for pairs in table["pairs"].values:
        for model in table["model"].values:
            row = table.sel(pairs=pairs, model=model)
            if not int(row["seeds"]):
                continue
            cells = [_cell(row["accuracy"].values), *(_cell(row["by_lag"].sel(lag=lag).values) for lag in lags)]
            known = [
                str(pairs),
                str(model),
                str(row["decay"].item()),
                str(int(row["seeds"])),
                f"{int(row['memory']):,}",
            ]
            lines.append("| " + " | ".join([*known, *cells]) + " |")
    return "\n".join(lines)


def _cell(bounds: np.ndarray) -> str:
    mean, low, high = bounds
    if np.isnan(mean):
        return ""
    return f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _interval(values: list[float | None], confidence: float) -> tuple[float, float, float]:
    """Mean, and Student's interval within 0 and 1."""
    x = np.array([v for v in values if v is not None], dtype=float)
    if not x.size:
        return np.nan, np.nan, np.nan
    if x.size == 1:
        return float(x[0]), np.nan, np.nan
    half = student.ppf(0.5 + confidence / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size)
    return float(x.mean()), float(max(0.0, x.mean() - half)), float(min(1.0, x.mean() + half))
