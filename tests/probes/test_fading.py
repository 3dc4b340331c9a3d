"""Fading curves: exact zeros where theory says so, the divergence by brute force, bends, and one layer's influence."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from solomonic.models import HybridConfig, load, zoo
from solomonic.probes import bend, default_lags, fading, layer_influence, load_dataset, reach, save_dataset, trace
from solomonic.probes.divergence import kl_bits
from solomonic.probes.fading import grouped

from .small import small_model, tokens


# ---------------------------------------------------------------- the divergence
def test_equal_logits_diverge_by_exactly_nothing():
    logits = torch.randn(5, 100) * 30
    assert (kl_bits(logits, logits.clone()) == 0.0).all()


def test_the_divergence_is_the_textbook_one():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20, 50, dtype=torch.float64, generator=generator) * 3
    q = torch.randn(20, 50, dtype=torch.float64, generator=generator) * 3
    a, b = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    np.testing.assert_allclose(kl_bits(p, q), (a.exp() * (a - b)).sum(-1) / math.log(2), rtol=1e-12)


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_small_divergences_keep_their_digits(size):
    """To second order KL is half the variance of the change of the logits."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(64, dtype=torch.float64, generator=generator)
    change = torch.randn(64, dtype=torch.float64, generator=generator)
    p = logits.softmax(-1)
    variance = (p * change**2).sum() - (p * change).sum() ** 2
    found = kl_bits(logits, logits + size * change)
    # Rounding of the logits themselves is 1e-16 / size.
    assert float(found * math.log(2) / (0.5 * size**2 * variance)) == pytest.approx(1, abs=2 * size + 1e-15 / size)


def test_far_apart_predictions():
    logits = torch.zeros(3, dtype=torch.float64)
    one, other = logits.clone(), logits.clone()
    one[0], other[1] = 1000.0, 1000.0
    assert float(kl_bits(one, other)) == pytest.approx(1000 / math.log(2))
    assert float(kl_bits(logits, one)) == pytest.approx((2000 / 3 - math.log(3)) / math.log(2))


# ---------------------------------------------------------------- the curve
@pytest.mark.parametrize("pattern", ["BMF-M2", "SWA-*"])
def test_the_curve_by_brute_force(pattern):
    model, ids = small_model(pattern, dtype=torch.float64), tokens(5, 40)
    curve = fading(model, ids, rng=0)
    clean = torch.log_softmax(model(ids).logits[:, -1], -1)
    for column, lag in enumerate(curve.lag.values.tolist()):
        changed = ids.clone()
        changed[:, 39 - lag] = torch.from_numpy(curve.replacement.values[:, column])
        assert (changed != ids).sum() == 5
        np.testing.assert_array_equal(curve.original[:, column], ids[:, 39 - lag])
        other = torch.log_softmax(model(changed).logits[:, -1], -1)
        expected = (clean.exp() * (clean - other)).sum(-1) / math.log(2)
        np.testing.assert_allclose(curve.kl[:, column], expected, rtol=1e-6, atol=1e-14)
        assert float(curve.top1_change[column]) == float((clean.argmax(-1) != other.argmax(-1)).double().mean())
    np.testing.assert_allclose(curve.kl_mean, curve.kl.mean("prompt"))
    np.testing.assert_allclose(curve.kl_median, curve.kl.median("prompt"))


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize(("layers", "window"), [(1, 1), (1, 4), (2, 5), (3, 4), (4, 3)])
def test_windows_reach_as_far_as_theory_says(layers, window, batch_size):
    model = small_model("-".join(["SWA"] * layers), swa_window=window)
    last = layers * (window - 1)
    lags = [lag for lag in (1, last - 1, last, last + 1, last + 2, 15, 24) if lag > 0]
    curve = fading(model, tokens(4, 25), lags=lags, batch_size=batch_size, rng=0)
    assert reach(model.config) == curve.attrs["reach"] == curve.attrs["last_influence"] == last
    assert curve.attrs["cut"] == last + 1
    beyond = curve.sel(lag=slice(last + 1, None))
    assert (beyond.kl == 0.0).all()
    assert (beyond.share_zero == 1.0).all()
    assert (beyond.kl_mean_interval == 0.0).all()
    assert (beyond.kl_median_interval == 0.0).all()
    if last:
        assert (curve.kl.sel(lag=last) > 0).all()
    assert '"repeated_run_equal": true' in curve.attrs["checks"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_cut_in_other_dtypes(dtype):
    model = small_model("SWA-SWA", swa_window=4, dtype=dtype)
    curve = fading(model, tokens(6, 20), rng=0)
    assert (curve.kl.sel(lag=slice(7, None)) == 0.0).all()
    assert (curve.kl.sel(lag=1) > 0).any()


@pytest.mark.parametrize("pattern", ["M2", "BMF", "*", "SWA-M2"])
def test_other_memories_have_no_cut(pattern):
    curve = fading(small_model(pattern), tokens(6, 40), rng=0)
    assert (curve.attrs["reach"], curve.attrs["cut"], curve.attrs["last_influence"]) == (-1, -1, 39)
    assert (curve.share_zero < 1).all()


def test_all_windows_and_seeds():
    model, ids = small_model("SWA-M2"), tokens(9, 25)
    first = fading(model, ids, rng=3, lags=[1, 5, 20])
    assert fading(model, ids, rng=3, lags=[1, 5, 20], progress=False).identical(first)
    assert not fading(model, ids, rng=4, lags=[1, 5, 20]).equals(first)
    some = fading(model, ids, rng=3, lags=[1, 5], windows=4)
    assert some.sizes["prompt"] == 4
    assert first.attrs["seed"] == 3
    assert isinstance(fading(model, ids, lags=[1]).attrs["seed"], int)
    assert fading(model, ids, lags=[1], rng=np.random.default_rng(0)).attrs["seed"] == "a generator was given"


def test_batches_do_not_change_what_is_measured():
    model, ids = small_model("BMF-SWA", dtype=torch.float64), tokens(5, 20)
    curves = [fading(model, ids, lags=[1, 7, 13, 19], rng=0, batch_size=size) for size in (1, 2, 5, 100)]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve.kl, curves[0].kl, rtol=1e-6, atol=1e-16)
        np.testing.assert_allclose(curve.fading_mass, curves[0].fading_mass, rtol=1e-10)


