"""What a linear read-out finds in features, beside what it finds in controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import issparse
from sklearn.model_selection import GroupKFold
from tqdm.auto import tqdm

from .held_out_scores import HeldOutScores, exchanged
from .held_out_tests import held_out_interval, held_out_test, shuffle_test
from .inputs import as_count, as_level, as_rng
from .labelled import provenance, units
from .significance import discoveries
from .statistics import bootstrap_interval

__all__ = ["linear_probe"]

_UNITS = {
    "score": ("held-out accuracy, or share of the variance that is explained", "1"),
    "score_mean": ("mean score over the prompts", "1"),
    "score_interval": ("confidence interval of score_mean", "1"),
    "control_score": ("score of the control", "1"),
    "selectivity": ("mean score minus that of the control", "1"),
    "selectivity_interval": ("confidence interval of selectivity", "1"),
    "p": ("one-sided p-value of a score no higher than that of the control", "1"),
    "discovery": ("whether the selectivity is positive and a discovery", "1"),
    "selective": ("whether it is positive and a discovery beside every control at once", "1"),
}


def linear_probe(
    features: Any,
    labels: Any,
    prompts: Any = None,
    *,
    controls: Mapping[str, Any] | None = None,
    task: str = "auto",
    strength: float = 1.0,
    folds: int = 5,
    shuffles: int = 10,
    level: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""How well a linear read-out predicts labels of prompts that it was not fitted to, beside controls.

    .. math:: s_g = \frac{1}{|g|} \sum_{i \in g} \mathbb 1[\hat y_i = y_i] \quad \text{or} \quad
              \frac{1}{|g|} \sum_{i \in g} \frac{(y_i - \bar y)^2 - (y_i - \hat y_i)^2}{\mathrm{var}\, y}, \qquad
              \text{selectivity} = \overline{s - s^{\text{control}}}

    with g a prompt, and the prediction and the mean of y from the folds without it. A high score alone says little:
    labels may be frequent, a random network may carry them, or the last tokens may tell them. So a score always comes
    with those of controls.

    Parameters
    ----------
    features : array_like [n, d] or [n, units, d], or mapping of str to array_like [n, d]
        Features of each unit (a head, say); each is probed alone.
    labels : array_like [n]
        Classes (whole numbers, bools or strings) or numbers.
    prompts : array_like [n], optional
        Which prompt each sample is of: samples of one prompt are never on both sides of a split. By default each is
        its own.
    controls : mapping of str to features, optional
        Other features to probe for the same labels: of the form of ``features``, or one array or sparse matrix [n, d]
        that all units are compared with. The control ``"shuffled"`` (labels exchanged between prompts) is always there.
    task : {"auto", "classify", "regress"}, default "auto"
        Logistic regression or ridge regression; by default ridge for labels that are floats.
    strength : float, default 1
        Of the L2 penalty, on standardized features (sparse ones are taken as they are).
    folds : int, default 5
        Parts of the prompts.
    shuffles : int, default 10
        How often labels are shuffled; the control's score is the mean. From 99 on the p-value is a rank: then take 40
        or more for every unit.
    level : float, default 0.05
        Largest expected share of false ones among the discoveries.
    confidence : float, default 0.95
        Nominal coverage of the intervals over prompts.
    resamples : int, default 2000
        Resamples of the bootstrap.
    rng : int, numpy.random.Generator or None
        Source of folds, shuffles and resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims unit, prompt, control, bound.

        - ``score`` (unit, prompt); ``score_mean`` (unit) with ``score_interval``.
        - ``control_score`` (control, unit, prompt); ``selectivity`` (control, unit) with its interval; ``p``;
          ``discovery``, over the units of a control; ``selective`` (unit): beside the hardest of its controls.

        Attributes: ``task``, provenance; ``checks`` counts fits that did not converge.

    Raises
    ------
    TypeError, ValueError
        If features are not finite numbers, sizes differ, there are fewer prompts than folds or one label only, or an
        argument is out of its range.

    Notes
    -----
    Where every prompt has as many samples, labels are exchanged between whole prompts, which keeps what the samples of
    one prompt share; otherwise those of whole prompts are laid end to end, which keeps it approximately. Scores of
    prompts share their fits. So the test beside ``shuffled`` compares the mean score with those of shuffled labels
    (:func:`shuffle_test`), and the others allow for the luck of the fits (:func:`held_out_test`), which makes them
    conservative. With random labels, 40 prompts and 8 units of 12 features, 4.4 to 5.5 % of 2000 simulations found
    something beside ``shuffled``. Intervals of selectivity are those of :func:`held_out_interval`. Costs folds x (1 +
    shuffles + controls) fits a unit; in ridge regression all shuffles are one fit.

    References
    ----------
    Hewitt and Liang, "Designing and interpreting probes with control tasks" (arXiv:1909.03368), section 2, for
    selectivity; Ojala and Garriga (JMLR 11, 2010), test 1; Nadeau and Bengio (2003), section 3; Belinkov,
    "Probing classifiers" (arXiv:2102.12452), for what probes do not say.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import linear_probe
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(60, 2, 4))
    >>> found = linear_probe(features, features[:, 1, 0] > 0)
    >>> found.selective.values
    array([False,  True])
    """
    y = _labels(labels)
    inputs = _units(features, len(y), "features")
    groups = _prompts(prompts, len(y))
    names, groups = np.unique(groups, return_inverse=True)
    folds, shuffles = as_count(folds, "folds", 2), as_count(shuffles, "shuffles")
    resamples, level = as_count(resamples, "resamples"), as_level(level, "level")
    confidence = as_level(confidence, "confidence")
    if len(names) < folds:
        raise ValueError(f"prompts: expected at least as many as folds, {folds}, got {len(names)}; take fewer folds")
    kind = _task(task, y)
    if isinstance(strength, bool) or not np.isfinite(strength) or not strength > 0:
        raise ValueError(f"strength: expected a positive number, got {strength!r}")
    others = {str(name): _control(each, [*inputs], len(y), name) for name, each in (controls or {}).items()}
    if "shuffled" in others:
        raise ValueError("controls: 'shuffled' is made here; give yours another name")
    generator, seed = as_rng(rng)
    splitter = GroupKFold(folds, shuffle=True, random_state=int(generator.integers(2**31)))
    splits = list(splitter.split(y, y, groups))
    labellings = [y, *(y[exchanged(groups, generator)] for _ in range(shuffles))]
    fit = HeldOutScores(kind, float(strength), splits, groups)
    controlled: dict[str, list[np.ndarray]] = {"shuffled": [], **{name: [] for name in others}}
    score, by_shuffle = [], []
    shared: dict[int, np.ndarray] = {}
    for unit, x in tqdm(inputs.items(), disable=not progress, unit="unit", desc="linear_probe"):
        found = fit(x, labellings)
        score.append(found[0])
        controlled["shuffled"].append(found[1:].mean(0))
        by_shuffle.append(found[1:].mean(1))
        for name, each in others.items():
            other = each[unit]
            if id(other) not in shared:
                shared[id(other)] = fit(other, [y])[0]
            controlled[name].append(shared[id(other)])
    value = np.stack(score)
    control = np.stack([np.stack(each) for each in controlled.values()])
    difference = np.moveaxis(value - control, -1, 0)
    p = np.asarray(held_out_test(difference, folds=folds))
    p[0] = shuffle_test(value.mean(1), np.stack(by_shuffle, 1))
    selectivity = difference.mean(0)
    positive = selectivity > 0
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "rng": generator}
    of_score = bootstrap_interval(value.T, within=(0, 1) if kind == "classify" else (-np.inf, np.inf), **options)
    of_difference = held_out_interval(difference, folds=folds, confidence=confidence)
    hardest = np.where(positive, p, 1.0).max(0)
    data = {
        "score": (("unit", "prompt"), value),
        "score_mean": ("unit", value.mean(1)),
        "score_interval": (("bound", "unit"), of_score),
        "control_score": (("control", "unit", "prompt"), control),
        "selectivity": (("control", "unit"), selectivity),
        "selectivity_interval": (("bound", "control", "unit"), of_difference),
        "p": (("control", "unit"), p),
        "discovery": (("control", "unit"), np.stack([discoveries(row, level=level) for row in p]) & positive),
        "selective": ("unit", discoveries(hardest, level=level) & positive.all(0)),
    }
    coords = {"unit": [*inputs], "prompt": names, "control": [*controlled], "bound": ["lower", "upper"]}
    arguments = {
        "labels": y.astype(str) if y.dtype.kind in "OU" else y,
        "task": task,
        "strength": strength,
        "folds": folds,
        "shuffles": shuffles,
        "level": level,
    }
    checks = {"fits": fit.count, "not_converged": fit.failed}
    attrs = {**provenance("linear_probe", arguments=arguments, seed=seed, checks=checks), "task": kind}
    return units(xr.Dataset(data, coords, {**attrs, "confidence": confidence, "level": level}), _UNITS)


