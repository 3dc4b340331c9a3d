"""Identification: known systems, measured records against published fits, stability, and hostile inputs."""

import warnings

import control
import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.realization import InnovationModel, RepairWarning, estimate_delay, identify, okid, whiteness
from solomonic.realization._linalg import triangle
from solomonic.realization.identification._noise import innovation_form
from solomonic.realization.identification._records import Records
from solomonic.realization.identification._scan import linear_states
from solomonic.realization.identification._stable import nearest_stable, spectral_radius
from solomonic.realization.identification._windows import compress

METHODS = ("cva", "moesp", "n4sid")


def simulated(seed=0, steps=3000, noise=0.1):
    """A system with two inputs and two outputs, and its data."""
    rng = np.random.default_rng(seed)
    a = np.array([[0.8, 0.3, 0.0], [-0.3, 0.8, 0.0], [0.0, 0.1, 0.5]])
    b, c, w = rng.standard_normal((3, 2)), rng.standard_normal((2, 3)), 0.2 * rng.standard_normal((3, 3))
    # The gain comes from noise covariances, so A - K C is stable and the innovations are the model's own.
    model = InnovationModel.from_statespace((a, b, c), Q=noise**2 * w @ w.T, R=noise**2 * np.eye(2))
    u = rng.standard_normal((steps, 2))
    return model, u, model.simulate(u, noise=True, rng=rng)


def response(model, z):
    return model.C @ np.linalg.solve(z * np.eye(model.order) - model.A, model.B) + model.D


def fit(y, predicted):
    return 100 * (1 - np.linalg.norm(y - predicted) / np.linalg.norm(y - y.mean(0)))


# ---------------------------------------------------------------------- known systems
@pytest.mark.parametrize("method", METHODS)
def test_a_known_system_is_found(method):
    truth, u, y = simulated()
    model = identify(y, u, method=method, order=3)
    for z in (1.0, 1j, np.exp(0.4j)):
        assert np.allclose(response(model, z), response(truth, z), atol=0.05)
    assert np.allclose(model.innovation_covariance, truth.innovation_covariance, atol=0.002)
    assert np.linalg.eigvalsh(model.innovation_covariance)[0] > 0
    assert spectral_radius(model.A - model.K @ model.C) < 1
    assert model.report.stability_price == 0


@pytest.mark.parametrize("method", METHODS)
def test_data_without_noise_are_fitted_exactly(method):
    truth, u, _ = simulated(steps=400)
    y = truth.simulate(u, noise=False)
    model = identify(y, u, method=method, order=3, past=6, future=6)
    assert fit(y, model.simulate(u, x0=model.initial_states[0])) > 99.9999
    with pytest.raises(ValueError, match="what the past shows"):
        identify(y, u, method=method, order=7, past=6, future=6)


@pytest.mark.parametrize("rule", ["auto", "bic", "svc"])
def test_the_order_is_found(rule):
    _, u, y = simulated(3)
    evidence = identify(y, u, order=rule).report.order
    assert evidence.chosen == 3
    assert set(evidence.choices) == {"aic", "bic", "svc", "gap"}
    assert evidence.criteria["bic"].argmin() == evidence.choices["bic"]
    assert "<td>" in evidence._repr_html_()


def test_the_focus_chooses_which_errors_are_small():
    """On data that no model of this order fits: the free run, or one step."""
    _, u, y = simulated(14, 2000, noise=1.0)
    run, step = (identify(y, u, order=2, past=10, focus=focus) for focus in ("simulation", "prediction"))
    size = y.std(0)  # each channel counts in units of its own spread
    free = [np.sum(((y - m.simulate(u, x0=m.initial_state(y, u))) / size) ** 2) for m in (run, step)]
    assert free[0] < free[1]
    other = InnovationModel(
        run.A, run.B, run.C, run.D, step.K, step.innovation_covariance, y_offset=run.y_offset, u_offset=run.u_offset
    )
    single = [
        np.sum(((y - m.predict(y, u, x0=x)) / size) ** 2) for m, x in ((step, step.initial_states[0]), (other, None))
    ]
    assert single[0] < single[1]


