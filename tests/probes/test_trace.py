"""Traces: they are what ran, they say so, and they refuse where they are not."""

import json

import numpy as np
import pytest
import torch

from solomonic.models import KeyValue, load, zoo
from solomonic.probes import Trace, load_dataset, retention, trace
from solomonic.probes import registers as registers_module

from .small import PATTERNS, small_model, tampered, tokens

# Measured errors: 3e-7 in float32, 5e-16 in float64, 3e-3 in bfloat16.
TIGHT = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", TIGHT)
def test_a_trace_reconstructs_what_ran(pattern, dtype):
    model = small_model(pattern, dtype=dtype)
    run = trace(model, tokens(2, 40))
    assert run.error <= TIGHT[dtype]
    assert run.require() is run
    assert set(run.checks["state_error"]) == set(run.state_layers)
    assert set(run.checks["attention_error"]) == set(run.attention_layers)


@pytest.mark.parametrize("changes", [{"tie_attn_weights": False}, {"use_pos_emb": True, "use_qk_norm": False}])
def test_variants_of_the_layers(changes):
    run = trace(small_model("BMF-M2", **changes), tokens(1, 33), attention=True)
    assert run.error <= 2e-6
    assert ("q_fading" in run.registers(0)) == (not changes.get("tie_attn_weights", True))


@pytest.mark.parametrize("length", [1, 2, 5, 65])
def test_any_length(length):
    run = trace(small_model(), tokens(1, length))
    assert run.error <= 2e-6
    assert run.steps == length


@pytest.mark.parametrize("mixer", ["mamba2", "gdn", "gka"])
def test_delta_rules_are_traced_and_what_is_not_linear_is_not(mixer):
    model, ids = small_model("GDN-BMF-GKA-M2", dtype=torch.float64, ssm_mixer=mixer), tokens(2, 30)
    run = trace(model, ids)
    assert run.error <= 1e-14
    assert run.kinds == {0: "delta", 1: {"mamba2": "scalar", "gdn": "delta", "gka": None}[mixer], 2: None, 3: "scalar"}
    assert run.state_layers == ((0, 3) if mixer == "gka" else (0, 1, 3))
    state = run.memory.get(0, "state")
    assert isinstance(state, torch.Tensor)
    np.testing.assert_allclose(run.states(0)[:, 0], state.transpose(2, 3), atol=1e-13)
    rest = trace(model, ids[:, 7:], memory=model(ids[:, :7]).memory)
    assert rest.error <= 1e-14
    system = rest.system(0, 3, prompt=1)
    y = system.simulate(rest.u(0)[1, :, 3, 5, None], rest.initial_state(0)[1, 3, 5])
    np.testing.assert_allclose(y[:, 0], rest.y(0)[1, :, 3, 5], atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"fading_tokens": 1}, {"ssm_mixer": "gdn"}, {"ssm_mixer": "gka"}])
def test_states_of_layers_that_store_tokens(options):
    model, ids = small_model("BMO-SWA", dtype=torch.float64, eidetic_tokens=4, **options), tokens(2, 40)
    run = trace(model, ids)
    kind = {"gdn": "delta", "gka": None}.get(options.get("ssm_mixer"), "scalar")
    assert (run.kinds[0], run.attention_layers) == (kind, (1,))
    if kind is None:
        with pytest.raises(ValueError, match="no state space heads"):
            retention(run)
        return
    assert run.error <= 1e-14
    state = run.memory.get(0, "state")
    assert isinstance(state, torch.Tensor)
    np.testing.assert_allclose(run.states(0)[:, 0], state.transpose(2, 3) if kind == "delta" else state, atol=1e-13)
    kept = retention(run, lags=[1, 7])
    np.testing.assert_allclose(kept.mean_log_decay.values[0], run.log_decay(0).mean((0, 1)), rtol=1e-13)
    rest = trace(model, ids[:, 13:], memory=model(ids[:, :13]).memory)
    np.testing.assert_allclose(rest.states(0), run.states(0), atol=1e-13)


