"""Tests hold their level, intervals of few skewed samples cover, and false discoveries stay at their share."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from solomonic.probes import bootstrap_interval, discoveries, group_test, paired_test, prompts_needed

TRIALS = 2000


@pytest.mark.parametrize("n", [20, 32, 64])
@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_studentized_intervals_cover(law, n):
    rng = np.random.default_rng(n)
    draws = rng.normal(size=(n, TRIALS)) if law == "normal" else rng.exponential(size=(n, TRIALS))
    truth = 0.0 if law == "normal" else 1.0
    # Within a block the trials share their resamples, not their data.
    blocks = [bootstrap_interval(part, method="studentized", resamples=999, rng=rng) for part in _blocks(draws)]
    low, high = np.concatenate(blocks, 1)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def _blocks(draws):
    return np.array_split(draws, 40, axis=1)


def test_studentized_of_equal_samples_and_of_other_statistics():
    np.testing.assert_array_equal(bootstrap_interval(np.full(9, 2.0), method="studentized", rng=0), [2, 2])
    with pytest.raises(ValueError, match="standard error of a mean only"):
        bootstrap_interval(np.arange(9.0), "median", method="studentized")


def test_the_paired_test_is_the_enumeration_and_scipy():
    d = np.random.default_rng(0).normal(0.4, 1, 9)
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product([1, -1], repeat=9)]
    exact = np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)
    assert paired_test(d) == pytest.approx(exact)
    theirs = permutation_test((d,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf)
    assert paired_test(d) == pytest.approx(theirs.pvalue)
    long = np.random.default_rng(1).normal(0.3, 1, 40)
    near = permutation_test((long,), np.mean, permutation_type="samples", n_resamples=20000, rng=0, vectorized=False)
    assert paired_test(long, resamples=20000, rng=0) == pytest.approx(near.pvalue, abs=0.01)


def test_both_tests_hold_their_level():
    rng = np.random.default_rng(3)
    pairs, groups = [], []
    for _ in range(200):  # the 100 tests of a call share their flips, so calls are what is independent
        pairs.append(paired_test(rng.standard_t(3, (24, 100)), resamples=499, rng=rng))
        one, two = rng.exponential(size=(15, 100)), rng.exponential(size=(25, 100))
        groups.append(group_test(one, two, resamples=499, rng=rng))
    for p in (pairs, groups):
        # 20000 tests: three standard errors of their share are 0.005.
        assert 0.045 <= (np.stack(p) <= 0.05).mean() <= 0.055


@pytest.mark.parametrize("method", ["bh", "by"])
def test_false_discoveries_under_the_null(method):
    """Any discovery is false there: the share of families with one is the false discovery rate."""
    rng = np.random.default_rng(5)
    families = [discoveries(rng.uniform(size=(4, 8)), method=method).any() for _ in range(TRIALS)]
    assert np.mean(families) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / TRIALS)


def test_false_discoveries_among_true_ones():
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(400):
        effects = np.r_[np.zeros(24), np.full(8, 1.2)]
        p = paired_test(rng.normal(effects, 1, (30, 32)), resamples=1999, rng=rng)
        found = discoveries(p)
        shares.append(found[:24].sum() / max(found.sum(), 1))
    assert np.mean(shares) <= 0.06


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20), st.floats(0.01, 100))
def test_the_paired_test_knows_no_unit_and_no_sign(whole, unit):
    d = np.array(whole, float)
    p = paired_test(d, resamples=99, rng=0)
    assert 0 < p <= 1
    assert paired_test(unit * d, resamples=99, rng=0) == p
    assert paired_test(-d, resamples=99, rng=0) == p


def test_advice_is_enough_and_no_more():
    pilot = np.random.default_rng(0).normal(size=4000)
    n = prompts_needed(pilot, 0.1)
    rng = np.random.default_rng(1)
    halves = np.mean([1.96 * rng.normal(size=n).std(ddof=1) / np.sqrt(n) for _ in range(300)])
    assert halves == pytest.approx(0.1, rel=0.05)
    assert prompts_needed([1.0, 1.0], 0.1) == 2
    assert prompts_needed(pilot, 0.05) == pytest.approx(4 * n, rel=0.02)


def test_bad_input():
    with pytest.raises(ValueError, match="NaN"):
        paired_test([1.0, np.nan])
    with pytest.raises(ValueError, match="difference: expected samples"):
        paired_test([])
    with pytest.raises(ValueError, match="second: expected samples of shape"):
        group_test(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="p: expected p-values"):
        discoveries([0.1, np.nan])
    with pytest.raises(ValueError, match="method"):
        discoveries([0.1], method="bonferroni")
    with pytest.raises(ValueError, match="half_width"):
        prompts_needed([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="pilot"):
        prompts_needed([1.0], 1)
