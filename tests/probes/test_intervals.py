"""Every summary over prompts has its interval, and every plot of a Dataset that has intervals shows them.

All that is public is run on tiny models and looked through, so that a new probe or plot cannot forget it.
"""

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from scipy import stats

from solomonic import probes as p
from solomonic.probes import plots
from solomonic.probes.decay_law import _grouped_jackknife
from solomonic.probes.lyapunov import batch_interval
from solomonic.probes.over_prompts import prompt_interval, ratio_of_means, root_mean_interval, share_interval
from solomonic.probes.retention import half_lives

from . import test_plots
from .small import small_model, tokens

PROMPTS = 3
#: For studentized bounds, which three prompts leave infinite: resamples of one prompt alone are too frequent then.
MORE = 5
#: For ratios, whose interval has no end while the lower mean cannot be told from 0.
MANY = 12
FEW = {"resamples": 60, "rng": 0}


@cache
def model(pattern: str = "BMF-M2-SWA", **changes):
    return small_model(pattern, dtype=torch.float64, **changes)


@cache
def run(prompts: int = PROMPTS):
    return p.trace(model(), tokens(prompts, 26), attention=True)


@cache
def curve(prompts: int = PROMPTS) -> xr.Dataset:
    return p.fading(model(), tokens(prompts, 26), resamples=60, rng=0)


def _fisher(prompts: int = MORE) -> xr.Dataset:
    return p.fisher_information(model("M2"), tokens(prompts, 12), samples=1, lambdas=[1e-5, 1e-3], **FEW)


def _path(prompts: int = MORE) -> xr.Dataset:
    models = [model("M2"), model("M2", rng=1)]
    return p.fisher_path(models, tokens(prompts, 12), samples=1, lambdas=[1e-5, 1e-3], **FEW)


def _beliefs(prompts: int = 8) -> xr.Dataset:
    ids = tokens(prompts, 12, vocabulary=64)
    eta = np.random.default_rng(0).dirichlet([1.0, 1.0], size=(prompts, 12))
    return p.belief_states(model("M2"), ids, eta, samples=3, folds=2, resamples=60)


def _interchange(prompts: int = 12) -> xr.Dataset:
    base, source = tokens(2 * prompts, 8).view(2, prompts, 8)
    answers = (np.arange(prompts), np.arange(prompts) + 20)
    options = {"directions": 1, "steps": 2, "draws": 1, **FEW}
    return p.interchange_subspace(model("M2"), base, source, answers, layer=0, time=4, **options)


def _probe(prompts: int = 12) -> xr.Dataset:
    features = np.random.default_rng(0).normal(size=(prompts, 2, 3))
    return p.linear_probe(features, np.arange(prompts) % 2, folds=3, shuffles=1, **FEW)


def _state_probe(prompts: int = 12) -> xr.Dataset:
    return p.state_probe(model("M2"), tokens(prompts, 6), np.arange(prompts) % 2, recent=1, folds=3, shuffles=1, **FEW)


def _trace(prompts: int = PROMPTS) -> xr.Dataset:
    clean, corrupt = tokens(prompts, 8), tokens(prompts, 8, seed=1)
    return p.causal_trace(model(), clean, corrupt, times=[3, 5], resamples=60)


