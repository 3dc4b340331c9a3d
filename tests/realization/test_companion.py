"""The input-dependent companion form: its two limits, what lies between them, and the plots."""

import numpy as np
import pytest

from solomonic.realization import (
    CompanionSystem,
    companion_from_diagonal,
    fitting,
    nilpotency,
    plots,
    pseudospectrum,
)


def test_without_feedback_it_is_a_window_nilpotent_of_its_length():
    rng = np.random.default_rng(0)
    blocks, d, m, steps = 5, 2, 3, 20
    gains = rng.standard_normal((m, d, m))
    system = CompanionSystem(np.zeros(blocks), lambda u: np.tensordot(u, gains, 1), np.eye(blocks * d))
    u = rng.standard_normal((steps, m))
    for row in u[:3]:
        a, _, _ = system.matrices(row)
        found = nilpotency(a)
        assert found.verdict is True
        assert found.index == blocks
        assert found.weyr == (d,) * blocks
    tokens = np.array([np.tensordot(row, gains, 1) @ row for row in u])
    states = system.simulate(u).reshape(steps, blocks, d)
    for t in range(blocks, steps):
        assert np.allclose(states[t], tokens[t - blocks + 1 : t + 1])
    disturbed = system.simulate(u, rng.standard_normal(blocks * d)).reshape(steps, blocks, d)
    assert np.array_equal(disturbed[blocks - 1 :], states[blocks - 1 :])
    assert not np.allclose(disturbed[blocks - 2], states[blocks - 2])


@pytest.mark.parametrize("pad", [0, 3])
def test_with_a_characteristic_polynomial_it_is_the_diagonal_system(pad):
    rng = np.random.default_rng(1)
    poles = np.array([0.9, 0.5, -0.3, 0.4 + 0.5j, 0.4 - 0.5j])
    b, c = rng.standard_normal(5).astype(complex), rng.standard_normal(5).astype(complex)
    b[4], c[4] = b[3], c[3]
    u = rng.standard_normal((60, 1))
    x, y = np.zeros(5, complex), []
    for row in u:
        x = poles * x + b * row[0]
        y.append((c @ x).real)
    system = companion_from_diagonal(poles, b, c, blocks=5 + pad)
    assert np.allclose(system.simulate(u).ravel(), y, atol=1e-9)
    a, _, _ = system.matrices(u[0])
    split = fitting(a)
    assert split.index == pad
    core = np.linalg.eigvals(split.core)
    assert np.allclose(np.sort(np.abs(core)), np.sort(np.abs(poles)), atol=1e-8)


def test_in_between_both_memories_are_there_and_the_gains_may_depend_on_the_input():
    system = CompanionSystem(
        lambda u: np.array([0.0, 0.0, 0.5 * np.tanh(u[0]), 0.3]), np.eye(1), np.array([[1.0, 0, 0, 1.0]])
    )
    u = np.random.default_rng(2).standard_normal((12, 1))
    split = fitting(system.matrices(u[0])[0])
    assert (split.index, split.nil_order) == (2, 2)
    realized = system.realize(u)
    assert (realized.steps, realized.order) == (12, 4)
    assert np.allclose(realized.simulate(u), system.simulate(u))
    assert np.all(realized.hankel_rank() <= 4)


def test_bad_companions_are_named():
    u = np.ones((3, 1))
    with pytest.raises(ValueError, match=r"input_map: expected shape \[d, 1\], got \[1, 2\]"):
        CompanionSystem(np.zeros(2), np.ones((1, 2)), np.ones((1, 2))).simulate(u)
    with pytest.raises(ValueError, match=r"coefficients: expected shape \[N\] or \[N, 1, 1\]"):
        CompanionSystem(np.zeros((2, 3, 3)), np.ones((1, 1)), np.ones((1, 2))).simulate(u)
    with pytest.raises(ValueError, match=r"readout: expected shape \[p, 2\]"):
        CompanionSystem(np.zeros(2), np.ones((1, 1)), np.ones((1, 3))).simulate(u)
    with pytest.raises(ValueError, match=r"feedthrough: expected shape \[1, 1\], got \[3, 1\]"):
        CompanionSystem(np.zeros(2), np.ones((1, 1)), np.ones((1, 2)), np.ones((3, 1))).simulate(u)
    with pytest.raises(ValueError, match="coefficients: expected finite numbers"):
        CompanionSystem(lambda u: [np.nan], np.ones((1, 1)), np.ones((1, 1))).simulate(u)
    with pytest.raises(ValueError, match="blocks: expected an integer from 2"):
        companion_from_diagonal([0.1, 0.2], [1.0, 1], [1.0, 1], blocks=1)
    with pytest.raises(ValueError, match="expected conjugate pairs"):
        companion_from_diagonal([0.1j, 0.2], [1.0, 1], [1.0, 1])


def test_plots_take_and_return_axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(1, 3)
    a = np.eye(6, k=1)
    assert plots.plot_pseudospectrum(a, points=11, ax=axes[0]) is axes[0]
    assert plots.plot_weyr_staircase(a + 1e-6 * np.eye(6)[::-1], ax=axes[1]) is axes[1]
    assert plots.plot_hankel_singular_values((0.5 * a, np.ones((6, 1)), np.ones((1, 6))), ax=axes[2]) is axes[2]
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    assert "eigenvalues" in axes[0].get_legend().get_texts()[0].get_text()
    assert plots.plot_pseudospectrum(pseudospectrum(a, points=7), circle=False) is not axes[0]
    with pytest.raises(ValueError, match="levels: expected positive"):
        plots.plot_pseudospectrum(a, levels=[0.0, 1.0])
    pyplot.close("all")
