"""Closed forms and independent codes for the probes of a state: python-control, causal toys, parity."""

import control
import numpy as np
import pytest
import torch

from solomonic.kernels import ssd
from solomonic.probes import effective_state, lyapunov, memory_curve, receptive_field, retention, trace
from solomonic.probes.effective_state import hankel_singular_values
from solomonic.realization import TimeVaryingSystem, gramians

from .small import small_model, tokens
from .test_retention import constant_decay


@pytest.mark.parametrize("seed", range(4))
def test_gramians_at_a_cut_are_those_of_python_control(seed):
    """A constant system with a long past and a long future has the Gramians of the Lyapunov equations."""
    rng = np.random.default_rng(seed)
    n, m, p, steps = 4, 2, 3, 800
    A = rng.standard_normal((n, n))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    B, C = rng.standard_normal((n, m)), rng.standard_normal((p, n))
    system = TimeVaryingSystem(*(np.broadcast_to(each, (steps, *each.shape)) for each in (A, B, C)))
    found = system.gramians(steps // 2)
    sys = control.StateSpace(A, B, C, np.zeros((p, m)), True)
    wc, wo = (np.asarray(control.gram(sys, which)) for which in "co")
    np.testing.assert_allclose(found.controllability, wc, rtol=1e-9, atol=1e-9 * np.abs(wc).max())
    # The state at a cut is read one step later.
    np.testing.assert_allclose(found.observability, A.T @ wo @ A, rtol=1e-9, atol=1e-9 * np.abs(wo).max())
    values = system.hankel_singular_values(steps // 2)
    expected = np.sqrt(np.sort(np.abs(np.linalg.eigvals(wc @ A.T @ wo @ A)))[::-1])
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_the_printed_gramians_of_python_control():
    """control/tests/statefbk_test.py: continuous time, and another output."""
    A, B = [[1.0, -2.0], [3.0, -4.0]], [[5.0, 6.0], [7.0, 8.0]]
    for C, wo in (
        ([[4.0, 5.0], [6.0, 7.0]], [[257.5, -94.5], [-94.5, 56.5]]),
        ([[6.0, 8.0]], [[198.0, -72.0], [-72.0, 44.0]]),
    ):
        found = gramians(control.StateSpace(A, B, C, np.zeros((len(C), 2)), 0))
        np.testing.assert_allclose(found.controllability, [[18.5, 24.5], [24.5, 32.5]], rtol=1e-10)
        np.testing.assert_allclose(found.observability, wo, rtol=1e-10)


def test_effective_states_of_constant_heads_are_those_of_python_control():
    """Heads whose gates do not depend on the text: Hankel singular values by two Lyapunov equations."""
    model = constant_decay([1.0, 4.0, 8.0, 16.0])
    mixer = model.model.layers[0].mixer  # type: ignore[union-attr]
    mixer.conv1d.weight.zero_()  # type: ignore[union-attr]
    mixer.conv1d.bias[:] = 1.0  # type: ignore[index,union-attr]
    run = trace(model, tokens(1, 700))
    found = effective_state(run, cuts=[350]).singular_value.sel(part="state", layer=0, prompt=0, cut=350)
    for head in range(4):
        A = np.exp(run.log_decay(0)[0, 0, head]) * np.eye(8)
        B, C = run.B(0)[0, 0, head][:, None], run.C(0)[0, 0, head][None]
        sys = control.StateSpace(A, B, C, 0, True)
        wc, wo = (np.asarray(control.gram(sys, which)) for which in "co")
        expected = np.sqrt(np.linalg.eigvals(wc @ A.T @ wo @ A).real.max())
        assert float(found.sel(head=head)[0]) == pytest.approx(expected, rel=1e-8)
        assert (found.sel(head=head)[1:] < 1e-6 * expected).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_total_effect_of_a_change_of_a_state(dtype):
    """do(h_t := h_t + d) moves y_T by C_T Phi(T, t) d, for every T, exactly in a linear system."""
    generator = torch.Generator().manual_seed(0)
    x, B, C = (torch.randn(2, 20, k, 5, generator=generator, dtype=dtype) for k in (3, 3, 3))
    dt = torch.rand(2, 20, 3, generator=generator, dtype=dtype)
    A = -torch.rand(3, generator=generator, dtype=dtype)
    h0 = torch.randn(2, 3, 5, 5, generator=generator, dtype=dtype)
    d = torch.randn(2, 3, 5, 5, generator=generator, dtype=dtype)
    for t in (0, 7, 19):
        rest = (x[:, t:], dt[:, t:], A, B[:, t:], C[:, t:])
        effect = ssd(*rest, h0=h0 + d).y - ssd(*rest, h0=h0).y
        phi = torch.exp(torch.cumsum(dt[:, t:] * A, 1))
        expected = torch.einsum("bth,bhpn,bthn->bthp", phi, d, C[:, t:])
        torch.testing.assert_close(effect, expected, atol=1e-12 if dtype == torch.float64 else 2e-5, rtol=0)


def test_parity_is_one_number_that_is_never_forgotten():
    """a_t = 1 or -1 by the token: half-life without end, exponent 0, one direction at every cut, one bit of memory."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, 40)
    sign = np.where(bits, -1.0, 1.0)
    system = TimeVaryingSystem(sign[:, None], np.zeros((40, 1, 1)), np.ones((40, 1, 1)))
    assert np.array_equal(system.simulate(np.zeros((40, 1)), [1.0])[:, 0], (-1.0) ** np.cumsum(bits))
    written = TimeVaryingSystem(sign[:, None], np.ones((40, 1, 1)), np.ones((40, 1, 1)))
    assert np.array_equal(written.hankel_rank()[1:-1], np.ones(39))
    assert (written.log_decay == 0).all()
    np.testing.assert_allclose(written.fisher_memory(39), 1 / 40)  # normal: 1 in sum, spread over all that was seen


def test_a_state_that_never_decays_has_a_half_life_without_end():
    model = constant_decay([1.0, 1.0, 1.0, 1.0])
    model.model.layers[0].mixer.A_log[:] = -np.inf  # type: ignore[union-attr,index]
    run = trace(model, tokens(2, 60))
    kept = retention(run)
    assert np.isinf(kept.half_life).all()
    assert np.isinf(kept.half_life_median)
    assert (kept.censored == 1).all()
    assert (kept.retention == 1).all()
    assert (receptive_field(run).lyapunov == 0).all()
    np.testing.assert_allclose(lyapunov(model, tokens(1, 60), segment=6, parts="state").exponent, 0, atol=1e-3)
    np.testing.assert_allclose(memory_curve(run).fisher_total.sel(part="state"), 1)


def test_ranks_of_a_selective_state_written_out():
    """N = 4, T = 40: min(i, 4, T - i) at i = 1, 2, 3, 4, 5, 20, 38."""
    rng = np.random.default_rng(1)
    log = -np.log1p(np.exp(rng.standard_normal((40, 1)))) * np.arange(1, 5) / 2
    B, C = rng.standard_normal((40, 4)), rng.standard_normal((40, 4))
    ranks = []
    for cut in (1, 2, 3, 4, 5, 20, 38):
        values = hankel_singular_values(log, B, C, cut)
        ranks.append(int((values > 1e-12 * values[0]).sum()))
    assert ranks == [1, 2, 3, 4, 4, 4, 2]


def test_the_sum_of_the_median_half_life_over_prompts():
    """The interval of the median over heads lies between those of the heads."""
    kept = retention(trace(small_model("M2-M2"), tokens(6, 150)), rng=0)
    low, high = kept.half_life_median_interval.to_numpy()
    assert low <= float(kept.half_life_median) <= high
    each = kept.half_life_prompt_interval.to_numpy()
    assert each[0].min() <= low
    assert high <= each[1].max()
    assert np.isnan(retention(trace(small_model("M2"), tokens(1, 60))).half_life_median_interval).all()