def test_one_axis_is_one_prompt():
    model = small_model()
    assert trace(model, tokens(1, 9)[0]).ids.shape == (1, 9)
    assert trace(model, list(range(9))).ids.shape == (1, 9)


@pytest.mark.parametrize("first", [1, 4, 17])
def test_a_run_from_a_memory(first):
    model, ids = small_model(dtype=torch.float64), tokens(2, 40)
    whole = trace(model, ids, attention=True)
    begun = model(ids[:, :first])
    rest = trace(model, ids[:, first:], memory=begun.memory, attention=True)
    assert rest.error <= 1e-14
    assert rest.past == first
    np.testing.assert_allclose(rest.states(1), whole.states(1), atol=1e-13)
    np.testing.assert_allclose(rest.fading_mass(0), whole.fading_mass(0)[:, first:], atol=1e-13)
    for layer in (0, 2, 3):
        here = rest.attention(layer, 1, [0, 20]).weight
        there = whole.attention(layer, 1, [first, first + 20]).weight
        np.testing.assert_allclose(here, there.isel(lag=slice(here.sizes["lag"])), atol=1e-13)


def test_states_are_those_of_the_memory():
    model = small_model("M2-BMF", dtype=torch.float64)
    run = trace(model, tokens(2, 50))
    for layer in (0, 1):
        state = run.memory.get(layer, "state")
        assert not isinstance(state, KeyValue)
        np.testing.assert_allclose(run.states(layer)[:, 0], state, atol=1e-13)


def test_states_at_any_times():
    run = trace(small_model("M2"), tokens(1, 20))
    every = run.states(0, times=range(20))
    assert every.shape == (1, 20, 4, 8, 8)
    np.testing.assert_array_equal(run.states(0, head=2, times=[7, 3, 7]), every[:, [7, 3, 7], 2:3])
    decay, B, u = run.log_decay(0)[0, 9, 2], run.B(0)[0, 9, 2], run.u(0)[0, 9, 2]
    np.testing.assert_allclose(every[0, 9, 2], np.exp(decay) * every[0, 8, 2] + np.outer(u, B), atol=1e-14)


def test_a_system_is_what_every_channel_runs():
    model, ids = small_model("*-M2", dtype=torch.float64), tokens(2, 30)
    begun = model(ids[:, :7])
    run = trace(model, ids[:, 7:], memory=begun.memory)
    for head in range(4):
        system = run.system(1, head, prompt=1)
        assert (system.steps, system.order, system.inputs, system.outputs) == (23, 8, 1, 1)
        for channel in (0, 5):
            x0 = run.initial_state(1)[1, head, channel]
            y = system.simulate(run.u(1)[1, :, head, channel, None], x0)
            np.testing.assert_allclose(y[:, 0], run.y(1)[1, :, head, channel], atol=1e-13)


