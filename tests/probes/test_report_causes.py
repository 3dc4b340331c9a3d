"""Interventions, information in the weights and what is missing, as a report measures and tells them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from solomonic.probes import NothingToMeasure, bootstrap_interval, fisher_information, paired_test, report
from solomonic.probes.divergence import kl_bits
from solomonic.probes.report import cause_readings, causes, errors, stored, svg, weight_readings

from .small import BLANK, small_model, tokens


def squeezed(text: str) -> str:
    return text.replace("\u00a0", " ")


# ---------------------------------------------------------------- which windows
def test_pairs_have_another_beginning_and_the_windows_that_change_most():
    model, ids = small_model("M2-SWA"), tokens(12, 40)
    found = causes.pairs(model, ids, cut=-1)
    assert isinstance(found, causes.Pairs)
    assert (found.tail, found.clean.shape) == (20, (causes.TRACED, 40))
    rows = [int((ids == each).all(1).nonzero()[0]) for each in found.clean]
    torch.testing.assert_close(found.corrupt[:, -20:], found.clean[:, -20:])
    torch.testing.assert_close(found.corrupt[:, :-20], ids[[(row - 1) % 12 for row in rows], :-20])
    changed = torch.cat([ids.roll(1, 0)[:, :20], ids[:, 20:]], 1)
    own, other = (model(each).logits[:, -1].double() for each in (ids, changed))
    kl = kl_bits(own, other)
    assert rows == kl.argsort(descending=True)[: causes.TRACED].tolist()
    gain = own.softmax(-1) - other.softmax(-1)
    assert found.answer.tolist() == gain[rows].argmax(-1).tolist()
    assert found.other.tolist() == gain[rows].argmin(-1).tolist()


def test_the_tail_is_at_most_half_of_what_the_model_remembers():
    found = causes.pairs(small_model("SWA-SWA", swa_window=4), tokens(4, 40), cut=7)
    assert isinstance(found, causes.Pairs)
    assert found.tail == 3


@pytest.mark.parametrize(
    ("ids", "reason"),
    [(tokens(1, 40), "one window only"), (tokens(1, 40).expand(3, -1), "no prediction changes")],
)
def test_what_has_no_pair_says_why(ids, reason):
    found, missing = causes.measure_causes(small_model("M2"), ids, cut=-1, rng=0)
    assert found == {}
    assert reason in missing["causal_trace"]


# ---------------------------------------------------------------- what comes back
def test_the_memory_of_a_model_of_one_layer_brings_all_of_the_difference_back():
    """It is the whole memory, so that the split law says what comes out: the other run, to rounding."""
    data = causes.measure_causes(small_model("BMF", dtype=torch.float64), tokens(6, 40), cut=-1, rng=0)[0]
    found = data["causal_trace"]
    first = found.sel(part="all").isel(layer=0)
    np.testing.assert_allclose(first.normalised.sel(path="total"), 1.0, atol=1e-9)
    np.testing.assert_allclose(first.effect.sel(path="indirect"), 0.0, atol=1e-12)
    assert (found.source_difference > found.base_difference).all()
    assert "layer 0: 100 % (100 % to 100 %) of the difference comes back" in squeezed(cause_readings.strongest(found))


def test_the_table_and_the_sentences_have_the_numbers_of_the_data():
    data = causes.measure_causes(small_model("M2-SWA"), tokens(8, 40), cut=-1, rng=0)[0]["causal_trace"]
    rows = {row[0]: row[1:] for row in cause_readings.rows(data)}
    assert list(rows) == [
        "0, M2: all of it",
        "0, M2: convolution",
        "0, M2: state",
        "1, SWA: all of it",
        "1, SWA: window",
    ]
    at = data.isel(time=0).sel(layer=0, part="state")
    low, high = at.effect_mean_interval.sel(path="total").values
    told = [cause_readings.signed(float(v)) for v in (at.effect_mean.sel(path="total"), low, high)]
    assert rows["0, M2: state"][0] == f"{told[0]} ({told[1]} to {told[2]})"
    assert rows["1, SWA: window"][1] == "exactly 0", "20 tokens later no key of a window of 5 is read"
    control = data.isel(time=0).effect.sel(path="total") - data.isel(time=0).control_effect.sel(control="resample")
    places = [(0, "conv"), (0, "state"), (0, "all"), (1, "window"), (1, "all")]
    each = [control.sel(layer=layer, part=part).values for layer, part in places]
    p = np.sort([paired_test(values) for values in each if np.abs(values).max() > 1e-5])  # more than rounding
    kept = p <= 0.05 * np.arange(1, len(p) + 1) / len(p)  # Benjamini and Hochberg, step by step
    number = int(np.flatnonzero(kept).max()) + 1 if kept.any() else 0
    said = squeezed(cause_readings.controlled(data))
    words = ["none", "one", "two", "three", "four", "five"]
    assert len(p) > 1
    assert f"Of {words[len(p)]} memories of the table where the two differ at all, {words[number]} differ" in said


def test_no_interval_and_no_test_for_one_pair():
    data = causes.measure_causes(small_model("M2"), tokens(8, 40), cut=-1, rng=0)[0]["causal_trace"].isel(prompt=[0])
    for name in [each for each in data if str(each).endswith("interval")]:
        data[name] = data[name] * np.nan
    assert "cannot be told apart" in cause_readings.controlled(data)
    assert not any("nan" in cell for row in cause_readings.rows(data) for cell in row)
    assert "(" not in cause_readings.rows(data)[0][1]


# ---------------------------------------------------------------- weights
@pytest.fixture(scope="module")
def fisher() -> xr.Dataset:
    return fisher_information(small_model("BMF-SWA"), tokens(5, 24), samples=2, lambdas=(1e-6, 1e-5, 1e-4))


def test_shares_of_the_trace_are_those_of_all_parameters(fisher):
    groups = weight_readings.groups(fisher)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(fisher.sizes["block"]))
    assert list(groups)[:2] == ["embedding", "layer 0, mixer"]
    total = sum(weight_readings.trace_share(fisher, blocks)[0] for blocks in groups.values())
    assert total == pytest.approx(1.0)
    mlp = fisher.kind.values == "MLP"
    value, (low, high) = weight_readings.trace_share(fisher, np.flatnonzero(mlp))
    assert value == pytest.approx(float(fisher.fisher_mean[mlp].sum() / fisher.fisher_mean.sum()))
    assert 0 < low <= value <= high < 1


def test_the_interval_of_a_sum_of_blocks_is_that_of_its_jackknife(fisher):
    """One block's is the probe's own way to it, and the sum over all is that of the summed pseudo-values."""
    everything = np.arange(fisher.sizes["block"])
    value, bounds = weight_readings.effective(fisher, everything)
    assert value == pytest.approx(float(fisher.effective.sel({"lambda": 1e-5}).sum()))
    pseudo = fisher.effective_pseudo.sel({"lambda": 1e-5}).sum("block").values
    n = len(pseudo)
    bias = fisher.effective_bias.sel({"lambda": 1e-5}).sum("block")
    assert pseudo.mean() == pytest.approx(value - float(bias))
    spread = pseudo.std(ddof=1) / np.sqrt(n)
    own = bootstrap_interval(pseudo - pseudo.mean() + value, method="studentized", rng=0)
    np.testing.assert_allclose(bounds, np.clip(own, 0, float(fisher["size"].sum())))
    assert bounds[0] < value < bounds[1] or bounds[1] == float(fisher["size"].sum())
    assert bounds[1] - bounds[0] > spread
    rows = weight_readings.rows(fisher)
    assert rows[-1][:2] == ["all", f"{int(fisher['size'].sum()):,}"]
    assert f"of {int(fisher['size'].sum()):,}." in weight_readings.largest(fisher)


def test_one_window_has_shares_without_intervals():
    data = fisher_information(small_model("M2"), tokens(1, 12), samples=1, lambdas=(1e-6, 1e-5, 1e-4))
    assert all("nan" not in cell and " to " not in cell for row in weight_readings.rows(data) for cell in row)


# ---------------------------------------------------------------- the page, and what is not measured
def test_both_sections_are_on_the_page_with_their_numbers(tmp_path):
    page = report(small_model("M2-SWA"), tmp_path, name="m", text=tokens(4, 24), memories=False, progress=False)
    html = squeezed(page.read_text(encoding="utf-8"))
    with xr.open_datatree(tmp_path / "m.nc", engine="h5netcdf") as tree:
        found, weights = (tree[name].to_dataset().load() for name in ("causal_trace", "fisher_information"))
    for title in ("What an intervention does", "Information in the weights"):
        assert f">{title}</h3>" in html
    for row in [*cause_readings.rows(found), *weight_readings.rows(weights)]:
        for cell in row:
            assert squeezed(cell) in html
    assert "color-mix(in srgb, var(--" in html, "the map follows the page's colours"
    assert "<image" not in html
    assert json.loads(found.attrs["checks"])["patches"] > 0


def test_only_what_has_nothing_to_measure_is_left_out(tmp_path, monkeypatch):
    model, ids = small_model("M2"), tokens(1, 12)

    def refuse(error):
        def raising(*args, **kwargs):
            raise error

        monkeypatch.setattr(errors, "innovations", raising)

    refuse(NothingToMeasure("floor: nothing <here>"))
    html = report(model, tmp_path, text=ids, memories=False, progress=False).read_text(encoding="utf-8")
    assert "What was not measured" in html
    assert "not measured: it is sure of nearly every token" in html
    assert "nothing &lt;here&gt;" in html
    assert "not measured: there is one window only" in html
    refuse(ValueError("lags: a fault of ours"))
    with pytest.raises(ValueError, match="a fault of ours"):
        report(model, tmp_path, text=ids, memories=False, progress=False)


def test_stored_tokens_say_how_long_a_window_must_be(monkeypatch):
    model = small_model("BMO-M2", bmojo_window=4, eidetic_tokens=4)
    reason = stored.measure_stored(model, tokens(2, 9), rng=0)[1]["eviction"]
    assert "windows of 9 tokens are too short" in reason
    least = int(reason.split("from ")[1].split(" tokens")[0])
    assert "eviction" in stored.measure_stored(model, tokens(2, least - 1), rng=0)[1]
    assert "eviction" in stored.measure_stored(model, tokens(2, least), rng=0)[0]
    assert stored.measure_stored(small_model("M2"), tokens(2, 9), rng=0) == ({}, {})
    monkeypatch.setattr(stored, "eviction", lambda *args, **kwargs: (_ for _ in ()).throw(ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault"):
        stored.measure_stored(model, tokens(2, 24), rng=0)


def test_numbers_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(svg, "_render", lambda *given: BLANK)
    given = {"a": small_model("M2"), "b": small_model("SWA")}
    pages = [
        report(given, tmp_path / str(jobs), text=tokens(2, 8), memories=False, jobs=jobs, progress=False)
        for jobs in (1, 2)
    ]
    for name in given:
        files = [Path(page).with_name(f"{name}.nc") for page in pages]
        with xr.open_datatree(files[0], engine="h5netcdf") as one, xr.open_datatree(files[1], engine="h5netcdf") as two:
            assert len(one.children) > 5
            assert one.identical(two)
    with pytest.raises(ValueError, match="jobs: expected a whole number of at least 1"):
        report(given, tmp_path, text=tokens(2, 8), jobs=0, progress=False)
