"""Time-varying systems against plain loops, closed forms and the oracles of the literature."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.realization import TimeVaryingSystem, shift_register

EPS = np.finfo(float).eps


def random_system(rng, steps, n, m, p, diagonal, feed=True, complex_=False):
    shape = (steps, n) if diagonal else (steps, n, n)
    a = rng.uniform(-1, 1, shape)
    if complex_:
        a = a * np.exp(1j * rng.uniform(0, 6, shape))
    d = rng.standard_normal((steps, p, m)) if feed else None
    return TimeVaryingSystem(a, rng.standard_normal((steps, n, m)), rng.standard_normal((steps, p, n)), d)


def plain_operator(system):
    """T [T, p, T, m] by the definition, one impulse at a time through a plain loop."""
    a = system.dense().A
    out = np.zeros((system.steps, system.outputs, system.steps, system.inputs), complex)
    for s in range(system.steps):
        x = system.B[s].astype(complex)
        for t in range(s, system.steps):
            if t > s:
                x = a[t] @ x
            out[t, :, s] = system.C[t] @ x
        if system.D is not None:
            out[s, :, s] += system.D[s]
    return out


@given(
    st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_everything_agrees_with_a_plain_loop(seed, steps, n, m, p, diagonal, feed, complex_):
    rng = np.random.default_rng(seed)
    system = random_system(rng, steps, n, m, p, diagonal, feed, complex_)
    plain = plain_operator(system)
    assert np.allclose(system.operator(), plain, atol=1e-12)
    u, x0 = rng.standard_normal((steps, m)), rng.standard_normal(n)
    free = np.array([system.C[t] @ system.transition(t, -1) @ x0 for t in range(steps)])
    assert np.allclose(system.simulate(u, x0), np.einsum("tpsm,sm->tp", plain, u) + free, atol=1e-12)
    for cut in range(steps + 1):
        hankel = plain[cut:, :, :cut].reshape((steps - cut) * p, cut * m)
        assert np.allclose(system.hankel(cut), hankel, atol=1e-12)
        values = system.hankel_singular_values(cut)
        truth = np.linalg.svd(hankel, compute_uv=False) if hankel.size else np.zeros(0)
        assert np.allclose(values, truth[: values.size], atol=1e-12)
        assert values.size == min(n, *hankel.shape)
        gram = system.gramians(cut)
        roots = np.sqrt(np.abs(np.linalg.eigvals(gram.controllability @ gram.observability)))
        assert np.allclose(np.sort(roots)[::-1][: values.size], values, atol=1e-6)
        middle = system.transition(steps - 1, cut - 1) @ system.transition(cut - 1, -1)
        assert np.allclose(middle, system.transition(steps - 1, -1), atol=1e-13)


def test_the_dense_and_the_diagonal_form_are_the_same_system():
    system = random_system(np.random.default_rng(3), 20, 5, 2, 3, True)
    dense = system.dense()
    assert not dense.diagonal
    assert np.allclose(system.operator(), dense.operator(), atol=1e-13)
    assert np.array_equal(system.hankel_rank(), dense.hankel_rank())


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_a_shift_register_has_exactly_the_rank_of_what_it_holds(length):
    rng = np.random.default_rng(length)
    steps = 14
    register = shift_register(length + 1, steps)
    cuts = np.arange(steps + 1)
    read = TimeVaryingSystem(register.A, register.B, rng.standard_normal((steps, 1, length + 1)))
    assert np.array_equal(read.hankel_rank(), np.minimum(np.minimum(cuts, length), steps - cuts))
    delay = TimeVaryingSystem(register.A, register.B, register.C[:, -1:])
    kept = [sum(1 for s in range(max(0, i - length), i) if s + length < steps) for i in cuts]
    assert np.array_equal(delay.hankel_rank(), kept)
    u = rng.standard_normal((steps, 1))
    assert np.array_equal(delay.simulate(u)[length:], u[:-length])


def test_window_attention_remembers_one_token_less_than_its_width():
    rng = np.random.default_rng(1)
    steps, width = 30, 6
    weights = np.tril(rng.uniform(0.1, 1, (steps, steps)))
    weights[np.tril_indices(steps, -width)] = 0
    weights /= weights.sum(1, keepdims=True)
    readout = np.array([[weights[t, t - k] if t >= k else 0 for k in range(width)] for t in range(steps)])
    register = shift_register(width, steps)
    attention = TimeVaryingSystem(register.A, register.B, readout[:, None, :])
    assert np.allclose(attention.operator()[:, 0, :, 0], weights, atol=1e-15)
    cuts = np.arange(steps + 1)
    assert np.array_equal(attention.hankel_rank(), np.minimum(np.minimum(cuts, width - 1), steps - cuts))


def test_a_selective_diagonal_system_reaches_its_state_size():
    rng = np.random.default_rng(5)
    n, steps = 4, 40
    log_decay = -np.log1p(np.exp(rng.standard_normal((steps, 1)))) * np.arange(1, n + 1) / 2
    system = TimeVaryingSystem(
        None, rng.standard_normal((steps, n, 1)), rng.standard_normal((steps, 1, n)), log_decay=log_decay
    )
    ranks = system.hankel_rank()
    assert [ranks[i] for i in (1, 2, 3, 4, 5, 20, 38)] == [1, 2, 3, 4, 4, 4, 2]
    matrix = system.operator()[:, 0, :, 0]
    assert all(ranks[i] == np.linalg.matrix_rank(matrix[i:, :i]) for i in range(1, steps))


def test_fisher_memory_of_normal_systems_adds_up_to_one():
    rng = np.random.default_rng(2)
    steps, n = 400, 5
    v = rng.standard_normal((n, 1))
    v /= np.linalg.norm(v)
    rotation = 0.9 * np.linalg.qr(rng.standard_normal((n, n)))[0]
    diagonal = np.diag([0.9, 0.5, -0.7, 0.2, 0.8])
    for a in (rotation, diagonal):
        system = TimeVaryingSystem(*(np.repeat(x[None], steps, 0) for x in (a, v, np.eye(n))))
        assert system.fisher_memory(steps - 1).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("gain", "total"), [(1, 2.45), (2, 4.8158), (50, 5.9980)])
def test_fisher_memory_of_a_delay_line(gain, total):
    """Closed form a^k (a - 1) / (a^(k+1) - 1) with a = gain^2: 1 / (k + 1) at gain 1, and 6 in the limit."""
    register = shift_register(6, 50)
    system = TimeVaryingSystem(gain * register.A, register.B, register.C)
    curve = system.fisher_memory(49)[:, 0]
    if gain == 1:
        assert np.allclose(curve[:6], 1 / np.arange(1, 7), atol=1e-12)
    else:
        k, a = np.arange(6), gain**2
        assert np.allclose(curve[:6], (a - 1) / (a - float(a) ** -k), atol=1e-12)
    assert np.allclose(curve[6:], 0)
    assert curve.sum() == pytest.approx(total, abs=6e-5)


def test_long_products_of_decays_keep_their_exponents():
    log = np.full((3, 2), -1e3)
    log[1, 1] = -np.inf
    ones = np.ones((3, 2, 1))
    system = TimeVaryingSystem(None, ones, ones.swapaxes(1, 2), log_decay=log)
    assert np.array_equal(system.transition(2, -1), np.zeros((2, 2)))
    assert np.all(np.isfinite(system.operator()))
    up_down = np.array([[600.0], [-600], [0]]) * [1, 1]
    growing = TimeVaryingSystem(None, ones, ones.swapaxes(1, 2), log_decay=up_down)
    assert np.allclose(growing.transition(2, -1), np.eye(2))
    reset = np.zeros((3, 2))
    reset[1] = -np.inf
    memory = TimeVaryingSystem(None, ones, ones.swapaxes(1, 2), log_decay=reset)
    assert list(memory.hankel_rank()) == [0, 0, 1, 0]
    assert np.array_equal(memory.dense().operator(), memory.operator())


def test_signs_of_negative_decays_are_exact():
    system = TimeVaryingSystem(-np.ones((101, 1)), np.ones((101, 1, 1)), np.ones((101, 1, 1)))
    assert np.array_equal(system.impulse_response(0)[:, 0, 0], (-1.0) ** np.arange(101))


def test_tensors_are_detached_and_converted():
    torch = pytest.importorskip("torch")
    a = torch.rand(4, 2, dtype=torch.bfloat16).requires_grad_()
    system = TimeVaryingSystem(a, torch.ones(4, 2, 1), torch.ones(4, 1, 2))
    assert system.A.dtype == np.float64
    assert np.array_equal(system.A, a.detach().double().numpy())


A, B, C, NAN = np.ones((3, 2)), np.ones((3, 2, 1)), np.ones((3, 1, 2)), np.full((3, 2), np.nan)
LTV, REGISTER = TimeVaryingSystem, shift_register(3, 5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LTV(np.ones((3, 2, 3)), B, C), ValueError, r"A: expected shape .* got \[3, 2, 3\]"),
        (lambda: LTV(np.ones(3), B, C), ValueError, "A: expected 2 or 3 dim"),
        (
            lambda: LTV(A, np.ones((3, 1, 1)), C),
            ValueError,
            r"B: expected shape \[3, 2, m\], got \[3, 1, 1\]",
        ),
        (lambda: LTV(A, B, np.ones((2, 1, 2))), ValueError, r"C: expected shape \[3, p, 2\]"),
        (lambda: LTV(A, B, C, np.ones((3, 2, 1))), ValueError, "D: expected shape"),
        (lambda: LTV(NAN, B, C), ValueError, "A: expected finite"),
        (lambda: LTV(None, B, C), TypeError, "exactly one"),
        (lambda: LTV(A, B, C, log_decay=A), TypeError, "got both"),
        (lambda: LTV(None, B, C, log_decay=NAN), ValueError, "log_decay"),
        (lambda: LTV(None, B, C, log_decay=A * 1j), TypeError, "log_decay: .* real"),
        (lambda: LTV(np.array([["a"]]), B, C), TypeError, "A: expected an array of numbers"),
        (lambda: LTV(A[:0], B[:0], C[:0]), ValueError, "A: .*non-empty"),
        (lambda: REGISTER.simulate(np.ones((4, 1))), ValueError, r"u: expected shape \[5, 1\]"),
        (lambda: REGISTER.simulate(np.ones((5, 1)), [1.0]), ValueError, r"x0: expected shape \[3\]"),
        (lambda: REGISTER.hankel(6), ValueError, "cut: expected an integer from 0 to 5, got 6"),
        (lambda: REGISTER.hankel("2"), TypeError, "cut: expected an integer"),  # pyright: ignore
        (lambda: REGISTER.transition(1, 2), ValueError, "s: expected an integer from -1 to 1"),
        (lambda: REGISTER.hankel_rank(2, tol=-1), ValueError, "tol: expected"),
        (lambda: REGISTER.fisher_memory(2, noise=0), ValueError, "noise: expected a positive"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_results_are_values():
    system = shift_register(3, 5)
    with pytest.raises(ValueError, match="read-only"):
        system.A[0, 0, 0] = 1
    assert repr(system) == "TimeVaryingSystem(steps=5, order=3, inputs=1, outputs=3, dense)"
    assert repr(system.gramians(2)) == "CutGramians(order=3, inputs=0..1, outputs=2..4)"


def test_the_wing_imports_without_torch():
    import subprocess

    code = "import sys, solomonic.realization; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
