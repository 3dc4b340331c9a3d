"""Memory curves against their theorems, systems written out, and regressions by hand."""

import numpy as np
import pytest
import torch

from solomonic.probes import load_dataset, memory_curve, save_dataset, trace
from solomonic.probes.memory_curve import linear_curve
from solomonic.realization import TimeVaryingSystem

from .small import small_model, tokens


def reach(poles, steps=400):
    """r_k = A^k b with b = 1, the last input first."""
    return np.array(poles)[:, None] ** np.arange(steps)


@pytest.mark.parametrize("poles", [[0.9, 0.7, 0.5, 0.5], [0.9, 0.9, 0.9], [0.8, -0.6, 0.3], [0.5]])
def test_the_linear_total_is_the_rank_of_the_controllability_matrix(poles):
    curve, rank = linear_curve(reach(poles))
    assert rank == len(set(poles))
    assert curve.sum() == pytest.approx(len(set(poles)), abs=1e-10)
    # By the definition: the squared correlation of u_{t-k} with its best read-out, from the covariances.
    r = reach(poles)
    expected = np.einsum("nk,nm,mk->k", r, np.linalg.pinv(r @ r.T, rcond=1e-12, hermitian=True), r)
    np.testing.assert_allclose(curve, expected, atol=1e-8)


def test_the_linear_curve_is_what_a_regression_finds():
    """Jaeger's capacity, from samples of white noise."""
    rng = np.random.default_rng(0)
    poles = np.array([0.9, 0.6])
    u = rng.standard_normal(60_000)
    h = np.zeros((u.size, 2))
    for t in range(1, u.size):
        h[t] = poles * h[t - 1] + u[t]
    curve = linear_curve(reach(poles, 60))[0]
    for k in (0, 1, 5):
        x, y = h[100:], u[100 - k : u.size - k]
        weights = np.linalg.lstsq(x, y, rcond=None)[0]
        assert np.corrcoef(x @ weights, y)[0, 1] ** 2 == pytest.approx(curve[k], abs=0.01)


@pytest.mark.parametrize("pattern", ["M2", "BMF-M2", "*-M2"])
def test_the_state_of_a_head_with_one_decay_has_a_total_of_one(pattern):
    found = memory_curve(trace(small_model(pattern, dtype=torch.float64), tokens(3, 50)))
    total = found.fisher_total.sel(part="state")
    assert np.abs(total.to_numpy()[~np.isnan(total)] - 1).max() < 1e-12
    assert found.attrs["normal_error"] < 1e-12
    assert found.attrs["rank_error"] < 1e-10
    rank = found.linear_total.sel(part="state").to_numpy()
    np.testing.assert_allclose(rank[~np.isnan(rank)], 8)


def test_a_register_is_a_delay_line():
    found = memory_curve(trace(small_model("SWA-*", dtype=torch.float64), tokens(2, 30)))
    window = found.sel(part="register", layer=0, prompt=0, head=1)
    np.testing.assert_allclose(window.fisher[:5], 1 / np.arange(1, 6))
    np.testing.assert_allclose(window.linear[:5], 1)
    assert (window.fisher[5:] == 0).all()
    assert (window.linear[5:] == 0).all()
    assert float(window.linear_total) == pytest.approx(float(found.nominal.sel(part="register", layer=0)))
    full = found.sel(part="register", layer=1, prompt=0, head=0)
    np.testing.assert_allclose(full.fisher, 1 / np.arange(1, 31))


@pytest.mark.parametrize(("pattern", "layer"), [("M2", 0), ("GDN", 0)])
def test_the_curves_are_those_of_the_system(pattern, layer):
    run = trace(small_model(pattern, dtype=torch.float64), tokens(1, 24))
    found = memory_curve(run, time=20).sel(part="state", prompt=0, layer=layer)
    for head in (0, 3):
        system = run.system(layer, head)
        B = system.B[:21] / np.linalg.norm(system.B[:21], axis=1, keepdims=True)
        log = system.log_decay[:21] if system.diagonal else None
        alike = TimeVaryingSystem(None if system.diagonal else system.A[:21], B, system.C[:21], log_decay=log)
        np.testing.assert_allclose(found.fisher.sel(head=head), alike.fisher_memory(20)[:, 0], atol=1e-10)
        expected = linear_curve(system.controllability(0, 21))[0][::-1]
        np.testing.assert_allclose(found.linear.sel(head=head), expected, atol=1e-10)


def test_what_is_decoded_is_held_out(tmp_path):
    """Of inputs that are white and maps that change from token to token, a fixed read-out finds nothing."""
    found = memory_curve(trace(small_model("M2"), tokens(12, 60)), lags=[1, 8])
    assert found.decoded.dims == ("layer", "head", "decoded_lag")
    assert float(found.decoded.max()) < 0.3
    assert np.isnan(memory_curve(trace(small_model("M2"), tokens(1, 60))).decoded).all()
    assert load_dataset(save_dataset(found, tmp_path / "curve.nc")).identical(found)


def test_what_it_refuses():
    run = trace(small_model("M2-SWA"), tokens(1, 12))
    for call, error, message in (
        (lambda: memory_curve(3), TypeError, "trace"),  # type: ignore[arg-type]
        (lambda: memory_curve(run, time=12), ValueError, "times?"),
        (lambda: memory_curve(run, time=0), ValueError, "time: expected a token from 1 to 11"),
        (lambda: memory_curve(run, lags=[11]), ValueError, "lags"),
        (lambda: memory_curve(run, samples=0), ValueError, "samples"),
        (lambda: memory_curve(trace(small_model("M2"), tokens(1, 1))), ValueError, "at least 2 tokens"),
    ):
        with pytest.raises(error, match=message):
            call()
