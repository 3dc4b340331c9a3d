"""Intervals of ratios of means: a t-test rejects what is outside, few prompts are covered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from solomonic.probes import ratio_interval
from solomonic.probes.fisher_information import _PROXIES, _interval, _jackknife
from solomonic.probes.linear_read import explained_interval, gained_interval


def of_beliefs(rng, n, trials):
    """Errors and squares [n, trials] of a read-out of few directions: R^2 is 0.7."""
    z, e = rng.normal(size=(2, n, trials, 2))
    noise = np.exp(0.4 * rng.normal(size=(n, trials)) - 0.08)
    return 0.3 * ((0.6 * z + 0.8 * e) ** 2).mean(-1) * noise, (z**2).mean(-1)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 30), st.integers(0, 999))
def test_the_bounds_are_where_a_t_test_is_undecided(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.5, 1, n), rng.gamma(4, size=n)
    if b.mean() / (b.std(ddof=1) / np.sqrt(n)) < t.ppf(0.975, n - 1):
        assert np.isinf(ratio_interval(a, b)).all()
        return
    low, high = ratio_interval(a, b)
    assert low <= a.mean() / b.mean() <= high
    for bound in (low, high):
        assert ttest_1samp(a - bound * b, 0).pvalue == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("n", [12, 20, 48])
def test_few_prompts_are_covered(n):
    error, total = of_beliefs(np.random.default_rng(n), n, 4000)
    low, high = explained_interval(np.stack([error, total], 1), 0.95)
    assert 0.935 <= ((low <= 0.7) & (high >= 0.7)).mean() <= 0.965
    other = 0.5 + 0.0 * error
    less, more = np.stack([other * total, total], 1), np.stack([error, total], 1)
    low, high = gained_interval(less, more, 0.95)
    assert 0.935 <= ((low <= 0.2) & (high >= 0.2)).mean() <= 0.965


@pytest.mark.parametrize("n", [12, 32])
def test_fisher_information_is_covered(n):
    """Sums of concave functions of means, from the jackknife's pseudo-values."""
    rng = np.random.default_rng(n)
    mean, grid, trials = np.exp(rng.normal(0, 2, 40)), np.array([0.1, 1.0]), 300
    held = dict.fromkeys(_PROXIES, 0)
    for _ in range(trials):
        squares = mean * np.exp(0.5 * rng.normal(size=(n, 1)) - 0.125) * rng.gamma(1.0, size=(n, 40))
        for name, each in _PROXIES.items():
            value, pseudo = _jackknife(squares, [slice(0, 40)], grid, each)
            low, high = _interval(pseudo - pseudo.mean(0) + value, 0.95, 299, rng)
            truth = each(mean, grid[:, None]).sum(1)[:, None]
            held[name] += ((low <= truth) & (truth <= high)).mean()
    for name, count in held.items():  # 0.95 less three standard errors of 300 trials
        assert count / trials > 0.912, name


def test_ratios_that_are_known_unknown_or_bounded():
    b = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(ratio_interval(3 * b, b), [3, 3])
    np.testing.assert_allclose(ratio_interval(0 * b, b), [0, 0])
    assert np.isnan(ratio_interval(b, 0 * b)).all()
    assert np.isnan(ratio_interval([1.0], [2.0])).all()
    np.testing.assert_array_equal(ratio_interval(b, [1.0, -1.0, 0.3]), [-np.inf, np.inf])
    np.testing.assert_array_equal(ratio_interval(b, [1.0, -1.0, 0.3], within=(0, 1)), [0, 1])
    assert ratio_interval([0.0, 0.1, 3.0], [2.0, 1.0, 4.0], within=(0, np.inf))[0] == 0
    assert ratio_interval(np.ones((4, 2, 3)), np.ones((4, 2, 3))).shape == (2, 2, 3)


def test_bad_input():
    for call, message in (
        (lambda: ratio_interval([], []), "numerator"),
        (lambda: ratio_interval([1.0, 2.0], [1.0]), "denominator: expected shape"),
        (lambda: ratio_interval([1.0, 2.0], [1.0, 2.0], confidence=2), "confidence"),
        (lambda: ratio_interval([1.0, 2.0], [1.0, 2.0], within=(1, 1)), "within"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
