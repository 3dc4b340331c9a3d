"""Memory as a value: reading, setting, transplanting, and what is refused."""

import pytest
import torch

from solomonic.models import KeyValue, Part

from .small import small_model, tokens


@pytest.fixture(scope="module")
def model():
    return small_model("hybrid")


@pytest.fixture
def memory(model):
    return model(tokens(1, 15)).memory


def test_parts_and_their_kinds(memory):
    assert memory.parts() == [
        Part(0, "kv", "eidetic"),
        Part(1, "conv", "eidetic"),
        Part(1, "state", "fading"),
        Part(1, "window", "eidetic"),
        Part(1, "fading_tokens", "eidetic"),
        Part(2, "conv", "eidetic"),
        Part(2, "state", "fading"),
        Part(3, "window", "eidetic"),
    ]


def test_registers_hold_what_they_should(model, memory):
    assert memory.get(0, "kv").key.shape == (1, 15, 2, 8)
    assert memory.get(1, "window").key.shape == (1, 6, 2, 8)
    assert memory.get(1, "fading_tokens").value.shape == (1, 12, 2, 8)
    assert memory.get(1, "conv").shape == (1, 3, (2 + 2 + 4) * 8)
    assert memory.get(1, "state").shape == (1, 4, 8, 8)
    assert memory.position == 15
    assert model.empty_memory(2).nbytes == 2 * 2 * 8 * (3 * 64 + 4 * 64)
    keys = model(tokens(1, 15)).memory.get(1, "window").key
    longer = model(tokens(1, 15)[:, :3], memory=memory).memory.get(1, "window").key
    assert torch.equal(longer[:, :3], keys[:, 3:])  # a shift register: old entries move, oldest leave


def test_set_gives_a_new_memory(memory):
    before = memory.get(1, "state").clone()
    changed = memory.set(1, "state", before + 1)
    assert torch.equal(memory.get(1, "state"), before)
    assert torch.equal(changed.get(1, "state"), before + 1)
    pair = memory.get(3, "window")
    assert isinstance(memory.set(3, "window", (2 * pair.key, pair.value)).get(3, "window"), KeyValue)


def test_a_step_leaves_its_memory_alone(model, memory):
    kept = memory.map(lambda t: t.clone())
    model(tokens(1, 5), memory=memory)
    for part in memory.parts():
        for a, b in zip(memory.get(*part[:2]), kept.get(*part[:2]), strict=True):
            assert torch.equal(a, b)


def test_transplant(model, memory):
    other = model(tokens(1, 15, seed=9)).memory
    mixed = memory.transplant(other, parts="state", layers=[1])
    assert torch.equal(mixed.get(1, "state"), other.get(1, "state"))
    assert torch.equal(mixed.get(2, "state"), memory.get(2, "state"))
    everything = memory.transplant(other)
    ids = tokens(1, 4, seed=3)
    assert torch.equal(model(ids, memory=everything).logits, model(ids, memory=other).logits)
    states = memory.transplant(other, parts=["state", "conv"])
    assert torch.equal(states.get(2, "conv"), other.get(2, "conv"))


def test_repeat(model, memory):
    ids = tokens(1, 4, seed=3)
    one = model(ids, memory=memory).logits
    many = model(ids.repeat(3, 1), memory=memory.repeat(3)).logits
    assert (many - one).abs().max() < 1e-12
    with pytest.raises(ValueError, match="one sequence"):
        memory.repeat(3).repeat(2)


def test_refused(model, memory):
    with pytest.raises(ValueError, match="layer: expected an integer from 0 to 3, got 4"):
        memory.get(4, "state")
    with pytest.raises(ValueError, match=r"part: layer 0 has \['kv'\], got 'state'"):
        memory.get(0, "state")
    with pytest.raises(ValueError, match=r"value: part 'state' of layer 1 has shape \(1, 4, 8, 8\)"):
        memory.set(1, "state", torch.zeros(2, 4, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="float32"):
        memory.set(1, "state", memory.get(1, "state").float())
    with pytest.raises(TypeError, match="pair"):
        memory.set(3, "window", memory.get(3, "window").key)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        memory.set(1, "state", [1.0])
    with pytest.raises(ValueError, match="no layer has"):
        memory.transplant(memory, parts="cache")
    with pytest.raises(ValueError, match="layers"):
        memory.transplant(memory, layers=7)
    with pytest.raises(ValueError, match="no part is named"):
        memory.transplant(memory, parts="kv", layers=2)
    with pytest.raises(ValueError, match="different models"):
        memory.transplant(small_model("mamba2")(tokens(1, 3)).memory)
    with pytest.raises(ValueError, match="memory: expected 4 layers, got 2"):
        model(tokens(1, 3), memory=small_model("mamba2")(tokens(1, 3)).memory)
    with pytest.raises(ValueError, match="memory: holds 1 sequences, but ids has 2"):
        model(tokens(2, 3), memory=memory)
    with pytest.raises(ValueError, match=r"layer 0.*expected the parts"):
        model(tokens(1, 3), memory=small_model("window", pattern="SWA-SWA-SWA-SWA")(tokens(1, 3)).memory)


def test_bad_ids(model):
    with pytest.raises(TypeError, match="ids: expected an integer tensor"):
        model(torch.zeros(1, 3))
    with pytest.raises(TypeError, match="list"):
        model([[1, 2]])
    with pytest.raises(ValueError, match="two axes"):
        model(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="empty prompt"):
        model(torch.zeros(1, 0, dtype=torch.long))
    for bad in (-1, 29):
        with pytest.raises(ValueError, match=f"tokens from 0 to 28, got {bad}"):
            model(torch.tensor([[1, bad]]))