#: Every public probe of several prompts, called with so many.
RUNS: dict[str, Any] = {
    "belief_states": _beliefs,
    "bend": lambda n=PROMPTS: p.bend(curve(n), edges=[6], **FEW),
    "causal_trace": _trace,
    "compression": lambda n=MANY: p.compression(
        model("M2"), tokens(n, 16), calibration=tokens(2, 16, seed=1), orders=[2, 8]
    ),
    "decay_law": lambda n=PROMPTS: p.decay_law(curve(n), laws=["power", "exponential"], folds=2, resamples=60),
    "distinguishability": lambda n=PROMPTS: p.distinguishability(model(), tokens(n, 12), horizon=5),
    "edit": lambda n=MORE: (
        p.edit(model(), tokens(n, 12), [p.Edit(1, "state", 4, "zero"), p.Edit(2, "window", 6, "zero")], **FEW).effects
    ),
    "effective_state": lambda n=PROMPTS: p.effective_state(run(n), cuts=3, **FEW),
    "eviction": lambda n=MORE: p.eviction(model("BMO-BMO", eidetic_tokens=3), tokens(n, 26), **FEW),
    "extra_information": lambda n=6: p.extra_information(model("M2"), tokens(n, 14), lags=2, samples=3, folds=2),
    "fading": curve,
    "fading_by_memory": lambda n=MANY: p.fading_by_memory(model("M2-SWA"), tokens(n, 16), lags=[1, 4, 12], **FEW),
    "fisher_information": _fisher,
    "fisher_path": _path,
    "hidden_attention": lambda n=PROMPTS: p.hidden_attention(run(n), 1, 0),
    "innovations": lambda n=MORE: p.innovations(model("M2"), tokens(n, 16), lags=3, bins=2, **FEW),
    "interchange_subspace": _interchange,
    "layer_influence": lambda n=MORE: p.layer_influence(model(), 0, tokens(n, 16), projections=2, **FEW),
    "linear_probe": _probe,
    "memory_curve": lambda n=PROMPTS: p.memory_curve(run(n), lags=[1, 4], samples=6, **FEW),
    "receptive_field": lambda n=PROMPTS: p.receptive_field(run(n), rng=0),
    "retention": lambda n=PROMPTS: p.retention(run(n), lags=[1, 4, 12], **FEW),
    "sensitivity": lambda n=MANY: p.sensitivity(model("M2-SWA"), tokens(n, 12), projections=2, **FEW),
    "split_law": lambda n=PROMPTS: p.split_law(model("M2"), tokens(n, 8), splits=[3, 5]),
    "state_probe": _state_probe,
    "sufficiency": lambda n=MORE: p.sufficiency(model(), tokens(n, 20), tokens(n, 20, seed=1), horizon=4, **FEW),
}
#: What has no prompts to redraw, and why.
NO_PROMPTS = {
    "ChimeraWarning": "a warning",
    "Edit": "an argument",
    "EditResult": "holds the Dataset of edit",
    "KaplanMeier": "a result with limits of its own",
    "NothingToMeasure": "an error",
    "Trace": "sequences, prompt by prompt",
    "Transplant": "tensors, prompt by prompt",
    "WhitenessTests": "statistics of tests, with their p-values",
    "bootstrap_interval": "the interval itself",
    "compress": "returns a model",
    "conformance": "verdicts: the largest deviation is compared with a tolerance",
    "conformance_table": "verdicts",
    "controllability": "one text",
    "default_lags": "lags",
    "discoveries": "a rule for p-values",
    "editing": "a context",
    "empirical_gramians": "one text",
    "group_test": "a p-value",
    "held_out_interval": "the interval itself",
    "held_out_test": "a p-value",
    "kaplan_meier": "limits of its own",
    "load_dataset": "a file",
    "lyapunov": "one text: its intervals come from segments, below",
    "observability": "one text",
    "paired_test": "a p-value",
    "plots": "below",
    "prompts_needed": "a number of prompts",
    "reach": "a property of the architecture",
    "ratio_interval": "the interval itself",
    "recall_markdown": "a table with intervals over seeds",
    "recall_table": "intervals over seeds",
    "report": "files",
    "save_dataset": "a file",
    "shuffle_test": "a p-value",
    "steer": "one text",
    "structure": "a system at chosen gates, with certificates",
    "structures": "systems, with certificates",
    "trace": "sequences, prompt by prompt",
    "transplant": "tensors, prompt by prompt",
    "unsaid": "one text",
    "whiteness_tests": "statistics of tests, with their p-values",
}
#: Variables without an interval: those that are no estimates of something about prompts.
WITHOUT = {
    "belief_states": {
        "above_random_p_value": "a p-value",
        "dimension": "a size",
    },
    "bend": {"lags": "a count"},
    "compression": {
        "singular_value": "of the text that was balanced on",
        "predicted": "of the text that was balanced on",
        "error_bound": "of the text that was balanced on",
        "proposed": "of the text that was balanced on",
        "state_numbers": "a size",
    },
    "decay_law": {"behind_error": "a standard error"},
    "distinguishability": {"classes": "a count of the memories at hand"},
    "eviction": {"p": "a p-value"},
    "extra_information": {"dimension": "a size"},
    "fisher_information": {"effective_bias": "a correction", "information_bias": "a correction"},
    "fisher_path": {"effective_bias": "a correction", "information_bias": "a correction"},
    "innovations": {
        "autocorrelation": "a statistic, beside its deviation for white errors",
        "autocorrelation_deviation": "that deviation",
        "confidence": "where a bin lies",
        "count": "a count",
        "ece_calibrated": "the ece of a calibrated model",
        "ece_p_value": "a p-value",
        "mean_p_value": "a p-value",
        "mean_statistic": "the statistic of a test",
        "p_value": "a p-value",
        "statistic": "the statistic of a test",
    },
    "interchange_subspace": {"basis": "the directions", "loss": "of the training", "p": "a p-value"},
    "linear_probe": {"discovery": "a verdict", "p": "a p-value", "selective": "a verdict"},
    "memory_curve": {"nominal": "a size"},
    "receptive_field": {"lyapunov_spread": "says how stretches of text differ"},
    "retention": {"retention_quantile": "says how starting points differ", "starts": "a count"},
    "split_law": {
        "error": "the largest over prompts, held against a tolerance",
        "logits_error": "likewise",
        "position": "where that is",
        "scale": "what it is relative to",
    },
    "state_probe": {"discovery": "a verdict", "p": "a p-value", "selective": "a verdict"},
}
#: Estimates that their interval need not hold, as their docstrings say.
OUTSIDE = {"innovations": {"ece"}}
#: Intervals that may have no upper end.
OPEN = {"half_life_interval", "half_life_prompt_interval", "half_life_median_interval"}
#: Ratios: no end on either side where the lower mean cannot be told from 0, as in the small models here.
RATIOS = {"normalised_mean_interval", "ratio_interval"}
#: Dims whose entries are what is redrawn.
DRAWN = {"prompt", "pair", "memory"}


