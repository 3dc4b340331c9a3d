"""Which memories can be told apart: by hand, by windows that are not read, and by copies."""

import numpy as np
import pytest
import torch

from solomonic.models import generate
from solomonic.probes import distinguishability, load_dataset, save_dataset

from .small import small_model, tokens


def test_the_curve_is_that_of_tokens_generated_one_by_one(tmp_path):
    model, ids = small_model("M2-SWA", dtype=torch.float64), tokens(5, 20)
    found = distinguishability(model, ids, horizon=6)
    said = []
    for text in ids:
        memory = model(text[None, :-1]).memory
        said.append(generate(model, ids[:1, -1:], 6, memory=memory).ids[0].numpy())
    np.testing.assert_array_equal(found.token, said)
    for tau in range(7):
        same = [np.array_equal(said[i][:tau], said[j][:tau]) for i in range(5) for j in range(i)]
        assert float(found.alike.sel(after=tau)) == pytest.approx(np.mean(same))
        assert int(found.classes.sel(after=tau)) == len({tuple(each[:tau]) for each in said})
    assert (found.alike.diff("after") <= 0).all()
    assert (found.classes.diff("after") >= 0).all()
    assert (np.diagonal(found.agreeing) == 6).all()
    assert load_dataset(save_dataset(found, tmp_path / "d.nc")).identical(found)


def test_copies_are_never_told_apart():
    ids = tokens(1, 20).expand(4, -1)
    found = distinguishability(small_model(), ids, horizon=5)
    assert (found.alike == 1).all()
    assert (found.alike_interval == 1).all()


def test_states_of_bmojo_are_alike_until_they_are_read():
    """W = 6: what is read out of a state after the cut becomes a fading token, read W tokens later."""
    model, ids = small_model("BMF", dtype=torch.float64), tokens(8, 30)
    found = distinguishability(model, ids, parts="state", horizon=12, future="text")
    assert (found.alike.sel(after=slice(0, 6)) == 1).all()
    whole = distinguishability(model, ids, horizon=12)
    assert float(whole.alike[-1]) < 1


def test_a_memory_that_is_transplanted_whole_is_that_memory():
    model, ids = small_model("M2-SWA"), tokens(4, 20)
    whole = distinguishability(model, ids, horizon=5)
    parts = distinguishability(model, ids, parts=["conv", "state", "window"], horizon=5)
    layers = distinguishability(model, ids, layers=[0, 1], horizon=5)
    np.testing.assert_array_equal(whole.token, parts.token)
    np.testing.assert_array_equal(whole.token, layers.token)
    assert parts.attrs["what"] == "conv and state and window"


def test_the_interval_covers_its_share():
    found = distinguishability(small_model("M2", dtype=torch.float64), tokens(12, 12), parts="state", horizon=4, rng=0)
    low, high = found.alike_interval
    assert (low <= found.alike + 1e-12).all()
    assert (found.alike <= high + 1e-12).all()
    assert np.isnan(distinguishability(small_model("M2"), tokens(2, 9), horizon=2).alike_interval).all()


def test_what_it_refuses():
    model = small_model("M2-SWA")
    nan = small_model("M2")
    nan.get_parameter("model.embed_tokens.weight")[3] = torch.nan
    for call, message in (
        (lambda: distinguishability(model, tokens(1, 9)), "at least two texts"),
        (lambda: distinguishability(model, tokens(3, 1)), "at least 2 tokens"),
        (lambda: distinguishability(model, tokens(3, 9), parts="kv"), "parts: no layer has"),
        (lambda: distinguishability(model, tokens(3, 9), layers=7), "layers: expected layers from 0 to 1"),
        (lambda: distinguishability(model, tokens(3, 9), future="both"), "future"),
        (lambda: distinguishability(model, tokens(3, 9), horizon=0), "horizon"),
        (lambda: distinguishability(nan, torch.full((2, 9), 3)), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