def _labels(labels: Any) -> np.ndarray:
    y = np.asarray(labels)
    if y.ndim != 1 or not len(y) or y.dtype.kind not in "biufOU":
        raise ValueError(f"labels: expected numbers or names [n], got shape {y.shape} of {y.dtype}")
    if y.dtype.kind == "O":
        y = y.astype(str)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("labels: expected finite numbers, got NaN or infinity; leave those samples out")
    if len(np.unique(y)) < 2:
        raise ValueError(f"labels: expected at least two different ones, got {y[0]!r} alone: nothing to predict")
    return y


def _task(task: str, y: np.ndarray) -> str:
    if task not in ("auto", "classify", "regress"):
        raise ValueError(f"task: expected 'auto', 'classify' or 'regress', got {task!r}")
    if task == "regress" and y.dtype.kind not in "iuf":
        raise ValueError(f"task: 'regress' needs labels that are numbers, got {y.dtype}")
    return ("regress" if y.dtype.kind == "f" else "classify") if task == "auto" else task


def _prompts(prompts: Any, count: int) -> np.ndarray:
    found = np.arange(count) if prompts is None else np.asarray(prompts)
    if found.shape != (count,) or found.dtype.kind not in "iuU":
        raise ValueError(f"prompts: expected a number or name for each of {count} samples, got shape {found.shape}")
    return found


