"""Hidden attention against the derivative of what ran, and receptive fields that are known."""

import numpy as np
import pytest
import torch

from solomonic.kernels import ssd
from solomonic.probes import hidden_attention, receptive_field, trace

from .small import small_model, tokens
from .test_retention import constant_decay


def test_rows_are_derivatives_of_the_scan():
    run = trace(small_model("M2", dtype=torch.float64), tokens(2, 30))
    record = run.records[0]
    x = record["x"].double().requires_grad_()
    A = (record["log_decay"] / record["dt"])[0, 0]
    y = ssd(x, record["dt"], A, record["B"], record["C"], D=record["D"]).y
    for head, t in ((0, 29), (3, 11)):
        (grad,) = torch.autograd.grad(y[1, t, head, 2], x, retain_graph=True)
        expected = grad[1, : t + 1, head, 2].numpy()[::-1].copy()
        found = hidden_attention(run, 0, head, times=[t])
        expected[0] -= found.attrs["D"]
        np.testing.assert_allclose(found.weight[1, 0, : t + 1], expected, atol=1e-12)
        assert (found.weight[1, 0, t + 1 :] == 0).all()


@pytest.mark.parametrize("pattern", ["M2", "BMF-M2"])
def test_weights_and_feed_through_make_the_output(pattern):
    run = trace(small_model(pattern, dtype=torch.float64), tokens(2, 25))
    for layer in run.state_layers:
        for head in range(4):
            found = hidden_attention(run, layer, head)
            y = found.attrs["D"] * run.u(layer)[:, :, head]
            for t in range(25):
                past = run.u(layer)[:, t::-1, head] if t else run.u(layer)[:, :1, head]
                y[:, t] += np.einsum("bs,bsp->bp", found.weight[:, t, : t + 1].to_numpy(), past)
            np.testing.assert_allclose(y, run.y(layer)[:, :, head], atol=1e-12)


def test_an_exponential_has_its_mean_distance_and_exponent():
    model = constant_decay([1.0, 4.0, 8.0, 16.0])
    mixer = model.model.layers[0].mixer  # type: ignore[union-attr]
    mixer.conv1d.weight.zero_()  # type: ignore[union-attr]
    mixer.conv1d.bias[:] = 1.0  # type: ignore[index,union-attr]  # B and C do not depend on the input
    field = receptive_field(trace(model, tokens(2, 800)))
    a = 0.5 ** (1 / np.array([1.0, 4.0, 8.0, 16.0]))
    np.testing.assert_allclose(field.distance.sel(part="state", layer=0)[0], a / (1 - a), rtol=1e-6)
    np.testing.assert_allclose(field.lyapunov.sel(layer=0), np.log(a), rtol=1e-12)
    np.testing.assert_allclose(field.lyapunov_spread.sel(layer=0), 0, atol=1e-12)
    # 1 - a^(n+1) >= 0.9
    expected = np.ceil(np.log(0.1) / np.log(a) - 1 - 1e-9)
    np.testing.assert_array_equal(field.span.sel(part="state", layer=0)[0], expected)


def test_a_window_reads_within_its_length():
    field = receptive_field(trace(small_model("SWA-BMF", dtype=torch.float64), tokens(3, 60), attention=True))
    attention = field.sel(part="attention")
    assert (attention.span.sel(layer=0) <= 4).all()
    assert (attention.span.sel(layer=1) <= 11).all()
    np.testing.assert_allclose(attention.mass, 1, rtol=1e-12)
    assert np.isnan(field.distance.sel(part="state", layer=0)).all()
    low, high = field.distance_mean_interval.sel(part="attention")
    assert (low <= field.distance_mean.sel(part="attention")).all()
    assert (field.distance_mean.sel(part="attention") <= high).all()


def test_what_they_refuse():
    run = trace(small_model("M2-SWA"), tokens(1, 12))
    with pytest.raises(TypeError, match="trace"):
        receptive_field(3)
    with pytest.raises(ValueError, match="head"):
        hidden_attention(run, 0, 4)
    with pytest.raises(ValueError, match="layer"):
        hidden_attention(run, 1, 0)
    with pytest.raises(ValueError, match="times"):
        hidden_attention(run, 0, 0, times=[12])
    with pytest.raises(ValueError, match="attention=True"):
        receptive_field(trace(small_model("SWA"), tokens(1, 12)))
    with pytest.raises(ValueError, match="stretch"):
        receptive_field(run, stretch=0)