def interval_name(data: xr.Dataset, name: str) -> str | None:
    """The interval of a variable; ``score_interval`` may be that of ``score_mean``."""
    offered = [f"{name}_interval", f"{name.removesuffix('_mean')}_interval"]
    return next((each for each in offered if each in data), None)


def lacking(data: xr.Dataset, without: dict[str, str]) -> list[str]:
    """The summaries that have no interval and are not excepted; exceptions that are none."""
    found = []
    for name, variable in data.data_vars.items():
        name = str(name)
        summary = not DRAWN & set(variable.dims) and not name.endswith("_interval") and variable.dtype.kind in "fiub"
        has = interval_name(data, name) is not None
        if summary and not has and name not in without:
            found.append(name)
        if name in without and (has or not summary):
            found.append(f"{name} is excepted in vain")
    return found + [f"{name} is excepted and not there" for name in without if name not in data]


def astray(data: xr.Dataset, outside: set[str] = frozenset()) -> list[str]:
    """The summaries whose interval has other dims, is not finite where the estimate is, or does not hold it."""
    found = []
    for name, variable in data.data_vars.items():
        which = interval_name(data, str(name))
        if which is None or DRAWN & set(variable.dims):
            continue
        limits = data[which]
        if set(limits.dims) != {"bound", *variable.dims}:
            found.append(f"{which} has dims {limits.dims}")
            continue
        low, high = limits.transpose("bound", *variable.dims).to_numpy()
        value = variable.to_numpy()
        known = np.isfinite(value)
        above, below = which in OPEN | RATIOS, which in RATIOS
        bounded = (np.isfinite(high) | (np.isposinf(high) & above)) & (np.isfinite(low) | (np.isneginf(low) & below))
        if not bounded[known].all():
            found.append(f"{which} is not finite")
        slack = 1e-9 * np.abs(value[known]) + 1e-12
        held = (low[known] <= value[known] + slack) & (value[known] - slack <= high[known])
        if str(name) not in outside and not held.all():
            found.append(f"{which} does not hold {name}")
    return found