def test_cva_reaches_the_innovation_variance_of_the_kalman_filter():
    """A smaller version of the benchmark's part ``arma``: exact one-step error on the true process, 10^4 samples."""
    rng = np.random.default_rng(0)
    excess = []
    for k in range(20):
        n = 2 + k % 5
        a, b = (np.poly(_roots(rng, n, low, high)).real for low, high in ((0.3, 0.95), (0.1, 0.9)))
        y = scipy.signal.lfilter(b, a, rng.standard_normal(10_500))[500:]
        model = identify(y, order=n)
        truth = np.hstack([-a[1:, None], np.eye(n, n - 1)])
        gain, c = (b - a)[1:, None], np.eye(1, n)
        joint = np.block([[truth, np.zeros((n, n))], [model.K @ c, model.A - model.K @ model.C]])
        drive, read = np.vstack([gain, model.K]), np.hstack([c, -model.C])
        excess.append((read @ scipy.linalg.solve_discrete_lyapunov(joint, drive @ drive.T) @ read.T).item())
        assert model.innovation_covariance.item() == pytest.approx(1.0, abs=0.08)
    assert np.median(excess) < 0.02


def _roots(rng, n, low, high):
    out = []
    while len(out) < n:
        r = rng.uniform(low, high)
        if n - len(out) >= 2 and rng.random() < 0.5:
            turn = np.exp(1j * rng.uniform(0.1, 3.0))
            out += [r * turn, r / turn]
        else:
            out.append(r * rng.choice([-1, 1]))
    return out


def test_feedback_biases_projections_and_not_okid():
    """What the docs say of closed loops: the bias goes with the noise, and more data do not help."""
    poles = {}
    for noise in (0.01, 1.0):
        rng, x = np.random.default_rng(4), 0.0
        e, probe, y, u = (
            noise * rng.standard_normal(8000),
            0.5 * rng.standard_normal(8000),
            np.zeros(8000),
            np.zeros(8000),
        )
        for t in range(8000):
            y[t] = x + e[t]
            u[t] = -0.6 * y[t] + probe[t]
            x = 0.9 * x + 0.5 * u[t] + 0.7 * e[t]
        poles[noise] = identify(y, u, order=1, feedthrough=False).A.item()
    assert poles[0.01] == pytest.approx(0.9, abs=0.01)
    assert poles[1.0] < 0.8
    assert okid(y, u, lags=15, order=1, feedthrough=False).system.A.item() == pytest.approx(0.9, abs=0.05)


# ---------------------------------------------------------------------- measured records
def test_slicot_record(shared):
    lines = (shared / "data" / "slicot" / "examples" / "IB01BD.dat").read_text().split("\n", 3)[3]
    values = np.array([float(x) for x in lines.split()])
    u, y = values[:1000, None], values[1000:2000, None]
    for method in METHODS:
        for horizon in (None, 15):
            model = identify(y, u, order=4, method=method, past=horizon, future=horizon)
            assert fit(y, model.simulate(u, x0=model.initial_states[0])) >= 89.0


def test_glass_furnace(shared):
    data = next(v for k, v in scipy.io.loadmat(shared / "data" / "daisy" / "glassfurnace.mat").items() if k[0] != "_")
    u, y, k = data[:, 1:4], data[:, 4:], 2 * len(data) // 3
    model = identify(y[:k], u[:k], order=7)
    start = model.initial_state(y[k:], u[k:], samples=50)
    assert fit(y[k:], model.simulate(u[k:], x0=start)) >= 56.5


