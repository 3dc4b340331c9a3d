"""Retention and half-lives against closed forms and brute force."""

import numpy as np
import pytest
import torch

from solomonic.models import load, zoo
from solomonic.probes import retention, trace
from solomonic.probes.retention import half_lives

from .small import small_model, tokens


def constant_decay(half_life: list[float], dtype: torch.dtype = torch.float64):
    """An M2 model whose decays do not depend on the input: head h forgets half in ``half_life[h]`` tokens."""
    model = small_model("M2", dtype=dtype)
    mixer = model.model.layers[0].mixer  # type: ignore[union-attr]
    mixer.in_proj.weight[-4:] = 0  # type: ignore[index]
    mixer.dt_bias[:] = np.log(np.expm1(0.1))  # type: ignore[index]
    rate = np.log(2) / (0.1 * np.array(half_life))
    mixer.A_log[:] = torch.from_numpy(np.log(rate))  # type: ignore[index]
    return model


def test_constant_decays_have_their_half_life():
    wanted = [1.0, 5.0, 16.0, 50.0]
    found = retention(trace(constant_decay(wanted), tokens(2, 200)), lags=[1, 5, 10, 50, 199])
    np.testing.assert_array_equal(found.half_life.sel(layer=0), wanted)
    np.testing.assert_allclose(found.half_life_rate.sel(layer=0), wanted, rtol=1e-12)
    lag = found.lag.to_numpy()
    for head, half in enumerate(wanted):
        here = found.sel(layer=0, head=head)
        np.testing.assert_allclose(here.retention, 2.0 ** (-lag / half), rtol=1e-10)
        np.testing.assert_allclose(here.retention_quantile, np.tile(2.0 ** (-lag / half), (3, 1)), rtol=1e-10)
        np.testing.assert_allclose(here.log_retention, -lag / half * np.log(2), rtol=1e-10)
        np.testing.assert_array_equal(here.survival, lag < half)
        # A start whose half-life reaches past the end was not seen to end.
        assert float(here.censored) == pytest.approx((half - 1) / 199)
    np.testing.assert_array_equal(found.half_life_interval.sel(layer=0), [wanted, wanted])
    np.testing.assert_array_equal(found.half_life_prompt_interval.sel(layer=0), [wanted, wanted])
    np.testing.assert_array_equal(found.starts, 2 * (200 - lag))


def test_another_level():
    found = retention(trace(constant_decay([1.0, 5.0, 16.0, 50.0]), tokens(1, 300)), level=0.25)
    np.testing.assert_array_equal(found.half_life.sel(layer=0), [2, 10, 32, 100])
    assert np.isnan(found.half_life_prompt_interval).all()


def test_a_state_that_keeps_everything_is_censored():
    found = retention(trace(constant_decay([1e18] * 4), tokens(1, 40)))
    assert (found.censored == 1).all()
    assert np.isinf(found.half_life).all()
    assert np.isinf(found.half_life_interval.sel(bound="upper")).all()
    assert (found.survival == 1).all()


def test_half_lives_by_hand():
    log = np.log([0.5, 0.5, 0.9, 0.1, 0.9, 0.9])
    durations, seen = half_lives(np.cumsum(log)[None], 0.5)
    # Start s is the state after token s: its first decay is that of token s + 1.
    np.testing.assert_array_equal(durations, [[1, 2, 1, 2, 1]])
    np.testing.assert_array_equal(seen, [[True, True, True, False, False]])


def test_half_lives_by_brute_force():
    rng = np.random.default_rng(0)
    log = -rng.exponential(0.1, (3, 80))
    durations, seen = half_lives(np.cumsum(log, 1), 0.3)
    for row in range(3):
        for start in range(79):
            product, tau = 1.0, 0
            while product > 0.3 and start + tau + 1 < 80:
                tau += 1
                product *= np.exp(log[row, start + tau])
            assert (durations[row, start], seen[row, start]) == (tau, product <= 0.3)


def test_the_curve_by_brute_force():
    run = trace(small_model("BMF-M2", dtype=torch.float64), tokens(3, 40))
    found = retention(run, lags=[1, 7, 39])
    for layer in (0, 1):
        decay = np.exp(run.log_decay(layer))
        for lag in (1, 7, 39):
            products = np.stack([decay[:, s + 1 : s + 1 + lag].prod(1) for s in range(40 - lag)], 1)
            logs = np.log(products)
            here = found.sel(layer=layer, lag=lag)
            np.testing.assert_allclose(here.retention, np.exp(logs.mean((0, 1))), rtol=1e-10)
            np.testing.assert_allclose(
                here.retention_quantile.sel(quantile=0.5), np.median(products, (0, 1)), rtol=1e-2
            )
    np.testing.assert_allclose(found.mean_log_decay.sel(layer=1), run.log_decay(1).mean((0, 1)))


def test_long_products_do_not_underflow():
    found = retention(trace(constant_decay([0.01] * 4), tokens(1, 100)), lags=[99])
    assert (found.retention == 0).all()
    np.testing.assert_allclose(found.log_retention, -9900 * np.log(2), rtol=1e-10)


def test_prompts_are_redrawn_whole():
    """Five prompts that forget fast and three that do not: the starts are no independent samples."""
    run = trace(small_model("M2"), tokens(8, 200))
    record = dict(run.records[0])
    decay = torch.full((8, 200, 4), -np.log(2) / 4.0)
    decay[5:] /= 5
    record["log_decay"] = decay
    object.__setattr__(run, "records", {0: record})
    object.__setattr__(run, "checks", {**run.checks, "state_error": {0: 0.0}})
    found = retention(run).sel(layer=0, head=0)
    assert found.half_life_prompt_interval.values.tolist() == [4, 20]
    assert found.half_life_interval.values.tolist() == [4, 4]


def test_only_what_has_a_state():
    with pytest.raises(ValueError, match=r"its layers \(SWA-SWA\) have no state space heads"):
        retention(trace(small_model("SWA-SWA"), tokens(1, 12)))
    with pytest.raises(ValueError, match="no state space heads"):
        retention(trace(small_model(), tokens(1, 12), layers=[2, 3]))


def test_bad_arguments():
    run = trace(small_model("M2"), tokens(1, 12))
    with pytest.raises(TypeError, match="expected a Trace"):
        retention(run.to_dataset())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lags from 1 to 11, got 12"):
        retention(run, lags=[12])
    with pytest.raises(ValueError, match="level"):
        retention(run, level=1.0)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        retention(trace(small_model("M2"), tokens(1, 1)))


def test_what_it_says_of_itself():
    found = retention(trace(small_model("M2"), tokens(1, 12)), lags=[1, 2])
    assert found.attrs["probe"] == "retention"
    assert found.attrs["checkpoint"].startswith("sha256:")
    assert found.half_life.attrs["units"] == "token"


def test_the_zoo():
    if "fading" not in zoo():
        pytest.skip("fading is not trained yet")
    ids = torch.arange(256).repeat(2)[None]
    found = retention(trace(load("fading"), ids))
    assert (found.retention.sel(lag=1) < 1).all()
    assert (found.half_life > 0).all()
