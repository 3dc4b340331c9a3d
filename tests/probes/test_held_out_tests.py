"""Tests of held-out scores hold their level: beside shuffled labels, and beside copies of the same features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from solomonic.probes import discoveries, held_out_interval, held_out_test, paired_test, shuffle_test
from solomonic.probes.held_out_scores import HeldOutScores, exchanged

FOLDS = 5


def splits(n):
    fold = np.arange(n) % FOLDS
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(FOLDS)]


def scores(x, labellings):
    return HeldOutScores("regress", 1.0, splits(len(x)), np.arange(len(x)))(x, labellings)


def most(count, level, risk=0.005):
    """How many of independent events of probability ``level`` are exceeded with this probability only."""
    return int(binom.isf(risk, count, level))


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("size", [4, 60])
def test_scores_are_those_of_scikit_learn_label_by_label(task, size):
    """Also with more features than samples, where the fit is made in fewer coordinates."""
    rng = np.random.default_rng(size)
    x = rng.normal(size=(40, size)) * np.exp(rng.normal(size=size))
    x[:, 1] = 3.0  # does not vary
    ys = [rng.integers(3, size=40) if task == "classify" else rng.normal(size=40) for _ in range(3)]
    groups = np.repeat(np.arange(20), 2)
    rows = [(np.flatnonzero(groups % FOLDS != i), np.flatnonzero(groups % FOLDS == i)) for i in range(FOLDS)]
    found = HeldOutScores(task, 0.7, rows, groups)(x, ys)
    for each, y in zip(found, ys, strict=True):
        value, base = np.empty(40), np.empty(40)
        for train, test in rows:
            plain = LogisticRegression(C=1 / 0.7, max_iter=500) if task == "classify" else Ridge(alpha=0.7)
            said = make_pipeline(StandardScaler(), plain).fit(x[train], y[train]).predict(x[test])
            base[test] = (y[test] - y[train].mean()) ** 2
            value[test] = said == y[test] if task == "classify" else base[test] - (y[test] - said) ** 2
        truth = value if task == "classify" else value / base.mean()
        np.testing.assert_allclose(each, truth.reshape(20, 2).mean(1), atol=1e-9)


def test_random_labels_are_found_as_often_as_they_should():
    """Independent data sets. The test by signs takes the prompts' scores for independent, and finds too much."""
    rng = np.random.default_rng(0)
    trials, hits, by_signs = 500, dict.fromkeys((10, 20, 99), 0), 0
    for _ in range(trials):
        y = rng.normal(size=40)
        value = scores(rng.normal(size=(40, 12)), [y, *(rng.permutation(y) for _ in range(99))])
        mean = value.mean(1)
        for count in hits:
            hits[count] += shuffle_test(mean[0], mean[1 : count + 1]) <= 0.05
        by_signs += paired_test(value[0] - value[1:6].mean(0), resamples=199, rng=rng) <= 0.05
    assert by_signs > most(trials, 0.05)  # so the bound below can fail
    for count, found in hits.items():
        assert binom.ppf(0.002, trials, 0.05) <= found <= most(trials, 0.05), count


def test_the_p_value_is_that_of_one_more_normal_draw():
    """Uniform for normal scores whatever K; by ranks it is uniform for any law."""
    rng = np.random.default_rng(1)
    for count, law in ((10, rng.normal), (30, rng.normal), (99, rng.exponential)):
        p = shuffle_test(law(size=4000), law(size=(count, 4000)))
        for level in (0.01, 0.05, 0.3):
            hits = (p <= level).sum()
            assert binom.ppf(0.001, 4000, level) <= hits <= binom.ppf(0.999, 4000, level), (count, level)
    score, null = 0.7, np.array([0.4, 0.55, 0.5, 0.6])
    by_hand = t.sf((score - null.mean()) / (null.std(ddof=1) * np.sqrt(1.25)), 3)
    assert shuffle_test(score, null) == pytest.approx(by_hand)


def test_ranks_ties_and_scores_that_do_not_vary():
    assert shuffle_test(2.0, np.arange(99.0) / 99) == 0.01
    assert shuffle_test(0.5, np.full(99, 0.5)) == 1
    assert shuffle_test(0.5, np.full(10, 0.5)) == 1
    assert shuffle_test(0.6, np.full(10, 0.5)) == pytest.approx(1 / 11)
    assert shuffle_test(0.6, [0.5]) == 0.5
    np.testing.assert_allclose(shuffle_test([0.6, 0.4], np.full((4, 2), 0.5)), [0.2, 1])


