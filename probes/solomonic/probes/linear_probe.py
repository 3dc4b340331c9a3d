"""What a linear read-out finds in features, beside what it finds in controls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import issparse
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from .inputs import as_count, as_level, as_rng
from .labelled import provenance, units
from .significance import discoveries, paired_test
from .statistics import bootstrap_interval

__all__ = ["linear_probe"]

_UNITS = {
    "score": ("held-out accuracy, or share of the variance that is explained", "1"),
    "score_mean": ("mean score over the prompts", "1"),
    "score_interval": ("confidence interval of score_mean", "1"),
    "control_score": ("score of the control", "1"),
    "selectivity": ("mean score minus that of the control", "1"),
    "selectivity_interval": ("confidence interval of selectivity", "1"),
    "p": ("p-value of no difference from the control, signs of the prompts flipped", "1"),
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
    shuffles: int = 5,
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
    shuffles : int, default 5
        How often labels are shuffled; the control's score is the mean.
    level : float, default 0.05
        Largest expected share of false ones among the discoveries.
    confidence : float, default 0.95
        Nominal coverage of the intervals over prompts.
    resamples : int, default 2000
        Resamples of the bootstrap and of the tests.
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
    one prompt share. The tests are paired over prompts. Scores of prompts share their training sets, so that the level
    holds approximately: with random labels, 40 prompts and 8 units of 12 features, 7 % of the runs found something
    beside ``shuffled`` where 5 % should, and 1 % was ``selective`` beside two controls (150 runs). Costs folds x (1 +
    shuffles + controls) fits a unit.

    References
    ----------
    Hewitt and Liang, "Designing and interpreting probes with control tasks" (arXiv:1909.03368), section 2, for
    selectivity; Belinkov, "Probing classifiers" (arXiv:2102.12452), for what probes do not say.

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
    shuffled = [_exchanged(groups, generator) for _ in range(shuffles)]
    fit = _Fit(kind, float(strength), splits, groups)
    controlled = {"shuffled": [], **{name: [] for name in others}}
    score = []
    shared: dict[int, np.ndarray] = {}
    for unit, x in tqdm(inputs.items(), disable=not progress, unit="unit", desc="linear_probe"):
        score.append(fit(x, y))
        controlled["shuffled"].append(np.mean([fit(x, y[order]) for order in shuffled], 0))
        for name, each in others.items():
            other = each[unit]
            if id(other) not in shared:
                shared[id(other)] = fit(other, y)
            controlled[name].append(shared[id(other)])
    value = np.stack(score)
    control = np.stack([np.stack(each) for each in controlled.values()])
    difference = np.moveaxis(value - control, -1, 0)
    interval = partial(bootstrap_interval, confidence=confidence, resamples=resamples, rng=generator)
    p = np.asarray(paired_test(difference, resamples=resamples, rng=generator))
    selectivity = difference.mean(0)
    positive = selectivity > 0
    hardest = np.where(positive, p, 1.0).max(0)
    data = {
        "score": (("unit", "prompt"), value),
        "score_mean": ("unit", value.mean(1)),
        "score_interval": (("bound", "unit"), interval(value.T)),
        "control_score": (("control", "unit", "prompt"), control),
        "selectivity": (("control", "unit"), selectivity),
        "selectivity_interval": (("bound", "control", "unit"), interval(difference)),
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


class _Fit:
    """Held-out scores a prompt, with all that is the same for every unit; counts fits that did not converge."""

    def __init__(self, task: str, strength: float, splits: list[tuple[np.ndarray, np.ndarray]], groups: np.ndarray):
        self.task, self.strength, self.splits, self.groups = task, strength, splits, groups
        self.count = self.failed = 0

    def __call__(self, x: Any, y: np.ndarray) -> np.ndarray:
        value, base = np.empty(len(y)), np.empty(len(y))
        for train, test in self.splits:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                said = self._model(x, y[train]).fit(x[train], y[train]).predict(x[test])
            self.count += 1
            self.failed += any(issubclass(each.category, ConvergenceWarning) for each in caught)
            if self.task == "classify":
                value[test] = said == y[test]
            else:
                base[test] = (y[test] - y[train].mean()) ** 2
                value[test] = base[test] - (y[test] - said) ** 2
        if self.task == "regress":
            value = value / base.mean()
        return np.bincount(self.groups, value) / np.bincount(self.groups)

    def _model(self, x: Any, y: np.ndarray) -> Any:
        if self.task == "regress":
            model: Any = Ridge(alpha=self.strength)
        elif len(np.unique(y)) < 2:
            return DummyClassifier()
        else:
            model = LogisticRegression(C=1 / self.strength, max_iter=500)
        return model if issparse(x) else make_pipeline(StandardScaler(), model)


def _exchanged(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Samples in another order: whole prompts change places where they are of one size."""
    sizes = np.bincount(groups)
    if (sizes != sizes[0]).any():
        return generator.permutation(len(groups))
    members = np.argsort(groups, kind="stable").reshape(len(sizes), sizes[0])
    order = np.empty(len(groups), np.int64)
    order[members] = members[generator.permutation(len(sizes))]
    return order


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