@pytest.mark.parametrize("method", METHODS)
def test_robot_arm(shared, method):
    data = next(v for k, v in scipy.io.loadmat(shared / "data" / "daisy" / "robotArm.mat").items() if k[0] != "_")
    u, y = data[:, :1], data[:, 1:]
    model = identify(y, u, order=4, method=method)
    assert fit(y, model.simulate(u, x0=model.initial_state(y, u, samples=50))) >= 95.7


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_cascaded_tanks_are_always_stable(shared, order, method):
    path = shared / "data" / "nonlinear" / "cascaded_tanks.csv"
    data = np.genfromtxt(path, delimiter=",", skip_header=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RepairWarning)
        model = identify(data[:, 2], data[:, 0], order=order, method=method)
    assert model.radius < 1
    u, y = data[:, 1:2], data[:, 3:4]
    run = model.simulate(u, x0=model.initial_state(y, u, samples=50))
    assert np.sqrt(np.mean((y - run) ** 2)) <= 0.67


@pytest.mark.parametrize("method", METHODS)
def test_smooth_inputs_whose_future_is_nearly_told_by_their_past(method):
    """The oblique projection of N4SID then is all extrapolation; its weight must not let that lead."""
    rng = np.random.default_rng(0)
    sos = scipy.signal.butter(6, 0.05, output="sos")
    u = scipy.signal.sosfilt(sos, rng.standard_normal(3000))
    u = u / u.std() + 1e-4 * rng.standard_normal(3000)
    truth = InnovationModel([[0.9, 0.2], [-0.2, 0.9]], [[1.0], [0.5]], [[1.0, 0.3]], [[0.0]], np.zeros((2, 1)), [[1.0]])
    y = truth.simulate(u, noise=True, rng=rng)
    model = identify(y, u, order=2, method=method, past=20, future=20)
    clean = truth.simulate(u, noise=False)
    assert fit(clean[50:], model.simulate(u)[50:]) > 95


# ---------------------------------------------------------------------- stability
@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(1.001, 1.6))
def test_the_nearest_stable_matrix_is_nearer_than_clipping_and_scaling(seed, n, radius):
    a = np.random.default_rng(seed).standard_normal((n, n))
    a *= radius / spectral_radius(a)
    found = nearest_stable(a, 0.99)
    assert spectral_radius(found.matrix) <= 0.99
    assert found.distance == pytest.approx(np.linalg.norm(found.matrix - a), rel=1e-9)
    scaled = a * (0.99 / radius)
    assert found.distance <= np.linalg.norm(scaled - a) * 1.001 + 1e-3 * np.linalg.norm(a)


def test_an_unstable_fit_is_constrained_and_says_what_that_cost():
    y = 1.02 ** np.arange(300) + np.random.default_rng(2).standard_normal(300)
    free = identify(y, order=2, stable=False)
    assert free.radius > 1
    with pytest.warns(RepairWarning, match="costs"):
        kept = identify(y, order=2)
    assert kept.radius < 1
    assert 0 < kept.report.stability_price < 0.05
    assert kept.report.free_radius == pytest.approx(free.radius)


# ---------------------------------------------------------------------- records, delays, missing samples
def test_several_records_are_one_data_set():
    truth, u, y = simulated(4, 3000)
    cuts = [slice(0, 900), slice(900, 1500), slice(1500, 3000)]
    whole, parts = identify(y, u, order=3), identify([y[c] for c in cuts], [u[c] for c in cuts], order=3)
    assert len(parts.initial_states) == len(parts.innovations) == 3
    for z in (1.0, 1j):
        assert np.allclose(response(parts, z), response(truth, z), atol=0.06)
        assert np.allclose(response(parts, z), response(whole, z), atol=0.06)


def test_missing_samples_at_the_ends_and_inside():
    truth, u, y = simulated(5, 2000)
    ends = y.copy()
    ends[:7], ends[-20:, 1] = np.nan, np.nan
    with pytest.raises(ValueError, match=r"NaN at sample 0, channel 0 \(27 samples"):
        identify(ends, u, order=3)
    trimmed, plain = identify(ends, u, order=3, missing="trim"), identify(y[7:-20], u[7:-20], order=3)
    assert np.array_equal(trimmed.A, plain.A)
    ends[1000] = np.nan
    with pytest.raises(ValueError, match="gap at sample 1000"):
        identify(ends, u, order=3, missing="trim")
    split = identify(ends, u, order=3, missing="split")
    assert len(split.initial_states) == 2
    assert np.allclose(response(split, 1j), response(truth, 1j), atol=0.06)


