"""Somebody else's memory: whole ones make the other text, parts are chimeras and say so, positions must fit."""

import warnings

import numpy as np
import pytest
import torch

from solomonic.models import adapt, generate
from solomonic.probes import transplant

from ..models.adapters.small import small
from ..models.adapters.small import tokens as prompts_of
from .small import PATTERNS, small_model, tokens

MINE, THEIRS, AFTER = tokens(3, 14), tokens(3, 14, seed=1), tokens(1, 4, seed=2)


@pytest.mark.parametrize("pattern", [*PATTERNS, "BMO-GDN"])
def test_the_whole_memory_makes_the_other_text(pattern):
    model = small_model(pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = transplant(model, MINE, THEIRS, AFTER, parts="all")
    assert torch.equal(found.logits, found.donor)
    want = model(torch.cat([THEIRS, AFTER.expand(3, -1)], 1)).logits[:, 14:]
    torch.testing.assert_close(found.logits, want, atol=2e-5, rtol=0)
    assert found.chimera == ()
    assert found.effects.attrs["chimera"] == "none"
    np.testing.assert_allclose(found.effects.taken, 1.0)
    went_on = found.generate(model, AFTER, 5)
    memory = model(THEIRS).memory
    assert torch.equal(went_on, generate(model, AFTER.expand(3, -1), 5, memory=memory).ids)


def test_a_part_is_a_chimera_and_says_so():
    model = small_model("BMF-M2", dtype=torch.float64)
    with pytest.warns(UserWarning, match="chimera: layer 0 gets state of the donor and keeps its own conv\\+"):
        found = transplant(model, MINE, THEIRS, AFTER, parts="state", layers=0)
    memory = model(MINE).memory.transplant(model(THEIRS).memory, parts="state", layers=0)
    torch.testing.assert_close(found.logits, model(AFTER.expand(3, -1), memory=memory).logits, rtol=0, atol=1e-12)
    assert [each[0] for each in found.chimera] == [0]
    assert found.effects.attrs["chimera"].startswith("layer 0: state without conv")
    low, high = found.effects.taken_mean_interval
    assert ((low <= found.effects.taken_mean) & (found.effects.taken_mean <= high)).all()


def test_a_whole_layer_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = transplant(small_model("M2-SWA"), MINE, THEIRS, AFTER, parts=["conv", "state"], layers=0)
    assert found.chimera == ()
    assert (found.effects.kl_own > 0).all()


def test_nothing_changes_between_equal_texts():
    found = transplant(small_model("M2-SWA"), MINE, MINE, AFTER, parts="all")
    assert torch.equal(found.logits, found.own)
    assert found.effects.taken.isnull().all()


@pytest.mark.parametrize("name", ["mamba2", "qwen3_next"])
def test_models_of_transformers(name):
    model, ids, other = small(name), prompts_of(2, 10), prompts_of(2, 10).flip(1)
    found = transplant(model, ids, other, ids[:, :3], parts="all")
    want = adapt(model)(torch.cat([other, ids[:, :3]], 1)).logits[:, 10:]
    torch.testing.assert_close(found.logits, want, atol=1e-4, rtol=0)


def test_lengths_may_differ_where_nothing_knows_its_place():
    model = small_model("M2-M2", use_pos_emb=False)
    found = transplant(model, MINE[:, :9], THEIRS, AFTER, parts="all")
    want = model(torch.cat([THEIRS, AFTER.expand(3, -1)], 1)).logits[:, 14:]
    torch.testing.assert_close(found.logits, want, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="window holds the positions of its tokens"):
        transplant(small_model("M2-SWA"), MINE[:, :9], THEIRS, AFTER, parts="all")
    with pytest.raises(ValueError, match="B and C are rotated"):
        transplant(small_model("M2", use_pos_emb=True), MINE[:, :9], THEIRS, AFTER, parts="all")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"parts": "kv"}, ValueError, "parts: this model has conv, state, window, got 'kv'"),
        ({"parts": []}, ValueError, "nothing travels"),
        ({"parts": "state", "layers": 1}, ValueError, "nothing travels"),
        ({"layers": 2}, ValueError, "layers: expected layers from 0 to 1, got 2"),
        ({"donor": THEIRS[:2]}, ValueError, "donor: expected 3 texts, one for each receiver, got 2"),
        ({"following": tokens(2, 4)}, ValueError, "following: expected one text, or 3, got 2"),
        ({"following": []}, (TypeError, ValueError), "following"),
        ({"confidence": 2}, ValueError, "confidence"),
    ],
)
def test_what_cannot_be_done_is_refused(changes, error, message):
    named = {"receiver": MINE, "donor": THEIRS, "following": AFTER, "parts": "all"} | changes
    with pytest.raises(error, match=message):
        transplant(small_model("M2-SWA"), **named)
