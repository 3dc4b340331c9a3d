"""Plots draw what the Datasets hold, name their units, and touch nothing else."""

import inspect

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from solomonic.models import Memory
from solomonic.probes import EditResult, Transplant, bootstrap_interval, plots, structure
from solomonic.probes.plots._style import looks, power, spread

from .small import small_model

LAG = np.array([1, 2, 4, 8, 16, 32, 63, 64, 65])


def curve(scale: float = 1.0, cut: int | None = None, window: int | None = None, prompts: int = 9) -> xr.Dataset:
    """A fading Dataset whose influence is ``scale / lag^2``, exactly 0 from the lag ``cut`` on."""
    kl = scale * LAG**-2.0 * np.linspace(0.5, 2, prompts)[:, None]
    if cut is not None:
        kl = np.where(cut <= LAG, 0.0, kl)
    median = np.median(kl, 0)
    coords = {"lag": LAG, "bound": ["lower", "upper"]}
    data = {
        "kl": (("prompt", "lag"), kl),
        "kl_median": ("lag", median),
        "kl_mean": ("lag", kl.mean(0)),
        "kl_median_interval": (("bound", "lag"), [0.9 * median, 1.1 * median]),
        "fading_mass": (("layer", "head"), [[np.nan, np.nan], [0.25, 0.75]]),
    }
    result = xr.Dataset(data, coords, {"cut": -1 if cut is None else cut})
    return result if window is None else result.assign_coords(window=("layer", [0, window]))


def retained(lags: int = 64, half_life=((4.0, 60.0), (np.inf, 8.0))) -> xr.Dataset:
    lag = np.arange(1, lags)
    half = np.array(half_life)
    share = 0.5 ** (lag / np.minimum(half, 1e3)[:, :, None])
    interval = [0.9 * half, np.where(half > 50, np.inf, 1.1 * half)]
    data = {
        "retention": (("layer", "head", "lag"), share),
        "half_life": (("layer", "head"), half),
        "half_life_interval": (("bound", "layer", "head"), interval),
    }
    return xr.Dataset(data, {"layer": [0, 2], "lag": lag, "bound": ["lower", "upper"]})


def jacobian(paths=("all",), window: int = 16) -> xr.Dataset:
    lag = np.arange(65)
    value = np.where(lag < window, 1.0, 0.0) * np.ones((len(paths), 1))
    return xr.Dataset(
        {"influence_mean": (("path", "lag"), value)}, {"path": list(paths), "lag": lag}, {"window": window}
    )


def layer() -> xr.Dataset:
    matrix = np.diag([1.0, 1.0], -1)
    matrix[2, 2] = 0.9
    data = {
        "transition": (("to", "from"), matrix),
        "block": ("to", ["conv", "conv", "state"]),
        "kind": ("part", ["eidetic", "fading"]),
    }
    return xr.Dataset(data, {"part": ["conv", "state"]})


def law() -> xr.Dataset:
    data = {"error": (("split", "layer"), [[1e-7, 0.0], [2e-7, 1e-7], [3e-7, 1e-7]])}
    return xr.Dataset(data, {"split": [1, 2, 3], "layer": [0, 1]}, {"tolerance": 1e-4})


BINS = {"edges": [0, 8, 64, 512], "bits": [2.0, None, 1.4]}


def sizes() -> xr.Dataset:
    dims = ("part", "prompt", "layer", "head", "cut")
    order = 1.0 + np.arange(2 * 2 * 2 * 3 * 4).reshape(2, 2, 2, 3, 4) % 5
    order[1, :, 1] = np.nan
    coords = {"part": ["state", "attention"], "layer": [0, 1], "cut": [4, 8, 12, 16]}
    return xr.Dataset({"order": (dims, order), "nominal": (dims, 0 * order + 8)}, coords)


def compressed() -> xr.Dataset:
    cost = np.array([0.002, 0.3, 0.05, -0.001])
    data = {"cost": ("order", cost), "cost_interval": (("bound", "order"), np.stack([cost - 0.01, cost + 0.01]))}
    return xr.Dataset({**data, "proposed": ("layer", [6, 7])}, {"order": [-1, 1, 4, 8]})


def visible() -> xr.Dataset:
    data = {"singular_value": (("layer", "direction"), [[9.0, 2.0, 1e-3], [0.0] * 3]), "rank": ("layer", [2, 0])}
    return xr.Dataset(data, {"layer": [0, 3]})


