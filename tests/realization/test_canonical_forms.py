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

EPS = np.finfo(float).eps


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
    # measured over 1500 draws: at most 25 eps times the condition; balancing divides by the ratio of the Gramians
    assert result.residual <= (1e-11 if form == "balanced" else 100 * EPS * result.condition)
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


@pytest.mark.parametrize("dt", [0, 1])
@pytest.mark.parametrize(("b", "c"), [([1, 0], [1, 0]), ([1, 0], [1, 1]), ([1, 1], [1, 0])])
def test_minimal_on_the_six_systems_of_controlsystems_jl_298(dt, b, c):
    """There minreal raised on them, and made a discrete system continuous."""
    a = np.diag([0.5, 0.2] if dt else [-1.0, -2.0])
    sys = control.StateSpace(a, np.array(b)[:, None], np.array(c)[None], 0, dt)
    small = minimal(sys)
    assert small.nstates == 1
    assert small.dt == dt
    assert small.A.item() == pytest.approx(a[0, 0], abs=1e-15)
    assert (small.B @ small.C).item() == pytest.approx(1, abs=1e-15)


def test_minimal_on_connections():
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


def entry_by_entry(rows):
    """Realization of a transfer matrix that shares no state between its entries."""
    parts = [[control.ss(g) for g in row] for row in rows]
    b = [np.hstack([np.zeros((g.nstates, j)), g.B, np.zeros((g.nstates, len(row) - j - 1))])
         for row in parts for j, g in enumerate(row)]  # fmt: skip
    c = [np.vstack([np.zeros((i, g.nstates)), g.C, np.zeros((len(parts) - i - 1, g.nstates))])
         for i, row in enumerate(parts) for g in row]  # fmt: skip
    a = scipy.linalg.block_diag(*(g.A for row in parts for g in row if g.nstates))
    return control.StateSpace(a, np.vstack(b), np.hstack(c), [[g.D.item() for g in row] for row in parts])


@pytest.mark.parametrize("k", [3, 4, 5])
def test_minimal_shares_the_repeated_poles_of_a_column(k):
    """ControlSystems.jl issue 890: for k = 4 minreal gave 21 states in place of 5."""
    s = control.tf("s")
    g = 1 / (s - 1) ** k
    sys = entry_by_entry([[g / s], *([s**i * g] for i in range(k))])
    assert minimal(sys).nstates == k + 1
    assert np.allclose(minimal(sys)(2j), sys(2j), atol=1e-10)


def test_minimal_sees_through_the_rounding_of_products():
    """ControlSystems.jl issue 992: a generalized plant with four distinct poles; minreal gave 5 states."""
    g, w1, w2, w3 = (control.tf(k, d) for k, d in ((1, [2, 3]), (4, [5, 6]), (7, [8, 9]), (10, [11, 12])))
    zero, one = control.tf(0, 1), control.tf(1, 1)
    sys = entry_by_entry([[w1, -w1 * g], [zero, w2], [zero, w3 * g], [one, -g]])
    assert sys.nstates == 7
    assert minimal(sys).nstates == 4
    assert np.allclose(minimal(sys)(2j), sys(2j), atol=1e-12)


