"""Edits of the memory: nothing is nothing, the past stays, and linear systems answer by their transition matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.models import Memory, adapt, generate
from solomonic.probes import Edit, edit, editing
from solomonic.probes.interventions import apply

from ..models.adapters.small import small
from ..models.adapters.small import tokens as prompts_of
from .small import PATTERNS, small_model, tokens

T = 24
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def parts_of(model, ids):
    """Every part that holds something after a few tokens."""
    memory = model(ids[:, :12]).memory
    return [(p.layer, p.part) for p in memory.parts()]


def stepwise(model, ids, edits):
    """Token by token, with the memory changed by hand between the steps."""
    memory, found = None, []
    for t in range(ids.shape[1]):
        out = model(ids[:, t : t + 1], memory=memory)
        memory = out.memory
        found.append(out.logits)
        for layer, part, time, change in edits:
            if time == t:
                old = memory.get(layer, part)
                memory = memory.set(layer, part, tuple(map(change, old)) if isinstance(old, tuple) else change(old))
    return torch.cat(found, 1)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("op", ["add", "scale", "set"])
def test_an_edit_of_nothing_leaves_every_bit(pattern, op):
    model, ids = small_model(pattern), tokens(2, T)
    memory = model(ids[:, :11]).memory
    edits = []
    for layer, part in parts_of(model, ids):
        value = {"add": 0.0, "scale": 1.0, "set": memory.get(layer, part)}[op]
        edits.append(Edit(layer, part, 10, op, value))
    out = edit(model, ids, edits)
    assert torch.equal(out.logits, out.baseline)
    assert float(out.effects.kl.max()) == 0
    assert not out.effects.changed.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_agrees_with_editing_token_by_token_and_leaves_the_past(pattern, dtype):
    model, ids = small_model(pattern, dtype=dtype), tokens(2, T)
    named = parts_of(model, ids)
    edits = [Edit(layer, part, 9, "scale", 0.3) for layer, part in named]
    out = edit(model, ids, [*edits, edits], batch=3)
    wanted = [[(layer, part, 9, lambda x: 0.3 * x)] for layer, part in named]
    wanted.append([each for group in wanted for each in group])
    plain = model(ids).logits
    for found, base, group in zip(out.logits, out.baseline, wanted, strict=True):
        want = stepwise(model, ids, group)
        scale = want.abs().max()
        assert (found - want).abs().max() < TOLERANCE[dtype] * scale
        assert torch.equal(found[:, :10], base[:, :10])
        assert (base - plain).abs().max() < TOLERANCE[dtype] * scale
        assert not torch.equal(found[:, 10:], base[:, 10:])
    kl = out.effects.kl.values
    assert (kl[:, :, :10] == 0).all()
    assert (kl[:, :, 10:].max(-1) > 0).all()


@pytest.mark.parametrize("op", ["zero", "mean", "resample", "add"])
def test_several_times_and_heads_in_one_intervention(op):
    model, ids = small_model("M2-SWA", dtype=torch.float64), tokens(3, T)
    value = 0.5 if op == "add" else None
    group = [Edit(0, "state", t, op, value, heads=[1, 3]) for t in (5, 11)]

    def change(x):
        x = x.clone()
        x[:, [1, 3]] = {
            "zero": torch.zeros_like(x[:, [1, 3]]),
            "mean": x[:, [1, 3]].mean(0, keepdim=True).expand(3, -1, -1, -1),
            "resample": x[[1, 2, 0]][:, [1, 3]],
            "add": x[:, [1, 3]] + 0.5,
        }[op]
        return x

    want = stepwise(model, ids, [(0, "state", t, change) for t in (5, 11)])
    assert (edit(model, ids, [group]).logits[0] - want).abs().max() < 1e-10 * want.abs().max()


@pytest.mark.parametrize("until", [None, 12])
def test_freeze_keeps_the_part(until):
    model, ids = small_model("M2-M2", dtype=torch.float64), tokens(1, T)
    memory, kept, found = None, None, []
    for t in range(T):
        out = model(ids[:, t : t + 1], memory=memory)
        found.append(out.logits)
        memory = out.memory
        if t == 8:
            kept = memory.get(1, "state")
        if t >= 8 and t <= (until or T):
            memory = memory.set(1, "state", kept)
    want = torch.cat(found, 1)
    out = edit(model, ids, Edit(1, "state", 8, "freeze", until=until))
    assert (out.logits[0] - want).abs().max() < 1e-10 * want.abs().max()
    with editing(model, Edit(1, "state", 8, "freeze", until=until)):
        first = model(ids[:, :10])
        rest = model(ids[:, 10:], memory=first.memory)
    assert (torch.cat([first.logits, rest.logits], 1) - want).abs().max() < 1e-10 * want.abs().max()


def test_slots_of_a_register_and_values_of_pairs():
    model, ids = small_model("SWA", dtype=torch.float64), tokens(2, T)
    key, value = torch.randn(2, 2, 1, 2, 8, dtype=torch.float64)

    def change_at(new):
        def change(x):
            x = x.clone()
            x[:, -2] = new[:, 0]
            return x

        return change

    memory = model(ids[:, :8]).memory
    register = memory.get(0, "window")
    wanted = memory.set(0, "window", (change_at(key)(register.key), change_at(value)(register.value)))
    want = model(ids[:, 8:], memory=wanted).logits
    out = edit(model, ids, Edit(0, "window", 7, "set", (key, value), slots=-2))
    assert (out.logits[0, :, 8:] - want).abs().max() < 1e-12 * want.abs().max()
    some = edit(model, ids, Edit(0, "window", 7, "zero", slots=[0, 2], heads=[1]))
    assert float(some.effects.kl[0, :, 8].max()) > 0


def test_interchange_in_a_whole_space_is_resampling_and_in_none_of_it_nothing():
    model, ids = small_model("M2", dtype=torch.float64), tokens(2, T)
    other = model(tokens(2, 8, seed=5)).memory
    whole, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))
    out = edit(
        model, ids, [Edit(0, "state", 7, "resample", other), Edit(0, "state", 7, "interchange", other, subspace=whole)]
    )
    scale = out.logits.abs().max()
    assert (out.logits[0] - out.logits[1]).abs().max() < 1e-10 * scale
    # a subspace on which both agree
    same = model(ids[:, :8]).memory
    out = edit(model, ids, Edit(0, "state", 7, "interchange", same, subspace=whole[:, :5]))
    assert (out.logits - out.baseline).abs().max() < 1e-12 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("prompts", [1, 3])
def test_a_linear_system_answers_by_its_transition_matrices(prompts, dtype):
    """With gates that the input does not move, y_T - y_T' = C Phi(T, t) delta at every lag."""
    model, ids = small_model("M2", dtype=dtype), tokens(prompts, T)
    mixer = model.layers[0].mixer
    tapped: dict[str, list[torch.Tensor]] = {}

    def record(layer, name, value):
        tapped.setdefault(name, []).append(value)

    rng = torch.Generator().manual_seed(0)
    delta = torch.randn(4, 8, 8, generator=rng, dtype=torch.float64).to(dtype)
    for time in (0, 5, 17, T - 2):
        tapped.clear()
        first = model(ids[:, : time + 1])
        model(ids[:, time + 1 :], memory=first.memory, record=record)
        plain = {n: v[-1] for n, v in tapped.items()}
        with editing(model, Edit(0, "state", time, "add", delta)):
            begun = model(ids[:, : time + 1])
            model(ids[:, time + 1 :], memory=begun.memory, record=record)
        moved = {n: v[-1] for n, v in tapped.items()}
        # one layer: its gates are those of the text, whatever the state is
        dt, C = plain["dt"], plain["C"]
        rate = -torch.exp(mixer.A_log.double())
        phi = torch.exp((dt.double() * rate).cumsum(1))
        C = C.repeat_interleave(4 // C.shape[2], 2) if C.shape[2] < 4 else C
        want = torch.einsum("bth,hpn,bthn->bthp", phi, delta.double(), C.double())
        got = (moved["y"] - plain["y"]).double()
        assert (got - want).abs().max() < (1e-5 if dtype == torch.float32 else 1e-12) * want.abs().max()


def test_gradients_agree_with_finite_differences():
    model, ids = small_model("BMF-M2", dtype=torch.float64), tokens(1, 14)
    value = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def loss(v):
        return edit(model, ids, Edit(0, "state", 6, "add", v, heads=[2])).logits[0, 0, -1, 3]

    assert torch.autograd.gradcheck(loss, (value,), atol=1e-7)
    pair = [torch.ones(1, 1, 2, 8, dtype=torch.float64).requires_grad_() for _ in range(2)]
    out = edit(model, ids, Edit(0, "window", 6, "set", (pair[0], pair[1]), slots=[-1]))
    grads = torch.autograd.grad(out.logits[0, 0, -1, 3], pair)
    assert all(g.abs().max() > 0 for g in grads)
    assert torch.autograd.gradcheck(
        lambda a, b: edit(model, ids, Edit(0, "window", 6, "set", (a, b), slots=[-1])).logits[0, 0, -1], pair
    )


def test_generation_under_edits_is_that_of_the_edited_memory():
    model, ids = small_model("BMF-M2-SWA-*"), tokens(2, 9)
    with editing(model, [Edit(1, "state", 8, "zero"), Edit(0, "window", 10, "scale", 0.0)]):
        edited = generate(model, ids, 6).ids
    memory = model(ids[:, :9])
    state, found = memory.memory, []
    state = state.set(1, "state", 0 * state.get(1, "state"))
    logits = memory.logits[:, -1]
    for t in range(9, 15):
        new = logits.argmax(-1)[:, None]
        found.append(new)
        out = model(new, memory=state)
        state, logits = out.memory, out.logits[:, -1]
        if t == 10:
            state = state.set(0, "window", tuple(0 * x for x in state.get(0, "window")))
    assert torch.equal(edited, torch.cat(found, 1))
    assert "forward" not in vars(model)  # as before


def test_effects_name_what_was_done():
    model, ids = small_model("M2-SWA"), tokens(3, T)
    out = edit(model, ids, [Edit(0, "state", 4, "zero"), [Edit(1, "window", 9, "zero", heads=0)]], contrast=(3, 5))
    data = out.effects
    assert data.kl.dims == ("intervention", "prompt", "position")
    assert data.time.values.tolist() == [4, 9]
    assert data.intervention.values[1] == "Edit(layer 1, window, time 9, zero, heads [0])"
    gap = (out.logits - out.baseline)[..., 3] - (out.logits - out.baseline)[..., 5]
    np.testing.assert_allclose(data.contrast.values, gap.double().numpy(), atol=1e-6)
    assert (data.kl_mean_interval[0] <= data.kl_mean + 1e-15).all()
    assert data.kl.attrs["units"] == "bit"
    assert "checkpoint" in data.attrs
    assert np.isnan(data.surprise.values[..., -1]).all()
    assert np.isfinite(data.surprise.values[..., :-1]).all()


@settings(max_examples=15)
@given(time=st.integers(0, 18), prompts=st.integers(1, 3), batch=st.integers(1, 4), seed=st.integers(0, 3))
def test_what_comes_before_never_changes(time, prompts, batch, seed):
    model, ids = small_model("BMF-SWA", rng=seed), tokens(prompts, 20, seed=seed)
    edits = [Edit(0, "state", time, "add", 1.0), Edit(1, "window", time, "zero"), Edit(0, "conv", time, "scale", -1.0)]
    out = edit(model, ids, edits, batch=batch)
    assert torch.equal(out.logits[:, :, : time + 1], out.baseline[:, :, : time + 1])


M2 = {"layer": 0, "part": "state", "time": 3, "op": "zero"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layer": 4}, ValueError, "layer: expected a layer from 0 to 1, got 4"),
        ({"layer": True}, ValueError, "layer: expected a whole number"),
        ({"part": "window"}, ValueError, "part: layer 0 \\(M2\\) has conv, state, got 'window'"),
        ({"time": T - 1}, ValueError, "an edit acts after its token"),
        ({"time": -1}, ValueError, "time: expected a whole number of at least 0"),
        ({"op": "erase"}, ValueError, "op: expected one of set, add, scale"),
        ({"op": "set"}, ValueError, "op 'set' needs a value"),
        ({"value": 1.0}, ValueError, "op 'zero' takes none"),
        ({"op": "set", "value": float("nan")}, ValueError, "expected finite numbers, got NaN"),
        ({"op": "set", "value": torch.ones(3)}, ValueError, "does not broadcast"),
        ({"heads": 4}, ValueError, "heads: .* names 4, and there are 4"),
        ({"heads": [-1]}, ValueError, "heads: .* names -1"),
        ({"heads": []}, ValueError, "heads: expected whole numbers, at least one"),
        ({"heads": [1, 1]}, ValueError, "heads: expected each once"),
        ({"slots": 0}, ValueError, "slots: part 'state' of layer 0 has no slots"),
        ({"part": "conv", "heads": 0}, ValueError, "heads: part 'conv' of layer 0 has no heads"),
        ({"op": "mean"}, ValueError, "takes from other prompts, and there is one"),
        ({"op": "mean", "value": 1.0}, TypeError, "op 'mean' takes a Memory"),
        ({"op": "interchange"}, ValueError, "subspace: expected orthonormal columns"),
        ({"subspace": np.eye(3)}, ValueError, "and for no other op"),
        ({"until": 9}, ValueError, "only op 'freeze' lasts"),
        ({"op": "freeze", "until": 2}, ValueError, "until: expected at least time = 3"),
    ],
)
def test_what_cannot_be_done_is_refused(changes, error, message):
    model = small_model("M2-SWA")
    with pytest.raises(error, match=message):
        edit(model, tokens(1, T), Edit(**(M2 | changes)))