def pair() -> xr.Dataset:
    kl = [[0.0, 0.0, 1e-9], [1e-6, 1e-5, 1e-6], [0.1, 1.0, 2.0]]
    changed = [[1, 2, 3], [1, 2, 3], [1, 5, 3]]
    data = {"kl": (("kind", "time"), kl), "token": ("time", [1, 2, 3]), "token_changed": (("kind", "time"), changed)}
    return xr.Dataset(data, {"kind": ["unsaid", "random", "said"], "time": [7, 8, 9]})


def carried() -> xr.Dataset:
    share = [[0.2, 0.9, 1.05, np.nan], [0.8, 0.1, -0.05, np.nan]]
    return xr.Dataset({"share": (("part", "lag"), share)}, {"part": ["state", "window"], "lag": [1, 8, 64, 128]})


def field() -> xr.Dataset:
    dims = ("part", "prompt", "layer", "head")
    far = np.array([[[[4.0, 60.0], [0.1, 9.0]]], [[[np.nan, np.nan], [3.0, 30.0]]]])
    return xr.Dataset(
        {"distance": (dims, far), "span": (dims, 2 * far)}, {"part": ["state", "attention"], "layer": [0, 1]}
    )


def laws() -> xr.Dataset:
    data = {"behind": ("law", [0.4, 0.0, 2.0]), "behind_error": ("law", [0.1, 0.0, 0.3])}
    return xr.Dataset(data, {"law": ["exponential", "power+cut", "power"]})


def steered() -> xr.Dataset:
    return xr.Dataset({"gap": ("step", [1.0, 0.2, 0.01]), "gap_tokens": 0.9})


def apart(last: float = 0.1) -> xr.Dataset:
    alike = np.array([1.0, 0.4, last])
    data = {"alike": ("after", alike), "alike_interval": (("bound", "after"), np.stack([alike - 0.05, alike + 0.05]))}
    return xr.Dataset(data, {"after": [0, 1, 2]})


def whole() -> xr.Dataset:
    deviation = [[1e-6, 1e-3, 0.1], [0.0, 1e-2, 0.5]]
    coords = {"side": ["observability", "controllability"], "scale": [1e-3, 0.1, 1.0]}
    return xr.Dataset({"deviation": (("side", "scale"), deviation)}, coords, {"tol": 0.05})


def derivatives() -> xr.Dataset:
    norm = np.array([[[3.0, 1.0, 0.5, 0.0]] * 2, [[2.0, 0.8, 0.3, 0.0]] * 2])
    coords = {"jacobian": ["full", "frozen"], "target": ["layer 0", "logits"], "lag": [0, 1, 2, 3]}
    return xr.Dataset({"norm_mean": (("jacobian", "target", "lag"), norm)}, coords)


def speeds() -> xr.Dataset:
    growth = [[-0.02, -np.inf], [-0.01, -np.inf], [-0.03, -np.inf]]
    data = {"growth": (("time", "mode"), growth), "frozen": ("mode", [-0.012, -0.012])}
    return xr.Dataset(data, {"time": [64, 96, 128], "mode": [0, 1]})


def remembered() -> xr.Dataset:
    curve = np.full((2, 1, 2, 1, 20), np.nan)
    curve[0, 0, :, 0], curve[1, 0, 1, 0] = 0.1 * 0.9 ** np.arange(20), 1 / np.arange(1, 21)
    data = {
        "fisher": (("part", "prompt", "layer", "head", "lag"), curve),
        "linear": (("part", "prompt", "layer", "head", "lag"), curve),
        "decoded": (("layer", "head", "decoded_lag"), [[[0.5, 0.1]], [[np.nan, np.nan]]]),
    }
    return xr.Dataset(data, {"part": ["state", "register"], "layer": [0, 1], "lag": range(20), "decoded_lag": [1, 8]})


def swapped() -> xr.Dataset:
    value = np.array([0.0, 0.9, 0.1])
    data = {"accuracy": ("case", value), "accuracy_interval": (("bound", "case"), np.stack([value - 0.1, value + 0.2]))}
    return xr.Dataset(data, {"case": ["none", "learned", "random model"]})