@cache
def made(name: str, prompts: int | None = None) -> xr.Dataset:
    return RUNS[name]() if prompts is None else RUNS[name](prompts)


def test_the_rules_find_what_breaks_them():
    good = xr.Dataset({"kl": ("prompt", [1.0, 2.0]), "kl_mean": 1.5, "kl_mean_interval": ("bound", [1.0, 2.0])})
    assert not lacking(good, {})
    assert not astray(good)
    assert lacking(good.drop_vars("kl_mean_interval"), {}) == ["kl_mean"]
    assert lacking(good, {"kl_mean": ""})
    assert lacking(good, {"nothing": ""})
    assert astray(good.assign(kl_mean_interval=("bound", [1.6, 2.0])))
    assert astray(good.assign(kl_mean_interval=("bound", [np.nan, 2.0])))
    assert astray(good.assign(kl_mean_interval=(("bound", "lag"), [[1.0], [2.0]])))


def test_every_public_name_is_run_or_has_no_prompts():
    assert not set(RUNS) & set(NO_PROMPTS)
    assert sorted({*RUNS, *NO_PROMPTS}) == sorted(p.__all__)
    assert set(WITHOUT) <= set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_every_summary_over_prompts_has_its_interval(name):
    data = made(name)
    assert lacking(data, WITHOUT.get(name, {})) == []
    assert astray(data, OUTSIDE.get(name, set())) == []


#: These need more than one prompt.
SEVERAL = {
    "belief_states", "bend", "decay_law", "distinguishability", "extra_information", "interchange_subspace",
    "linear_probe", "state_probe",
}  # fmt: skip
#: Intervals that are there for one prompt, too.
OF_ONE = {"half_life_interval": "of starting points"}


@pytest.mark.parametrize("name", sorted({*RUNS} - SEVERAL))
def test_one_prompt_has_no_interval(name):
    data = made(name, 1)
    for each in data.data_vars:
        if str(each).endswith("_interval") and each not in OF_ONE:
            assert data[each].isnull().all(), each


# ---------------------------------------------------------------- what is computed
def test_a_ratio_is_computed_anew_for_every_resample():
    """Of two prompts the widened level reaches all resamples: both of one, both of the other, one of each."""
    options = {"confidence": 0.95, "resamples": 200, "rng": np.random.default_rng(0)}
    parts = np.array([[[1.0], [2.0]], [[8.0], [10.0]]])  # 1/2, 8/10, and together 9/12: no end over an end
    np.testing.assert_allclose(prompt_interval(parts, ratio_of_means, **options), [[0.5], [0.8]], rtol=1e-12)
    assert ratio_of_means(parts, 0) == pytest.approx(0.75)


def test_pieces_are_redrawn_alike(monkeypatch):
    values = np.random.default_rng(0).normal(size=(5, 3, 7))
    options = {"confidence": 0.9, "resamples": 50}
    whole = prompt_interval(values, rng=np.random.default_rng(1), **options)
    monkeypatch.setattr("solomonic.probes.over_prompts._HELD", 300)
    np.testing.assert_array_equal(prompt_interval(values, rng=np.random.default_rng(1), **options), whole)


def test_shares_of_prompts_have_a_width_at_both_ends():
    """Wilson's limits are where the score test of the share has the level."""
    low, high = share_interval(np.array([[0, 1, 1]] * 3 + [[0, 1, 0]] * 5), 0.95)
    z = 1.959963984540054
    for share, found in ((0.0, high[0]), (1.0, low[1]), (3 / 8, low[2]), (3 / 8, high[2])):
        assert abs(share - found) / np.sqrt(found * (1 - found) / 8) == pytest.approx(z)
    assert (low[0], high[1]) == (0.0, 1.0)
    assert np.isnan(share_interval(np.ones((1, 2)), 0.95)).all()


