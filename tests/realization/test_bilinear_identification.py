"""Identification of bilinear systems, against simulated truth and finite differences, and hostile input."""

import dataclasses
import warnings

import numpy as np
import pytest
import scipy.signal

from solomonic.realization import (
    BilinearFit,
    BilinearSystem,
    FitWarning,
    LayerFit,
    fit_bilinear,
    fit_layer,
    gallery,
)
from solomonic.realization.bilinear import _pem

STEPS = 2000


def record(order, white, seed):
    """A system, 2 * STEPS steps of inputs and outputs at 30 dB, and the noise: the true model's one-step error."""
    rng = np.random.default_rng(seed)
    system = gallery.random_bilinear(order, radius=0.6, rng=rng)
    u = rng.standard_normal((2 * STEPS, 1))
    if not white:
        u = scipy.signal.lfilter([1.0], [1.0, -0.8], u, axis=0)
        u /= u.std()
    y = system.simulate(0.5 * u)
    e = y.std() * 10 ** (-30 / 20) * rng.standard_normal(y.shape)
    return system, 0.5 * u, y + e, e


def one_step(fit, y, u):
    return float(np.sqrt(np.mean((y - fit.predict(y, u))[50:] ** 2)))


@pytest.mark.parametrize(
    ("order", "white", "seed"), [(2, True, 0), (2, False, 1), (2, False, 2), (3, True, 0), (3, False, 1)]
)
def test_pem_and_subspace_predict_nearly_as_well_as_the_truth(order, white, seed):
    """Measured over 32 records: PEM at most 1.012 times the true model's error, subspace 1.15."""
    _, u, y, e = record(order, white, seed)
    truth = float(np.sqrt(np.mean(e[STEPS + 50 :] ** 2)))
    start = fit_bilinear(y[:STEPS], u[:STEPS], order, method="subspace", rng=0)
    assert one_step(start, y[STEPS:], u[STEPS:]) <= 1.2 * truth
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = fit_bilinear(y[:STEPS], u[:STEPS], order, start=start, rng=0)
    assert one_step(fit, y[STEPS:], u[STEPS:]) <= 1.05 * truth


def test_the_jacobian_is_that_of_the_errors():
    """Kaufman's Jacobian gives the exact gradient of the squared errors: central differences."""
    rng = np.random.default_rng(1)
    y, u = rng.standard_normal((60, 2)), rng.standard_normal((60, 1))
    data = _pem.pieces([(y, u, np.hstack([u, np.ones((60, 1))]))], 25)
    assert len(data.starts) == 2
    shapes = ((2, 2), (1, 2, 2), (2, 2), (2, 2))
    theta = _pem.Parameters(*(0.3 * rng.standard_normal(shape) for shape in shapes))
    fit = _pem.residuals(theta, data, noise=True, jacobian=True)
    gradient, at = fit.jacobian.T @ fit.errors, 0
    for i, part in enumerate(theta):
        for index in np.ndindex(part.shape):
            costs = []
            for h in (1e-6, -1e-6):
                moved = part.copy()
                moved[index] += h
                near = _pem.residuals(theta._replace(**{theta._fields[i]: moved}), data, noise=True, jacobian=False)
                costs.append(near.errors @ near.errors / 2)
            assert gradient[at] == pytest.approx((costs[0] - costs[1]) / 2e-6, abs=1e-5)
            at += 1


def test_exact_data_give_the_system_back():
    system = gallery.random_bilinear(2, radius=0.5, rng=1)
    u = np.random.default_rng(0).standard_normal((3, 300, 1)) * 10
    u /= 20
    fit = fit_bilinear(system.simulate(u), u, 2, rng=0)
    assert fit.rmse < 1e-6
    assert fit.system.equivalent(system, tol=1e-4).verdict is True
    short = system.simulate(u[0, :100]), u[0, :100]
    twice = [fit_bilinear(*short, 2, rng=0).system.A for _ in range(2)]
    assert np.array_equal(*twice)


