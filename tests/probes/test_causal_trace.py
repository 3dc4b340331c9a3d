"""Causal traces: the same numbers as patching by hand, exact zeros of what does not differ, and their controls."""

import numpy as np
import pytest
import torch

from solomonic.models import adapt
from solomonic.probes import Edit, causal_trace, edit, load_dataset, save_dataset
from solomonic.probes.divergence import kl_bits

from ..models.adapters.small import small
from ..models.adapters.small import tokens as prompts_of
from .small import PATTERNS, small_model, tokens

T = 20


def pair(prompts=2, length=T, at=6):
    """Two texts that differ at one token."""
    ids = tokens(prompts, length)
    other = ids.clone()
    other[:, at] = (ids[:, at] + 7) % 64
    return ids, other


def by_hand(model, ids, other, time, layer, part, contrast=None):
    mine, theirs = (model(each[:, : time + 1]).memory for each in (ids, other))
    rest = ids[:, time + 1 :]
    patched = model(rest, memory=mine.transplant(theirs, parts=part, layers=layer)).logits[:, -1]
    plain = model(ids).logits[:, -1]
    if contrast is not None:
        gap = patched - plain
        return (gap[:, contrast[0]] - gap[:, contrast[1]]).numpy()
    goal = model(other).logits[:, -1]
    return (kl_bits(goal, plain) - kl_bits(goal, patched)).numpy()


@pytest.mark.parametrize("contrast", [None, (3, 9)])
@pytest.mark.parametrize("pattern", [*PATTERNS, "BMO-GDN"])
def test_agrees_with_patching_by_hand(pattern, contrast):
    model, (ids, other) = small_model(pattern, dtype=torch.float64), pair()
    found = causal_trace(model, ids, other, times=[7, 13, T - 2], contrast=contrast)
    scale = abs(found.total).max().item()
    for place, (layer, part) in enumerate(zip(found.layer.values, found.part.values, strict=True)):
        for time in (7, 13, T - 2):
            want = by_hand(model, ids, other, time, int(layer), part, contrast)
            np.testing.assert_allclose(found.effect.sel(time=time)[:, place], want, atol=1e-10 * scale + 1e-14)


@pytest.mark.parametrize("name", ["mamba2", "mistral", "qwen3_next"])
def test_models_of_transformers(name):
    model, ids = small(name, dtype=torch.float64), prompts_of(2, 14)
    other = ids.clone()
    other[:, 5] = (ids[:, 5] + 3) % int(ids.max())
    adapted = adapt(model)
    found = causal_trace(model, ids, other, times=[6, 11])
    for place, (layer, part) in enumerate(zip(found.layer.values, found.part.values, strict=True)):
        want = by_hand(adapted, ids, other, 11, int(layer), part)
        np.testing.assert_allclose(found.effect.sel(time=11)[:, place], want, atol=1e-10)


def test_nothing_differs_before_the_texts_do_and_the_whole_memory_is_the_total():
    model, (ids, other) = small_model("M2", dtype=torch.float64), pair()
    found = causal_trace(model, ids, other, times=[5, T - 2])
    assert (abs(found.effect.sel(time=5)) < 1e-12).all()
    # one layer, right behind the difference: its parts are all there is
    late = causal_trace(model, ids, other, times=[T - 2], first_order=True)
    assert np.isfinite(late.normalised).all()
    same = causal_trace(model, ids, ids, times=[9])
    assert (same.total == 0).all()
    assert same.normalised.isnull().all()


def test_what_a_window_has_lost_has_no_effect():
    model, (ids, other) = small_model("SWA-SWA", dtype=torch.float64), pair(at=3)
    found = causal_trace(model, ids, other, times=[4, 12])
    early = found.effect.sel(time=12)  # 2 (5 - 1) tokens on, no register holds it
    assert (abs(early) < 1e-13).all()


@pytest.mark.parametrize("contrast", [None, (3, 9)])
def test_first_order_is_the_derivative(contrast):
    model, (ids, other) = small_model("BMF-SWA", dtype=torch.float64), pair(prompts=1)
    found = causal_trace(model, ids, other, times=[9, 13], contrast=contrast, first_order=True)
    goal = model(other).logits[:, -1]
    step = 1e-5

    def score(logits):
        if contrast is None:
            return -kl_bits(goal, logits[:, -1]).item()
        return (logits[0, -1, contrast[0]] - logits[0, -1, contrast[1]]).item()

    for place, (layer, part) in enumerate(zip(found.layer.values, found.part.values, strict=True)):
        mine, theirs = (model(each[:, :14]).memory.get(int(layer), part) for each in (ids, other))
        gap = tuple(b - a for a, b in zip(mine, theirs, strict=True)) if isinstance(mine, tuple) else theirs - mine

        def scaled(by, gap=gap):
            return tuple(by * g for g in gap) if isinstance(gap, tuple) else by * gap

        out = edit(model, ids, [Edit(int(layer), part, 13, "add", scaled(by)) for by in (step, -step)])
        want = (score(out.logits[0]) - score(out.logits[1])) / (2 * step)
        got = found.first_order.sel(time=13)[0, place].item()
        assert abs(got - want) < 1e-5 * max(1e-3, abs(want))
    assert -1 <= found.attrs["agreement"] <= 1


def test_controls_and_intervals():
    model, (ids, other) = small_model("M2-SWA"), pair(prompts=6)
    found = causal_trace(model, ids, other, times=[8, 15], controls=["random", "shuffled"], rng=0)
    assert found.control_effect.dims == ("control", "prompt", "time", "site")
    assert np.isfinite(found.control_effect).all()
    assert (found.normalised_interval[0] <= found.normalised + 1e-12).all()
    assert (found.normalised <= found.normalised_interval[1] + 1e-12).all()
    again = causal_trace(model, ids, other, times=[8, 15], controls=["random", "shuffled"], rng=0)
    assert found.identical(again)


def test_is_saved_and_read_back(tmp_path):
    model, (ids, other) = small_model("M2"), pair()
    found = causal_trace(model, ids, other, times=3, layers=0, parts="state")
    assert found.sizes == {"prompt": 2, "time": 3, "site": 1, "bound": 2}
    assert load_dataset(save_dataset(found, tmp_path / "trace.nc")).identical(found)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"other": tokens(2, T - 1)}, ValueError, "patches need texts of one length"),
        ({"times": [T - 1]}, ValueError, "cuts from 1 to 19"),
        ({"times": []}, ValueError, "at least one"),
        ({"layers": 4}, ValueError, "layers: expected layers from 0 to 1, got 4"),
        ({"parts": "kv"}, ValueError, "parts: this model has conv, state, window, got 'kv'"),
        ({"parts": "state", "layers": 1}, ValueError, "no layer of \\[1\\] has any"),
        ({"controls": "zero"}, ValueError, "controls: expected random or shuffled, got 'zero'"),
        ({"contrast": (1, 99)}, ValueError, "contrast: expected two tokens from 0 to 63"),
        ({"confidence": 1.5}, ValueError, "confidence"),
    ],
)
def test_what_cannot_be_done_is_refused(named, error, message):
    ids, other = pair()
    with pytest.raises(error, match=message):
        causal_trace(small_model("M2-SWA"), ids, **({"other": other} | named))


def test_shuffled_needs_another_prompt_and_nan_is_refused():
    model, (ids, other) = small_model("M2"), pair(prompts=1)
    with pytest.raises(ValueError, match="takes the memory of another prompt"):
        causal_trace(model, ids, other, controls="shuffled")
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinities"):
        causal_trace(model, ids, other)