def test_delays_are_found_and_kept():
    rng = np.random.default_rng(6)
    u = rng.standard_normal((3000, 2))
    moved = np.stack([np.r_[np.zeros(9), u[:-9, 0]], np.r_[np.zeros(3), u[:-3, 1]]], 1)
    truth = InnovationModel([[0.7]], [[1.0, -0.5]], [[1.0]], [[0.3, 0.2]], [[0.1]], [[0.01]])
    y = truth.simulate(moved, noise=True, rng=rng)
    assert estimate_delay(y, u) == (9, 3)
    model = identify(y, u, order=1, delay="auto")
    assert model.delay == (9, 3)
    assert np.allclose((model.C @ model.B).ravel(), [1.0, -0.5], atol=0.05)
    assert fit(y[50:], model.predict(y, u)[50:]) > 90
    sys = model.to_statespace()
    assert sys.nstates == 1 + 12
    deviation = control.forced_response(sys, inputs=(u - model.u_offset).T).outputs
    assert np.allclose(deviation + model.y_offset, model.simulate(u).ravel(), atol=1e-9)


def test_offsets_are_kept():
    _, u, y = simulated(7)
    model = identify(y + 100, u - 40, order=3)
    assert fit(y + 100, model.predict(y + 100, u - 40)) > 80
    assert np.allclose(model.y_offset, (y + 100).mean(0))


@pytest.mark.parametrize("unit", [1e-6, 1e5])
def test_units_do_not_matter(unit):
    _, u, y = simulated(8, 1500)
    one, other = identify(y, u, order=3, past=8), identify(unit * y, u / unit, order=3, past=8)
    assert np.allclose(
        np.sort_complex(np.linalg.eigvals(one.A)), np.sort_complex(np.linalg.eigvals(other.A)), atol=1e-6
    )
    assert np.allclose(unit * one.predict(y, u), other.predict(unit * y, u / unit), rtol=1e-5, atol=1e-5 * unit)


# ---------------------------------------------------------------------- the model
def test_predictions_are_those_of_a_plain_loop():
    truth, u, y = simulated(9, 60)
    for k in (1, 2, 5):
        expected = np.empty_like(y)
        for t in range(len(y)):
            x = np.zeros(3)
            for s in range(t):
                e = y[s] - truth.C @ x - truth.D @ u[s] if s <= t - k else np.zeros(2)
                x = truth.A @ x + truth.B @ u[s] + truth.K @ e
            expected[t] = truth.C @ x + truth.D @ u[t]
        assert np.allclose(truth.predict(y, u, steps=k), expected, atol=1e-10)


def test_predictions_get_worse_with_distance_and_end_at_the_free_run():
    truth, u, y = simulated(10, 4000, noise=0.5)
    errors = [np.var(y - truth.predict(y, u, steps=k)) for k in (1, 2, 4, 8, 60)]
    assert errors[0] < errors[1] < errors[2] * 1.02
    assert np.allclose(truth.predict(y, u, steps=4000), truth.simulate(u, noise=False), atol=1e-9)


def test_conversion_there_and_back():
    truth, u, y = simulated(11, 200)
    q, r = truth.K @ truth.innovation_covariance @ truth.K.T, truth.innovation_covariance
    sys = truth.to_statespace()
    again = InnovationModel.from_statespace(sys, Q=q, R=r, S=truth.K @ truth.innovation_covariance)
    assert np.allclose(again.K, truth.K, atol=1e-8)
    assert np.allclose(again.predict(y, u), truth.predict(y, u), atol=1e-8)
    noisy = truth.to_statespace(noise=True)
    assert noisy.ninputs == 4
    with pytest.raises(ValueError, match="either Q and R"):
        InnovationModel.from_statespace(sys)