def test_minimal_of_a_system_scaled_over_seventeen_decades():
    """ControlSystems.jl issue 835: minreal gave 3, 1 or 6 states as its tolerance changed.

    In exact arithmetic on these numbers the fourth singular value of the controllability matrix is 1e-22 of the first:
    3 states. Frequency responses computed with 60 digits; python-control's own, of all 6 states, is wrong by 113 %.
    """
    a = np.array([
        [-6.537773175952662, 0, 0, 0, -9.892378564622923e-9, 0],
        [0, -6.537773175952662, 0, 0, 0, -9.892378564622923e-9],
        [2.0163803998106024e8, 2.0163803998106024e8, -0.006223894167415392, -1.551620418759878e8,
         0.002358202548321148, 0.002358202548321148],
        [0, 0, 5.063545034365582e-9, -0.4479539754649166, 0, 0],
        [-2.824060629317756e8, 2.0198389074625736e8, -0.006234569427701143, -1.5542817673286995e8,
         -0.7305736722226711, 0.0023622473513548576],
        [2.0198389074625736e8, -2.824060629317756e8, -0.006234569427701143, -1.5542817673286995e8,
         0.0023622473513548576, -0.7305736722226711],
    ])  # fmt: skip
    b = np.array([[0.004019511633336128], [0.004019511633336128], [0], [0], [297809.51426114445], [297809.51426114445]])
    sys = control.StateSpace(a, b, np.eye(1, 6, 3), 0)
    exact = {
        1e-3j: 0.0010940285120352913 - 1.1734234134076244e-06j,
        1j: -3.484425008924021e-05 - 0.0011635659302686944j,
        100j: -6.314023809307233e-10 + 8.172823180689377e-09j,
    }
    for tol in (None, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        small = minimal(sys, tol=tol)
        assert small.nstates == 3
        for point, value in exact.items():
            assert abs(small(point) - value) <= 1e-12 * abs(value)


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


@pytest.mark.parametrize(("n", "m"), [(40, 1), (80, 1), (80, 3)])
def test_equivalent_recovers_long_systems_whose_krylov_matrices_are_singular(n, m):
    rng = np.random.default_rng(n)
    sys = random_stable(rng, n, m, m)
    t = random_orthogonal(n, rng) @ np.diag(np.geomspace(1, 20, n)) @ random_orthogonal(n, rng)
    back = np.linalg.inv(t)
    found = equivalent(sys, (back @ sys.A @ t, back @ sys.B, sys.C @ t, sys.D))
    assert found.verdict is True
    assert np.allclose(found.transform, t, atol=1e-9)


def test_where_balancing_leaves_states_out_the_residual_bounds_the_change():
    n = 60
    sys = random_stable(np.random.default_rng(5), n, 1, 1, False)
    result = canonical_form(sys, "balanced")
    kept, left_out = result.indices
    assert left_out > 0
    assert result.transform.shape == (n, kept)
    top = hankel_singular_values(sys)[0]
    assert result.residual < 1e-12
    for w in (0.0, 0.3, 1.0, 10.0):
        assert np.abs(result.system(1j * w) - sys(1j * w)).max() <= (result.residual + 1e-10) * top


@pytest.mark.parametrize("n", [50, 120])
@pytest.mark.parametrize("discrete", [True, False])
def test_every_form_of_a_long_system_returns_and_warns(n, discrete):
    sys = random_stable(np.random.default_rng(n), n, 2, 2, discrete)
    for form in FORMS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = canonical_form(sys, form)
        assert [w.category for w in caught] == [IllConditionedWarning] * (result.condition > 1e8)
        if form in ("controllable", "observable", "brunovsky"):
            assert result.condition > 1e8
        else:
            assert result.residual < 1e-11


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
        (lambda: canonical_form(IDLE, "brunovsky"), ValueError, "a controllable system for the brunovsky form"),
        (lambda: canonical_form(DUAL, "observable"), ValueError, "expected an observable .* 1 unobservable modes"),
        (lambda: canonical_form(IDLE, "companion"), ValueError, "form: expected one of controllable.*'companion'"),
        (lambda: canonical_form(control.tf([1], [1, 1]), "schur"), TypeError, "TransferFunction; convert"),
        (lambda: canonical_form(3, "schur"), TypeError, "sys: expected a control.StateSpace .* got int 3"),
        (lambda: minimal((np.eye(2) * 1j, np.ones((2, 1)), np.ones((1, 2)))), TypeError, "sys.A: expected a real"),
        (lambda: minimal((np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 2)))), ValueError, "sys.A: expected a square"),
        (lambda: minimal((np.eye(2), np.ones((3, 1)), np.ones((1, 2)))), ValueError, r"sys.B: expected shape \[2, m\]"),
        (lambda: minimal((np.eye(2) * np.nan, IDLE[1], IDLE[2])), ValueError, "sys.A: expected finite"),
        (lambda: minimal((np.zeros((0, 0)), IDLE[1], IDLE[2])), ValueError, "sys.A: expected a non-empty"),
        (lambda: minimal(IDLE, tol=-1), ValueError, "tol: expected"),
        (lambda: minimal((IDLE[0].astype(object), *IDLE[1:])), TypeError, "sys.A: expected an array of numbers"),
        (lambda: minimal((*IDLE[:2], [[np.inf, 1.0]])), ValueError, "sys.C: expected finite"),
        (lambda: minimal((*IDLE, np.ones((2, 2)))), ValueError, r"sys.D: expected shape \[1, 1\]"),
        (lambda: minimal((*IDLE, None, -1)), ValueError, r"sys.dt: expected 0 \(continuous time\).*got int -1"),
        (lambda: minimal((*IDLE, None, "x")), ValueError, "sys.dt: expected 0"),
        (lambda: canonical_form((IDLE[0], 0 * IDLE[1], IDLE[2]), "balanced"), ValueError, "whose input reaches"),
    ],
)  # fmt: skip
def test_bad_systems_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_torch_tensors_come_in_detached():
    torch = pytest.importorskip("torch")
    sys = random_stable(np.random.default_rng(9), 4, 2, 2)
    tensors = tuple(torch.tensor(np.asarray(x), requires_grad=True) for x in (sys.A, sys.B, sys.C))
    assert np.array_equal(canonical_form(tensors, "schur").system.A, canonical_form(sys, "schur").system.A)
    assert np.array_equal(hankel_singular_values(tensors), hankel_singular_values(sys))
    with pytest.raises(TypeError, match=r"sys\.A: expected a tensor that can be read on the CPU"):
        minimal((tensors[0].detach().to_sparse(), *tensors[1:]))
    with pytest.raises(TypeError, match=r"sys\.A: expected a real array"):
        minimal((tensors[0] + 0j, *tensors[1:]))
