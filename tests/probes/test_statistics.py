"""Intervals cover what they say, and Kaplan-Meier is statsmodels' and the one computed by hand."""

import numpy as np
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from solomonic.probes import bootstrap_interval, kaplan_meier
from solomonic.probes.fading import draw_others


def test_kaplan_meier_by_hand():
    # Six at risk; ends at 1 (one of 6), 3 (two of 4), 6 (the last one); cut off at 2 and 5.
    curve = kaplan_meier([1, 2, 3, 3, 5, 6], [True, False, True, True, False, True])
    np.testing.assert_array_equal(curve.times, [1, 3, 6])
    np.testing.assert_allclose(curve.survival, [5 / 6, 5 / 12, 0])
    greenwood = [1 / 30, 1 / 30 + 2 / 8]
    np.testing.assert_allclose(curve.variance[:2], curve.survival[:2] ** 2 * greenwood)
    assert curve.quantile(0.5)[0] == 3
    assert curve.censored == pytest.approx(1 / 3)
    np.testing.assert_allclose(curve.at([0, 0.99, 1, 2.5, 3, 100]), [1, 1, 5 / 6, 5 / 6, 5 / 12, 0])


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning:statsmodels")
@pytest.mark.parametrize("seed", range(6))
def test_kaplan_meier_is_statsmodels(seed):
    rng = np.random.default_rng(seed)
    lasting = np.ceil(rng.exponential(20, 80))
    cut = np.ceil(rng.uniform(0, 60, 80))
    durations, observed = np.minimum(lasting, cut), lasting <= cut
    ours = kaplan_meier(durations, observed)
    theirs = SurvfuncRight(durations, observed)
    np.testing.assert_array_equal(ours.times, theirs.surv_times)
    np.testing.assert_allclose(ours.survival, theirs.surv_prob, atol=1e-14)
    seen = ours.survival > 0
    np.testing.assert_allclose(np.sqrt(ours.variance[seen]), theirs.surv_prob_se[seen], rtol=1e-10)
    for p in (0.25, 0.5):
        estimate, low, high = ours.quantile(p)
        assert estimate == theirs.quantile(p)
        assert (low, high) == pytest.approx(theirs.quantile_ci(p, method="cloglog"))


def test_nothing_ended():
    curve = kaplan_meier([4, 5], [False, False])
    assert curve.quantile(0.5) == (np.inf, 0.0, np.inf)
    assert curve.censored == 1
    np.testing.assert_array_equal(curve.at([1, 9]), [1, 1])
    assert repr(curve) == "KaplanMeier(2 durations, 100.0% cut off, median inf)"


def test_the_median_of_kaplan_meier_is_covered():
    """Exponential lives with uniform censoring, about 30 % of them: nominal 95 %."""
    rng = np.random.default_rng(1)
    trials, n, scale = 3000, 100, 10.0
    covered = 0
    for _ in range(trials):
        lives, cuts = rng.exponential(scale, n), rng.uniform(0, 3.2 * scale, n)
        _, low, high = kaplan_meier(np.minimum(lives, cuts), lives <= cuts).quantile(0.5)
        covered += low <= scale * np.log(2) <= high
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.parametrize(
    ("statistic", "method", "truth"),
    [("mean", "percentile", 0.0), ("mean", "bca", 0.0), ("median", "percentile", 0.0)],
)
def test_bootstrap_intervals_cover(statistic, method, truth):
    rng = np.random.default_rng(2)
    trials, n = 2000, 48
    samples = rng.standard_normal((n, trials))
    # Trials lie along the second axis: the resamples are shared, which leaves each trial's interval as it is.
    blocks = [
        bootstrap_interval(samples[:, i : i + 50], statistic, resamples=999, method=method, rng=rng)
        for i in range(0, trials, 50)
    ]
    low, high = np.concatenate(blocks, 1)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_skewed_means_are_covered_best_by_bca():
    rng = np.random.default_rng(3)
    trials, n = 2000, 48
    samples = rng.exponential(1.0, (n, trials))
    low, high = np.concatenate(
        [
            bootstrap_interval(samples[:, i : i + 50], resamples=999, method="bca", rng=rng)
            for i in range(0, trials, 50)
        ],
        1,
    )
    assert 0.93 <= ((low <= 1) & (high >= 1)).mean() <= 0.97