def _matrix(value: Any, count: int, name: str) -> Any:
    matrix = value.tocsr() if issparse(value) else np.asarray(value)
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or matrix.shape[0] != count or not matrix.shape[1]:
        raise ValueError(f"{name}: expected shape [{count}, d], one row for each label, got {matrix.shape}")
    if not np.isfinite(matrix.data if issparse(matrix) else matrix).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return matrix if issparse(matrix) else matrix.astype(np.float64)


def _units(features: Any, count: int, name: str) -> dict[str, Any]:
    if isinstance(features, Mapping):
        if not features:
            raise ValueError(f"{name}: expected at least one unit, got none")
        return {str(unit): _matrix(each, count, f"{name}[{unit!r}]") for unit, each in features.items()}
    if issparse(features):
        return {"0": _matrix(features, count, name)}
    array = np.asarray(features)
    if array.ndim == 3:
        return {str(i): _matrix(array[:, i], count, name) for i in range(array.shape[1])}
    return {"0": _matrix(array, count, name)}


def _control(given: Any, wanted: list[str], count: int, name: str) -> dict[str, Any]:
    """One control for every unit; one matrix is the control of all."""
    found = _units(given, count, f"controls[{name!r}]")
    if len(found) == 1 and [*found] == ["0"]:
        return dict.fromkeys(wanted, found["0"])
    if set(found) != set(wanted):
        raise ValueError(f"controls[{name!r}]: expected the units of features, {wanted[:4]}, got {[*found][:4]}")
    return found
