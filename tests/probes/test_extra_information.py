"""What the last tokens add to a part: much where the part is not read yet, nothing where it says all."""

import numpy as np
import pytest
import torch

from solomonic.probes import extra_information, load_dataset, save_dataset
from solomonic.probes.extra_information import _indicators
from solomonic.probes.linear_read import held_out_errors

from .small import small_model, tokens

IDS = tokens(60, 24, vocabulary=8)


def model(pattern, **changes):
    return small_model(pattern, dtype=torch.float64, vocab_size=8, **changes)


def test_the_residual_stream_of_the_last_layer_leaves_little_to_add():
    found = extra_information(model("M2-SWA"), IDS, part="residual", layers=1, lags=2, samples=6)
    assert float(found.explained.sel(layer=1, features="part")) > 0.95
    assert abs(float(found.extra.sel(layer=1))) < 0.01


def test_a_state_that_is_not_read_yet_lacks_the_window():
    """The state of a B'MOJO-F layer is read W tokens later; what is predicted now comes from the window."""
    found = extra_information(model("BMF", bmojo_window=6), IDS, part="fading_tokens", lags=2, samples=4)
    assert float(found.extra.sel(layer=0)) > 0.3
    assert float(found.extra_interval.sel(layer=0, bound="lower")) > 0.2
    both, part = (found.explained.sel(layer=0, features=name) for name in ("both", "part"))
    assert float(found.extra.sel(layer=0)) == pytest.approx(float(both - part))


def gained(source, *, from_tokens: float) -> float:
    """What tokens add where the target is a map of the features and, with a weight, of the tokens."""
    x, codes = source.standard_normal((320, 6)), source.integers(5, size=(320, 1))
    prompt, one_hot = np.repeat(np.arange(40), 8), np.eye(5)[codes[:, 0]]
    y = x @ source.standard_normal((6, 3)) + from_tokens * one_hot @ source.standard_normal((5, 3))
    y += 0.5 * source.standard_normal(y.shape)
    share = []
    for blocks in ([x], [x, one_hot]):
        errors, variations = held_out_errors(blocks, y, prompt, folds=5, generator=np.random.default_rng(0))
        share.append(1 - errors.sum() / variations.sum())
    return share[1] - share[0]


def test_useless_tokens_add_nothing_and_useful_ones_what_they_hold():
    source = np.random.default_rng(0)
    useless = [gained(source, from_tokens=0.0) for _ in range(10)]
    assert np.abs(useless).max() < 0.02
    assert min(gained(source, from_tokens=3.0) for _ in range(5)) > 0.2


def test_the_interval_of_nothing_holds_zero():
    """The residual stream holds the token that it stands at: to be told it once more adds nothing."""
    found = extra_information(model("SWA", swa_window=2), IDS, part="residual", lags=1, samples=4)
    low, high = found.extra_interval.sel(layer=0).values
    assert low - 0.01 <= 0 <= high + 0.01


def test_later_predictions_and_indicators():
    ids = np.array([[1, 2, 0, 2]])
    shown = _indicators(ids, np.array([2, 3]), 2, 3)
    assert shown.tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]]
    now, later = (
        extra_information(model("M2"), IDS, part="residual", ahead=a, samples=4).explained.sel(layer=0) for a in (1, 4)
    )
    assert (now.sel(features=["part", "tokens", "both"]) > 0.5).all()
    assert (later < 0.1).all()  # four random tokens on, nothing of them is left to foresee


def test_layers_without_the_part_are_left_out_and_the_file_keeps_all(tmp_path):
    found = extra_information(model("M2-SWA-M2"), IDS, samples=3, rng=4)
    assert found.layer.values.tolist() == [0, 2]
    assert found.dimension.values.tolist() == [4 * 8 * 8] * 2
    assert found.identical(extra_information(model("M2-SWA-M2"), IDS, samples=3, rng=4))
    assert found.identical(load_dataset(save_dataset(found, tmp_path / "found.nc")))
    low, high = found.explained_interval
    assert (low <= found.explained + 1e-9).all()
    assert (found.explained <= high + 1e-9).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": "kv"}, "part: expected a part"),
        ({"part": "kv", "pattern": "*-M2"}, "grows with the text"),
        ({"layers": [0, 1]}, "layer 1 has"),
        ({"lags": 0}, "lags"),
        ({"lags": 13}, "at least 26 tokens"),
        ({"ahead": 13}, "at least 26 tokens"),
        ({"folds": 31}, "62 prompts"),
        ({"samples": 0}, "samples"),
        ({"confidence": 2}, "confidence"),
    ],
)
def test_bad_input_says_what_to_do(options, words):
    pattern = options.pop("pattern", "M2-SWA")
    with pytest.raises(ValueError, match=words):
        extra_information(model(pattern), IDS, **options)


def test_nan_is_never_a_result():
    damaged = model("M2")
    damaged.model.embed_tokens.weight[3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        extra_information(damaged, IDS)