@pytest.mark.parametrize(("name", "truth"), [("ratio", 0.5), ("root", 2**0.5)])
def test_ratios_and_roots_are_covered(name, truth):
    """Of 30 prompts: a ratio whose parts go together, and the root of the mean square of exponential norms."""
    rng = np.random.default_rng(0)
    below = rng.gamma(4.0, size=(30, 3000))
    above = 0.5 * below + 0.5 * rng.normal(size=below.shape)
    values = np.stack([above, below], 1) if name == "ratio" else rng.exponential(size=(30, 3000)) ** 2
    options = {"confidence": 0.95, "resamples": 400, "rng": rng}
    found = p.ratio_interval(values[:, 0], values[:, 1]) if name == "ratio" else root_mean_interval(values, **options)
    share = ((found[0] <= truth) & (truth <= found[1])).mean()
    assert 0.93 < share < 0.97


def test_a_jackknife_over_equal_groups_of_a_mean_is_students_interval_of_their_means():
    groups = np.random.default_rng(0).normal(size=(6, 4, 2))
    without = np.stack([np.delete(groups, k, 0).mean((0, 1)) for k in range(6)])
    found = _grouped_jackknife(groups.mean((0, 1)), without, 0.9)
    means = groups.mean(1)
    expected = stats.t.interval(0.9, 5, means.mean(0), stats.sem(means))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_attention_mass_is_resampled_by_prompt():
    """In batches of two, with prompts that end elsewhere: the masses of the trace, prompt by prompt."""
    ids = tokens(5, 26)
    found = p.fading(model(), ids, lags=[3, 9], batch_size=2, resamples=300, rng=0)
    mass = p.trace(model(), ids, attention=True).fading_mass(0)[:, 12:].mean(1)
    np.testing.assert_allclose(found.fading_mass.sel(layer=0), mass.mean(0), rtol=1e-10)
    low, high = found.fading_mass_interval.sel(layer=0).values
    expected = p.bootstrap_interval(mass, resamples=300, within=(0, 1), rng=1)
    np.testing.assert_allclose([low, high], expected, atol=0.15 * float(np.ptp(expected, axis=0).max()))
    assert (low >= 0).all()
    assert (high <= 1).all()


def test_survival_is_that_of_redrawn_prompts():
    """Kaplan-Meier anew for every one of the 27 draws of three prompts, each as likely."""
    found = p.retention(run(3), lags=[1, 4, 12], resamples=4000, rng=0)
    sums = np.cumsum(run(3).log_decay(1)[:, :, 0], 1)
    durations, seen = half_lives(sums, 0.5)
    drawn = [
        p.kaplan_meier(durations[list(pick)].ravel(), seen[list(pick)].ravel()).at([1, 4, 12])
        for pick in itertools.product(range(3), repeat=3)
    ]
    expected = np.quantile(drawn, [0.025, 0.975], axis=0, method="inverted_cdf")
    got = found.survival_interval.sel(layer=1, head=0).transpose("bound", "lag")
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_groups_are_the_sums_of_their_blocks():
    data = made("fisher_information")
    for kind in data["group"].values:
        inside = data.isel(block=np.flatnonzero(data["kind"].values == kind))
        for name, of in (("fisher_group", "fisher_mean"), ("effective_group", "effective")):
            np.testing.assert_allclose(data[name].sel(group=kind), inside[of].sum("block"), rtol=1e-9)


