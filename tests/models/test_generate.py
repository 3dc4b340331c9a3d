"""Greedy and sampled generation."""

import numpy as np
import pytest
import torch

from solomonic.models import generate
from solomonic.models.generate import _choose

from .small import VARIANTS, small_model, tokens


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_is_the_argmax_of_full_forwards(name):
    model = small_model(name)
    ids = tokens(2, 4)
    got = generate(model, ids, 15).ids  # past 2W of every window
    for _ in range(15):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, ids[:, 4:])


def test_going_on_from_a_generation():
    model = small_model("hybrid")
    ids = tokens(1, 4)
    whole = generate(model, ids, 12)
    half = generate(model, ids, 6)
    rest = generate(model, half.logits.argmax(-1, keepdim=True), 5, memory=half.memory)
    assert torch.equal(torch.cat([half.ids, half.logits.argmax(-1, keepdim=True), rest.ids], 1), whole.ids)
    assert rest.memory.position == whole.memory.position == 16


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(40_000, 1)
    drawn = _choose(logits, 2.0, None, None, np.random.default_rng(0))
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    assert (share - (logits[0] / 2).softmax(-1)).abs().max() < 0.01
    top = _choose(logits, 1.0, 2, None, np.random.default_rng(0))
    assert set(top.tolist()) == {1, 2}
    p = logits[0].softmax(-1)
    nucleus = _choose(logits, 1.0, None, float(p[2]) - 1e-3, np.random.default_rng(0))
    assert set(nucleus.tolist()) == {2}
    nucleus = _choose(logits, 1.0, None, float(p[2]) + 1e-3, np.random.default_rng(0))
    assert set(nucleus.tolist()) == {1, 2}


def test_sampling_is_reproducible():
    model = small_model("mamba2")
    ids = tokens(2, 4)
    a = generate(model, ids, 10, temperature=1.0, rng=1).ids
    assert torch.equal(a, generate(model, ids, 10, temperature=1.0, rng=1).ids)
    assert not torch.equal(a, generate(model, ids, 10, temperature=1.0, rng=2).ids)


def test_nothing_to_add():
    out = generate(small_model("mamba2"), tokens(2, 4), 0)
    assert out.ids.shape == (2, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"tokens": -1},
        {"tokens": 2.5},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_refused(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=name):
        generate(small_model("mamba2"), tokens(1, 3), **{"tokens": 2, **bad})