def test_attention_weights_read_the_registers():
    model, ids = small_model("BMF-SWA-*", dtype=torch.float64), tokens(2, 30)
    held = {}
    model(ids, record=lambda layer, name, value: held.setdefault((layer, name), value))
    run = trace(model, ids, attention=True)
    for layer, width in ((0, 6), (1, 5), (2, 30)):
        taps = run.registers(layer)
        for head in (0, 3):
            row = run.attention(layer, head, [29, 2])
            weight = row.weight.sel(time=29).to_numpy()
            np.testing.assert_allclose(row.weight.sum("lag"), 1, atol=1e-14)
            values = taps["v"][:, ::-1][:, :width, head // 2]
            read = np.einsum("bl,blv->bv", weight[:, :width], values)
            if layer == 0:
                assert row.source.values.tolist() == ["window"] * 6 + ["fading"] * 6
                read += np.einsum("bl,blv->bv", weight[:, 6:], taps["v_fading"][:, ::-1][:, 6:12, head // 2])
                mass = row.weight.sel(lag=slice(6, None)).sum("lag")
                np.testing.assert_allclose(mass.T, run.fading_mass(0)[:, [29, 2], head].T, atol=1e-14)
            np.testing.assert_allclose(read, held[layer, "read"][:, 29, head], atol=1e-13)
    assert (run.attention(1, 0, 2).weight.sel(lag=slice(3, None)) == 0).all()
    assert (run.fading_mass(0)[:, :6] == 0).all()
    assert (run.fading_mass(0)[:, 6:] > 0).all()


def test_registers_only_where_asked_for():
    run = trace(small_model(), tokens(1, 12))
    with pytest.raises(ValueError, match="attention=True"):
        run.attention(2, 0)
    assert "q" not in run.records[2]


def test_a_choice_of_layers():
    run = trace(small_model(), tokens(1, 12), layers=[2, 1])
    assert run.layers == (1, 2)
    assert run.state_layers == (1,)
    assert run.to_dataset().layer.values.tolist() == [1, 2]
    with pytest.raises(ValueError, match="layer: expected a traced layer with state space heads"):
        run.log_decay(0)
    with pytest.raises(ValueError, match="layers: expected layers from 0 to 3"):
        trace(small_model(), tokens(1, 12), layers=[4])


def test_sampled_rows_where_all_are_too_many(monkeypatch):
    monkeypatch.setattr(registers_module, "_WORK", 1)
    run = trace(small_model("*-BMF"), tokens(1, 90))
    assert run.checks["attention_rows"] == {0: 16, 1: 16}
    assert run.error <= 2e-6


@pytest.mark.parametrize(
    ("name", "pattern", "kind"),
    [
        ("B", "M2", "state_error"),
        ("log_decay", "M2", "state_error"),
        ("x", "BMF", "state_error"),
        ("k", "SWA", "attention_error"),
        ("v_fading", "BMF", "attention_error"),
        ("q", "*", "attention_error"),
        ("lse_fading", "BMF", "fading_mass_error"),
    ],
)
def test_a_tap_that_lies_is_refused(name, pattern, kind):
    model = tampered(small_model(pattern), lambda layer, tap, value: value * 1.01 if tap == name else value)
    run = trace(model, tokens(1, 40))
    assert run.checks[kind][0] > run.tolerance
    with pytest.raises(ValueError, match=r"reconstruction error of at most 0.0001, got .*layer 0"):
        run.require()
    if pattern == "M2":
        with pytest.raises(ValueError, match="reconstruction error"):
            retention(run)
    assert trace(model, tokens(1, 40), tolerance=10.0).require().tolerance == 10.0


def test_nan_is_refused():
    model = tampered(small_model("M2"), lambda layer, tap, value: value * np.nan if tap == "y" else value)
    with pytest.raises(ValueError, match="reconstruction error"):
        trace(model, tokens(1, 10)).require()


@pytest.mark.parametrize("name", ["B", "lse_window", "hidden", "k_fading"])
def test_a_tap_that_is_silent_raises(name):
    model = tampered(small_model("BMF"), lambda layer, tap, value: None if tap == name else value)
    with pytest.raises(ValueError, match=rf"layer 0 \(BMF\) never fired the taps .*{name}"):
        trace(model, tokens(1, 10))


def test_a_model_that_fires_nothing_raises():
    model = tampered(small_model("M2"), lambda layer, tap, value: None)
    with pytest.raises(ValueError, match="never fired the taps"):
        trace(model, tokens(1, 10))


def test_bad_arguments():
    model = small_model("M2-SWA")
    for ids, message in (
        (torch.zeros(1, 0, dtype=torch.long), "empty prompt"),
        (torch.tensor([[64]]), "expected tokens from 0 to 63, got 64"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "one or two axes"),
    ):
        with pytest.raises(ValueError, match=message):
            trace(model, ids)
    with pytest.raises(TypeError, match="expected integers"):
        trace(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="tolerance"):
        trace(model, tokens(1, 5), tolerance=0.0)
    run = trace(model, tokens(1, 5), attention=True)
    for call, message in (
        (lambda: run.system(0, 4), "head: expected a number from 0 to 3"),
        (lambda: run.system(1, 0), "state space heads"),
        (lambda: run.system(0, 0, prompt=1), "prompt"),
        (lambda: run.states(0, times=5), "times: expected tokens from 0 to 4"),
        (lambda: run.attention(0, 0), "with attention"),
        (lambda: run.attention(1, 9), "head"),
        (lambda: run.fading_mass(1), "fading tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_dataset_holds_the_realization(tmp_path):
    model, ids = small_model(), tokens(2, 20)
    begun = model(ids[:, :3])
    run = trace(model, ids[:, 3:], memory=begun.memory, attention=True)
    data = run.to_dataset()
    assert data.sizes == {
        "prompt": 2, "time": 17, "layer": 4, "head": 4, "state": 8, "channel": 8, "position": 20, "kv_head": 2
    }  # fmt: skip
    assert data.symbol.values.tolist() == ["BMF", "M2", "SWA", "*"]
    assert data.time.values[0] == 3
    assert np.isnan(data.B.sel(layer=[2, 3])).all()
    assert not np.isnan(data.B.sel(layer=[0, 1])).any()
    assert data.log_decay.attrs["units"] == "nat/token"
    # The Dataset alone rebuilds the outputs.
    layer = data.sel(layer=1)
    h = layer.initial_state.to_numpy().astype(float)
    for t in range(17):
        now = layer.isel(time=t)
        h = np.exp(now.log_decay.to_numpy())[..., None, None] * h
        h = h + now.u.to_numpy()[..., :, None] * now.B.to_numpy()[..., None, :]
        y = (h * now.C.to_numpy()[..., None, :]).sum(-1) + now.D.to_numpy()[:, None] * now.u.to_numpy()
        np.testing.assert_allclose(y, now.y, atol=1e-6)
    file = run.save(tmp_path / "deep" / "trace.nc")
    back = load_dataset(file)
    assert back.identical(data)
    assert [p.name for p in file.parent.iterdir()] == ["trace.nc"]
    assert json.loads(back.attrs["checks"])["taps"] == run.checks["taps"]
    assert back.attrs["checkpoint"].startswith("sha256:")


def test_the_provenance_knows_the_weights():
    first, again, other = (trace(small_model("M2", rng=rng), tokens(1, 5)) for rng in (0, 0, 1))
    assert first.provenance["checkpoint"] == again.provenance["checkpoint"] != other.provenance["checkpoint"]
    assert set(json.loads(first.provenance["versions"])) == {"python", "solomonic", "torch", "numpy", "xarray"}


def test_representations():
    run = trace(small_model("SWA-M2"), tokens(1, 12))
    assert repr(run).startswith("Trace(SWA-M2, 1 x 12 tokens, error ")
    assert run._repr_html_().count("<tr>") == 3
    assert isinstance(run, Trace)


@pytest.mark.parametrize(
    ("name", "dtype", "most"),
    [
        ("transformer", "float32", 1e-5),
        ("deadbeat", "float32", 1e-5),
        ("fading", "float32", 1e-5),
        ("bmojo-f", "float32", 1e-5),
        ("bmojo", "float32", 1e-4),  # 3e-5, which is rounding: 4e-14 in float64
        ("bmojo", "float64", 1e-12),
    ],
)
def test_the_zoo_is_traced(name, dtype, most):
    if name not in zoo():
        pytest.skip(f"{name} is not trained yet")
    model = load(name, dtype=dtype)
    text = np.frombuffer(json.dumps({"zoo": list(range(300))}).encode()[:600], np.uint8).astype(int)
    assert trace(model, text).require().error < most
