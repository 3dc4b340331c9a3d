"""Layers as realizations: their parts, their spectra, and the reduced matrix that has them all."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from solomonic.models import KeyValue, adapt, load, zoo
from solomonic.probes import load_dataset, save_dataset, structure, trace
from solomonic.realization import nilpotency

from ..models.adapters.small import small
from .small import small_model, tampered, tokens


def checks(found):
    return json.loads(found.attrs["checks"])


@pytest.mark.parametrize("layer", range(4))
def test_sizes_are_those_of_a_full_memory(layer):
    model = small_model()
    found = structure(model, layer)
    memory = model(tokens(1, 30)).memory
    parts = {part.part: part.kind for part in memory.parts() if part.layer == layer}
    assert dict(zip(found.part.values, found.kind.values, strict=True)) == parts
    for part in parts:
        value = memory.get(layer, part)
        held = sum(t.numel() for t in value) if isinstance(value, KeyValue) else value.numel()
        if part == "kv":
            held //= 30
        assert int(found.scalars.sel(part=part)) == held
    order = -1 if "kv" in parts else int(found.scalars.sum())
    assert found.attrs["order"] == order


def test_indices_of_the_parts():
    model = small_model(bmojo_window=7, swa_window=3)
    found = [structure(model, i) for i in range(4)]
    assert [dict(zip(f.part.values.tolist(), f["index"].values.tolist(), strict=True)) for f in found] == [
        {"conv": 3, "state": 0, "window": 7, "fading_tokens": 14},
        {"conv": 3, "state": 0},
        {"window": 3},
        {"kv": -1},
    ]
    assert [f.attrs["reach"] for f in found] == [-1, -1, 2, -1]
    assert [f.attrs["eidetic_reach"] for f in found] == [16, 3, 2, -1]


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_the_reduced_matrix_of_bmojo_f(window):
    model = small_model("BMF", bmojo_window=9, dtype=torch.float64)
    found = structure(model, 0, window=window)
    A = found.transition.to_numpy()
    assert A.shape == (3 + 4 + 3 * window,) * 2
    assert checks(found)["block_triangular"]
    assert checks(found)["spectrum_error"] < 1e-10
    assert checks(found)["block_index"] == {"conv": 3, "window": window, "fading_tokens": 2 * window}
    assert found.attrs["nilpotent_order"] == 3 + 3 * window
    assert found.attrs["nilpotent_index"] == 3 + 2 * window
    assert found.attrs["certified"] == "yes"
    expected = np.concatenate([np.sort(found.decay.to_numpy()[0])[::-1], np.zeros(3 + 3 * window)])
    np.testing.assert_allclose(found.eigenvalue, expected, atol=1e-10)


def test_the_reduced_matrix_runs_as_the_layer_does():
    """Against the layer written out: convolution, states, window, fading tokens."""
    model = small_model("BMF", dtype=torch.float64)
    found = structure(model, 0, window=3)
    A, B = found.transition.to_numpy(), found.input.to_numpy()
    mixer = model.model.layers[0].mixer.mamba  # type: ignore[union-attr]
    weights = mixer.conv1d.weight[0, 0].numpy()[::-1]  # type: ignore[union-attr]
    decay, feed = found.decay.to_numpy()[0], float(mixer.D.mean())  # type: ignore[operator]
    u = np.random.default_rng(0).standard_normal(20)
    state, h, f = np.zeros(len(A)), np.zeros(4), []
    for t in range(20):
        state = A @ state + B * u[t]
        x = sum(weights[j] * u[t - j] for j in range(4) if t >= j)
        h = decay * h + x
        f.append(h.mean() + feed * x)
        slots = dict(zip(found["to"].values.tolist(), state, strict=True))
        for i in range(3):
            assert slots[f"window[{i}]"] == pytest.approx(u[t - i] if t >= i else 0.0)
            assert slots[f"conv[{i}]"] == pytest.approx(u[t - i] if t >= i else 0.0)
        for i in range(6):
            assert slots[f"fading_tokens[{i}]"] == pytest.approx(f[t - i] if t >= i else 0.0)
        np.testing.assert_allclose([slots[f"state[{i}]"] for i in range(4)], h)


def test_registers_alone_are_nilpotent():
    model = small_model("SWA-*")
    for layer in (0, 1):
        found = structure(model, layer, window=4)
        certificate = nilpotency(found.transition.to_numpy())
        assert certificate.verdict is True
        assert certificate.index == found.attrs["nilpotent_index"] == 4
        assert "decay" not in found


def test_a_mamba_layer_is_a_short_register_and_a_diagonal():
    found = structure(small_model("M2"), 0)
    assert found.attrs["nilpotent_index"] == 3
    assert found.attrs["symbol"] == "M2"
    np.testing.assert_allclose(found.half_life, np.log(0.5) / np.log(found.decay))
    np.testing.assert_allclose(found.decay, np.exp(found.dt * found.rate))
    assert found["at"].values.tolist() == ["bias"]


def test_steps_from_a_text():
    model, ids = small_model("*-BMF"), tokens(2, 30)
    found = structure(model, 1, ids=ids, quantiles=(0.25, 0.5, 0.75))
    dt = trace(model, ids).dt(1).reshape(-1, 4)
    np.testing.assert_allclose(found.dt, np.quantile(dt, [0.25, 0.5, 0.75], axis=0), rtol=1e-6)
    assert found["at"].values.tolist() == ["q0.25", "q0.5", "q0.75"]
    largest = np.sort(found.decay.sel(at="q0.5").to_numpy())[::-1]
    np.testing.assert_allclose(found.eigenvalue[:4], largest, atol=1e-10)


def test_a_decay_of_nothing_is_not_certified():
    model = small_model("M2")
    model.model.layers[0].mixer.A_log[:] = 8.0  # type: ignore[union-attr, index]
    found = structure(model, 0)
    assert float(found.decay.max()) < 1e-10
    assert found.attrs["certified"] == "undecided" or found.attrs["nilpotent_order"] == 7


def test_saved_and_read_back(tmp_path):
    found = structure(small_model("BMF"), 0)
    assert load_dataset(save_dataset(found, tmp_path / "structure.nc")).identical(found)


def test_bad_arguments():
    model = small_model("SWA-M2")
    for call, message in (
        (lambda: structure(model, 2), "layer: expected layers from 0 to 1, got 2"),
        (lambda: structure(model, -1), "layer"),
        (lambda: structure(model, 0.0), "layer"),  # type: ignore[arg-type]
        (lambda: structure(model, 0, window=0), "window"),
        (lambda: structure(model, 1, ids=tokens(1, 5), quantiles=[1.5]), "quantiles"),
        (lambda: structure(model, 1, ids=tokens(1, 5), quantiles=[]), "quantiles"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", ["transformer", "deadbeat", "fading", "bmojo-f", "bmojo", "recall-bmojo"])
def test_the_zoo(name):
    if name not in zoo():
        pytest.skip(f"{name} is not trained yet")
    model = load(name)
    for layer in range(len(model.config.pattern)):
        found = structure(model, layer)
        assert checks(found)["block_triangular"]
        assert checks(found)["spectrum_error"] < 1e-6


@pytest.mark.parametrize("model", [adapt(small("mamba2")), None, "bmojo"])
def test_a_model_that_is_no_hybrid_is_refused(model):
    error = TypeError if model is None or isinstance(model, str) else ValueError
    with pytest.raises(error, match="HybridLM"):
        structure(model, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pattern", "ssm"), [("GDN", "mamba2"), ("GKA", "mamba2"), ("BMF", "gka"), ("BMO", "gdn")])
def test_gates_of_a_text_are_those_of_the_weights(pattern, ssm):
    """Recomputed from what the mixer reads and its parameters; quantiles of dt and beta, each by itself."""
    model, ids = small_model(pattern, ssm_mixer=ssm, dtype=torch.float64), tokens(2, 30)
    levels = [0.25, 0.5, 0.75]
    found = structure(model, 0, ids=ids, quantiles=levels)
    seen = {}
    model(ids, record=lambda layer, name, value: seen.__setitem__(name, value))
    mixer = model.model.layers[0].mixer  # type: ignore[union-attr]
    mixer = mixer if pattern in ("GDN", "GKA") else mixer.ssm  # type: ignore[union-attr]
    h = seen["mixer_in"]
    step = softplus((mixer.gk_proj if found.attrs["state"] == "gdn" else mixer.a_proj)(h) + mixer.dt_bias)  # type: ignore[operator]
    dt = np.quantile(step.reshape(-1, 4), levels, axis=0)
    np.testing.assert_allclose(found.dt, dt, rtol=1e-12)
    np.testing.assert_allclose(found.decay, np.exp(-dt * np.exp(mixer.A_log.numpy())), rtol=1e-12)  # type: ignore[operator]
    assert ("beta" in found) == (found.attrs["state"] == "gdn")
    assert ("gram_decay" in found) == (found.attrs["state"] == "gka")
    if "beta" in found:
        strength = mixer.b_proj(h).sigmoid() * seen["B"].square().sum(-1).repeat_interleave(2, -1)  # type: ignore[operator]
        np.testing.assert_allclose(found.beta, np.quantile(strength.reshape(-1, 4), levels, axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.along_key, found.decay * (1 - found.beta), rtol=1e-12)
    if "gram_decay" in found:
        np.testing.assert_array_equal(found.gram_decay, found.decay)
    assert found.attrs["state_readout"] == ("ridge" if found.attrs["state"] == "gka" else "linear")


@pytest.mark.parametrize("name", ["log_decay", "B", "x"])
def test_taps_of_a_ridge_regression_that_lie_are_found_out(name):
    """A trace has no proof of such a state; the memory has."""
    model, ids = small_model("GKA-M2"), tokens(1, 20)
    assert structure(model, 0, ids=ids).attrs["state"] == "gka"
    liar = tampered(model, lambda layer, what, value: 1.1 * value if (layer, what) == (0, name) else value)
    with pytest.raises(ValueError, match="state of layer 0 is not what its gates, keys and values make of it"):
        structure(liar, 0, ids=ids)


@pytest.mark.parametrize("pattern", ["GDN", "GKA", "BMO"])
def test_half_precision_has_a_structure(pattern):
    model = small_model(pattern, dtype=torch.bfloat16, eidetic_tokens=4)
    exact = structure(small_model(pattern, eidetic_tokens=4), 0, ids=tokens(1, 20))
    np.testing.assert_allclose(structure(model, 0, ids=tokens(1, 20)).decay, exact.decay, rtol=0.02)


@pytest.mark.parametrize("name", ["bmojo", "recall-bmojo"])
def test_stored_tokens_of_the_zoo(name):
    """Registers of 3, W, 2W, and slots that are held: as many ones as are stored in the reduced matrix."""
    model = load(name)
    width = model.config.bmojo_window
    for layer in range(len(model.config.pattern)):
        found = structure(model, layer, window=2)
        assert dict(zip(found.part.values.tolist(), found["index"].values.tolist(), strict=True)) == {
            "conv": 3, "state": 0, "window": width, "fading_tokens": 2 * width, "eidetic": -1,
        }  # fmt: skip
        assert int(np.isclose(found.eigenvalue, 1, atol=1e-9).sum()) == 2
        assert (found.attrs["reach"], found.attrs["eidetic_reach"], found.attrs["switched"]) == (-1, -1, "held")
        assert found.attrs["nilpotent_order"] == 3 + 2 + 4 + 2 + 2
        assert found.attrs["nilpotent_index"] == 3 + 4
