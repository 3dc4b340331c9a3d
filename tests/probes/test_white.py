"""Tests of whiteness: their size where they claim it, where the usual ones fail, their power, gaps, other programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from statsmodels.stats.diagnostic import acorr_ljungbox

from solomonic.probes import whiteness_tests
from solomonic.probes.white import ASSUMES, mean_test
from solomonic.realization import whiteness

TRIALS, LEVEL = 2000, 0.05
#: Sizes within three standard deviations of 5 % in 2000 trials.
NOMINAL = (0.035, 0.065)


def calibrated(trials, steps, source, *, kind, draws=99, hold=0.97):
    """Errors of a calibrated predictor of 3 tokens whose certainty moves; their deviations; errors drawn anew.

    The certainty of the prediction drifts by itself ("slow"), or jumps when a token was surprising ("arch").
    """
    error, deviation = np.empty((trials, steps)), np.empty((trials, steps))
    drawn = np.empty((draws, trials, steps), dtype=np.float32)
    a = source.standard_normal(trials)
    for t in range(steps):
        logits = np.array([0.0, 1.0, 2.0]) * np.exp(0.8 * a)[:, None]
        if kind == "arch":
            logits = np.array([0.0, 0.4, 0.8]) * np.exp(a)[:, None]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        p = np.exp(log_p)
        excess = -log_p + (p * log_p).sum(-1, keepdims=True)
        deviation[:, t] = np.sqrt((p * excess**2).sum(-1))
        bounds = p.cumsum(-1)[:, :2]
        error[:, t] = excess[np.arange(trials), (bounds < source.random((trials, 1))).sum(-1)]
        again = (bounds < source.random((draws, trials, 1))).sum(-1)
        drawn[:, :, t] = excess[np.arange(trials), again]
        if kind == "slow":
            a = hold * a + np.sqrt(1 - hold**2) * source.standard_normal(trials)
        else:
            a = np.where(error[:, t] > 0, 1.2, 0.6 * a)
    return error, deviation, drawn


def rejections(errors, source, *, tests, draws=None, lags=4, **options):
    """Share of the trials that each test rejects at 5 %."""
    hits = dict.fromkeys(tests, 0)
    for i, row in enumerate(errors):
        given_draws = None if draws is None else draws[:, i]
        found = whiteness_tests(row, lags=lags, tests=tests, draws=given_draws, resamples=99, rng=source, **options)
        for name, p in found.p_value.items():
            hits[name] += p <= LEVEL + 1e-12
    return {name: count / len(errors) for name, count in hits.items()}


def nominal(shares):
    return {name: share for name, share in shares.items() if not NOMINAL[0] <= share <= NOMINAL[1]} == {}


def test_the_bounds_are_three_standard_deviations():
    assert binom.cdf(NOMINAL[0] * TRIALS - 1, TRIALS, LEVEL) < 1e-3
    assert binom.sf(NOMINAL[1] * TRIALS, TRIALS, LEVEL) < 2e-3


# ---------------------------------------------------------------- size
def test_every_test_has_its_size_on_white_gaussian_noise():
    source = np.random.default_rng(0)
    noise = source.standard_normal((TRIALS, 100))
    drawn = source.standard_normal((99, TRIALS, 100)).astype(np.float32)
    shares = rejections(noise, source, tests=list(ASSUMES), draws=drawn)
    assert nominal(shares), shares


@pytest.fixture(scope="module")
def drifting():
    source = np.random.default_rng(1)
    return [calibrated(500, 200, source, kind="slow") for _ in range(4)]


def mean_shares(parts):
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def test_errors_of_a_calibrated_predictor_whose_certainty_drifts(drifting):
    """Redrawing keeps the level of errors in nat; Ljung-Box and permutation reject twice as often as they say."""
    source = np.random.default_rng(2)
    tests = ["ljung_box", "permutation", "redraw"]
    shares = mean_shares([rejections(e, source, tests=tests, draws=drawn) for e, _, drawn in drifting])
    assert nominal({"redraw": shares["redraw"]}), shares
    assert shares["ljung_box"] > 0.08, shares
    assert shares["permutation"] > 0.08, shares


def test_standardised_errors_of_the_same_predictor(drifting):
    """Divided by what the predictor expects they have one variance given the past, and the usual tests hold."""
    source = np.random.default_rng(3)
    tests = ["ljung_box", "redraw"]
    shares = mean_shares([rejections(e / s, source, tests=tests, draws=drawn / s) for e, s, drawn in drifting])
    assert nominal(shares), shares


def test_errors_whose_variance_follows_the_past_errors():
    source = np.random.default_rng(4)
    parts = [calibrated(500, 120, source, kind="arch") for _ in range(4)]
    shares = mean_shares([rejections(e, source, tests=["redraw"], draws=drawn) for e, _, drawn in parts])
    assert nominal(shares), shares


def test_signs_and_blocks_of_such_errors_where_there_are_a_thousand():
    """They are skewed: of 250 of them "sign" rejects 6.7 %."""
    source = np.random.default_rng(5)
    errors, deviation, _ = calibrated(TRIALS, 1000, source, kind="arch", draws=1)
    shares = rejections(errors / deviation, source, tests=["sign", "block"])
    assert nominal(shares), shares


def test_signs_and_blocks_hold_where_ljung_box_does_not():
    """Symmetric errors with a strong ARCH effect."""
    source = np.random.default_rng(5)
    unit = source.standard_normal((TRIALS, 250))
    errors, before = np.empty_like(unit), np.zeros(TRIALS)
    for t in range(unit.shape[1]):
        before = errors[:, t] = unit[:, t] * np.sqrt(0.3 + 0.7 * before**2)
    shares = rejections(errors, source, tests=["ljung_box", "permutation", "sign", "block"])
    assert nominal({name: shares[name] for name in ("sign", "block")}), shares
    assert shares["ljung_box"] > 0.2, shares
    assert shares["permutation"] > 0.2, shares


def test_products_that_depend_on_each_other_need_blocks():
    """Errors without correlation whose products have it: the sign of a slow process times a fixed pattern."""
    source = np.random.default_rng(6)
    errors = []
    for _ in range(400):
        slow = np.repeat(source.choice([-1.0, 1.0], 60), 10)  # e_t e_{t-1} = +-1, ten times in a row
        errors.append(np.cumprod(slow) * np.abs(1 + 0.1 * source.standard_normal(600)))
    shares = rejections(np.array(errors), source, tests=["sign", "block"], lags=1, block=30, centre=False)
    assert shares["sign"] > 0.25, shares
    assert shares["block"] < 0.10, shares


def test_the_mean_has_its_size_under_calibration(drifting):
    p = [mean_test(e[i], s[i] ** 2)[1] for e, s, _ in drifting for i in range(len(e))]
    assert NOMINAL[0] <= np.mean(np.array(p) <= LEVEL) <= NOMINAL[1]


# ---------------------------------------------------------------- power
def test_power_on_errors_of_order_one():
    source = np.random.default_rng(7)
    noise = source.standard_normal((200, 251))
    errors = noise[:, 1:].copy()
    for t in range(1, 250):
        errors[:, t] += 0.3 * errors[:, t - 1]
    drawn = np.broadcast_to(source.standard_normal((99, 1, 250)), (99, 200, 250))
    shares = rejections(errors, source, tests=list(ASSUMES), draws=drawn)
    assert min(shares.values()) > 0.9, shares


def test_pooling_finds_what_one_series_does_not():
    source = np.random.default_rng(8)
    noise = source.standard_normal((40, 16, 101))
    errors = noise[..., 1:] + 0.15 * noise[..., :-1]
    tests = ["ljung_box", "sign"]
    alone, pooled = rejections(errors[:, 0], source, tests=tests), rejections(errors, source, tests=tests)
    for name in tests:
        assert alone[name] < 0.5 < 0.9 < pooled[name], (alone, pooled)


# ---------------------------------------------------------------- other programs, closed forms
@pytest.mark.parametrize("length", [30, 257])
def test_ljung_box_is_that_of_statsmodels_and_of_realization(length):
    series = np.random.default_rng(9).standard_t(4, length)
    found = whiteness_tests(series, lags=7, tests="ljung_box")
    theirs = acorr_ljungbox(series, lags=[7])
    assert found.statistic["ljung_box"] == pytest.approx(float(theirs.lb_stat.iloc[0]), rel=1e-12)
    assert found.p_value["ljung_box"] == pytest.approx(float(theirs.lb_pvalue.iloc[0]), rel=1e-10)
    ours = whiteness(series, lags=7, permutations=0)  # Hosking's statistic has n^2 for n (n + 2)
    assert found.statistic["ljung_box"] == pytest.approx(ours.statistic * (length + 2) / length, rel=1e-10)
    np.testing.assert_allclose(found.autocorrelation, ours.autocorrelation[1:, 0, 0], atol=1e-12)


def test_the_permutation_test_is_that_of_realization():
    series = np.random.default_rng(10).standard_normal(80)
    series[1:] += 0.25 * series[:-1].copy()
    ours = whiteness_tests(series, lags=5, tests="permutation", resamples=4000, rng=0).p_value["permutation"]
    assert ours == pytest.approx(whiteness(series, lags=5, permutations=4000, rng=1).permutation_p_value, abs=0.02)


def plain(errors, lags):
    """Autocorrelations, pairs and the ratio R of series with gaps, by plain loops."""
    there = [(i, t) for i, row in enumerate(errors) for t, v in enumerate(row) if np.isfinite(v)]
    mean = np.mean([errors[at] for at in there])
    power = sum((errors[at] - mean) ** 2 for at in there)
    rho, pairs, ratio = [], [], 0.0
    for k in range(1, lags + 1):
        found = [
            (errors[i, t] - mean) * (errors[i, t - k] - mean) for i, t in there if t >= k and (i, t - k) in set(there)
        ]
        rho.append(sum(found) / power)
        pairs.append(len(found))
        ratio += sum(found) ** 2 / sum(v * v for v in found)
    return np.array(rho), np.array(pairs), ratio, len(there)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    series=st.integers(1, 3),
    length=st.integers(14, 40),
    gaps=st.floats(0, 0.4, allow_subnormal=False),
)
def test_gaps_and_several_series_agree_with_loops(seed, series, length, gaps):
    source = np.random.default_rng(seed)
    errors = source.standard_normal((series, length)) + 0.5
    errors[source.random(errors.shape) < gaps] = np.nan
    rho, pairs, ratio, n = plain(errors, 2)
    if pairs.min() < 6:
        return
    found = whiteness_tests(errors, lags=2, tests=["ljung_box", "sign"], resamples=19, rng=0)
    np.testing.assert_allclose(found.autocorrelation, rho, atol=1e-12)
    assert found.statistic["ljung_box"] == pytest.approx(n * (n + 2) * (rho**2 / pairs).sum())
    assert found.statistic["sign"] == pytest.approx(ratio)
    assert found.samples == n


def test_redrawn_errors_with_gaps_agree_with_loops():
    """Errors at t are drawn anew, those k earlier stay; lags weigh by the earlier errors that have a partner."""
    source = np.random.default_rng(13)
    errors, draws = source.standard_normal((2, 20)), source.standard_normal((25, 2, 20))
    errors[source.random(errors.shape) < 0.3] = np.nan
    there = np.isfinite(errors)

    def statistic(now):
        total = 0.0
        for k in (1, 2):
            at = [(i, t) for i, t in zip(*np.nonzero(there), strict=True) if t >= k and there[i, t - k]]
            size = sum(errors[i, t - k] ** 2 for i, t in at)
            total += sum(now[i, t] * errors[i, t - k] for i, t in at) ** 2 / size
        return total

    found = whiteness_tests(errors, lags=2, tests="redraw", draws=draws, centre=False)
    assert found.statistic["redraw"] == pytest.approx(statistic(errors))
    above = sum(statistic(each) >= statistic(errors) for each in draws)
    assert found.p_value["redraw"] == pytest.approx((1 + above) / 26)


def test_a_block_of_one_is_a_sign_and_one_of_all_is_a_series():
    errors = np.random.default_rng(11).standard_normal((9, 30))
    both = whiteness_tests(errors, lags=3, tests=["sign", "block"], block=1, rng=0).statistic
    assert both["sign"] == pytest.approx(both["block"])
    centred = errors - errors.mean()
    sums = np.stack([(centred[:, k:] * centred[:, :-k]).sum(1) for k in (1, 2, 3)], 1)
    whole = whiteness_tests(errors, lags=3, tests="block", block=100, rng=0).statistic["block"]
    assert whole == pytest.approx(float((sums.sum(0) ** 2 / (sums**2).sum(0)).sum()))


def test_a_test_that_was_not_named_and_has_too_few_blocks_is_not_made():
    p = whiteness_tests(np.arange(20.0), lags=2, block=10, rng=0).p_value
    assert [name for name, value in p.items() if np.isnan(value)] == ["block"]


def test_signs_of_few_products_give_the_exact_share():
    """One lag, eight products in eight series: R under all 256 signs, enumerated."""
    errors = np.stack([np.ones(8), [3.0, 1, 2, 5, 1, 1, 2, 4]], 1)
    products = errors[:, 1]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = np.mean((products @ signs) ** 2 >= products.sum() ** 2 - 1e-9)
    found = whiteness_tests(errors, lags=1, tests="sign", centre=False, resamples=20000, rng=0).p_value["sign"]
    assert exact == 2 / 256
    assert found == pytest.approx(exact, abs=0.003)


def test_scale_and_order_of_series_do_not_matter_and_the_seed_is_kept():
    errors = np.random.default_rng(12).standard_normal((4, 60))
    first = whiteness_tests(errors, rng=3, resamples=99)
    for again in (whiteness_tests(errors, rng=3, resamples=99), whiteness_tests(1e-9 * errors, rng=3, resamples=99)):
        assert again.p_value == pytest.approx(first.p_value)
    turned = whiteness_tests(errors[::-1], tests="ljung_box").statistic["ljung_box"]
    assert turned == pytest.approx(first.statistic["ljung_box"])
    assert "ljung_box p=" in repr(first)


def test_the_mean_test_in_closed_form():
    ratio, p = mean_test(np.array([1.0, 2.0, np.nan]), np.array([3.0, 6.0, 1.0]))
    assert ratio == pytest.approx(1.0)
    assert p == pytest.approx(2 * norm.sf(1.0))


@pytest.mark.parametrize(
    ("errors", "options", "words"),
    [
        (np.ones(20), {}, "constant"),
        (np.zeros(20), {"centre": False}, "constant"),
        (np.full(20, np.nan), {}, "at least 3"),
        ([np.inf, *range(20)], {}, "infinite"),
        (np.ones((2, 2, 9)), {}, "shape"),
        ([], {}, "shape"),
        (np.arange(9.0), {"lags": 9}, "no two errors are 9 apart"),
        ([[1.0, np.nan, 2.0, np.nan] * 4], {"lags": 2}, "no two errors are 1 apart"),
        (np.arange(20.0), {"tests": "box"}, "tests"),
        (np.arange(20.0), {"tests": []}, "tests"),
        (np.arange(20.0), {"tests": "redraw"}, "draws"),
        (np.arange(20.0), {"draws": np.ones((30, 19))}, "draws"),
        (np.arange(20.0), {"draws": np.ones((3, 20))}, "draws"),
        (np.arange(20.0), {"draws": np.full((30, 20), np.nan)}, "draws"),
        (np.arange(20.0), {"lags": 2, "block": 10, "tests": "block"}, "6 blocks"),
        (np.arange(20.0), {"block": 0}, "block"),
        (np.arange(20.0), {"resamples": 5}, "resamples"),
        (np.arange(20.0), {"lags": 0}, "lags"),
    ],
)
def test_bad_input_says_what_is_wrong(errors, options, words):
    with pytest.raises(ValueError, match=words):
        whiteness_tests(errors, rng=0, **options)