def test_an_interchange_is_drawn_case_by_case():
    ax = plots.interchange(swapped())
    assert [line.get_xdata()[0] for line in ax.lines] == [0.0, 0.9, 0.1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["none", "learned", "random model"]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert ends[1] == [0.8, 1.0]


def read_out() -> xr.Dataset:
    score = np.array([[0.9, 0.5]])
    coords = {"layer": [3], "head": [0, 1], "control": ["shuffled", "recent"]}
    data = {
        "score_mean": (("layer", "head"), score),
        "score_interval": (("bound", "layer", "head"), np.stack([score - 0.1, score + 0.1])),
        "control_score": (("control", "layer", "head", "prompt"), np.full((2, 1, 2, 4), 0.5)),
        "selective": (("layer", "head"), score > 0.8),
    }
    return xr.Dataset(data, coords)


def test_a_linear_probe_is_filled_where_it_is_selective():
    ax = plots.linear_probe(read_out())
    marks = {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    assert marks["probe, selective"] == [0.9]
    assert marks["probe"] == [0.5]
    assert marks["recent"] == [0.5, 0.5]


def weights() -> xr.Dataset:
    grid = np.array([[40.0, 30.0, 2.0], [10.0, 5.0, 0.0], [1.0, 0.2, 0.0]])
    coords = {
        "layer": ("block", [-1, 0, 1]), "kind": ("block", ["head", "q", "q"]), "size": ("block", [50, 40, 40]),
        "lambda": [1e-6, 1e-4, 1e-2],
    }  # fmt: skip
    data = {"fisher_mean": ("block", grid[0]), "effective": (("lambda", "block"), grid)}
    return xr.Dataset(data, coords)


def test_information_in_the_weights_is_drawn_a_parameter_and_along_a_run():
    ax = plots.fisher_information(weights(), value="effective", strength=2e-4)
    assert ax.lines[1].get_ydata()[0] == 5.0 / 40
    assert np.isnan(ax.lines[1].get_ydata()[1])
    path = xr.concat([weights(), 2 * weights()], "checkpoint").assign_coords(tokens=("checkpoint", [10.0, 20.0]))
    path = path.assign_coords({name: weights()[name] for name in ("kind", "layer", "size")})
    ax = plots.fisher_information(path)
    assert ax.lines[1].get_xdata().tolist() == [10, 20]
    assert ax.lines[1].get_ydata() == pytest.approx([32 / 80, 64 / 80])
    assert ax.get_xlabel() == "tokens seen"
    for changes, words in (({"value": "kl"}, "value"), ({"value": "effective", "strength": 0.0}, "strength")):
        with pytest.raises(ValueError, match=words):
            plots.fisher_information(weights(), **changes)


def traced() -> xr.Dataset:
    dims = ("path", "part", "layer", "time")
    mean = np.array([[[[0.1, 0.9, 0.2], [np.nan] * 3]]])
    data = {"normalised_mean": (dims, mean), "effect_mean": (dims, 2 * mean)}
    for name in ("normalised", "effect"):
        data[f"{name}_mean_interval"] = (("bound", *dims), np.stack([mean - 0.15, mean + 0.15]))
    return xr.Dataset(data, {"path": ["total"], "part": ["state"], "layer": [0, 2], "time": [4, 5, 9]})


def errors_of(first: float = 0.1) -> xr.Dataset:
    data = {
        "autocorrelation": ("lag", [first, 0.0, -0.01]),
        "autocorrelation_deviation": ("lag", [0.02, 0.02, 0.03]),
        "confidence": ("bin", [0.3, np.nan, 0.9]),
        "accuracy": ("bin", [0.2, np.nan, 0.8]),
        "accuracy_interval": (("bound", "bin"), [[0.1, np.nan, 0.7], [0.3, np.nan, 0.9]]),
    }
    return xr.Dataset(data, {"lag": [1, 2, 3], "bin": [0, 1, 2]})


def futures() -> xr.Dataset:
    data = {
        "kl_mean": ("travels", [0.5, 0.0, 0.2]),
        "kl_mean_interval": (("bound", "travels"), [[0.4, 0.0, 0.1], [0.6, 0.0, 0.3]]),
    }
    return xr.Dataset(data, {"travels": ["nothing", "everything", "state"]})


def believed() -> xr.Dataset:
    share = np.array([[[0.9, 0.5, 0.0]], [[0.95, 0.4, 0.0]]])
    data = {
        "r2": (("layer", "source", "control"), share),
        "r2_interval": (("bound", "layer", "source", "control"), np.stack([share - 0.1, share + 0.04])),
    }
    names = ["model", "random weights", "shuffled beliefs"]
    return xr.Dataset(data, {"layer": [0, 1], "source": ["residual"], "control": names})


def test_belief_states_has_a_line_for_each_control():
    ax = plots.belief_states(believed())
    assert list(line(ax, "random weights").get_ydata()) == [0.5, 0.4]
    with pytest.raises(ValueError, match="source"):
        plots.belief_states(believed(), source="state")


def told() -> xr.Dataset:
    share = np.array([[0.4, 0.3, 0.5], [0.6, 0.3, 0.6]])
    data = {
        "explained": (("layer", "features"), share),
        "explained_interval": (("bound", "layer", "features"), np.stack([share - 0.1, share + 0.1])),
    }
    return xr.Dataset(data, {"layer": [0, 2], "features": ["part", "tokens", "both"]}, {"part": "state"})


def test_extra_information_names_the_part_and_the_layers():
    ax = plots.extra_information(told())
    assert list(line(ax, "state").get_ydata()) == [0.4, 0.6]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "2"]


def test_innovations_draws_both_values_and_refuses_others():
    ax = plots.innovations(errors_of())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.1, 0.0, -0.01])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(1.96 * 0.03, rel=1e-3)
    ax = plots.innovations({"a": errors_of(), "b": errors_of(0.2)}, value="reliability")
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[0.3, 0.9]] * 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="value"):
        plots.innovations(errors_of(), value="z")