def test_more_that_is_refused():
    model, ids = small_model("M2-SWA"), tokens(2, T)
    with pytest.raises(ValueError, match="got none: nothing would change"):
        edit(model, ids, [])
    with pytest.raises(TypeError, match="expected Edits, got int"):
        edit(model, ids, [[3]])
    with pytest.raises(ValueError, match="would change what"):
        edit(model, ids, [[Edit(0, "state", 3, "freeze"), Edit(0, "state", 5, "zero")]])
    with pytest.raises(ValueError, match="registers of equal length"):
        edit(model, ids, Edit(1, "window", 10, "resample", model(ids[:, :2]).memory))
    with pytest.raises(ValueError, match="keeps a register that still grows"):
        edit(model, ids, Edit(1, "window", 1, "freeze"))
    with pytest.raises(ValueError, match="no 'state' in layer 0"):
        edit(model, ids, Edit(0, "state", 5, "resample", small_model("SWA-SWA")(ids).memory))
    with pytest.raises(TypeError, match="needs a pair"):
        edit(model, ids, Edit(1, "window", 5, "set", torch.ones(3)))
    with pytest.raises(ValueError, match="orthonormal"):
        Edit(0, "state", 3, "interchange", model(ids).memory, subspace=np.ones((4, 2)))
    with (
        pytest.raises(ValueError, match="touched nothing: no run passed token 30"),
        editing(model, Edit(0, "state", 30, "zero")),
    ):
        model(ids)
    with pytest.raises(TypeError, match="expected a HybridLM"), editing(torch.nn.Linear(1, 1), []):  # type: ignore[arg-type]
        pass
    assert isinstance(model(ids).memory, Memory)


@pytest.mark.parametrize("op", ["zero", "freeze"])
def test_a_part_without_numbers_is_nothing_to_touch(op):
    empty = small_model("M2-SWA").empty_memory(1)
    assert empty.get(1, "window").key.numel() == 0
    with pytest.raises(ValueError, match="touches nothing: the part holds no numbers"):
        apply(empty, Edit(1, "window", 0, op))


@pytest.mark.parametrize("name", ["mamba", "mamba2", "mistral", "falcon_h1", "qwen3_next"])
def test_models_of_transformers_are_edited_too(name):
    model, ids = small(name, dtype=torch.float64), prompts_of(1, 14)
    adapted = adapt(model)
    named = [(p.layer, p.part) for p in adapted(ids[:, :8]).memory.parts()]
    out = edit(model, ids, [Edit(layer, part, 7, "scale", 0.5) for layer, part in named])
    for found, (layer, part) in zip(out.logits, named, strict=True):
        want = stepwise(adapted, ids, [(layer, part, 7, lambda x: 0.5 * x)])
        assert (found - want).abs().max() < 1e-10 * want.abs().max()
    assert (out.effects.kl[:, :, :8] == 0).all()
    assert (out.effects.kl.max(["prompt", "position"]) > 0).all()