def test_what_the_report_of_a_curve_is_does_not_change_with_the_resamples():
    """Intervals are drawn last: estimates and replacements are those of the seed."""
    one, other = (p.fading(model(), tokens(3, 26), resamples=n, rng=0) for n in (20, 40))
    xr.testing.assert_equal(one.kl, other.kl)
    xr.testing.assert_equal(one.fading_mass, other.fading_mass)
    with pytest.raises(ValueError, match="confidence"):
        p.sensitivity(model("M2"), tokens(2, 8), confidence=1.0)
    with pytest.raises(ValueError, match="resamples"):
        p.layer_influence(model("M2"), 0, tokens(2, 8), resamples=0)
    for call in (
        lambda: p.lyapunov(model("M2"), tokens(1, 80), segment=8, confidence=0),
        lambda: p.edit(model("M2"), tokens(2, 8), p.Edit(0, "state", 2, "zero"), confidence=95),
        lambda: p.decay_law(curve(3), confidence=1),
    ):
        with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1"):
            call()


def test_batches_cover_what_depends_on_its_neighbours():
    """Intervals from batches of a first-order autoregression; single segments as if independent fall far short."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50 + 30, 4000))
    for t in range(1, len(x)):
        x[t] += 0.6 * x[t - 1]
    x = x[50:]
    low, high = batch_interval(x, 0.95)
    assert 0.9 < ((low <= 0) & (high >= 0)).mean() < 0.96
    alone = 2.045 * x.std(0, ddof=1) / np.sqrt(30)
    assert (np.abs(x.mean(0)) <= alone).mean() < 0.75
    independent = batch_interval(rng.normal(size=(30, 4000)), 0.95)
    assert ((independent[0] <= 0) & (independent[1] >= 0)).mean() == pytest.approx(0.95, abs=0.012)
    assert np.isnan(batch_interval(x[:3], 0.95)).all()


def test_exponents_have_intervals_from_their_segments():
    found = p.lyapunov(model("M2"), tokens(1, 80), exponents=2, segment=8, parts="state")
    assert lacking(found, {"growth": "segments", "exponent_error": "a standard error"}) == []
    assert astray(found) == []
    np.testing.assert_allclose(found.exponent_interval, batch_interval(found.growth.values, 0.95))
    gone = p.lyapunov(model("SWA"), tokens(1, 80), exponents=1, segment=8)
    assert np.isnan(gone.exponent_interval).all()


def test_the_example_of_the_page_runs():
    """Several texts through a probe of one text, as the documentation has it."""
    page = (Path(__file__).parents[2] / "docs" / "probes" / "state.md").read_text(encoding="utf-8")
    code = page.split("<!-- runs in the tests -->\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "state.md", "exec"), names)
    assert names["share"].shape == (5,)
    assert names["low"] < names["share"].mean() < names["high"]


# ---------------------------------------------------------------- plots
#: What each plot draws: the Dataset of a probe here, or the example of the tests of the plots.
DRAWN_FROM = {
    "compression": "compression", "decay_law": "decay_law", "distinguishability": "distinguishability",
    "edit": "edit", "effective_state": "effective_state", "eviction": "eviction", "fading": "fading",
    "fading_by_memory": "fading_by_memory", "fading_mass": "fading", "fisher_information": "fisher_information",
    "half_lives": "retention", "innovations": "innovations", "interchange": "interchange_subspace",
    "layer_influence": "layer_influence", "linear_probe": "state_probe", "memory_curve": "memory_curve",
    "receptive_field": "receptive_field", "retention": "retention", "sensitivity": "sensitivity",
    "sufficiency": "sufficiency", "belief_states": "belief_states", "extra_information": "extra_information",
    "causal_trace": "causal_trace",
}  # fmt: skip
#: Ways to draw beside the default one.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "edit": [{}, {"value": "effect"}],
    "effective_state": [{}, {"part": "attention"}],
    "fading_by_memory": [{}, {"stacked": False}],
    "fisher_information": [{}, {"value": "effective"}, {"value": "information"}],
    "innovations": [{"value": "reliability"}],
    "memory_curve": [{}, {"kind": "linear"}, {"kind": "decoded"}],
}
#: What has no intervals: one text, verdicts, tensors, and tables of single numbers.
PLAIN = {
    "bits_by_position": "single numbers",
    "controllability": "one text",
    "empirical_gramians": "one text",
    "learning_curves": "single numbers",
    "observability": "one text",
    "recall": "single numbers",
    "split_law": "verdicts",
    "steer": "one text",
    "structure": "a system",
    "transplant": "tensors: the plot resamples them itself",
    "unsaid": "one text",
}


def shown(ax) -> list[str]:
    """What is drawn, each with its extent."""
    found: list[tuple] = []
    for each in ax.get_children():
        if isinstance(each, Collection):
            paths = [path.vertices.ravel() for path in each.get_paths()]
            found.append((type(each).__name__, np.concatenate([*paths, [0.0]]).round(9).tolist()))
        elif isinstance(each, Line2D):
            found.append(("line", np.asarray(each.get_xydata(), float).ravel().tolist()))
        elif isinstance(each, Annotation):
            found.append(("note", each.get_text(), np.ravel(each.xy).tolist(), np.ravel(each.xyann).tolist()))
        elif isinstance(each, Rectangle):
            found.append(("patch", *each.get_bbox().bounds))
    return sorted(map(repr, found))


def blind(data: xr.Dataset) -> xr.Dataset:
    """The same without a known interval."""
    names = [str(name) for name in data.data_vars if str(name).endswith("_interval")]
    return data.assign({name: data[name] * np.nan for name in names})


def draw(name: str, data: Any, **options: Any) -> list[str]:
    return shown(getattr(plots, name)(data, ax=Figure().add_subplot(), **options))


def test_every_plot_is_drawn_here():
    names = {*DRAWN_FROM, *PLAIN, "lyapunov", "recall_study"}
    assert sorted(names) == sorted(plots.__all__)
    for name in PLAIN:
        for each in test_plots.CALLS[name]:
            if isinstance(each, xr.Dataset):
                assert not [v for v in each.data_vars if str(v).endswith("_interval")], name


@pytest.mark.parametrize("name", DRAWN_FROM)
def test_a_plot_shows_the_intervals(name):
    data = made(DRAWN_FROM[name])
    if name == "half_lives":  # whose axis may end where all ends
        data = data.assign(half_life=data.half_life.clip(max=20.0))
    for options in OPTIONS.get(name, [{}]):
        whole, without = draw(name, data, **options), draw(name, blind(data), **options)
        assert whole == draw(name, data, **options)
        assert whole != without, options


def test_exponents_and_a_path_of_checkpoints_show_theirs():
    found = p.lyapunov(model("M2"), tokens(1, 80), exponents=2, segment=8)
    assert draw("lyapunov", found) != draw("lyapunov", blind(found))
    path = made("fisher_path")
    for value in ("fisher", "effective", "information"):
        assert draw("fisher_information", path, value=value) != draw("fisher_information", blind(path), value=value)


def test_the_recall_study_shows_those_of_random_tokens_too():
    runs = [
        {"model": "bmojo", "pairs": 4, "decay": "slow", "seed": seed, "accuracy": 0.5 + 0.1 * seed, "choice": 0.3,
         "by_lag": {"to 16": 0.9, "over 16": 0.1 + 0.1 * seed}, "by_budget": {"4": [0.5, 0.4]},
         "by_budget_random": {"4": [0.3, 0.1 + 0.1 * seed]}, "memory_nbytes": 1024}
        for seed in range(3)
    ]  # fmt: skip
    table = p.recall_table(runs)
    for by in ("lag", "pairs", "stored"):
        hidden = table.where(table.bound == "mean")
        assert draw("recall_study", table, by=by) != draw("recall_study", hidden, by=by)


@pytest.mark.parametrize("name", sorted({*DRAWN_FROM} - {"belief_states", "extra_information", "interchange"}))
def test_a_plot_of_one_prompt_draws_without(name):
    if DRAWN_FROM[name] in SEVERAL:
        pytest.skip("needs several prompts")
    for options in OPTIONS.get(name, [{}]):
        assert draw(name, made(DRAWN_FROM[name], 1), **options)
