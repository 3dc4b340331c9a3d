"""Fading split by the parts of the memory: sums, ablated layers, and what theory says cannot carry anything."""

import numpy as np
import pytest
import torch

from solomonic.probes import fading, fading_by_memory
from solomonic.probes.fading_by_memory import shapley_values

from .small import small_model, tokens


@pytest.mark.parametrize("pattern", ["BMF-M2-SWA-*", "M2", "BMO-SWA"])
def test_the_shares_sum_to_the_whole_influence(pattern):
    model = small_model(pattern, dtype=torch.float64, eidetic_tokens=4)
    ids = tokens(3, 30)
    split = fading_by_memory(model, ids, lags=[1, 5, 13, 20], rng=0)
    whole = fading(model, ids, lags=[1, 5, 13, 20], rng=0)
    np.testing.assert_allclose(split.shapley.sum("part"), split.kl, atol=1e-15)
    np.testing.assert_allclose(split.kl, whole.kl, rtol=1e-6, atol=1e-15)
    assert (split.subset_kl.sel(subset="none") == 0).all()
    assert (split.kl > 0).all()


def test_one_part_has_it_all():
    split = fading_by_memory(small_model("SWA", dtype=torch.float64), tokens(3, 20), lags=[1, 4, 5, 9], rng=0)
    assert split.part.values.tolist() == ["window"]
    np.testing.assert_array_equal(split.shapley.sel(part="window"), split.kl)
    assert (split.kl.sel(lag=[5, 9]) == 0).all()  # W = 5 reads lags 0 .. 4
    assert split.share.sel(part="window", lag=4) == 1
    assert np.isnan(split.share.sel(part="window", lag=9))


def test_a_register_carries_nothing_past_its_length():
    model = small_model("M2", dtype=torch.float64)
    split = fading_by_memory(model, tokens(4, 20), lags=[1, 3, 4, 10], rng=0)
    conv = split.sel(part="conv")
    # Before the last token is read the register holds the three before it: lags 1 .. 3.
    assert (abs(conv.shapley.sel(lag=[1, 3])) > 0).all()
    assert (conv.shapley.sel(lag=[4, 10]) == 0).all()
    assert (conv.alone.sel(lag=10) == 0).all()
    np.testing.assert_array_equal(split.sel(part="state", lag=10).shapley, split.kl.sel(lag=10))


def test_a_part_that_is_not_read_carries_nothing():
    model = small_model("BMF", dtype=torch.float64)  # W = 6
    split = fading_by_memory(model, tokens(4, 40), lags=[8, 25], rng=0)
    # The state is read into a fading token, which is not read before W tokens have passed.
    assert (split.shapley.sel(part=["state", "conv"]) == 0).all()
    np.testing.assert_allclose(split.shapley.sel(part="fading_tokens"), split.kl, atol=1e-15)
    later = fading_by_memory(model, tokens(4, 40), lags=[25], ahead=10, rng=0)
    assert (later.shapley.sel(part="state") != 0).all()


def test_shapley_values_by_hand():
    # Gloves: one left, two right hands; a pair is worth 1.
    players = ["left", "right", "other"]
    subsets = [set(), {"left"}, {"right"}, {"other"}, {"left", "right"}, {"left", "other"}, {"right", "other"}]
    subsets.append(set(players))
    worth = np.array([0, 0, 0, 0, 1, 1, 0, 1.0])
    np.testing.assert_allclose(shapley_values(worth, subsets, players), [2 / 3, 1 / 6, 1 / 6])


def test_alone_and_needed_by_transplants():
    model = small_model("M2-SWA", dtype=torch.float64)
    ids = tokens(2, 16)
    split = fading_by_memory(model, ids, lags=[4], rng=3)
    whole = fading(model, ids, lags=[4], rng=3)
    changed = ids.clone()
    changed[:, 11] = torch.from_numpy(whole.replacement.to_numpy()[:, 0])
    clean, other = model(ids[:, :15]).memory, model(changed[:, :15]).memory
    base = model(ids[:, 15:], memory=clean).logits[:, 0].log_softmax(-1)
    for part in ("conv", "state", "window"):
        rest = {"conv", "state", "window"} - {part}
        for name, parts in (("alone", {part}), ("rest", rest)):
            mixed = clean.transplant(other, parts=parts)
            q = model(ids[:, 15:], memory=mixed).logits[:, 0].log_softmax(-1)
            expected = (base.exp() * (base - q)).sum(-1).numpy() / np.log(2)
            found = split.alone if name == "alone" else split.kl - split.needed
            np.testing.assert_allclose(found.sel(part=part, lag=4), expected, rtol=1e-5, atol=1e-12)


def test_what_it_refuses():
    model = small_model("M2")
    with pytest.raises(ValueError, match="ahead"):
        fading_by_memory(model, tokens(2, 8), ahead=8)
    with pytest.raises(ValueError, match="lags"):
        fading_by_memory(model, tokens(2, 8), lags=[1], ahead=2)
    with pytest.raises(ValueError, match="lags"):
        fading_by_memory(model, tokens(2, 8), lags=[8])
    with pytest.raises(ValueError, match="replacements"):
        fading_by_memory(model, torch.zeros(2, 8, dtype=torch.long))