def test_bca_is_the_one_in_scipy():
    from scipy.stats import bootstrap

    samples = np.random.default_rng(0).exponential(1.0, 30)
    # Widening aside, the two differ by the resamples only.
    n, confidence = 30, 0.95
    from scipy.stats import norm, t

    level = float(norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf((1 + confidence) / 2, n - 1)))
    theirs = bootstrap(
        (samples,), np.mean, confidence_level=1 - 2 * level, n_resamples=20000, method="BCa", rng=0
    ).confidence_interval
    ours = bootstrap_interval(samples, method="bca", resamples=20000, rng=1)
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], rtol=0.02)


def test_bootstrap_is_paired_and_repeatable():
    rng = np.random.default_rng(0)
    column = rng.standard_normal(20)
    values = np.stack([column, column + 1, 2 * column], 1)
    for statistic in ("mean", "median"):
        low, high = bootstrap_interval(values, statistic, rng=5)
        np.testing.assert_allclose(low[1] - low[0], 1)
        np.testing.assert_allclose(high[2], 2 * high[0])
        np.testing.assert_array_equal(bootstrap_interval(values, statistic, rng=5), [low, high])
    by_callable = bootstrap_interval(values, lambda x, axis: x.mean(axis), rng=5)
    np.testing.assert_allclose(by_callable, bootstrap_interval(values, method="percentile", rng=5))


def test_degenerate_samples():
    assert np.isnan(bootstrap_interval([3.0])).all()
    for method in ("percentile", "bca"):
        np.testing.assert_array_equal(bootstrap_interval(np.zeros(9), method=method), [0, 0])
        np.testing.assert_array_equal(
            bootstrap_interval(np.full((9, 2), 4.0), "median", method=method), np.full((2, 2), 4)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "values"),
        ({"values": [1.0, 2.0], "statistic": "mode"}, "statistic"),
        ({"values": [1.0, 2.0], "confidence": 1.0}, "confidence"),
        ({"values": [1.0, 2.0], "resamples": 0}, "resamples"),
        ({"values": [1.0, 2.0], "method": "normal"}, "method"),
    ],
)
def test_bad_bootstraps(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


@pytest.mark.parametrize(
    ("durations", "observed", "message"),
    [
        ([], [], "durations"),
        ([1.0], [True, False], "observed"),
        ([-1.0], [True], "at least 0"),
        ([np.nan], [True], "finite"),
    ],
)
def test_bad_durations(durations, observed, message):
    with pytest.raises(ValueError, match=message):
        kaplan_meier(durations, observed)


def test_draws_are_conditional_and_never_the_same():
    rng = np.random.default_rng(0)
    pool = np.repeat([2, 5, 9], [50, 30, 20])
    drawn = draw_others(np.repeat([2, 5, 7], 40000), pool, rng).reshape(3, -1)
    for row, (own, expected) in enumerate(
        [(2, {5: 0.6, 9: 0.4}), (5, {2: 5 / 7, 9: 2 / 7}), (7, {2: 0.5, 5: 0.3, 9: 0.2})]
    ):
        values, counts = np.unique(drawn[row], return_counts=True)
        assert own not in values
        assert set(values) == set(expected)
        for value, count in zip(values, counts, strict=True):
            assert count / 40000 == pytest.approx(expected[value], abs=0.01)


def test_no_other_token_to_draw():
    with pytest.raises(ValueError, match="expected a token other than 4"):
        draw_others(np.array([4, 4]), np.array([4, 4, 4]), np.random.default_rng(0))
    np.testing.assert_array_equal(draw_others(np.array([3]), np.array([4, 4]), np.random.default_rng(0)), [4])
