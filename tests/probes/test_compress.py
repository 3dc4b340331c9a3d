"""Reduced states: exact where they must be, the recurrence with a projector, and the bounds that are claimed."""

import dataclasses

import numpy as np
import pytest
import torch

from solomonic.models import HybridConfig, load, save
from solomonic.probes import compress, compression, split_law, trace

from .small import small_model, tokens


def narrow_model(pattern: str, kept: int, dtype: torch.dtype = torch.float64):
    """A model in whose heads only the first ``kept`` entries of B and C are ever other than zero."""
    model = small_model(pattern, dtype=dtype)
    for layer in model.layers:
        inside = getattr(layer.mixer, "ssm", layer.mixer)
        _, value, key, query, _ = inside.split
        weight, bias = inside.conv1d.weight, inside.conv1d.bias
        for start, stop in ((value, value + key), (value + key, value + key + query)):
            dead = [c for c in range(start, stop) if (c - start) % 8 >= kept]
            weight[dead] = 0
            bias[dead] = 0
    return model


@pytest.mark.parametrize("pattern", ["M2", "BMF-M2"])
def test_a_state_that_uses_few_directions_is_reduced_exactly(pattern):
    model = narrow_model(pattern, 3)
    ids = tokens(2, 40)
    small = compress(model, ids, order=3)
    other = tokens(2, 30, seed=1)
    torch.testing.assert_close(small(other).logits, model(other).logits, rtol=0, atol=1e-9)
    assert small.config.state_sizes == (3,) * len(model.config.pattern)
    assert small.empty_memory(2).get(0, "state").shape == (2, 4, 8, 3)
    automatic = compress(model, ids, share=1 - 1e-9)
    assert automatic.config.state_sizes == (3,) * len(model.config.pattern)


def test_the_full_order_is_the_model_itself():
    model = small_model("BMF-M2", dtype=torch.float64)
    ids = tokens(2, 20)
    same = compress(model, ids, order=8)
    assert torch.equal(same(ids).logits, model(ids).logits)


def test_a_reduced_head_is_the_projected_recurrence():
    """The output of the first layer's head is C' Pi h, with Pi = read write' from an eigenproblem of M X."""
    model = small_model("M2", dtype=torch.float64)
    ids = tokens(3, 50)
    run, small = trace(model, ids), trace(compress(model, ids, order=2), ids)
    states = run.states(0, times=np.arange(50))
    C = run.C(0)
    for head in range(4):
        X = np.einsum("btpn,btpm->nm", states[:, :, head], states[:, :, head]) / (150 * 8)
        M = np.einsum("btn,btm->nm", C[:, :, head], C[:, :, head]) / 150
        values, right = np.linalg.eig(X @ M)
        best = np.argsort(-values.real)[:2]
        basis = right[:, best].real
        dual = np.linalg.inv(right).real[best]
        projector = basis @ dual
        expected = np.einsum("btn,nm,btpm->btp", C[:, :, head], projector, states[:, :, head])
        expected += run.D(0)[head] * run.u(0)[:, :, head]
        np.testing.assert_allclose(small.y(0)[:, :, head], expected, atol=1e-8)


def test_it_is_saved_and_read_back(tmp_path):
    model = small_model("BMF-M2-SWA", dtype=torch.float64)
    ids = tokens(2, 30)
    small = compress(model, ids, layers=[0, 1], order=[2, 5])
    again = load(save(small, tmp_path / "small"))
    assert again.config.state_sizes == (2, 5, None)
    torch.testing.assert_close(again(ids).logits, small(ids).logits, rtol=0, atol=0)
    assert again.memory_nbytes(100) < model.memory_nbytes(100)
    assert HybridConfig.from_dict(again.config.to_dict()).state_sizes == (2, 5, None)


def test_a_reduced_model_keeps_the_split_law_and_its_trace_is_proved():
    model = small_model("BMF-M2", dtype=torch.float64)
    small = compress(model, tokens(2, 30), order=3)
    ids = tokens(1, 25, seed=3)
    assert float(split_law(small, ids).error.max()) < 1e-10
    assert trace(small, ids).require().error < 1e-9


def test_errors_fall_with_the_order_and_keep_their_bound():
    model = small_model("M2-BMF", dtype=torch.float64)
    ids = tokens(4, 60)
    curve = compression(model, ids, calibration=ids, orders=range(1, 9))
    found = curve.sel(order=slice(1, None))
    assert (found.measured <= found.error_bound * (1 + 1e-9) + 1e-15).all()
    assert (found.predicted.diff("order") <= 1e-15).all()
    assert (found.measured.sel(order=8) == 0).all()
    assert float(abs(found.cost.sel(order=8))) < 1e-12
    low, high = curve.cost_interval
    assert (low <= high).all()
    assert (low - 1e-12 <= curve.cost).all()
    assert (curve.cost <= high + 1e-12).all()
    np.testing.assert_array_equal(found.state_numbers, 2 * 4 * 8 * np.arange(1, 9))


def test_the_measured_error_is_that_of_the_projected_states():
    model = small_model("M2", dtype=torch.float64)
    ids, other = tokens(2, 40), tokens(2, 40, seed=9)
    curve = compression(model, other, calibration=ids, orders=[3])
    run, small = trace(model, other), trace(compress(model, ids, order=3), other)
    feed = run.u(0) * run.D(0)[:, None]
    error = ((small.y(0) - run.y(0)) ** 2).mean((0, 1, 3)) / ((run.y(0) - feed) ** 2).mean((0, 1, 3))
    np.testing.assert_allclose(curve.measured.sel(order=3, layer=0), error, rtol=1e-8)


def test_what_it_refuses():
    model = small_model("M2-SWA")
    ids = tokens(2, 12)
    with pytest.raises(ValueError, match="layer 1"):
        compress(model, ids, layers=[1])
    with pytest.raises(ValueError, match="no state"):
        compress(small_model("SWA"), ids)
    for order in (0, 9, [2, 3]):
        with pytest.raises(ValueError, match="order"):
            compress(model, ids, order=order)
    with pytest.raises(ValueError, match="calibration"):
        compression(model, ids[:1])
    with pytest.raises(ValueError, match="orders"):
        compression(model, ids, orders=[9])
    with pytest.raises(ValueError, match="already"):
        compress(compress(model, ids, order=2), ids)
    for sizes, match in (((1,), "one entry a layer"), ((0, None), "layer 0"), ((2, 2), "SWA")):
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(model.config, state_sizes=sizes)
