"""Stochastic realization: closed forms, independent solvers, and the Lindquist-Picci pair as executable statements."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from solomonic.realization import (
    Covariances,
    DynamicTexture,
    FaurreInterval,
    InnovationModel,
    RepairWarning,
    StochasticModel,
    backward_model,
    canonical_correlations,
    equivalent,
    faurre,
    film,
    find_changes,
    forward_model,
    ho_kalman,
    identify,
    kalman_filter,
    kalman_smoother,
    mutual_information,
    positive_real,
    reverse_kernel,
    sample_canonical_correlations,
    sample_covariances,
    spectral_factor,
    time_reverse,
)


def process(seed, n=3, p=2, radius=0.9, noise=None):
    """A random process: covariances of x+ = A x + B w, y = C x + D w."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, n))
    a *= radius / np.abs(np.linalg.eigvals(a)).max()
    k = n + p if noise is None else noise
    b, c, d = rng.standard_normal((n, k)), rng.standard_normal((p, n)), rng.standard_normal((p, k))
    state = scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
    cov = Covariances(a, c, (a @ state @ c.T + b @ d.T).T, c @ state @ c.T + d @ d.T)
    return cov, state


def minimal_beyond_rounding(cov):
    """Whether the Hankel matrix of the covariances shows all states well above rounding."""
    n = len(cov.A)
    blocks = cov.sequence(2 * n)[1:]
    values = np.linalg.svd(np.block([[blocks[i + j] for j in range(n)] for i in range(n)]), compute_uv=False)
    return values[n - 1] > 1e-7 * values[0]


def riccati_iteration(cov, steps=3000):
    """P- by the plain recursion from zero, kept symmetric: it is unstable for skew-symmetric rounding errors."""
    a, c, cbar, l0 = cov
    p, change = np.zeros_like(a), np.inf
    for _ in range(steps):
        cross = cbar.T - a @ p @ c.T
        new = a @ p @ a.T + cross @ np.linalg.solve(l0 - c @ p @ c.T, cross.T)
        new = (new + new.T) / 2
        change = np.abs(new - p).max() / np.abs(new).max()
        if change <= 1e-15:
            return new
        p = new
    if change <= 1e-12:  # the last digits may turn in a circle
        return p
    raise AssertionError("the plain iteration did not settle")


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3), st.floats(0.3, 0.98))
def test_both_ends_are_those_of_the_riccati_iteration(seed, n, p, radius):
    cov, state = process(seed, n, p, radius)
    assume(minimal_beyond_rounding(cov))
    found = faurre(*cov)
    assume(np.abs(spectral_factor(*cov).zeros).max() < 0.98)  # where the plain iteration settles in a few hundred steps
    low = riccati_iteration(cov)
    high = np.linalg.inv(riccati_iteration(Covariances(cov.A.T, cov.Cbar, cov.C, cov.L0)))
    assert np.abs(found.P_minus - low).max() <= 1e-10 * np.abs(low).max()
    # The inverse of P+ is what the dual iteration gives; inverting it costs its condition number.
    slack = 1e-10 * np.abs(high).max() * max(1.0, 1e-4 * np.linalg.cond(high))
    assert np.abs(found.P_plus - high).max() <= slack
    assert found.contains(state)
    assert np.linalg.eigvalsh(state - found.P_minus)[0] >= -1e-8 * np.abs(state).max()
    assert np.linalg.eigvalsh(found.P_plus - state)[0] >= -1e-8 * np.abs(found.P_plus).max()


def test_both_ends_are_those_of_scipy():
    cov, _ = process(1)
    a, c, cbar, l0 = cov
    n = len(a)
    found = faurre(*cov)
    minus = scipy.linalg.solve_discrete_are(a.T, c.T, np.zeros((n, n)), -l0, s=-cbar.T)
    plus = np.linalg.inv(scipy.linalg.solve_discrete_are(a, cbar.T, np.zeros((n, n)), -l0, s=-c.T))
    assert np.allclose(found.P_minus, minus, rtol=0, atol=1e-10 * np.abs(minus).max())
    assert np.allclose(found.P_plus, plus, rtol=0, atol=1e-10 * np.abs(plus).max())


