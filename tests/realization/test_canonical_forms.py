"""Canonical forms, Gramians, minimality and equivalence against python-control, closed forms and hostile systems."""

# python-control annotates the matrices of a StateSpace as lists.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportOptionalOperand=false

import warnings

import control
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.realization import (
    IllConditionedWarning,
    canonical_form,
    equivalent,
    gramians,
    hankel_singular_values,
    minimal,
)
from solomonic.realization.forms import FORMS
from solomonic.realization.gallery import jordan_matrix, random_orthogonal


def random_stable(rng, n, m, p, discrete=True, radius=0.9):
    a = rng.standard_normal((n, n)) / np.sqrt(n)
    if discrete:
        a *= radius / np.abs(np.linalg.eigvals(a)).max()
    else:
        a -= (np.real(np.linalg.eigvals(a)).max() + 0.2) * np.eye(n)
    b, c, d = rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m))
    return control.StateSpace(a, b, c, d, True if discrete else 0)


def markov(sys, count):
    x, out = sys.B, [sys.D]
    for _ in range(count):
        out.append(sys.C @ x)
        x = sys.A @ x
    return np.array(out)


@pytest.mark.parametrize("form", sorted(FORMS))
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_every_form_is_the_same_system(form, seed, n, m, p, discrete):
    sys = random_stable(np.random.default_rng(seed), n, m, p, discrete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IllConditionedWarning)
        result = canonical_form(sys, form)
    assert result.residual < 1e-11
    assert result.condition == pytest.approx(np.linalg.cond(result.transform), rel=1e-6)
    assert result.system.dt == sys.dt
    if form == "brunovsky":  # |A + B F| reaches 1e4: the residual is the oracle, powers of it would lose the digits
        a, t = sys.A + sys.B @ result.feedback, result.transform
        size = (np.linalg.norm(a) + np.linalg.norm(sys.A)) * np.linalg.norm(t)
        assert np.linalg.norm(a @ t - t @ result.system.A) <= 1e-11 * size
        assert np.allclose(sys.B @ result.input_transform, t @ result.system.B, atol=1e-11 * np.linalg.norm(t))
        return
    original = sys
    scale = np.abs(markov(original, 2 * n)).max()
    gap = np.abs(markov(original, 2 * n) - markov(result.system, 2 * n)).max()
    assert gap <= 1e-9 * max(1.0, result.condition * 1e-4) * scale


def test_controllable_form_has_shift_rows_and_lower_rows_of_coefficients():
    rng = np.random.default_rng(0)
    sys = random_stable(rng, 7, 3, 2)
    result = canonical_form(sys, "controllable")
    assert sum(result.indices) == 7
    assert sorted(result.indices) == [2, 2, 3]
    end = 0
    for j, k in enumerate(result.indices):
        block = result.system.A[end : end + k - 1]
        assert np.array_equal(block, np.eye(7)[end + 1 : end + k])
        assert result.system.B[end + k - 1, j] == pytest.approx(1)
        end += k
    siso = canonical_form((sys.A, sys.B[:, :1], sys.C), "controllable")
    assert np.allclose(siso.system.A[-1], -np.poly(sys.A)[:0:-1], atol=1e-9)


def test_observable_form_is_dual():
    sys = random_stable(np.random.default_rng(1), 6, 1, 2)
    result = canonical_form(sys, "observable")
    dual = canonical_form((sys.A.T, sys.C.T, sys.B.T), "controllable")
    assert result.indices == dual.indices
    assert np.allclose(result.system.A, dual.system.A.T)


def test_indices_of_dead_inputs_are_zero():
    b = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    a = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for form in ("controllable", "brunovsky"):
        result = canonical_form((a, b, np.eye(3)), form)
        assert result.indices == (1, 2, 0)
        assert result.residual < 1e-14


def test_brunovsky_is_chains_of_delays():
    sys = random_stable(np.random.default_rng(4), 8, 3, 1)
    result = canonical_form(sys, "brunovsky")
    assert np.array_equal(np.unique(result.system.A), [0, 1])
    assert not np.any(np.linalg.matrix_power(result.system.A, max(result.indices)))
    assert np.array_equal(result.system.B.sum(0), np.ones(3))