def test_the_gain_is_that_of_control():
    rng = np.random.default_rng(0)
    a, c = np.array([[0.9, 0.2], [0.0, 0.7]]), np.array([[1.0, 0.5]])
    w = rng.standard_normal((2, 2))
    form = innovation_form(a, c, w @ w.T, np.zeros((2, 1)), np.eye(1))
    theirs, state, _ = control.dlqe(a, np.eye(2), c, w @ w.T, np.eye(1))
    assert np.allclose(form.K, theirs, atol=1e-9)
    assert np.allclose(form.state_covariance, state, atol=1e-9)


def test_models_are_saved_and_read(tmp_path):
    _, u, y = simulated(12, 800)
    model = identify(y, u, order=3, delay=2)
    again = InnovationModel.load(model.save(tmp_path / "a"))
    assert np.array_equal(again.predict(y, u), model.predict(y, u))
    assert again.delay == (2, 2)
    assert repr(again.report) == repr(model.report)
    assert len(again.innovations) == 1
    assert again.whiteness(permutations=0).statistic == model.whiteness(permutations=0).statistic


@pytest.mark.parametrize("shape", [(50, 7), (7, 50), (6, 6), (0, 3), (3, 0)])
def test_the_triangular_factor_is_that_of_numpy(shape):
    rng = np.random.default_rng(0)
    for matrix in (rng.standard_normal(shape), rng.standard_normal(shape) + 1j * rng.standard_normal(shape)):
        kept = matrix.copy()
        r = triangle(matrix)
        assert r.shape == (min(shape), shape[1])
        assert np.array_equal(r, np.triu(r))
        assert np.allclose(r.conj().T @ r, matrix.conj().T @ matrix)
        assert np.allclose(np.abs(r), np.abs(np.linalg.qr(matrix, mode="r")))
        assert np.array_equal(matrix, kept)


@pytest.mark.parametrize("smooth", [0.0, 0.9999])
def test_windows_are_compressed_without_loss(smooth):
    """By the Gram matrix of good data and by QR of bad ones: the factor is numpy's, up to signs."""
    y = scipy.signal.lfilter([1.0], [1.0, -smooth], np.random.default_rng(0).standard_normal((400, 2)), axis=0)
    factor, count = compress(Records((y,), (np.empty((400, 0)),)), 3, 3)
    rows = np.lib.stride_tricks.sliding_window_view(y, 6, axis=0).transpose(0, 2, 1).reshape(395, 12)
    assert count == 395
    assert np.allclose(np.abs(factor), np.abs(np.linalg.qr(rows, mode="r")), rtol=1e-9, atol=1e-9)


def test_states_of_a_long_recursion():
    rng = np.random.default_rng(0)
    a = np.array([[0.9, 0.3], [-0.2, 0.8]])
    drive = rng.standard_normal((50_000, 2))
    x = linear_states(a, drive, np.ones(2))
    assert np.allclose(x[1:], x[:-1] @ a.T + drive, atol=1e-9)


# ---------------------------------------------------------------------- whiteness
def test_ljung_box_is_that_of_statsmodels():
    diagnostic = pytest.importorskip("statsmodels.stats.diagnostic")
    e = np.random.default_rng(0).standard_normal(300)
    theirs = diagnostic.acorr_ljungbox(e, lags=[10])
    ours = whiteness(e, lags=10, permutations=0)
    # statsmodels divides by T (T + 2), this by T^2 as in the multivariate statistic
    assert ours.statistic * 302 / 300 == pytest.approx(theirs["lb_stat"].item(), rel=1e-9)


def test_both_tests_reject_at_their_level():
    rng = np.random.default_rng(1)
    gaussian = [whiteness(rng.standard_normal((120, 2)), lags=5, permutations=39, rng=k) for k in range(200)]
    heavy = [whiteness(rng.standard_t(1.5, 120), lags=5, permutations=39, rng=k) for k in range(200)]
    for rate in (
        np.mean([w.p_value <= 0.05 for w in gaussian]),
        np.mean([w.permutation_p_value <= 0.05 for w in gaussian]),
        np.mean([w.permutation_p_value <= 0.05 for w in heavy]),
    ):
        assert 0.01 <= rate <= 0.10  # 5 % of 200, within three standard errors
    colored = whiteness(scipy.signal.lfilter([1], [1, -0.5], rng.standard_normal(300)), permutations=99)
    assert colored.p_value < 1e-6
    assert colored.permutation_p_value == 0.01