def test_a_causal_trace_marks_what_may_be_zero_and_refuses_what_is_not_there():
    ax = plots.causal_trace(traced(), value="effect")
    assert [tuple(line.get_xydata()[0]) for line in ax.lines] == [(0.0, 0.0)]
    for changes, words in (({"part": "conv"}, "part"), ({"path": "direct"}, "path"), ({"value": "kl"}, "value")):
        with pytest.raises(ValueError, match=words):
            plots.causal_trace(traced(), **changes)


def worth(by: str = "kl") -> xr.Dataset:
    dims = ("layer", "prompt", "token")
    data = {
        "score": (dims, [[[3.0, 1.0, 2.0]], [[5.0, 0.5, 4.0]]]),
        "effect": (dims, [[[0.5, 0.0, 1e-4]], [[2.0, 1e-5, -0.1 if by == "loss" else 0.1]]]),
        "stored": (dims, [[[True, False, True]], [[True, False, False]]]),
    }
    return xr.Dataset(data, {"layer": [0, 3]}, {"by": by})


def edited(prompts: int = 9) -> xr.Dataset:
    kl = np.zeros((2, prompts, 6))
    kl[0, :, 2:] = np.linspace(0.5, 1.5, prompts)[:, None] / np.arange(1, 5)
    kl[1, :, 4:] = 0.25
    dims = ("intervention", "prompt", "time")
    coords = {"edits": ("intervention", ["a", "b"]), "first_time": ("intervention", [1, 3]), "time": np.arange(6)}
    return xr.Dataset({"kl": (dims, kl), "effect": (dims, -kl)}, coords)


def exchanged(prompts: int = 5) -> Transplant:
    logits = torch.randn(prompts, 4, 7, generator=torch.Generator().manual_seed(0))
    said = torch.zeros(prompts, 0, dtype=torch.int64)
    return Transplant(logits, torch.flip(logits, [-1]), said, said, Memory((), 0), {})


CALLS = {
    "belief_states": (believed(),),
    "bits_by_position": (BINS,),
    "causal_trace": (traced(),),
    "compression": (compressed(),),
    "controllability": (visible(),),
    "decay_law": (laws(),),
    "distinguishability": (apart(),),
    "edit": (edited(),),
    "effective_state": (sizes(),),
    "empirical_gramians": (whole(),),
    "eviction": (worth(),),
    "extra_information": (told(),),
    "fading": (curve(),),
    "fading_by_memory": (carried(),),
    "fading_mass": (curve(),),
    "fisher_information": (weights(),),
    "half_lives": (retained(),),
    "innovations": (errors_of(),),
    "interchange": (swapped(),),
    "layer_influence": (jacobian(),),
    "learning_curves": ({"a": [[1, 1e6, 2.0], [2, 2e6, 1.5]]},),
    "linear_probe": (read_out(),),
    "lyapunov": (speeds(),),
    "memory_curve": (remembered(),),
    "observability": (visible(),),
    "recall": (BINS,),
    "receptive_field": (field(),),
    "retention": (retained(),),
    "sensitivity": (derivatives(),),
    "split_law": (law(),),
    "steer": (steered(),),
    "structure": (layer(),),
    "transplant": (exchanged(),),
    "sufficiency": (futures(),),
    "unsaid": (pair(),),
}


