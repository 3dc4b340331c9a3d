"""Which memories can be told apart: by hand, by windows that are not read, and by copies."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import t as student

from solomonic.models import generate
from solomonic.probes import distinguishability, load_dataset, save_dataset
from solomonic.probes.distinguishability import alike_interval

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
    low, high = found.alike_interval.values
    assert (high == 1).all()
    assert low[0] == 1
    np.testing.assert_allclose(low[1:], (4 / (4 + 1.959964**2)) ** 2, rtol=1e-6)  # four of four: Wilson's limit


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
    found = distinguishability(small_model("M2", dtype=torch.float64), tokens(12, 12), parts="state", horizon=4)
    low, high = found.alike_interval
    assert (low <= found.alike + 1e-12).all()
    assert (found.alike <= high + 1e-12).all()
    assert np.isnan(distinguishability(small_model("M2"), tokens(2, 9), horizon=2).alike_interval).all()


def test_the_interval_is_the_jackknife_done_by_hand():
    kind = np.array([0, 0, 1, 0, 2, 1, 3])
    same = kind[:, None] == kind
    count = len(kind)

    def share(keep):
        return np.mean([same[i, j] for i in keep for j in keep if i != j])

    whole, memories = share(range(count)), range(count)
    pseudo = [count * whole - (count - 1) * share([m for m in memories if m != left]) for left in memories]
    variance = np.var(pseudo, ddof=1) / count + whole * (1 - whole) / (count * (count - 1))
    width = student.ppf(0.95, count - 1) * np.sqrt(variance) / (whole * (1 - whole))
    found = alike_interval(same[..., None].astype(int), 0.9)
    np.testing.assert_allclose(found[:, 1], expit(logit(whole) + np.array([-width, width])))


def test_memories_that_all_differ_leave_something_open():
    found = alike_interval(np.eye(12, dtype=int)[..., None], 0.95)[:, 1]
    assert found[0] == 0
    assert 0.1 < found[1] < 0.15  # one of twelve in a class of up to 0.35 of all


@pytest.mark.parametrize("law", [[0.7, *[0.05] * 6], [0.25] * 4, [0.95, 0.05], [0.1] * 10])
def test_the_interval_covers_the_share_of_all_pairs(law):
    """At least 93 % of 2000 simulations; benchmarks/calibration.py has more laws."""
    rng, truth = np.random.default_rng(0), float(np.square(law).sum())
    kinds = rng.choice(len(law), size=(2000, 20), p=law)
    same = np.moveaxis(kinds[:, :, None] == kinds[:, None], 0, -1).astype(int)
    low, high = alike_interval(same, 0.95)[:, 1:]
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93


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