def test_free_run_with_a_constant_and_its_initial_state(tmp_path):
    rng = np.random.default_rng(2)
    system = gallery.random_bilinear(2, radius=0.5, rng=rng)
    u = rng.standard_normal((500, 1))
    wide = BilinearSystem(
        system.A, [system.N[0], np.zeros((2, 2))], np.column_stack([system.B, [0.3, -0.2]]), system.C, [[0.1, 2.0]]
    )
    x0 = np.array([1.0, -2.0])
    y = wide.simulate(np.hstack([u, np.ones((500, 1))]), x0)
    fit = fit_bilinear(y, u, 2, noise="output", constant=True, rng=0)
    assert np.abs(fit.simulate(u, fit.x0[0]) - y).max() <= 1e-5 * np.abs(y).max()
    assert np.allclose(fit.initial_state(y, u), fit.x0[0], atol=1e-4)
    assert not fit.K.any()
    again = BilinearFit.load(fit.save(tmp_path / "fit.npz"))
    assert np.array_equal(again.simulate(u), fit.simulate(u))
    assert "<table>" in fit._repr_html_()


def test_shooting_from_many_states_survives_an_explosion():
    """A start that explodes in free run: from one initial state there is no first step; in pieces there is."""
    rng = np.random.default_rng(3)
    system = gallery.random_bilinear(2, radius=0.8, rng=rng)
    u = rng.standard_normal((400, 1))
    y = system.simulate(u)
    size = y.std()
    y = y + 0.01 * size * rng.standard_normal(y.shape)
    near = fit_bilinear(y, u, 2, method="subspace", rng=0)
    s = near.system
    wild = dataclasses.replace(near, system=BilinearSystem(2 * s.A, 2 * s.N, s.B, s.C, s.D))
    assert np.abs(wild.simulate(u)).max() > 1e50
    theta = _pem.Parameters(2 * s.A, 2 * s.N, s.C, 0 * near.K)
    whole = _pem.pieces([(y, u, u)], len(y))
    assert _pem.residuals(theta, whole, noise=False, jacobian=False) is None
    fit = fit_bilinear(y, u, 2, noise="output", start=wild, rng=0)
    assert fit.converged
    assert fit.rmse < 0.011 * size


def test_a_fit_that_does_not_converge_says_so():
    _, u, y, _ = record(2, True, 3)
    with pytest.warns(FitWarning, match="1 iterations were not enough"):
        fit = fit_bilinear(y[:400], u[:400], 2, iterations=1, rng=0)
    assert not fit.converged
    assert np.isfinite(fit.rmse)
    with pytest.warns(FitWarning, match="the time limit was reached"):
        fit_bilinear(y[:400], u[:400], 2, time_limit=1e-6, rng=0)


def test_a_layer_uses_as_many_states_as_it_has(tmp_path):
    layer = gallery.random_bilinear(2, radius=0.5, rng=0)
    u = np.random.default_rng(0).standard_normal((500, 1))
    found = fit_layer(layer.simulate(u), u, tolerance=1e-4, orders=(1, 2, 3), rng=0)
    assert found.order == 2
    assert found.table[0].held_out > 1e-2
    none = fit_layer(layer.simulate(u), u, tolerance=1e-4, orders=[1], rng=0)
    assert none.order is None
    assert "<table>" in none._repr_html_()
    again = LayerFit.load(found.save(tmp_path / "layer.npz"))
    assert (again.order, again.table) == (2, found.table)
    assert np.array_equal(again.fit.simulate(u), found.fit.simulate(u))


def test_bad_input_is_named():
    u, y = np.ones((200, 1)) + np.arange(200)[:, None] % 3, np.arange(200.0)[:, None] % 7
    with pytest.raises(ValueError, match="y, u: expected records of at least"):
        fit_bilinear(y[:20], u[:20], 3)
    with pytest.raises(ValueError, match="y: expected outputs that move"):
        fit_bilinear(0 * y, u, 2)
    with pytest.raises(ValueError, match="u: expected inputs that are not zero"):
        fit_bilinear(y, 0 * u, 2)
    with pytest.raises(ValueError, match="method: expected 'subspace' or 'pem'"):
        fit_bilinear(y, u, 2, method="n4sid")
    with pytest.raises(ValueError, match="y: expected finite numbers"):
        fit_bilinear(np.where(y > 5, np.nan, y), u, 2)
    with pytest.raises(ValueError, match="orders: expected at least one"):
        fit_layer(y, u, orders=())