@pytest.mark.parametrize("b", [0.5, -0.3, 2.0, 1e-3, 0.999])
@pytest.mark.parametrize("variance", [1.0, 9.0])
def test_a_moving_average_has_two_models(b, variance):
    """A = 0, C = 1: P^2 - L0 P + Cbar^2 = 0, so P is b^2 s^2 or s^2."""
    found = faurre([[0.0]], [[1.0]], [[b * variance]], [[(1 + b * b) * variance]])
    low, high = sorted([b * b * variance, variance])
    assert found.P_minus.item() == pytest.approx(low, rel=1e-12)
    assert found.P_plus.item() == pytest.approx(high, rel=1e-12)


def test_a_zero_on_the_unit_circle_leaves_one_model():
    found = faurre([[0.0]], [[1.0]], [[1.0]], [[2.0]])
    assert found.P_minus.item() == pytest.approx(1.0, abs=1e-6)  # double root: half the digits
    assert found.P_plus.item() == pytest.approx(1.0, abs=1e-6)


def test_the_set_is_convex_and_its_ends_are_extreme():
    cov, state = process(5, n=2, p=1)
    found = faurre(*cov)
    for theta in (0.0, 0.25, 1.0):
        assert found.contains(found.between(theta))
    assert found.contains(0.5 * state + 0.5 * found.P_plus)
    assert not found.contains(found.P_minus - 1e-3 * np.eye(2))
    assert not found.contains(found.P_plus + 1e-3 * np.eye(2))
    for end in (found.P_minus, found.P_plus):
        assert forward_model(*cov, P=end).B.shape[1] == 1


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["minus", "plus", 0.4]))
@example(357, 4, 1, "minus")  # an output noise of 1e-7 of the state's
def test_every_member_generates_the_process_forward_and_backward(seed, n, p, member):
    cov, _ = process(seed, n, p)
    assume(minimal_beyond_rounding(cov))
    P = faurre(*cov).between(member) if isinstance(member, float) else member
    lags = 2 * n + 2
    truth = cov.sequence(lags)
    for model in (forward_model(*cov, P=P), backward_model(*cov, P=P)):
        assert np.allclose(model.covariances().sequence(lags), truth, atol=1e-7 * np.abs(truth).max())
        gap = model.P - model.A @ model.P @ model.A.T - model.B @ model.B.T
        assert np.abs(gap).max() <= 1e-7 * np.abs(model.P).max()


def test_forward_and_backward_have_the_same_spectrum():
    cov, _ = process(7)
    w = np.linspace(0, np.pi, 17)
    forward, backward = forward_model(*cov), backward_model(*cov)
    for model in (forward, backward):
        assert np.allclose(model.covariances().spectrum(w), cov.spectrum(w), rtol=1e-9)
    for angle in (0.3, 2.0):  # and as a product of filters: W(z) W(1/z)^T, transposed where time is reversed
        z = np.exp(1j * angle)
        response = forward.to_statespace()(z)
        assert np.allclose(response @ response.conj().T, cov.spectrum([angle])[0], rtol=1e-9)
        response = backward.to_statespace()(z)
        assert np.allclose(response @ response.conj().T, cov.spectrum([angle])[0].T, rtol=1e-9)


def test_a_backward_simulation_read_in_time_has_the_forward_covariances():
    cov, _ = process(11, n=2, p=2, radius=0.8)
    truth = cov.sequence(4)
    count = 200_000
    for model in (forward_model(*cov), backward_model(*cov)):
        seen = sample_covariances(model.simulate(count, rng=3).y, 4)
        assert np.allclose(seen, truth, atol=0.03 * np.abs(truth[0]).max())
    # The wrong reading is told apart: the covariances of a process that is not reversible are not symmetric.
    assert np.abs(truth[1] - truth[1].T).max() > 0.1 * np.abs(truth[0]).max()


def test_the_backward_noise_on_a_forward_path_is_white_and_blind_to_the_future():
    cov, _ = process(13, n=2, p=1, radius=0.8)
    model = forward_model(*cov, P=faurre(*cov).between(0.5))
    path = model.simulate(100_000, rng=1)
    back = time_reverse(model)
    costate = np.linalg.solve(model.P, path.states.T).T  # row t + 1 is P^-1 x_{t+1}, the backward state at t
    noise = costate[:-2] - costate[1:-1] @ back.A.T  # what enters the step from t to t - 1
    for lag in (1, 2, 5):
        assert np.abs(noise[:-lag].T @ noise[lag:]).max() / len(noise) < 0.02 * np.abs(noise.T @ noise).max() / len(
            noise
        )
    later = path.y[2:-1]
    size = np.sqrt(np.mean(noise**2) * np.mean(later**2))
    assert np.abs(noise[: len(later)].T @ later).max() / len(later) < 0.02 * size