def test_modal_form_keeps_defective_eigenvalues_in_one_block():
    """python-control issue 318: A = [[-1, 1], [0, -1]] broke the modal form."""
    sys = control.StateSpace([[-1.0, 1], [0, -1]], [[0.0], [1]], [[1.0, 0]], 0)
    for form in ("modal", "jordan"):
        result = canonical_form(sys, form)
        assert result.indices == (2,)
        assert result.condition < 10
        assert result.residual < 1e-15


def test_modal_form_of_the_double_complex_pair():
    """The zpk example of the canon page: a block of 2 near -10 and one of 4 for the double pair."""
    poles = [0, -10, -10.0001, 1 + 1j, 1 - 1j, 1 + 1j, 1 - 1j]
    zpk = control.zpk([1, -1], poles, 100)
    sys = canonical_form(control.ss(zpk), "modal")
    assert 4 in sys.indices
    assert sum(sys.indices) == 7
    pair = canonical_form(control.StateSpace([[1.0, 2], [-2, 1]], [[1.0], [0]], [[1.0, 0]], 0), "modal")
    assert np.allclose(np.abs(pair.system.A), [[1, 2], [2, 1]])


@pytest.mark.parametrize("seed", range(20))
def test_jordan_form_recovers_the_blocks(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(1, 4)) for _ in range(3)]
    values = rng.choice([-0.5, 0.25, 0.8], 3)
    blocks = [jordan_matrix(sizes, values)]
    if seed % 2:
        pair = np.array([[0.3, 0.6], [-0.6, 0.3]])
        blocks.append(np.block([[pair, np.eye(2)], [np.zeros((2, 2)), pair]]))
    a = scipy.linalg.block_diag(*blocks)
    n = len(a)
    t = random_orthogonal(n, rng) @ np.diag(np.linspace(1, 3, n)) @ random_orthogonal(n, rng)
    sys = (t @ a @ np.linalg.inv(t), rng.standard_normal((n, 1)), rng.standard_normal((1, n)))
    result = canonical_form(sys, "jordan")
    assert sorted(result.indices) == sorted(sizes + ([4] if seed % 2 else []))
    assert result.residual < 1e-12
    assert set(np.round(np.diag(result.system.A, 2 if n > 2 else 1), 12)) <= {0.0, 1.0}


def test_schur_and_staircase_are_orthogonal():
    sys = random_stable(np.random.default_rng(7), 12, 2, 2)
    for form in ("schur", "staircase"):
        result = canonical_form(sys, form)
        assert result.condition == pytest.approx(1, abs=1e-12)
    assert canonical_form(sys, "staircase").indices == (2,) * 6


@pytest.mark.parametrize("dims", [(1, 2, 1, 1), (0, 3, 2, 0), (2, 0, 0, 1), (1, 1, 1, 1), (0, 0, 2, 1)])
def test_kalman_decomposition_counts_all_four_parts(dims):
    rng = np.random.default_rng(sum(dims))
    e = np.cumsum((0, *dims))
    n = e[-1]
    allowed = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    a, b, c = rng.standard_normal((n, n)), rng.standard_normal((n, 2)), rng.standard_normal((2, n))
    for i in range(4):
        for j in range(4):
            a[e[i] : e[i + 1], e[j] : e[j + 1]] *= allowed[i, j]
    b[e[2] :] = 0
    c[:, e[0] : e[1]] = 0
    c[:, e[2] : e[3]] = 0
    q = random_orthogonal(n, rng)
    result = canonical_form((q @ a @ q.T, q @ b, c @ q.T), "kalman")
    assert result.indices == dims
    assert result.residual < 1e-12
    assert minimal((q @ a @ q.T, q @ b, c @ q.T)).nstates == dims[1]


@pytest.mark.parametrize("n", [1, 5, 40, 200])
@pytest.mark.parametrize("discrete", [True, False])
def test_balanced_gramians_are_equal_and_diagonal(n, discrete):
    sys = random_stable(np.random.default_rng(n), n, 2, 3, discrete)
    result = canonical_form(sys, "balanced")
    assert_balanced(result, 1e-10)
    assert np.allclose(result.system.dcgain(), sys.dcgain(), rtol=1e-8, atol=1e-8 * np.abs(sys.dcgain()).max())


