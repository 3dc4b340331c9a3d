"""Transplants between texts: what travels, what it does, and what is refused."""

import warnings

import pytest
import torch

from solomonic.models import adapt, generate
from solomonic.probes import ChimeraWarning, transplant

from .small import small_model, tokens


@pytest.fixture(scope="module")
def model():
    return small_model("BMF-M2-SWA-*", dtype=torch.float64)


def test_all_parts_are_the_donor_and_no_chimera(model):
    ids = tokens(4, 12)
    receiver, donor = ids[:2], ids[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = transplant(model, receiver, donor, tokens=5)
    assert done.chimera == {}
    memory = model(donor[:, :-1]).memory
    assert torch.equal(done.logits, model(receiver[:, -1:], memory).logits)
    assert torch.equal(done.baseline, model(receiver[:, -1:], model(receiver[:, :-1]).memory).logits)
    assert torch.equal(done.ids, generate(model, receiver[:, -1:], 5, memory=memory).ids)
    own = model(receiver[:, :-1]).memory
    assert torch.equal(done.baseline_ids, generate(model, receiver[:, -1:], 5, memory=own).ids)


def test_a_part_makes_a_chimera_and_says_so(model):
    ids = tokens(2, 12)
    with pytest.warns(ChimeraWarning, match="layer 0 has state of the donor and conv, window, fading_tokens of"):
        done = transplant(model, ids[0], ids[1], parts="state", continuation=[3, 4, 5])
    assert done.chimera == {0: (("state",), ("conv", "window", "fading_tokens")), 1: (("state",), ("conv",))}
    assert "chimera in layers 0 1" in repr(done)
    own, other = model(ids[:1]).memory, model(ids[1:]).memory
    mixed = own.set(0, "state", other.get(0, "state")).set(1, "state", other.get(1, "state"))
    assert torch.equal(done.logits, model(torch.tensor([[3, 4, 5]]), mixed).logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = transplant(model, ids[0], ids[1], layers=[1, 2])
    assert done.chimera == {}


def test_states_travel_between_lengths_and_registers_do_not(model):
    ids = tokens(1, 20)
    done = transplant(model, ids[:, :9], ids, parts=("conv", "state"), layers=1, continuation=[1])
    memory = model(ids[:, :9]).memory.transplant(model(ids).memory, layers=1)
    assert torch.equal(done.logits, model(torch.tensor([[1]]), memory).logits)
    for options in ({}, {"parts": "window"}, {"layers": 3}):
        with pytest.raises(ValueError, match="only between texts of one"):
            transplant(model, ids[:, :9], ids, **options)


def test_one_donor_for_many_and_a_memory_as_donor(model):
    ids = tokens(4, 10)
    one = transplant(model, ids[:3], ids[3], continuation=[7])
    many = transplant(model, ids[:3], ids[3:].expand(3, -1), continuation=[7])
    held = transplant(model, ids[:3], model(ids[3:]).memory, continuation=[7])
    torch.testing.assert_close(one.logits, many.logits, atol=1e-12, rtol=0)
    assert torch.equal(one.logits, held.logits)


def test_sampling_uses_the_same_numbers(model):
    ids = tokens(1, 10)
    same = transplant(model, ids, ids, tokens=8, temperature=1.0, rng=3)
    assert torch.equal(same.ids, same.baseline_ids)


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        vocab_size=64, hidden_size=16, state_size=8, num_heads=4, head_dim=8, n_groups=1, num_hidden_layers=2
    )
    hf = transformers.Mamba2ForCausalLM(config).eval().requires_grad_(False)
    ids = tokens(2, 10)
    done = transplant(hf, ids[0], ids[1], tokens=3)
    model = adapt(hf)
    assert torch.equal(done.logits, model(ids[:1, -1:], model(ids[1:, :-1]).memory).logits)


@pytest.mark.filterwarnings("ignore::solomonic.probes.ChimeraWarning")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": "eidetic"}, "parts: expected some of"),
        ({"parts": []}, "parts: expected some of"),
        ({"layers": 4}, "layers from 0 to 3"),
        ({"layers": [0, 2], "parts": "state"}, "nothing of"),
        ({"layers": 0, "parts": ["state", "kv"]}, "none of the layers"),
        ({"tokens": -1}, "tokens"),
        ({"continuation": torch.zeros(3, 2, dtype=torch.int64)}, "continuation"),
        ({"donor_ids": tokens(3, 12)}, "one prompt or 2"),
        ({"donor_ids": small_model("M2-M2")(tokens(2, 11)).memory}, "another model's"),
        ({"donor_ids": small_model("BMF-M2-SWA-*", head_dim=16)(tokens(2, 11)).memory}, "shape"),
        ({"receiver_ids": tokens(2, 1)}, "at least 2"),
    ],
)
def test_bad_input_says_what_to_do(options, words):
    arguments = {"receiver_ids": tokens(2, 12), "donor_ids": tokens(2, 12, seed=1), **options}
    with pytest.raises(ValueError, match=words):
        transplant(small_model("BMF-M2-SWA-*"), **arguments)