def test_reversing_twice_gives_the_model_back():
    cov, _ = process(17)
    model = forward_model(*cov, P=faurre(*cov).between(0.3))
    twice = time_reverse(time_reverse(model))
    assert twice.direction == "forward"
    for name in ("A", "C", "P"):
        assert np.allclose(getattr(twice, name), getattr(model, name), atol=1e-8)
    assert np.allclose(twice.B @ twice.B.T, model.B @ model.B.T, atol=1e-8)


def test_the_reverse_of_a_diffusion_is_the_same_formula():
    """Ho, Jain and Abbeel (2020): x_{t-1} = (x_t + beta score) / sqrt(1 - beta) + noise, for Gaussian data."""
    for data, beta in ((4.0, 0.02), (0.3, 0.5), (1.0, 0.1)):
        step = reverse_kernel([[np.sqrt(1 - beta)]], [[beta]], [[data]])
        after = (1 - beta) * data + beta
        score = -1 / after
        assert step.gain.item() == pytest.approx((1 + beta * score) / np.sqrt(1 - beta), rel=1e-12)
        assert step.covariance.item() == pytest.approx(beta * data / after, rel=1e-12)
    # Stationary (data of variance 1): the backward model of Lindquist and Picci, in the forward coordinates.
    a = np.sqrt(1 - 0.1)
    step = reverse_kernel([[a]], [[0.1]], [[1.0]])
    model = forward_model([[a]], [[1.0]], [[a]], [[1.5]], P=[[1.0]])
    back = time_reverse(model)
    assert step.gain.item() == pytest.approx((model.P @ back.A @ np.linalg.inv(model.P)).item())
    assert step.covariance.item() == pytest.approx((model.P @ back.B @ back.B.T @ model.P).item())


def test_a_small_reverse_step_is_the_reverse_equation_of_anderson():
    rng = np.random.default_rng(0)
    f, g, p = rng.standard_normal((3, 3)), rng.standard_normal((3, 3)), np.diag([1.0, 2.0, 0.5])
    errors = []
    for h in (1e-3, 1e-4):
        step = reverse_kernel(np.eye(3) + h * f, h * g @ g.T, p)
        anderson = np.eye(3) - h * (f + g @ g.T @ np.linalg.inv(step.after))
        errors.append(np.abs(step.gain - anderson).max())
        assert np.allclose(step.covariance, h * g @ g.T, atol=50 * h**2)
    assert errors[1] < 0.02 * errors[0]  # second order in h


def test_spectral_factors_have_their_zeros_on_one_side():
    cov, _ = process(19, n=4, p=2)
    low, high = spectral_factor(*cov), spectral_factor(*cov, phase="maximum")
    assert np.abs(low.zeros).max() < 1 < np.abs(high.zeros).min()
    for angle in (0.0, 0.7, 3.0):
        for factor in (low, high):
            response = factor.system(np.exp(1j * angle))
            assert np.allclose(response @ response.conj().T, cov.spectrum([angle])[0], rtol=1e-8)
    assert np.linalg.slogdet(low.covariance)[1] > np.linalg.slogdet(high.covariance)[1]


def test_a_polynomial_factor_is_that_of_its_roots():
    """Moving average of order 3: the factor's coefficients, from a nilpotent A."""
    b = np.array([1.0, 0.5, -0.3, 0.1])
    lags = np.array([b[: 4 - k] @ b[k:] for k in range(4)])
    a, c = np.eye(3, k=1), np.eye(1, 3)
    factor = spectral_factor(a, c, lags[None, 1:], lags[None, :1])
    assert np.allclose(factor.gain.ravel(), b[1:], atol=1e-10)
    assert factor.covariance.item() == pytest.approx(1.0, abs=1e-10)