def copies(trials, n, seed):
    """Differences [n, trials] of held-out scores of two noisy copies of features of which neither knows more."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(trials):
        z = rng.normal(size=(n, 12))
        y = z @ rng.normal(size=12) / np.sqrt(12) + 0.3 * rng.normal(size=n)
        one, two = (scores(z + 0.7 * rng.normal(size=z.shape), [y])[0] for _ in range(2))
        out.append(one - two)
    return np.stack(out, 1)


def test_copies_of_the_same_features_are_not_told_apart():
    trials = 600
    d = copies(trials, 40, 0)
    signs = paired_test(d, resamples=999, rng=0)
    assert (signs <= 0.05).sum() > most(trials, 0.05)  # taking prompts for independent finds too much
    assert (held_out_test(d, folds=FOLDS) <= 0.05).sum() <= most(trials, 0.05)
    low, high = held_out_interval(d, folds=FOLDS)
    assert ((low > 0) | (high < 0)).sum() <= most(trials, 0.05)


def test_what_is_there_is_found():
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(50):
        x = rng.normal(size=(40, 12))
        y = x[:, 0] + 0.5 * rng.normal(size=40)
        blind = scores(rng.normal(size=(40, 12)), [y])[0]
        seen = scores(x, [y, *(rng.permutation(y) for _ in range(10))])
        found += (
            held_out_test(seen[0] - blind, folds=FOLDS) < 0.05 and shuffle_test(seen[0].mean(), seen[1:].mean(1)) < 0.01
        )
    assert found >= 30


def test_the_corrected_test_by_hand():
    d = np.array([0.5, 0.1, -0.2, 0.4, 0.3, 0.6])
    error = d.std(ddof=1) * np.sqrt(1 / 6 + 1 / 4)  # three folds: fits of four prompts
    assert held_out_test(d, folds=3) == pytest.approx(t.sf(d.mean() / error, 5))
    np.testing.assert_allclose(held_out_interval(d, folds=3), d.mean() + t.ppf(0.975, 5) * error * np.array([-1, 1]))
    assert held_out_test(np.ones(6), folds=3) == 2.0**-6
    assert held_out_test(np.zeros(6), folds=3) == held_out_test(-np.ones(6), folds=3) == 1
    both = held_out_test(np.stack([d, -d, np.ones(6)], 1), folds=3)
    assert both[0] + both[1] == pytest.approx(1)


def test_families_keep_their_share_of_false_ones():
    """Units share the shuffles, which makes their p-values depend on each other."""
    rng = np.random.default_rng(8)
    trials, hits = 300, 0
    for _ in range(trials):
        y = rng.normal(size=30)
        labels = [y, *(rng.permutation(y) for _ in range(10))]
        mean = np.stack([scores(rng.normal(size=(30, 5)), labels).mean(1) for _ in range(4)])
        hits += discoveries(shuffle_test(mean[:, 0], mean[:, 1:].T)).any()
    assert hits <= most(trials, 0.05)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 99))
def test_labels_of_whole_prompts_stay_together(sizes, seed):
    """An order of all samples; with prompts of one size each holds the samples of one other, in their order."""
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = exchanged(groups, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(groups)))
    by_prompt = order[np.argsort(groups, kind="stable")]
    changes = (np.diff(groups[by_prompt]) != 0).sum()
    assert changes == len(sizes) - 1
    if len(set(sizes)) == 1:
        for part in by_prompt.reshape(len(sizes), -1):
            assert len(set(groups[part])) == 1
            assert (np.diff(part) > 0).all()


def test_bad_input():
    for call, message in (
        (lambda: shuffle_test(0.5, []), "shuffled: expected scores"),
        (lambda: shuffle_test([0.5, 0.4], [[0.5]]), "shuffled: expected scores"),
        (lambda: shuffle_test(np.nan, [0.5]), "score: expected finite"),
        (lambda: held_out_test([0.1, 0.2], folds=3), "difference: expected at least 3"),
        (lambda: held_out_test([0.1, np.inf], folds=2), "difference: expected finite"),
        (lambda: held_out_test([0.1, 0.2], folds=1), "folds"),
        (lambda: held_out_interval([0.1, 0.2], folds=2, confidence=1), "confidence"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
