"""From impulse responses and from records to Markov parameters: exactness, long responses, hostile inputs."""

import control
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.realization import equivalent, ho_kalman, okid
from solomonic.realization.identification._hankel import HankelOperator, leading_svd


def random_system(rng, n, m, p, radius=0.9):
    a = rng.standard_normal((n, n))
    a *= radius / np.abs(np.linalg.eigvals(a)).max()
    return a, rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m))


def markov_parameters(system, length):
    a, b, c, d = system
    out, column = [d], b
    for _ in range(length - 1):
        out.append(c @ column)
        column = a @ column
    return np.array(out)


def run(system, u, x0=None):
    a, b, c, d = system
    x, out = np.zeros(len(a)) if x0 is None else x0, []
    for each in u:
        out.append(c @ x + d @ each)
        x = a @ x + b @ each
    return np.array(out)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_the_response_of_a_system_gives_it_back(seed, n, m, p):
    system = random_system(np.random.default_rng(seed), n, m, p)
    h = markov_parameters(system, 4 * n + 8)
    found = ho_kalman(h, n)
    ours = tuple(getattr(found.system, name) for name in "ABCD")
    assert found.residual < 1e-8
    assert np.allclose(markov_parameters(ours, len(h)), h, atol=1e-8 * np.abs(h).max())


def test_the_gap_finds_the_order_and_the_system():
    system = random_system(np.random.default_rng(3), 4, 2, 2)
    found = ho_kalman(markov_parameters(system, 60))
    assert found.order == 4
    assert equivalent(found.system, control.StateSpace(*system, True)).verdict
    assert np.all(found.singular_values[4:] < 1e-10 * found.singular_values[0])


def test_the_realization_is_balanced_over_its_horizon():
    h = markov_parameters(random_system(np.random.default_rng(5), 3, 1, 1, 0.6), 200)
    sys = ho_kalman(h, 3).system
    reach = np.hstack([np.linalg.matrix_power(sys.A, k) @ sys.B for k in range(100)])
    see = np.vstack([sys.C @ np.linalg.matrix_power(sys.A, k) for k in range(100)])
    assert np.allclose(reach @ reach.T, see.T @ see, atol=1e-9)


def test_control_realizes_the_same_response():
    h = markov_parameters(random_system(np.random.default_rng(8), 3, 2, 1, 0.8), 40)
    theirs, values = control.eigensys_realization(h.transpose(1, 2, 0), 3)
    found = ho_kalman(h, 3)
    for z in (0.3, 1j, -1.2 + 0.4j):
        assert np.allclose(found.system(z), theirs(z), atol=1e-9)
    assert values[0] > 0


def test_products_by_fft_are_those_of_the_matrix():
    rng = np.random.default_rng(0)
    for rows, columns, p, m in ((5, 7, 2, 3), (1, 4, 1, 1), (6, 2, 3, 1)):
        operator = HankelOperator(rng.standard_normal((rows + columns - 1, p, m)), rows, columns)
        x, z = rng.standard_normal((columns * m, 4)), rng.standard_normal((rows * p, 4))
        assert np.allclose(operator.product(x), operator.dense() @ x, atol=1e-12)
        assert np.allclose(operator.transposed_product(z), operator.dense().T @ z, atol=1e-12)


def test_the_randomised_decomposition_is_that_of_the_matrix(monkeypatch):
    import solomonic.realization.identification._hankel as module

    h = markov_parameters(random_system(np.random.default_rng(2), 6, 2, 2, 0.95), 200)[1:]
    operator = HankelOperator(h, 100, 99)
    exact = np.linalg.svd(operator.dense(), compute_uv=False)
    monkeypatch.setattr(module, "DENSE", 0)
    u, s, v = leading_svd(operator, 6, np.random.default_rng(1))
    assert np.allclose(s[:6], exact[:6], rtol=1e-10)
    assert np.allclose(operator.dense() @ v, u * s[:6], atol=1e-9 * exact[0])


def test_a_hundred_thousand_markov_parameters():
    k = np.arange(100_000)
    found = ho_kalman(0.9999**k * np.cos(0.3 * k) + 0.99**k, 3)
    assert np.allclose(np.sort(np.abs(found.system.poles())), [0.99, 0.9999, 0.9999], atol=1e-8)
    assert found.residual < 1e-8


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 0.5],), ValueError, "at least 3 Markov parameters"),
        (([1.0, np.nan, 0.5],), ValueError, "NaN"),
        (([1.0, 1j, 0.5],), TypeError, "real"),
        (([0.0, 1.0, 0.5, 0.25, 0.125, 0.0625], 2), ValueError, "numerical rank"),
        (([0.0, 1.0, 0.5, 0.25], 5), ValueError, "give more Markov parameters"),
        (([0.0, 1.0, 0.5, 0.25], "best"), ValueError, "'gap'"),
    ],
)
def test_bad_responses(arguments, error, message):
    with pytest.raises(error, match=message):
        ho_kalman(*arguments)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2))
def test_okid_is_exact_without_noise(seed, n, m, p):
    rng = np.random.default_rng(seed)
    system = random_system(rng, n, m, p)
    u = rng.standard_normal((400, m))
    y = run(system, u)
    found = okid(y, u, lags=n, length=20)
    h = markov_parameters(system, 20)
    assert np.allclose(found.markov, h, atol=1e-6 * np.abs(h).max())


def test_okid_finds_the_gain_of_the_kalman_filter():
    rng = np.random.default_rng(4)
    a, b, c, d = np.array([[0.8, 0.3], [-0.2, 0.7]]), np.ones((2, 1)), np.array([[1.0, 0.5]]), np.zeros((1, 1))
    k = np.array([[0.5], [-0.2]])
    u, e = rng.standard_normal((40_000, 1)), rng.standard_normal((40_000, 1))
    y = run((a, np.hstack([b, k]), c, np.hstack([d, np.eye(1)])), np.hstack([u, e]))
    found = okid([y[:20_000], y[20_000:]], [u[:20_000], u[20_000:]], lags=20, order=2)
    truth = markov_parameters((a, k, c, np.eye(1)), 8)[1:]
    assert np.allclose(found.gain_markov[:7], truth, atol=0.05)
    assert np.allclose(found.residual_covariance, 1.0, atol=0.05)
    assert np.allclose(np.sort_complex(found.system.poles()), np.sort_complex(np.linalg.eigvals(a)), atol=0.05)
    assert found.gain.shape == (2, 1)


def test_okid_says_what_is_wrong():
    u = np.random.default_rng(0).standard_normal(30)
    with pytest.raises(ValueError, match="fewer lags"):
        okid(u, u[::-1].copy(), lags=15)
    with pytest.raises(ValueError, match="called with order="):
        _ = okid(np.convolve(u, [1, 0.5])[:30], u, lags=2).system
    with pytest.raises(ValueError, match="as many as y has"):
        okid(u, u[:-1])