#: Plots of tables that have tests of their own: recall_study in test_recall_table.py.
ELSEWHERE = {"recall_study"}


def test_every_plot_is_tried():
    assert sorted({*CALLS, *ELSEWHERE}) == sorted(plots.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_returns_its_axes_and_names_both(name):
    plot = getattr(plots, name)
    ax = Figure().add_subplot()
    before = dict(mpl.rcParams)
    assert plot(*CALLS[name], ax=ax) is ax
    assert dict(mpl.rcParams) == before
    assert ax.get_xlabel()
    assert ax.get_ylabel() or [t.get_text() for t in ax.get_yticklabels()]
    ax.figure.savefig("/dev/null", format="svg")
    made = plot(*CALLS[name])
    assert isinstance(made, Axes)
    assert inspect.signature(plot).parameters["ax"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_refuses_what_it_cannot_draw(name):
    plot = getattr(plots, name)
    with pytest.raises((TypeError, ValueError)):
        plot(3)
    with pytest.raises((TypeError, ValueError)):
        plot(xr.Dataset({"x": 1}))
    with pytest.raises(TypeError, match="ax"):
        plot(*CALLS[name], ax="here")


def test_an_eviction_shows_every_token_and_fills_what_is_stored():
    ax = plots.eviction(worth())
    points = {each.get_label(): each for each in ax.lines}
    np.testing.assert_array_equal(points["layer 0, stored"].get_xydata(), [[3.0, 0.5], [2.0, 1e-4]])
    np.testing.assert_array_equal(points["layer 0, not stored"].get_xydata(), np.empty((0, 2)))  # exactly 0
    np.testing.assert_array_equal(points["layer 3, not stored"].get_xydata(), [[0.5, 1e-5], [4.0, 0.1]])
    assert points["layer 3, not stored"].get_markerfacecolor() == "none"
    assert points["layer 3, stored"].get_markerfacecolor() != "none"
    assert ax.get_yscale() == "log"
    loss = plots.eviction(worth("loss"))
    assert loss.get_yscale() == "linear"
    shown = np.concatenate([each.get_ydata() for each in loss.lines])
    np.testing.assert_array_equal(np.sort(shown), np.sort(worth("loss").effect.values.ravel()))


def test_an_edit_is_drawn_from_the_token_after_it_with_the_interval_of_the_mean():
    effects = edited()
    ax = plots.edit(effects)
    for row, start in enumerate((1, 3)):
        shown = line(ax, "ab"[row])
        np.testing.assert_array_equal(shown.get_xdata(), np.arange(start + 1, 6) - start)
        np.testing.assert_allclose(shown.get_ydata(), effects.kl[row].mean("prompt")[start + 1 :])
    low, high = bootstrap_interval(effects.kl[0, :, 2:].values, method="studentized", rng=0)
    inside = ax.collections[0].get_paths()[0].vertices
    assert inside[:, 1].min() == pytest.approx(low.min())
    assert inside[:, 1].max() == pytest.approx(high.max())
    assert (line(plots.edit(effects, value="effect"), "a").get_ydata() < 0).all()
    assert not plots.edit(edited(1)).collections
    with pytest.raises(ValueError, match="value: expected 'kl' or 'effect'"):
        plots.edit(effects, value="loss")
    logits = torch.zeros(2, 9, 6, 3)
    assert len(plots.edit(EditResult(logits, logits[0], effects)).collections) == 2


def test_a_transplant_is_drawn_as_the_divergence_from_the_receiver():
    done = exchanged()
    ax = plots.transplant({"a": done, "b": exchanged(1)})
    p, q = (each.double().softmax(-1) for each in (done.baseline, done.logits))
    expected = (p * (p / q).log2()).sum(-1).mean(0)
    np.testing.assert_allclose(line(ax, "a").get_ydata(), expected, rtol=1e-5)
    np.testing.assert_array_equal(line(ax, "a").get_xdata(), [1, 2, 3, 4])
    assert len(ax.collections) == 1  # one prompt has no interval
    same = Transplant(done.baseline, done.baseline, done.ids, done.ids, done.memory, {})
    assert not plots.transplant(same).lines[0].get_ydata().any()


def test_plots_leave_no_figures_open():
    """Figures are pyplot's only where that shows them; a script that writes files keeps none alive."""
    if mpl.get_backend().lower() != "agg":
        pytest.skip(f"the backend {mpl.get_backend()} shows figures")
    before = plt.get_fignums()
    plots.recall(BINS)
    assert plt.get_fignums() == before


def test_plots_in_use_by_pyplot_are_its_figures(monkeypatch):
    monkeypatch.setattr(mpl, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    ax = plots.recall(BINS)
    assert plt.gca() is ax
    plt.close(ax.figure)


def line(ax: Axes, label: str):
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return found


# ---------------------------------------------------------------- fading curves
def test_one_curve_has_its_median_band_and_mean():
    result = curve()
    ax = plots.fading(result)
    np.testing.assert_array_equal(line(ax, "median").get_xydata(), np.stack([LAG, result.kl_median], 1))
    np.testing.assert_array_equal(line(ax, "mean").get_ydata(), result.kl_mean)
    (band,) = ax.collections
    inside = band.get_paths()[0].vertices[:, 1]
    assert inside.min() == pytest.approx(float(0.9 * result.kl_median.min()))
    assert inside.max() == pytest.approx(float(1.1 * result.kl_median.max()))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "bits" in ax.get_ylabel()
    assert "tokens" in ax.get_xlabel()
    low, high = ax.get_ylim()
    assert low < float(result.kl_median.min())
    assert float(1.1 * result.kl_median.max()) < high


def test_a_curve_that_is_exactly_zero_falls_to_the_marked_floor_and_ends():
    result = curve(cut=64)
    ax = plots.fading(result, means=False)
    shown = line(ax, "median").get_ydata()
    assert np.isnan(shown[LAG >= 64]).all()
    np.testing.assert_array_equal(shown[LAG < 64], result.kl_median[LAG < 64])
    drop, end = [each for each in ax.lines if each is not line(ax, "median") and 64 in each.get_xdata()]
    assert list(drop.get_xdata()) == [63, 64]
    floor = end.get_ydata()[0]
    assert drop.get_ydata()[1] == floor
    assert 0 < floor < float(result.kl_median[LAG < 64].min())
    assert floor > ax.get_ylim()[0]
    assert "exactly 0 from lag 64" in [text.get_text() for text in ax.texts]


def test_a_curve_without_a_cut_has_no_floor():
    assert not any("exactly" in text.get_text() for text in plots.fading(curve()).texts)


def test_a_single_zero_on_the_way_is_no_end():
    result = curve()
    result["kl_median"][3] = 0.0
    ax = plots.fading(result, means=False)
    shown = line(ax, "median").get_ydata()
    assert np.isnan(shown[3])
    assert np.isfinite(shown[4:]).all()


def test_models_differ_in_colour_marker_and_line_and_carry_their_names():
    names = ["transformer", "deadbeat", "fading", "bmojo-f"]
    results = {name: curve(10.0**-i, 64 if name == "deadbeat" else None, 32) for i, name in enumerate(names)}
    ax = plots.fading(results)
    drawn = [line(ax, name) for name in names]
    for what in ("get_color", "get_marker"):
        assert len({getattr(each, what)() for each in drawn}) == 4
    assert len({str(each._unscaled_dash_pattern) for each in drawn}) == 4
    texts = {text.get_text(): text for text in ax.texts}
    assert set(names) <= set(texts)
    assert {"W", "2W"} <= set(texts)
    heights = sorted(texts[name].get_position()[1] for name in names)
    assert min(np.diff(heights)) > 0.03
    assert not any("mean" in str(each.get_label()) for each in ax.lines)


def test_a_name_is_shown_as_it_is():
    name = "$\\frac{1}$ <b>&\"'"
    for ax in (
        plots.fading({name: curve(), "b": curve(2.0)}, means=True),
        plots.recall({name: BINS, "b": BINS}),
        plots.learning_curves({name: [[1, 1, 2.0]], "b": [[1, 1, 2.5]]}),
    ):
        assert name in [text.get_text() for text in ax.texts]
        ax.figure.savefig("/dev/null", format="svg")


def test_all_zero_and_one_lag():
    ax = plots.fading(curve(cut=1))
    assert "exactly 0 from lag 1" in [text.get_text() for text in ax.texts]
    plots.fading(curve().isel(lag=[2])).figure.savefig("/dev/null", format="svg")


def test_colours_stay_apart_in_grey():
    """The zoo's looks differ in luminance or, where that is close, in marker and line."""
    for look in looks(["transformer", "deadbeat", "fading", "bmojo-f", "bmojo", "x", "y", "z"]).values():
        assert look.marker
    assert len(set(looks(["a", "b", "c", "d", "e", "f"]).values())) == 6


# ---------------------------------------------------------------- the others
def test_retention_draws_a_line_a_head_and_one_half():
    ax = plots.retention(retained())
    assert len(ax.lines) == 5
    np.testing.assert_allclose(line(ax, "layer 2").get_ydata(), retained().retention.sel(layer=2)[0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 0", "layer 2"]


def test_retention_of_many_heads_draws_a_line_a_layer():
    share = np.ones((5, 20, 8)) * np.linspace(1, 0.1, 8)
    ax = plots.retention(
        xr.Dataset({"retention": (("layer", "head", "lag"), share)}, {"layer": range(5), "lag": range(1, 9)})
    )
    assert len(ax.lines) == 6


def test_half_lives_that_were_cut_off_are_arrows():
    ax = plots.half_lives(retained())
    dots = sorted(float(each.get_xdata()[0]) for each in ax.lines if each.get_marker() == "o")
    assert dots == [4.0, 8.0, 60.0]
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    assert len(arrows) == 2  # 60 has no upper end, and one head outlived the run
    assert [text.get_text() for text in ax.get_yticklabels()] == ["layer 0", "layer 2"]
    assert ax.get_xlim()[1] > 64


def test_fading_mass_leaves_out_layers_without_fading_tokens():
    ax = plots.fading_mass(curve())
    dots = next(each for each in ax.lines if each.get_marker() == "o")
    assert list(dots.get_xdata()) == [0.25, 0.75]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["layer 1"]
    with pytest.raises(ValueError, match="fading tokens"):
        plots.fading_mass(curve().isel(layer=[0]))


def test_the_jacobian_of_a_window_ends_at_the_window():
    ax = plots.layer_influence(jacobian(window=16))
    x, y = ax.lines[0].get_xydata().T
    assert np.isfinite(y[x < 16]).all()
    assert np.isnan(y[x >= 16]).all()
    assert [text.get_text() for text in ax.texts] == ["W", "2W"]
    ax = plots.layer_influence(jacobian(("all", "window", "fading")))
    assert len(ax.get_legend().get_texts()) == 3
    ax = plots.layer_influence({"layer 0": jacobian(("all", "window")), "layer 1": jacobian()})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 0", "layer 1"]


def test_structure_shades_every_entry_and_frames_every_block():
    ax = plots.structure(layer())
    cells = [patch for patch in ax.patches if patch.get_fill()]
    assert sorted((patch.get_y(), patch.get_x()) for patch in cells) == [(1, 0), (2, 1), (2, 2)]
    frames = [patch for patch in ax.patches if not patch.get_fill()]
    assert [patch.get_width() for patch in frames] == [2, 1]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["convolution", "state"]


def test_structure_shows_what_is_held_and_what_is_turned():
    """Of B'MOJO over a delta rule: ones on the diagonal of stored tokens, and a hatch where an entry is negative."""
    model = small_model("BMO", ssm_mixer="gdn", gdn_allow_neg_eigval=True, eidetic_tokens=2, bmojo_window=4)
    rule = model.model.layers[0].mixer.gdn  # type: ignore[union-attr]
    rule.b_proj.weight.mul_(-40.0)  # type: ignore[union-attr]
    rule.k_conv1d.weight.mul_(30.0)  # type: ignore[union-attr]
    found = structure(model, 0, ids=torch.full((1, 8), 3), window=2)
    assert float(found.along_key.isel(at=1).min()) < -0.1
    ax = plots.structure(found)
    cells = {(int(p.get_y()), int(p.get_x())): p for p in ax.patches if p.get_fill()}
    entries = found.transition.to_numpy()
    assert set(cells) == {(int(row), int(column)) for row, column in np.argwhere(entries)}
    hatched = {(int(p.get_y()), int(p.get_x())) for p in ax.patches if p.get_hatch()}
    assert hatched == {(int(row), int(column)) for row, column in np.argwhere(entries < 0)}
    held = [i for i, name in enumerate(found["to"].values) if name.startswith("eidetic")]
    assert len(held) == 2
    assert all((i, i) in cells for i in held)
    assert [text.get_text() for text in ax.get_yticklabels()][-1] == "stored tokens"


def test_split_law_shows_what_is_allowed():
    ax = plots.split_law(law())
    np.testing.assert_array_equal(line(ax, "layer 0").get_ydata(), [1e-7, 2e-7, 3e-7])
    assert ax.get_ylim()[1] > 1e-4
    assert {"allowed", "exactly 0"} <= {text.get_text() for text in ax.texts}


def test_bins_without_a_number_are_left_out():
    ax = plots.bits_by_position(BINS)
    x, y = ax.lines[0].get_xydata().T
    assert list(y) == [2.0, 1.4]
    assert x == pytest.approx([8**0.5, (64 * 512) ** 0.5])
    assert plots.recall(BINS).get_ylim()[0] == 0
    with pytest.raises(ValueError, match="bins"):
        plots.recall({"edges": [1, 2], "bits": [1.0, 2.0]})


def test_learning_curves_at_equal_tokens_and_minutes():
    rows = {"a": [[1, 1e6, 2.0], [2, 2e6, 1.5]], "b": [[4, 1e6, 1.9], [8, 2e6, 1.6]]}
    assert list(plots.learning_curves(rows).lines[1].get_xdata()) == [1, 2]
    assert list(plots.learning_curves(rows, against="minutes").lines[1].get_xdata()) == [4, 8]
    with pytest.raises(ValueError, match="against"):
        plots.learning_curves(rows, against="joules")
    with pytest.raises(ValueError, match=r"curves\['a'\]"):
        plots.learning_curves({"a": [[1, 2]]})


def test_laws_are_sorted_and_steering_shows_tokens():
    assert [t.get_text() for t in plots.decay_law(laws()).get_yticklabels()] == [
        "power and cut",
        "exponential",
        "power",
    ]
    ax = plots.steer(steered())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, 0.2, 0.01])
    assert list(ax.lines[1].get_ydata()) == [0.9, 0.9]


def test_what_is_not_there_is_not_drawn():
    ax = plots.lyapunov(speeds())
    assert len(ax.lines[1].get_xdata()) == 0
    assert "exponent 2: minus infinity" in [t.get_text() for t in ax.get_legend().get_texts()]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [-0.02, -0.015, -0.02])
    ax = plots.sensitivity(derivatives())
    assert np.isnan(ax.lines[0].get_ydata()[-1])
    assert len(plots.sensitivity(derivatives(), targets=["layer 0", "logits"]).lines) == 4
    ax = plots.empirical_gramians(whole())
    assert list(ax.lines[1].get_xdata()) == [0.1, 1.0]  # an exact 0 has no place on a log axis
    with pytest.raises(ValueError, match="targets"):
        plots.sensitivity(derivatives(), targets=["layer 9"])
    with pytest.raises(ValueError, match="kind"):
        plots.memory_curve(remembered(), kind="sum")


@pytest.mark.parametrize("kind", ["fisher", "linear", "decoded"])
def test_memory_curves_of_every_kind(kind):
    ax = plots.memory_curve(remembered(), kind=kind)
    assert len([each for each in ax.lines if str(each.get_label()).startswith("layer")]) == (
        1 if kind == "decoded" else 3
    )
    ax.figure.savefig("/dev/null", format="svg")


def test_curves_of_pairs_told_apart_side_by_side():
    ax = plots.distinguishability({"a": apart(), "b": apart(0.3)})
    np.testing.assert_array_equal(line(ax, "b").get_ydata(), [1.0, 0.4, 0.3])
    assert len(ax.collections) == 2


def test_labels_are_spread_and_powers_are_plain():
    placed = spread([0.5, 0.5, 0.5, 0.99], 0.1, low=0, high=1)
    assert min(np.diff(sorted(placed))) > 0.0999
    assert max(placed) <= 1
    assert power(-15) == "10⁻¹⁵"