def assert_balanced(result, tolerance):
    """Gramians of the result by scipy's Lyapunov solvers, which the library does not use."""
    a, b, c = result.system.A, result.system.B, result.system.C
    solve = scipy.linalg.solve_discrete_lyapunov if result.system.dt else _continuous
    p, q = solve(a, b @ b.T), solve(a.T, c.T @ c)
    sigma = np.diag(p)
    assert np.abs(p - np.diag(sigma)).max() <= tolerance * sigma.max()
    assert np.abs(q - p).max() <= tolerance * sigma.max()
    assert np.all(np.diff(sigma) <= tolerance * sigma.max())


def _continuous(a, q):
    return scipy.linalg.solve_continuous_lyapunov(a, -q)


@given(st.integers(0, 10**6), st.integers(1, 8), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gramians_agree_with_scipy(seed, n, discrete):
    sys = random_stable(np.random.default_rng(seed), n, 2, 2, discrete)
    found = gramians(sys)
    solve = scipy.linalg.solve_discrete_lyapunov if discrete else _continuous
    for mine, theirs in (
        (found.controllability, solve(sys.A, sys.B @ sys.B.T)),
        (found.observability, solve(sys.A.T, sys.C.T @ sys.C)),
    ):
        assert np.abs(mine - theirs).max() <= 1e-10 * np.abs(theirs).max()
    sigma = hankel_singular_values(sys)
    square = np.sort(np.abs(np.linalg.eigvals(found.controllability @ found.observability)))[::-1]
    assert np.allclose(sigma**2, square, rtol=1e-5, atol=1e-10 * sigma[0] ** 2)


def test_discrete_hankel_singular_values_where_python_control_raises():
    sys = random_stable(np.random.default_rng(2), 6, 2, 2)
    with pytest.raises(NotImplementedError):
        control.hankel_singular_values(sys)
    steps = 400
    blocks = markov(sys, 2 * steps)[1:]
    hankel = np.block([[blocks[i + j] for j in range(60)] for i in range(60)])
    assert np.allclose(hankel_singular_values(sys), np.linalg.svd(hankel, compute_uv=False)[:6], rtol=1e-5)


def test_python_control_issue_967_and_the_printed_gramians():
    a, b, c = [[-0.31, 0.21], [-0.68, -0.57]], [[1.23], [1.42]], [[1.32, -0.55]]
    w = gramians(control.StateSpace(a, b, c, 0, True)).observability
    assert np.allclose(w, [[2.06193690, -0.57482614], [-0.57482614, 0.78661650]], atol=1e-7)
    sys = control.StateSpace([[1.0, -2], [3, -4]], [[5.0, 6], [7, 8]], [[4.0, 5], [6, 7]], np.zeros((2, 2)))
    assert np.allclose(gramians(sys).controllability, [[18.5, 24.5], [24.5, 32.5]], atol=1e-12)
    assert np.allclose(gramians(sys).observability, [[257.5, -94.5], [-94.5, 56.5]], atol=1e-10)


def test_minimal_on_systems_that_are_not():
    """Cases after ControlSystems.jl issue 298: non-minimal series and parallel connections."""
    s = control.tf("s")
    g = control.ss(1 / (s + 1))
    for sys, order in (
        (g + g, 1),
        (g - g, 0),
        (g * control.ss((s + 1) / (s + 2)), 1),
        (control.append(g, g), 2),
        (control.ss((s + 1) * (s + 3) / ((s + 1) * (s + 2))), 1),
        (g * g - g * g, 0),
    ):
        small = minimal(sys)
        assert small.nstates == order
        points = np.array([0.1j, 1j, 7j + 1])
        assert np.allclose(small(points), sys(points), atol=1e-10)


def test_minimal_of_a_badly_scaled_system():
    """After ControlSystems.jl issue 835: scaling must not make states vanish."""
    rng = np.random.default_rng(3)
    sys = random_stable(rng, 6, 1, 1, False)
    d = 10.0 ** np.array([-8, -4, 0, 3, 6, 9])
    scaled = control.StateSpace(d[:, None] * sys.A / d, d[:, None] * sys.B, sys.C / d, sys.D, 0)
    assert minimal(scaled).nstates == 6
    assert np.allclose(minimal(scaled)(1j), sys(1j), rtol=1e-8)


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_equivalent_recovers_the_change_of_states(seed, n, m, stable):
    rng = np.random.default_rng(seed)
    sys = random_stable(rng, n, m, 2, True, 0.9 if stable else 1.7)
    t = random_orthogonal(n, rng) @ np.diag(np.geomspace(1, 20, n)) @ random_orthogonal(n, rng)
    back = np.linalg.inv(t)
    found = equivalent(sys, (back @ sys.A @ t, back @ sys.B, sys.C @ t, sys.D))
    assert found
    assert np.allclose(found.transform, t, rtol=1e-5, atol=1e-5)


def test_equivalent_says_no_and_cannot_say():
    rng = np.random.default_rng(0)
    sys = random_stable(rng, 4, 1, 1)
    other = control.StateSpace(sys.A, sys.B, sys.C * 1.001, sys.D, True)
    assert equivalent(sys, other).verdict is False
    assert equivalent(sys, random_stable(rng, 4, 2, 1)).verdict is False
    bigger = control.append(sys, random_stable(rng, 1, 1, 1))
    padded = control.StateSpace(bigger.A, bigger.B[:, :1], bigger.C[:1], sys.D, True)
    assert equivalent(padded, sys).verdict is None
    twice = control.StateSpace(padded.A + 0.3 * np.diag([0, 0, 0, 0, 1]), padded.B, padded.C, padded.D, True)
    assert equivalent(padded, twice).verdict is None


def test_an_ill_conditioned_companion_form_is_returned_with_a_warning():
    n = 14
    sys = (np.diag(np.linspace(0.1, 0.9, n)), np.ones((n, 1)), np.ones((1, n)))
    with pytest.warns(IllConditionedWarning, match=r"condition .*e\+.*staircase"):
        result = canonical_form(sys, "controllable")
    assert result.condition > 1e8


UNSTABLE = (np.diag([0.5, 1.5]), np.ones((2, 1)), np.ones((1, 2)))
IDLE = (np.diag([0.5, 0.2]), np.array([[1.0], [0.0]]), np.ones((1, 2)))
DUAL = (IDLE[0].T, IDLE[2].T, IDLE[1].T)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: canonical_form(UNSTABLE, "balanced"), ValueError, "stable system .* got spectral radius 1.5"),
        (lambda: gramians(UNSTABLE), ValueError, "sys: expected a stable system .* for a Gramian"),
        (lambda: hankel_singular_values(UNSTABLE), ValueError, "Hankel singular values, got spectral radius 1.5"),
        (lambda: gramians(control.StateSpace(1.0, 1, 1, 0)), ValueError, "got largest real part 1"),
        (lambda: canonical_form(IDLE, "controllable"), ValueError, "controllable system .* 1 uncontrollable modes"),
        (lambda: canonical_form(IDLE, "brunovsky"), ValueError, "expected a controllable system"),
        (lambda: canonical_form(DUAL, "observable"), ValueError, "an? observable system"),
        (lambda: canonical_form(IDLE, "companion"), ValueError, "form: expected one of controllable.*'companion'"),
        (lambda: canonical_form(control.tf([1], [1, 1]), "schur"), TypeError, "TransferFunction; convert"),
        (lambda: canonical_form(3, "schur"), TypeError, "sys: expected a control.StateSpace .* got int 3"),
        (lambda: minimal((np.eye(2) * 1j, np.ones((2, 1)), np.ones((1, 2)))), TypeError, "sys.A: expected a real"),
        (lambda: minimal((np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 2)))), ValueError, "sys.A: expected a square"),
        (lambda: minimal((np.eye(2), np.ones((3, 1)), np.ones((1, 2)))), ValueError, r"sys.B: expected shape \[2, m\]"),
        (lambda: minimal((np.eye(2) * np.nan, IDLE[1], IDLE[2])), ValueError, "sys.A: expected finite"),
        (lambda: minimal((np.zeros((0, 0)), IDLE[1], IDLE[2])), ValueError, "sys.A: expected a non-empty"),
        (lambda: minimal(IDLE, tol=-1), ValueError, "tol: expected"),
    ],
)  # fmt: skip
def test_bad_systems_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