def test_positive_real_at_the_border_of_moving_averages():
    """y = e + b e_{-1}: correlations up to 1/2 exist, and the density at pi is 1 - 2 rho."""
    for rho in (0.3, 0.49, 0.51, -0.6):
        found = positive_real([[0.0]], [[1.0]], [[rho]], [[1.0]])
        assert found.verdict is (abs(rho) < 0.5)
        assert found.margin == pytest.approx(1 - 2 * abs(rho), abs=1e-10)
        assert found.frequency == pytest.approx(np.pi if rho > 0 else 0.0, abs=1e-6)
    assert positive_real([[0.0]], [[1.0]], [[0.5]], [[1.0]]).verdict is None


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 2), st.floats(0.3, 0.999))
def test_the_margin_is_the_least_over_a_fine_grid(seed, n, p, radius):
    cov, _ = process(seed, n, p, radius)
    white = np.linalg.inv(np.linalg.cholesky(cov.L0))
    density = white @ cov.spectrum(np.linspace(0, np.pi, 20_001)) @ white.T
    grid = np.linalg.eigvalsh(density)[:, 0].min()
    found = positive_real(*cov)
    assert found.margin <= grid + 1e-9
    assert found.margin >= grid - 0.02 * abs(grid) - 1e-6
    assert found.verdict is True


@pytest.mark.parametrize("repair", ["shrink", "lift"])
def test_repair_is_the_least_that_leaves_the_margin(repair):
    a, c = np.array([[0.9, 0.2], [-0.2, 0.9]]), np.array([[1.0, 0.0]])
    cbar, l0 = np.array([[1.5, 0.3]]), np.array([[1.2]])
    assert positive_real(a, c, cbar, l0).verdict is False
    with pytest.raises(ValueError, match="positive_real"):
        faurre(a, c, cbar, l0)
    with pytest.warns(RepairWarning, match="%"):
        found = positive_real(a, c, cbar, l0, repair=repair, margin=0.01)
    again = positive_real(*found.covariances)
    assert again.margin == pytest.approx(0.01, rel=1e-6)
    assert again.verdict is True
    assert found.amount > 0
    assert faurre(*found.covariances).contains(faurre(*found.covariances).P_plus)


def test_truncated_sample_covariances_need_the_repair():
    """Dahlen, Lindquist and Mari: Ho-Kalman on sample covariances can leave the positive sequences."""
    b = np.poly([0.95, -0.95, 0.9j, -0.9j]).real
    failed = 0
    for seed in range(12):
        y = np.convolve(np.random.default_rng(seed).standard_normal(300), b)[:300]
        sys = ho_kalman(sample_covariances(y, 12), 2).system
        if np.abs(sys.poles()).max() >= 1:
            continue
        cov = (sys.A, sys.C, sys.B.T, sys.D)
        if positive_real(*cov).verdict is False:
            failed += 1
            with pytest.warns(RepairWarning):
                mended = positive_real(*cov, repair="shrink").covariances
            assert faurre(*mended).P_minus.shape == (2, 2)
    assert failed > 0


def test_canonical_correlations_of_model_and_data_agree():
    cov, _ = process(23, n=2, p=1, radius=0.8)
    truth = canonical_correlations(*cov)
    series = forward_model(*cov).simulate(100_000, rng=5).y
    seen = sample_canonical_correlations(series, past=12, future=12)
    assert np.allclose(
        seen[:2], truth, atol=4 * 3 / np.sqrt(len(series))
    )  # serial correlation: some 3 times 1 / sqrt T
    assert seen[2] < 2 * (np.sqrt(12) + np.sqrt(12)) / np.sqrt(len(series))


def test_canonical_correlations_are_the_singular_values_of_the_whitened_hankel_matrix():
    cov, _ = process(29, n=3, p=1, radius=0.7)
    lags = cov.sequence(200).ravel()
    toeplitz = scipy.linalg.toeplitz(lags[:100])
    hankel = scipy.linalg.hankel(lags[1:101], lags[100:200])
    root = np.linalg.cholesky(toeplitz)
    whole = scipy.linalg.solve_triangular(root, scipy.linalg.solve_triangular(root, hankel, lower=True).T, lower=True)
    assert np.allclose(np.linalg.svd(whole, compute_uv=False)[:3], canonical_correlations(*cov), atol=1e-9)