def test_replacements_come_from_the_text_given():
    model, ids = small_model("M2"), tokens(20, 12, vocabulary=8)
    own = fading(model, ids, rng=0)
    assert set(np.unique(own.replacement)) <= set(range(8))
    assert (own.replacement != own.original).all()
    other = fading(model, ids, rng=0, replacements=[[40, 41], [41, 41]])
    assert set(np.unique(other.replacement)) == {40, 41}
    assert float((other.replacement == 41).mean()) == pytest.approx(0.75, abs=0.1)


def test_one_window_has_no_intervals():
    curve = fading(small_model("M2"), tokens(1, 12)[0], rng=0)
    assert np.isnan(curve.kl_mean_interval).all()
    assert np.isnan(curve.kl_median_interval).all()
    assert (curve.kl_mean == curve.kl[0]).all()


def test_intervals_hold_the_estimates():
    curve = fading(small_model("BMF"), tokens(24, 30), rng=0)
    for name in ("kl_mean", "kl_median"):
        low, high = curve[f"{name}_interval"].values
        assert (low < curve[name].values).all()
        assert (curve[name].values < high).all()


def test_the_attention_mass_of_fading_tokens():
    model, ids = small_model("SWA-BMF", dtype=torch.float64), tokens(4, 40)
    curve = fading(model, ids, rng=0)
    run = trace(model, ids)
    assert np.isnan(curve.fading_mass.sel(layer=0)).all()
    np.testing.assert_allclose(curve.fading_mass.sel(layer=1), run.fading_mass(1)[:, 12:].mean((0, 1)), rtol=1e-10)
    short = fading(model, ids[:, :12], rng=0)
    assert np.isnan(short.fading_mass).all()


def test_a_curve_is_saved_and_read_back(tmp_path):
    curve = fading(small_model("SWA-BMF"), tokens(4, 20), rng=0)
    assert load_dataset(save_dataset(curve, tmp_path / "fading.nc")).identical(curve)
    assert curve.kl.attrs["units"] == "bit"
    assert curve.window.values.tolist() == [5, 6]
    (tmp_path / "bad.nc").write_bytes((tmp_path / "fading.nc").read_bytes()[:100])
    with pytest.raises(ValueError, match="not a whole netCDF file"):
        load_dataset(tmp_path / "bad.nc")
    with pytest.raises(OSError, match="folder"):
        save_dataset(curve, tmp_path)
    with pytest.raises(TypeError, match="expected an xarray"):
        save_dataset(curve.kl, tmp_path / "x.nc")  # type: ignore[arg-type]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    good = xr.Dataset({"a": ("x", [1.0])})
    save_dataset(good, tmp_path / "a.nc")
    with pytest.raises((TypeError, ValueError)):
        save_dataset(xr.Dataset({"a": ("x", [1.0])}, attrs={"bad": {"no": "dict"}}), tmp_path / "a.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
    assert load_dataset(tmp_path / "a.nc").identical(good)


def test_bad_arguments():
    model, ids = small_model("SWA"), tokens(3, 12)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"lags": [12]}, "a prompt of 12 tokens has lags from 1 to 11, got 12"),
        ({"lags": [0, 3]}, "at least 1 token, got 0"),
        ({"lags": []}, "lags"),
        ({"lags": [1.5]}, "whole numbers"),
        ({"windows": 4}, "at most the 3 prompts"),
        ({"windows": 0}, "windows"),
        ({"batch_size": 0}, "batch_size"),
        ({"confidence": 95}, "confidence"),
        ({"resamples": 0}, "resamples"),
        ({"replacements": [99]}, "replacements: expected tokens from 0 to 63"),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            fading(model, ids, **arguments)
    with pytest.raises(ValueError, match="at least 2 tokens a prompt, got 1"):
        fading(model, ids[:, :1])
    with pytest.raises(ValueError, match="expected tokens from 0 to 63, got 64"):
        fading(model, torch.tensor([[3, 64, 1]]))
    with pytest.raises(ValueError, match="a token other than 5"):
        fading(model, torch.full((2, 8), 5))
    with pytest.raises(TypeError, match="rng"):
        fading(model, ids, rng=-1)
    with pytest.raises(TypeError, match="expected integers"):
        fading(model, ids.double())