def test_the_innovations_of_a_good_model_are_white_and_of_a_poor_one_are_not():
    rng = np.random.default_rng(3)
    y = scipy.signal.lfilter([1, 0.5, 0.4], [1, -1.2, 0.7], rng.standard_normal(3000))
    assert identify(y, order=2, past=20).whiteness(permutations=99).p_value > 0.01
    assert identify(y, order=1, past=20).whiteness(permutations=99).permutation_p_value == 0.01


# ---------------------------------------------------------------------- bad input
def good():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((200, 2))
    return scipy.signal.lfilter([0, 1], [1, -0.5], u, axis=0) + 0.1 * rng.standard_normal((200, 2)), u


def hole(y, value):
    out = y.copy()
    out[15, 1] = value
    return out


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda y, u: (y[:20], u[:20]), {"past": 8, "future": 8}, ValueError, "longer records or shorter horizons"),
        (lambda y, u: (y[:4], u[:4]), {}, ValueError, "windows"),
        (lambda y, u: (y, u[:-1]), {}, ValueError, "200 samples, as many as y has, got 199"),
        (lambda y, u: (y * [1, 0], u), {}, ValueError, r"y: .*constant channel\(s\) \[1\]"),
        (lambda y, u: (y, u * [0, 1] + 3), {}, ValueError, r"u: .*constant channel\(s\) \[0\]"),
        (lambda y, u: (y @ [[1, 2], [0, 0]], u), {}, ValueError, r"y: .*rank 1; channels \[0, 1\]"),
        (lambda y, u: (y, u[:, [0, 0]]), {}, ValueError, "u: .*linearly independent"),
        (lambda y, u: (hole(y, np.nan), u), {}, ValueError, "sample 15, channel 1"),
        (lambda y, u: (hole(y, np.inf), u), {}, ValueError, "infinity at sample 15"),
        (lambda y, u: (y, np.sin(0.3 * np.arange(200))), {"past": 5, "future": 5}, ValueError, "excite"),
        (lambda y, u: (y.astype(complex), u), {}, TypeError, "real"),
        (lambda y, u: ([y, y], u), {}, TypeError, "one array a record"),
        (lambda y, u: ([y, y], [u]), {}, ValueError, "2 records"),
        (lambda y, u: (y, u), {"order": 30, "past": 5, "future": 5}, ValueError, "raise future="),
        (lambda y, u: (y, u), {"order": "best"}, ValueError, "'auto'"),
        (lambda y, u: (y, u), {"method": "magic"}, ValueError, "cva, moesp, n4sid"),
        (lambda y, u: (y, u), {"missing": "drop"}, ValueError, "trim"),
        (lambda y, u: (y, u), {"delay": [1, 2, 3]}, ValueError, "each of 2 inputs"),
        (lambda y, u: (y, u), {"delay": 500}, ValueError, "shorter than the record"),
        (lambda y, u: (y, u), {"focus": "far"}, ValueError, "'simulation' or 'prediction'"),
        (lambda y, u: (y[:, :, None], u), {}, ValueError, "shape"),
    ],
)  # fmt: skip
def test_bad_input(change, options, error, message):
    with pytest.raises(error, match=message):
        identify(*change(*good()), **options)


def test_bad_input_of_a_model():
    truth, u, y = simulated(13, 50)
    with pytest.raises(ValueError, match="u: expected 2 inputs, got none"):
        truth.predict(y)
    with pytest.raises(ValueError, match="y: expected 2 channels"):
        truth.predict(y[:, :1], u)
    with pytest.raises(ValueError, match="steps"):
        truth.simulate(u, steps=3)
    with pytest.raises(ValueError, match="give y and u"):
        truth.whiteness()
    with pytest.raises(ValueError, match="NaN at sample 2"):
        truth.predict(np.where(np.arange(100).reshape(50, 2) == 5, np.nan, y), u)