def test_information_of_an_autoregression():
    a = 0.6
    s = canonical_correlations([[a]], [[1.0]], [[a]], [[1.0]])
    assert mutual_information(s) == pytest.approx(-0.5 * np.log(1 - a * a))
    with pytest.raises(ValueError, match="from 0 to 1"):
        mutual_information([1.2])


# ---------------------------------------------------------------------- filter and smoother
def dense_smoother(model, y):
    """Conditional mean and covariance of the states by the joint Gaussian law, and the likelihood."""
    steps, n, p = len(y), model.order, len(model.C)
    a, b, c, d = model.A, model.B, model.C, model.D
    k = b.shape[1]
    lift = np.zeros((steps * n, n + steps * k))  # states from (x_0 root, noises)
    root = np.linalg.cholesky(model.P)
    lift[:n, :n] = root
    for t in range(1, steps):
        lift[t * n : t * n + n] = a @ lift[t * n - n : t * n]
        lift[t * n : t * n + n, n + (t - 1) * k : n + t * k] += b
    out = np.kron(np.eye(steps), c) @ lift
    for t in range(steps):
        out[t * p : t * p + p, n + t * k : n + t * k + k] += d
    flat = y.ravel()
    seen = ~np.isnan(flat)
    cross, var = lift @ out[seen].T, out[seen] @ out[seen].T
    mean = (cross @ np.linalg.solve(var, flat[seen])).reshape(steps, n)
    cov = lift @ lift.T - cross @ np.linalg.solve(var, cross.T)
    blocks = np.array([cov[t * n : t * n + n, t * n : t * n + n] for t in range(steps)])
    size = np.linalg.slogdet(var)[1]
    likelihood = -0.5 * (seen.sum() * np.log(2 * np.pi) + size + flat[seen] @ np.linalg.solve(var, flat[seen]))
    return mean, blocks, likelihood


@pytest.mark.parametrize("member", ["minus", "plus", 0.5])
@pytest.mark.parametrize("gaps", [False, True])
def test_filter_and_smoother_are_the_joint_gaussian_law(member, gaps):
    cov, _ = process(31, n=3, p=2, radius=0.8)
    P = faurre(*cov).between(member) if isinstance(member, float) else member
    model = forward_model(*cov, P=P)
    y = model.simulate(40, rng=2).y.copy()
    if gaps:
        y[3], y[10:14, 0], y[-1] = np.nan, np.nan, np.nan
    mean, blocks, likelihood = dense_smoother(model, y)
    found, filtered = kalman_smoother(model, y), kalman_filter(model, y)
    assert np.allclose(found.states, mean, atol=1e-7)
    assert np.allclose(found.covariances, blocks, atol=1e-7)
    assert filtered.log_likelihood == pytest.approx(likelihood, rel=1e-9)
    assert filtered.innovations.shape == y.shape


def test_the_backward_filter_is_the_forward_filter_of_reversed_time():
    cov, _ = process(37, n=2, p=1)
    y = forward_model(*cov).simulate(300, rng=0).y
    forward, backward = kalman_filter(forward_model(*cov), y), kalman_filter(backward_model(*cov), y)
    assert forward.log_likelihood == pytest.approx(backward.log_likelihood, rel=1e-9)
    mirrored = StochasticModel(*(getattr(backward_model(*cov), name) for name in "ABCDP"), "forward")
    assert np.allclose(kalman_filter(mirrored, y[::-1]).predicted[::-1], backward.predicted)


def test_smoothing_does_not_know_the_direction_of_time():
    cov, _ = process(41, n=2, p=1, radius=0.8)
    model = forward_model(*cov, P=faurre(*cov).between(0.5))
    y = model.simulate(60, rng=0).y
    ahead, back = kalman_smoother(model, y), kalman_smoother(time_reverse(model), y)
    assert np.allclose(back.states[:-1] @ model.P, ahead.states[1:], atol=1e-8)


def test_a_long_record_reaches_the_steady_filter():
    cov, _ = process(43, n=3, p=1)
    model = forward_model(*cov, P=faurre(*cov).between(0.5))
    y = model.simulate(5000, rng=0).y
    found = kalman_filter(model, y)
    assert found.steady_after < 2000
    factor = spectral_factor(*cov)
    assert np.allclose(found.innovation_covariances[-1], factor.covariance, rtol=1e-8)
    assert np.var(found.innovations) == pytest.approx(factor.covariance.item(), rel=0.1)