def test_logits_that_are_nan():
    model = small_model("SWA")
    model.lm_head.weight[3] = math.nan  # type: ignore[index]
    with pytest.raises(ValueError, match=r"the run with the token at lag \d+ replaced gave logits that are NaN"):
        fading(model, tokens(3, 12))


def test_groups_cost_the_least():
    def cost(groups, call):
        seen, total = 0, 0
        for group in groups:
            seen += len(group)
            total += len(group) * (group[0] + 1) + call * seen
        return total

    lags = [1, 2, 3, 7, 8, 9, 20, 21]
    for call in (0, 4, 50):
        found = grouped(lags, call)
        assert list(itertools.chain(*found)) == sorted(lags, reverse=True)
        order, every = sorted(lags, reverse=True), []
        for cuts in itertools.product([False, True], repeat=len(lags) - 1):
            groups, start = [], 0
            for i, cut in enumerate([*cuts, True]):
                if cut:
                    groups.append(order[start : i + 1])
                    start = i + 1
            every.append(cost(groups, call))
        assert cost(found, call) == min(every)


def test_default_lags_hold_the_structure():
    lags = default_lags(HybridConfig(pattern=("SWA",) * 4, swa_window=64), 512)
    assert {63, 64, 127, 128, 252, 253, 1, 511} <= set(lags.tolist())
    assert lags.max() == 511
    assert default_lags(HybridConfig(pattern=("M2",)), 2).tolist() == [1]
    with pytest.raises(ValueError, match="length"):
        default_lags(HybridConfig(pattern=("M2",)), 1)


# ---------------------------------------------------------------- bends
def curve_of(median, prompts=64, spread=0.2, windows=(16,)) -> xr.Dataset:
    lag = np.unique(np.rint(np.geomspace(1, 120, 60)).astype(int))
    noise = np.random.default_rng(0).lognormal(0, spread, (prompts, len(lag)))
    data = {"kl": (("prompt", "lag"), median(lag) * noise)}
    return xr.Dataset(data, {"lag": lag, "layer": range(len(windows)), "window": ("layer", list(windows))})


def test_a_knee_is_found_where_it_is():
    found = bend(curve_of(lambda lag: np.where(lag < 32, lag**-1.0, 32**2.0 * lag**-3.0)))
    assert found.edge.values.tolist() == [16, 32]
    assert found.band.values.tolist() == ["1..15", "16..31", "32.."]
    np.testing.assert_allclose(found.slope, [-1, -1, -3], atol=0.3)
    low, high = found.slope_change_interval.values
    assert low[0] < 0 < high[0]
    assert high[1] < 0
    assert (np.abs(found.step) < 0.15).all()


def test_a_step_is_found_where_it_is():
    found = bend(curve_of(lambda lag: np.where(lag < 16, 1e-2, 1e-5) * lag**-0.5))
    low, high = found.step_interval.values
    assert low[0] < -3 < high[0] + 0.1
    assert low[1] < 0.1
    assert high[1] > -0.1


def test_exponential_rates():
    found = bend(curve_of(lambda lag: 10.0 ** (-lag / 25)), edges=[40])
    np.testing.assert_allclose(found.rate, [-4, -4], rtol=0.05)


def test_bands_of_zeros_have_no_slope():
    found = bend(curve_of(lambda lag: np.where(lag < 16, lag**-1.0, 0.0)))
    assert np.isnan(found.slope.values[1:]).all()
    assert np.isnan(found.slope_interval.values[:, 2]).all()
    assert found.lags.values[2] == 0


