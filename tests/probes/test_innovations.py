"""Prediction errors of models: in closed form, on text that the model wrote itself, and on text it did not."""

import sys

import numpy as np
import pytest
import torch
from scipy.stats import beta, entropy

from solomonic.models import bits_per_token, generate
from solomonic.probes import innovations, load_dataset, save_dataset, whiteness_tests
from solomonic.probes.innovations import scores
from solomonic.probes.reliability import ece_interval, reliability

from .small import small_model, tokens

SHARP = 2.0


@pytest.fixture(scope="module")
def model():
    """A random model that is sure of something: its logits are spread."""
    model = small_model("M2-SWA", dtype=torch.float64, vocab_size=8)
    model.lm_head.weight.mul_(SHARP)
    return model


@pytest.fixture(scope="module")
def own(model):
    """Text that the model wrote: calibrated by construction."""
    first = tokens(24, 1, vocabulary=8)
    return torch.cat([first, generate(model, first, 120, temperature=1.0, rng=0).ids], 1)


@pytest.fixture(scope="module")
def calibrated(model, own):
    return innovations(model, own, lags=5, rng=0)


# ---------------------------------------------------------------- what the scores are
def test_scores_in_closed_form():
    p = np.array([[0.5, 0.25, 0.125, 0.125], [0.7, 0.2, 0.1, 0.0], [1.0, 0.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        found = scores(np.log(p), np.array([2, 0, 0]), 20000, np.random.default_rng(0))
    np.testing.assert_allclose(found.surprise, [3, -np.log2(0.7), 0], atol=1e-12)
    np.testing.assert_allclose(found.entropy, entropy(p, base=2, axis=1), atol=1e-12)
    np.testing.assert_allclose(found.varentropy[[0, 2]], [0.6875, 0.0], atol=1e-12)  # 1/2 1 + 1/4 4 + 1/4 9 - 1.75^2
    np.testing.assert_allclose(found.confidence, [0.5, 0.7, 1.0])
    np.testing.assert_array_equal(found.correct, [0, 1, 1])
    np.testing.assert_allclose(found.drawn.mean(0), found.entropy, atol=0.02)
    np.testing.assert_allclose(found.drawn.var(0), found.varentropy, atol=0.03)
    assert set(np.unique(found.drawn[:, 0])) == {1, 2, 3}
    assert not found.drawn[:, 2].any()


def test_tokens_of_no_probability_are_never_drawn():
    p = np.array([[0.0, 1e-9, 1 - 1e-9, 0.0]])
    with np.errstate(divide="ignore"):
        assert np.isfinite(scores(np.log(p), np.array([2]), 5000, np.random.default_rng(0)).drawn).all()


def test_surprise_is_that_of_the_evaluation_and_excess_adds_up(model):
    ids = tokens(3, 20, vocabulary=8)
    found = innovations(model, ids, lags=3, resamples=19)
    np.testing.assert_allclose(found.surprise, bits_per_token(model, ids), atol=1e-10)
    np.testing.assert_allclose(found.excess, found.surprise - found.entropy)
    np.testing.assert_allclose(found.z**2 * found.varentropy, found.excess**2)
    assert found.time.values.tolist() == list(range(1, 20))


def test_the_tests_are_those_of_the_errors(model):
    ids = tokens(4, 40, vocabulary=8)
    for errors in ("z", "excess"):
        found = innovations(model, ids, lags=4, errors=errors, resamples=99)
        ours = whiteness_tests(found[errors].values, lags=4, tests=["ljung_box", "sign"], rng=1)
        for name, value in ours.statistic.items():
            assert float(found.statistic.sel(test=name)) == pytest.approx(value)
        assert float(found.p_value.sel(test="ljung_box")) == pytest.approx(ours.p_value["ljung_box"])
        np.testing.assert_allclose(found.autocorrelation, ours.autocorrelation)
        one = whiteness_tests(found[errors].values[2], lags=4, tests="ljung_box").p_value["ljung_box"]
        assert float(found.p_value_prompt.sel(prompt=2, test="ljung_box")) == pytest.approx(one)


@pytest.mark.parametrize("errors", ["z", "excess"])
def test_what_is_drawn_anew_is_drawn_from_the_predictions(model, errors):
    """The draws are made prompt by prompt from the seed; here once more, and measured as the errors are."""
    ids = tokens(4, 40, vocabulary=8)
    found = innovations(model, ids, lags=4, errors=errors, resamples=99, rng=7)
    source = np.random.default_rng(7)
    log_p = model(ids[:, :-1]).logits.log_softmax(-1).numpy()
    again = [scores(p, text[1:].numpy(), 99, source) for p, text in zip(log_p, ids, strict=True)]
    drawn = np.stack([each.drawn - each.entropy for each in again], 1)
    drawn = drawn / np.sqrt(found.varentropy.values) if errors == "z" else drawn
    ours = whiteness_tests(found[errors].values, lags=4, draws=drawn, tests="redraw")
    assert float(found.statistic.sel(test="redraw")) == pytest.approx(ours.statistic["redraw"])
    assert float(found.p_value.sel(test="redraw")) == ours.p_value["redraw"]
    above = np.abs(np.sum([each.drawn - each.entropy for each in again], (0, 2))) >= abs(found.excess.values.sum())
    assert float(found.mean_p_value) == (1 + above.sum()) / 100


def test_long_texts_are_scored_in_pieces_with_the_same_result(model, monkeypatch):
    ids = tokens(2, 23, vocabulary=8)
    whole = innovations(model, ids, lags=3, resamples=19, rng=0)
    monkeypatch.setattr(sys.modules["solomonic.probes.innovations"], "_HELD", 40)
    assert innovations(model, ids, lags=3, resamples=19, rng=0).identical(whole)


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    hf = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    ids = tokens(2, 20, vocabulary=16)
    found = innovations(hf, ids, lags=3, resamples=19)
    log_p = hf(ids[:, :-1]).logits.double().log_softmax(-1)
    expected = -log_p.gather(-1, ids[:, 1:, None])[..., 0] / np.log(2)
    np.testing.assert_allclose(found.surprise, expected, atol=1e-5)


# ---------------------------------------------------------------- calibrated or not
def test_the_models_own_text_is_white_and_calibrated(calibrated):
    assert (calibrated.p_value > 1e-3).all()
    assert float(calibrated.z_variance) == pytest.approx(1.0, abs=0.1)
    assert abs(float(calibrated.z_mean)) < 3 / np.sqrt(24 * 120)
    assert float(calibrated.mean_p_value) > 0.05
    assert float(calibrated.ece_p_value) > 0.05
    low, high = calibrated.z_mean_interval.values
    assert low < 0 < high
    low, high = calibrated.accuracy_interval.values
    inside = np.isfinite(low)
    assert inside.sum() > 5
    assert (low[inside] <= calibrated.accuracy.values[inside]).all()
    assert (calibrated.accuracy.values[inside] <= high[inside]).all()
    assert (calibrated.p_value_prompt.sel(test="redraw") <= 0.05).mean() < 0.25


def test_texts_that_the_model_wrote_are_rejected_as_often_as_the_level_says(model):
    first = tokens(180, 1, vocabulary=8)
    ids = torch.cat([first, generate(model, first, 80, temperature=1.0, rng=2).ids], 1)
    p = []
    for seed, texts in enumerate(ids.split(6)):
        found = innovations(model, texts, lags=5, resamples=99, rng=seed)
        p.append([*found.p_value.values, float(found.mean_p_value), float(found.ece_p_value)])
    assert len(p) == 30
    assert np.sum(np.array(p) <= 0.05 + 1e-12, axis=0).max() <= 6  # of 30; 7 or more have a probability of 5e-4


def test_a_text_of_runs_is_not_white(model):
    """Every token five times: a surprising token surprises again where the model does not know of runs."""
    ids = tokens(8, 24, vocabulary=8).repeat_interleave(5, 1)
    found = innovations(model, ids, lags=3, rng=0)
    assert (found.p_value.sel(test=["redraw", "sign", "ljung_box"]) < 0.01).all()


def test_a_colder_text_has_the_wrong_mean_and_a_large_calibration_error(model):
    ids = generate(model, tokens(16, 1, vocabulary=8), 80, temperature=0.5, rng=1).ids
    found = innovations(model, ids, lags=3, rng=0)
    assert float(found.mean_statistic) < -4
    assert float(found.excess_mean_interval[1]) < 0
    assert float(found.mean_p_value) < 0.01
    assert float(found.ece_p_value) < 0.01
    assert float(found.ece) > 2 * float(found.ece_calibrated)


def test_sure_predictions_are_left_out(model, own, calibrated):
    limit = float(np.quantile(calibrated.varentropy, 0.3))
    found = innovations(model, own, lags=5, floor=limit, rng=0)
    assert found.attrs["masked"] == int((calibrated.varentropy <= limit).sum()) > 0
    np.testing.assert_array_equal(np.isnan(found.z), calibrated.varentropy <= limit)
    assert (found.p_value.sel(test=["redraw", "ljung_box"]) > 0.01).all()
    flat = small_model("M2", vocab_size=8)
    flat.lm_head.weight.zero_()
    with pytest.raises(ValueError, match=r"floor: 0 predictions"):
        innovations(flat, tokens(2, 20, vocabulary=8))


def test_one_prompt_has_no_intervals_and_a_file_keeps_all(model, tmp_path):
    found = innovations(model, tokens(1, 30, vocabulary=8)[0], lags=3, resamples=19)
    for name in ("excess_mean_interval", "z_mean_interval", "ece_interval", "accuracy_interval"):
        assert np.isnan(found[name]).all()
    assert found.identical(load_dataset(save_dataset(found, tmp_path / "found.nc")))
    assert all(variable.attrs.get("units") for variable in found.data_vars.values())


def test_a_prompt_with_too_few_errors_has_no_tests(model):
    found = innovations(model, tokens(9, 5, vocabulary=8), lags=3, block=1, resamples=19)
    assert np.isnan(found.p_value_prompt.sel(test=["sign", "block"])).all()
    assert np.isfinite(found.p_value).all()


def test_the_seed_is_kept_and_the_global_one_left_alone(model, own):
    state = torch.get_rng_state()
    one, two = (innovations(model, own[:3], lags=3, resamples=49, rng=5) for _ in range(2))
    assert one.identical(two)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- reliability
def test_the_calibration_error_agrees_with_loops():
    source = np.random.default_rng(0)
    confidence, correct = source.random((3, 50)), (source.random((3, 50)) < 0.5).astype(float)
    confidence[0, 0], confidence[0, 1] = 0.0, 1.0
    found = reliability(confidence, correct, bins=7, level=0.95, resamples=50, generator=source)
    total = 0.0
    for b in range(7):
        inside = (confidence >= b / 7) & ((confidence < (b + 1) / 7) | (b == 6))
        assert found.count[b] == inside.sum()
        assert found.accuracy[b] == pytest.approx(correct[inside].mean())
        assert found.confidence[b] == pytest.approx(confidence[inside].mean())
        total += abs((correct - confidence)[inside].sum()) / 150
    assert found.ece == pytest.approx(total)


def test_the_test_of_the_calibration_error_has_its_size():
    source = np.random.default_rng(1)
    p = []
    for _ in range(2000):
        confidence = source.beta(2, 1, (1, 150))
        correct = (source.random(confidence.shape) < confidence).astype(float)
        found = reliability(confidence, correct, bins=10, level=0.95, resamples=99, generator=source)
        p.append(found.ece_p_value)
    assert 0.035 <= np.mean(np.array(p) <= 0.05 + 1e-12) <= 0.065
    assert np.mean(p) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("power", "least"), [(1.0, 0.95), (1.5, 0.9), (1.1, 0.9)])
def test_the_interval_of_the_calibration_error_holds_that_of_more_data(power, least):
    """Of a calibrated model, whose own error is always above the truth, 0, and of overconfident ones."""
    source, bins, prompts, length, trials = np.random.default_rng(2), 8, 24, 100, 150

    def sums(confidence):
        correct = source.random(confidence.shape) < confidence**power
        place = (confidence * bins).astype(int) + bins * np.arange(len(confidence))[:, None]
        parts = (np.bincount(place.ravel(), v.ravel(), len(confidence) * bins) for v in (confidence * 0 + 1, confidence,
                 correct.astype(float)))  # fmt: skip
        return np.stack([part.reshape(-1, bins) for part in parts], 1)

    many = np.linspace(0, 1, 200_001)[1:-1]
    weight = beta(2, 1.5).pdf(many)
    gap = np.bincount((many * bins).astype(int), weight * (many**power - many), bins)
    truth = np.abs(gap).sum() / weight.sum()
    held, above = 0, 0
    for _ in range(trials):
        found = sums(source.beta(2, 1.5, (prompts, length)))
        low, high = ece_interval(found, confidence=0.95, resamples=200, rng=source)
        held += low <= truth <= high
        above += np.abs((found[:, 2] - found[:, 1]).sum(0)).sum() / found[:, 0].sum() > truth
    assert held / trials >= least
    if power == 1.0:
        assert truth < 1e-12
        assert above == trials


def test_the_interval_of_the_calibration_error_at_its_edges():
    source = np.random.default_rng(0)
    sure = np.stack([np.full((5, 3), 4.0), np.full((5, 3), 2.0), np.full((5, 3), 2.0)], 1)
    options = {"confidence": 0.9, "resamples": 99, "rng": source}
    np.testing.assert_array_equal(ece_interval(sure, **options), [0, 0])  # nothing is wrong, whoever is redrawn
    np.testing.assert_array_equal(np.isnan(ece_interval(sure[:1], **options)), [True, True])
    wrong = sure * [[[1.0], [1.0], [0.0]]]
    np.testing.assert_allclose(ece_interval(wrong, **options), [0.5, 0.5], rtol=1e-6)  # and equally wrong in all


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lags": 0}, "lags"),
        ({"lags": 19}, "20 tokens have 19 errors and lags up to 18"),
        ({"errors": "bits"}, "errors"),
        ({"floor": -1.0}, "floor"),
        ({"floor": float("inf")}, "floor"),
        ({"floor": 1e9}, "floor: 0 predictions"),
        ({"bins": 0}, "bins"),
        ({"confidence": 1.0}, "confidence"),
        ({"resamples": 3}, "resamples"),
        ({"block": 0}, "block"),
        ({"ids": [[1, 2]]}, "at least 3 tokens"),
        ({"ids": [[1, 2, 8]]}, "tokens from 0 to 7"),
    ],
)
def test_bad_input_says_what_to_do(model, options, words):
    arguments = {"ids": tokens(2, 20, vocabulary=8), "lags": 3, **options}
    with pytest.raises(ValueError, match=words):
        innovations(model, **arguments)