def test_statsmodels_has_the_same_likelihood():
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax")
    y = np.random.default_rng(0).standard_normal(200).cumsum() * 0.1
    theirs = sarimax.SARIMAX(y, order=(2, 0, 1), trend="n").loglike([0.5, 0.2, 0.4, 1.3])
    a, k = np.array([[0.5, 1.0], [0.2, 0.0]]), np.array([[0.9], [0.2]])
    c, sigma = np.array([[1.0, 0.0]]), np.array([[1.3]])
    ours = InnovationModel(a, np.zeros((2, 0)), c, np.zeros((1, 0)), k, sigma)
    model = forward_model(*ours.covariances())
    assert kalman_filter(model, y).log_likelihood == pytest.approx(theirs, rel=1e-8)


def test_the_forward_model_of_an_innovation_model_is_itself():
    a, k, c = np.array([[0.7, 0.2], [-0.1, 0.5]]), np.array([[0.4], [0.3]]), np.array([[1.0, 0.5]])
    ours = InnovationModel(a, np.zeros((2, 0)), c, np.zeros((1, 0)), k, [[2.0]])
    model = forward_model(*ours.covariances())
    assert np.allclose(model.B, k * np.sqrt(2.0), atol=1e-9)
    assert equivalent(model.to_statespace(), ours.to_statespace(noise=True)).verdict is False  # scaled noise
    factor = spectral_factor(*ours.covariances())
    assert np.allclose(factor.gain, k, atol=1e-9)


def test_models_are_saved_and_read(tmp_path):
    cov, _ = process(3)
    model = backward_model(*cov)
    path = model.save(tmp_path / "model")
    again = StochasticModel.load(path)
    assert again.direction == "backward"
    assert all(np.array_equal(getattr(again, x), getattr(model, x)) for x in "ABCDP")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        StochasticModel.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="saved 'StochasticModel'"):
        InnovationModel.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": [[1.0]]}, "stable"),
        ({"A": [[0.5, 0.0]]}, "square"),
        ({"L0": [[-1.0]]}, "positive definite"),
        ({"L0": [[1.0, 0.0]]}, "shape"),
        ({"Cbar": [[np.nan]]}, "NaN"),
        ({"Cbar": [[0.0]]}, "reachable"),
        ({"C": [[0.0]]}, "observable"),
        ({"Cbar": [[5.0]]}, "positive real"),
    ],
)
def test_bad_covariances(change, message):
    given = {"A": [[0.5]], "C": [[1.0]], "Cbar": [[0.4]], "L0": [[1.0]]} | change
    with pytest.raises(ValueError, match=message):
        faurre(**given)


def test_bad_members():
    cov, _ = process(2, n=2, p=1)
    with pytest.raises(ValueError, match="M\\(P\\) >= 0"):
        forward_model(*cov, P=100 * faurre(*cov).P_plus)
    with pytest.raises(ValueError, match="'minus' or 'plus'"):
        forward_model(*cov, P="middle")
    with pytest.raises(TypeError, match="StochasticModel"):
        time_reverse(cov)
    with pytest.raises(ValueError, match="channels"):
        kalman_filter(forward_model(*cov), np.zeros((5, 3)))


def test_results_show_themselves_and_are_read_back(tmp_path):
    cov, _ = process(4)
    interval = faurre(*cov)
    again = FaurreInterval.load(interval.save(tmp_path / "interval"))
    assert np.array_equal(again.P_plus, interval.P_plus)
    assert all(np.array_equal(a, b) for a, b in zip(again.covariances, interval.covariances, strict=True))
    y = forward_model(*cov).simulate(300, rng=0).y
    model = identify(y, order=2)
    for result in (
        interval, positive_real(*cov), spectral_factor(*cov), forward_model(*cov), model, model.report,
        model.report.order, model.whiteness(permutations=9), ho_kalman([0.0, 1.0, 0.5, 0.25, 0.125]),
        find_changes(y[:, 0]), DynamicTexture.fit(film("waves", frames=30, size=8), order=2),
    ):  # fmt: skip
        page = result._repr_html_()
        assert page.startswith("<table>")
        assert page.count("<tr>") == page.count("</tr>") >= 1