def test_bad_bends():
    good = curve_of(lambda lag: lag**-1.0)
    with pytest.raises(TypeError, match="dataset"):
        bend(good.kl)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="variable kl"):
        bend(good.rename(kl="influence"))
    with pytest.raises(ValueError, match="no windows"):
        bend(curve_of(lambda lag: lag**-1.0, windows=(0,)))
    with pytest.raises(ValueError, match="ascending"):
        bend(good, edges=[8, 8])


# ---------------------------------------------------------------- one layer
def test_one_window_is_seen_sharply():
    found = layer_influence(small_model("M2-SWA"), 1, tokens(3, 20), rng=0)
    assert (found.influence.sel(lag=slice(0, 4)) > 0).all()
    assert (found.influence.sel(lag=slice(5, None)) == 0).all()
    assert found.attrs["window"] == 5


def test_the_paths_of_bmojo_f():
    found = layer_influence(small_model("BMF", dtype=torch.float64), 0, tokens(2, 30), rng=0).influence
    window, fading_path = found.sel(path="window"), found.sel(path="fading")
    assert (window.sel(lag=slice(0, 5)) > 0).all()
    assert (window.sel(lag=slice(6, None)) == 0).all()
    assert (fading_path.sel(lag=slice(0, 5)) == 0).all()
    assert (fading_path.sel(lag=slice(6, None)) > 0).all()
    # One path at a time: beyond W all is the fading path, below W it is the window.
    everything = found.sel(path="all")
    np.testing.assert_allclose(everything.sel(lag=slice(6, None)), fading_path.sel(lag=slice(6, None)), rtol=1e-10)
    np.testing.assert_allclose(everything.sel(lag=slice(0, 5)), window.sel(lag=slice(0, 5)), rtol=1e-10)


@pytest.mark.parametrize("pattern", ["M2", "BMF", "SWA", "*"])
def test_the_norm_is_that_of_the_jacobian(pattern):
    model, ids = small_model(pattern, dtype=torch.float64), tokens(1, 16)
    held = {}
    model(ids, record=lambda layer, name, value: held.setdefault(name, value))
    mixer, h = model.model.layers[0].mixer, held["mixer_in"]  # type: ignore[union-attr]

    def last(x):
        from solomonic.models.rope import rotary_tables

        return mixer(x, mixer.empty(1, x), rotary_tables(model.config, 0, 16, x), None)[0][0, -1]  # type: ignore[operator]

    jacobian = torch.autograd.functional.jacobian(last, h)[:, 0]  # type: ignore[index]
    expected = jacobian.square().sum((0, 2)).sqrt().flip(0)
    whole = layer_influence(model, 0, ids, projections=0).influence.sel(path="all")[0]
    np.testing.assert_allclose(whole, expected, rtol=1e-8, atol=1e-14)
    drawn = layer_influence(model, 0, ids, projections=400, rng=0).influence.sel(path="all")[0]
    np.testing.assert_allclose(drawn, expected, rtol=0.2)


def test_bad_layers():
    model = small_model("SWA-M2")
    with pytest.raises(ValueError, match="layer: expected layers from 0 to 1"):
        layer_influence(model, 2, tokens(1, 9))
    with pytest.raises(ValueError, match="layer"):
        layer_influence(model, "0", tokens(1, 9))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lags from 1 to 8"):
        layer_influence(model, 0, tokens(1, 9), lags=[9])


# ---------------------------------------------------------------- trained models
def text(prompts: int, length: int) -> torch.Tensor:
    """Windows of real text: the source of this module."""
    source = np.frombuffer(itertools.__doc__.encode() + fading.__doc__.encode(), np.uint8).astype(np.int64)  # type: ignore[union-attr]
    starts = np.linspace(0, source.size - length, prompts).astype(int)
    return torch.from_numpy(source[starts[:, None] + np.arange(length)])


def test_the_deadbeat_model_forgets_at_its_reach():
    if "deadbeat" not in zoo():
        pytest.skip("deadbeat is not trained yet")
    model = load("deadbeat", dtype="float64")  # float32 rounds the influence at the reach itself away in many windows
    last = reach(model.config)
    curve = fading(model, text(6, last + 20), lags=[1, last, last + 1, last + 10], rng=0)
    assert (curve.attrs["last_influence"], curve.attrs["cut"]) == (last, last + 1)
    assert float(curve.kl_median.sel(lag=1)) > 0.1


@pytest.mark.parametrize("name", ["fading", "bmojo-f", "transformer"])
def test_other_trained_models_do_not(name):
    if name not in zoo():
        pytest.skip(f"{name} is not trained yet")
    curve = fading(load(name, dtype="float64"), text(6, 300), lags=[1, 150, 299], rng=0)
    assert curve.attrs["cut"] == -1
    assert (curve.kl_median.sel(lag=1) > curve.kl_median.sel(lag=299)).all()
