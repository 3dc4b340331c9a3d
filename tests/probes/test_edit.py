"""Edits against token-by-token editing, closed forms, finite differences, and bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.models import KeyValue, adapt, generate
from solomonic.models.memory import tensors
from solomonic.probes import Edit, edit, editing, trace

from ..models.adapters.small import small
from ..models.adapters.small import tokens as prompts_of
from .small import small_model, tokens

PATTERN = "BMF-M2-SWA-*-GDN-GKA-BMO"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def models():
    return {dtype: small_model(PATTERN, dtype=dtype, eidetic_tokens=3) for dtype in TOLERANCE}


def stepwise(model, ids, changes):
    """Logits of a run token by token; ``changes`` maps a time to what becomes of the memory after it."""
    memory, out = None, []
    for t in range(ids.shape[1]):
        got = model(ids[:, t : t + 1], memory)
        memory = changes[t](got.memory) if t in changes else got.memory
        out.append(got.logits)
    return torch.cat(out, 1)


def close(a, b, tolerance):
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def mapped(layer, part, function):
    def change(memory):
        value = memory.get(layer, part)
        if isinstance(value, torch.Tensor):
            return memory.set(layer, part, function(value))
        names = [n for n in value._fields if n in ("key", "value", "gram", "content")]
        return memory.set(layer, part, value._replace(**{n: function(getattr(value, n)) for n in names}))

    return change


def every_part(model):
    return [(p.layer, p.part) for p in model.empty_memory().parts()]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_an_edit_of_nothing_gives_identical_bits(models, dtype):
    model, ids = models[dtype], tokens(2, 23)
    done = edit(model, ids, [Edit(layer, part, 8, "add", 0.0) for layer, part in every_part(model)])
    assert torch.equal(done.logits, done.baseline.expand_as(done.logits))
    assert (done.effects.kl == 0).all()
    assert (done.effects.effect == 0).all()
    cut = torch.cat([model(ids[:, :9]).logits, model(ids[:, 9:], model(ids[:, :9]).memory).logits], 1)
    assert torch.equal(done.baseline, cut)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_positions_up_to_the_edit_keep_their_bits_and_later_ones_agree_with_stepwise(models, dtype):
    model, ids, time = models[dtype], tokens(2, 20), 8
    parts = every_part(model)
    done = edit(model, ids, [Edit(*at, time, "scale", 0.5) for at in parts])
    for i, at in enumerate(parts):
        assert torch.equal(done.logits[i, :, : time + 1], done.baseline[:, : time + 1]), at
        want = stepwise(model, ids, {time: mapped(*at, lambda v: 0.5 * v)})
        assert close(done.logits[i], want, TOLERANCE[dtype]), at
        assert not torch.equal(done.logits[i, :, time + 1 :], done.baseline[:, time + 1 :]), at


def test_several_edits_make_one_intervention(models):
    model, ids = models[torch.float64], tokens(2, 20)
    edits = [Edit(1, "state", 4, "scale", 2.0), Edit(0, "conv", 4, "zero"), Edit(1, "state", 9, "add", 0.1)]
    want = stepwise(
        model,
        ids,
        {
            4: lambda m: mapped(0, "conv", lambda v: 0 * v)(mapped(1, "state", lambda v: 2 * v)(m)),
            9: mapped(1, "state", lambda v: v + 0.1),
        },
    )
    assert close(edit(model, ids, edits, together=True).logits[0], want, 1e-10)
    both = edit(model, ids, [edits, edits[2]])
    assert close(both.logits[0], want, 1e-10)
    assert torch.equal(both.logits[1, :, :10], both.baseline[:, :10])


@settings(max_examples=8)
@given(st.integers(0, 18), st.sampled_from([0, 4]), st.data())
def test_heads_are_what_is_changed(time, layer, data):
    model, ids = small_model("M2-SWA-GKA-GDN-BMF", dtype=torch.float64), tokens(1, 20)
    heads = data.draw(st.sets(st.integers(0, 3), min_size=1))
    done = edit(model, ids, Edit(layer, "state", time, "zero", heads=sorted(heads)))

    def change(memory):
        state = memory.get(layer, "state").clone()
        for head in heads:
            state[:, head] = 0
        return memory.set(layer, "state", state)

    assert close(done.logits[0], stepwise(model, ids, {time: change}), 1e-10)


def test_slots_and_fields_of_a_register(models):
    model, ids = models[torch.float64], tokens(2, 20)
    value = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    done = edit(model, ids, Edit(2, "window", 9, "set", value[None], slots=-1, field="key"))

    def change(memory):
        key, val = memory.get(2, "window")
        key = key.clone()
        key[:, -1] = value
        return memory.set(2, "window", KeyValue(key, val))

    assert close(done.logits[0], stepwise(model, ids, {9: change}), 1e-10)
    one_head = edit(model, ids, Edit(3, "kv", 9, "add", (0.1, 0.2), slots=(0, 4), heads=1))

    def add(memory):
        key, val = (each.clone() for each in memory.get(3, "kv"))
        for slot in (0, 4):
            key[:, slot, 1] += 0.1
            val[:, slot, 1] += 0.2
        return memory.set(3, "kv", KeyValue(key, val))

    assert close(one_head.logits[0], stepwise(model, ids, {9: add}), 1e-10)


def test_freeze_holds_a_part_while_it_lasts(models):
    model, ids = models[torch.float64], tokens(2, 20)
    held = {}

    def keep(memory):
        held["state"] = memory.get(1, "state")
        return memory

    def hold(memory):
        return memory.set(1, "state", held["state"])

    done = edit(model, ids, [Edit(1, "state", 6, "freeze", 4), Edit(1, "state", 6, "freeze")])
    want = stepwise(model, ids, {6: keep, **dict.fromkeys(range(7, 11), hold)})
    assert close(done.logits[0], want, 1e-10)
    want = stepwise(model, ids, {6: keep, **dict.fromkeys(range(7, 20), hold)})
    assert close(done.logits[1], want, 1e-10)
    # token 7 still reads its own input: only what it writes is lost
    assert torch.equal(done.logits[0, :, :8], done.baseline[:, :8])
    with pytest.raises(ValueError, match="holds until the end"):
        edit(model, ids, [(Edit(1, "state", 3, "freeze"), Edit(1, "state", 5, "zero"))])
    edit(model, ids, [(Edit(1, "state", 3, "freeze", heads=0), Edit(1, "state", 5, "zero", heads=1))])
    with pytest.raises(ValueError, match="grew from"):
        edit(model, ids, Edit(3, "kv", 3, "freeze"))


def test_mean_and_resample_are_of_the_other_prompts(models):
    model, ids = models[torch.float64], tokens(4, 16)
    memory = model(ids[:, :8]).memory
    mean = memory.get(1, "state").mean(0, keepdim=True)
    done = edit(model, ids, [Edit(1, "state", 7, "mean"), Edit(1, "state", 7, "resample")], rng=3)
    want = model(ids[:, 8:], memory.set(1, "state", mean.expand(4, -1, -1, -1))).logits
    assert close(done.logits[0, :, 8:], want, 1e-12)
    alone = [model(ids[:, 8:], memory.set(1, "state", memory.get(1, "state").roll(k, 0))).logits for k in (1, 2, 3)]
    for prompt in range(4):
        errors = [float((done.logits[1, prompt, 8:] - each[prompt]).abs().max()) for each in alone]
        assert min(errors) < 1e-12
    samples = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given_samples = edit(model, ids[:1], [Edit(1, "state", 7, op, samples) for op in ("mean", "resample")])
    want = edit(model, ids[:1], [Edit(1, "state", 7, "set", samples.mean(0))])
    assert close(given_samples.logits[0], want.logits[0], 1e-12)
    for op in ("mean", "resample"):
        with pytest.raises(ValueError, match="give samples"):
            edit(model, ids[:1], Edit(1, "state", 7, op))
    everything = edit(model, ids, [tuple(Edit(*at, 7, "resample") for at in [(6, "eidetic")])], rng=0)
    assert torch.isfinite(everything.logits).all()


def test_an_interchange_in_a_subspace_changes_nothing_outside_of_it(models):
    model, ids = models[torch.float64], tokens(2, 16)
    random = np.random.default_rng(0)
    q = np.linalg.qr(random.normal(size=(2 * 8 * 8, 5)))[0]
    other = torch.from_numpy(random.normal(size=(2, 8, 8)))
    done = edit(model, ids, Edit(1, "state", 7, "set", other, heads=(0, 2), subspace=q))

    def change(memory):
        state = memory.get(1, "state").clone()
        for prompt in range(2):
            flat = state[prompt, [0, 2]].reshape(-1).numpy()
            new = flat - q @ (q.T @ flat) + q @ (q.T @ other.numpy().reshape(-1))
            state[prompt, [0, 2]] = torch.from_numpy(new.reshape(2, 8, 8))
        return memory.set(1, "state", state)

    assert close(done.logits[0], stepwise(model, ids, {7: change}), 1e-10)
    full = np.linalg.qr(random.normal(size=(256, 256)))[0]
    everything = edit(model, ids, [Edit(1, "state", 7, "zero", subspace=full), Edit(1, "state", 7, "zero")])
    assert close(everything.logits[0], everything.logits[1], 1e-10)


def test_gradients_agree_with_finite_differences(models):
    model, ids = models[torch.float64], tokens(1, 14)
    generator = torch.Generator().manual_seed(0)
    for layer, part, more in ((1, "state", {}), (0, "window", {"field": "value", "slots": (0, -1)}), (0, "conv", {})):
        at = model(ids[:, :6]).memory.get(layer, part)
        shape = tensors(at)[0].shape[1:] if part != "window" else (2, 2, 8)
        value = (0.1 * torch.randn(shape, generator=generator)).double().requires_grad_()
        weights = torch.randn(14, 64, generator=generator).double()

        def loss(v, layer=layer, part=part, more=more, weights=weights):
            return (edit(model, ids, Edit(layer, part, 5, "add", v, **more)).logits[0, 0] * weights).sum()

        (grad,) = torch.autograd.grad(loss(value), value)
        step = torch.randn(shape, generator=generator).double()
        eps = 1e-5
        with torch.no_grad():
            slope = (loss(value + eps * step) - loss(value - eps * step)) / (2 * eps)
        assert float((grad * step).sum()) == pytest.approx(float(slope), rel=1e-6, abs=1e-8)
        assert grad.abs().max() > 0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_total_effect_in_a_linear_system_is_its_closed_form(dtype, batch):
    """y_T(do(x_t + delta)) - y_T = C_T Phi(T, t) delta at every lag: the state of a layer at its gates."""
    model, ids, time = small_model("M2-SWA", dtype=dtype), tokens(batch, 40), 4
    run = trace(model.double() if dtype == torch.float64 else model, ids)
    delta = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decay, read = run.log_decay(0)[:, time + 1 :], run.C(0)[:, time + 1 :]
    phi = np.exp(np.cumsum(decay, 1))
    want = np.einsum("bth,bhpn,bthn->bthp", phi, delta.numpy(), read)
    found = []

    def record(layer, name, value):
        if (layer, name) == (0, "y"):
            found.append(value.double().numpy())

    first = model(ids[:, : time + 1]).memory
    model(ids[:, time + 1 :], first, record=record)
    with editing(model, Edit(0, "state", time, "add", delta)):
        memory = model(ids[:, : time + 1]).memory
        model(ids[:, time + 1 :], memory, record=record)
    got = found[1] - found[0]
    assert np.abs(got - want).max() <= 10 * TOLERANCE[dtype] * max(1, np.abs(found[0]).max())
    assert np.abs(want[:, -1]).max() > 1e-3  # there is something to see at the last lag


def test_editing_in_prefill_in_pieces_and_in_generation(models):
    model, ids = models[torch.float64], tokens(2, 12)
    edits = [Edit(1, "state", 5, "zero"), Edit(2, "window", 14, "scale", 0.5), Edit(4, "state", 13, "freeze", 3)]
    kept = {}

    def keep(memory):
        kept["state"] = memory.get(4, "state")
        return memory

    changes = {
        5: mapped(1, "state", lambda v: 0 * v),
        13: keep,
        14: lambda m: mapped(2, "window", lambda v: 0.5 * v)(m.set(4, "state", kept["state"])),
        15: lambda m: m.set(4, "state", kept["state"]),
        16: lambda m: m.set(4, "state", kept["state"]),
    }
    with editing(model, edits) as same:
        assert same is model
        new = generate(model, ids, 9)
    whole = torch.cat([ids, new.ids], 1)
    want = stepwise(model, whole, changes)
    assert torch.equal(want[:, 11:-1].argmax(-1), new.ids)
    assert close(new.logits, want[:, -1], 1e-10)
    with editing(model, edits):
        first = model(whole[:, :3])
        second = model(whole[:, 3:15], first.memory)
        third = model(whole[:, 15:], second.memory)
    assert close(torch.cat([first.logits, second.logits, third.logits], 1), want, 1e-10)
    assert "forward" not in vars(model)
    assert not torch.equal(generate(model, ids, 9).logits, new.logits)


def test_editing_refuses_what_touches_nothing(models):
    model, ids = models[torch.float32], tokens(1, 8)
    with pytest.raises(ValueError, match="never carried out"), editing(model, Edit(1, "state", 8, "zero")):
        model(ids)
    with editing(model, Edit(1, "state", 3, "zero")):
        with pytest.raises(RuntimeError, match="being edited already"), editing(model, Edit(1, "state", 4, "zero")):
            pass
        with pytest.raises(ValueError, match="record"):
            model(ids, record=lambda *_: None)
        model(ids)
    with pytest.raises(KeyError), editing(model, Edit(1, "state", 3, "zero")):
        raise KeyError("what goes wrong inside comes out as it is")
    assert "forward" not in vars(model)


def test_stacked_interventions_are_the_same_within_rounding(models):
    model, ids = models[torch.float64], tokens(2, 18)
    edits = [Edit(*at, t, "scale", 0.3) for t in (5, 11) for at in every_part(model)[:5]]
    edits[3:3] = [(Edit(1, "state", 5, "zero"), Edit(1, "state", 11, "add", 1.0))]
    alone, stacked = edit(model, ids, edits), edit(model, ids, edits, batch_size=4)
    assert close(stacked.logits, alone.logits, 1e-12)
    assert torch.equal(stacked.baseline, alone.baseline)


def test_effects_are_differences_to_the_baseline(models):
    model, ids = models[torch.float64], tokens(3, 14)
    done = edit(model, ids, Edit(1, "state", 6, "zero"), answers=(3, [4, 5, 6]))
    fx = done.effects
    want = done.logits[0, :, :, 3] - torch.stack([done.logits[0, i, :, 4 + i] for i in range(3)])
    np.testing.assert_allclose(fx.logit_difference[0], want, atol=1e-12)
    np.testing.assert_allclose(fx.effect[0], fx.logit_difference[0] - fx.baseline_difference, atol=1e-12)
    p, q = done.baseline.log_softmax(-1), done.logits[0].log_softmax(-1)
    np.testing.assert_allclose(fx.kl[0], (p.exp() * (p - q)).sum(-1) / np.log(2), atol=1e-9)
    assert fx.attrs["probe"] == "edit"
    assert fx.kl.attrs["units"] == "bit"
    top = edit(model, ids, Edit(1, "state", 6, "zero")).effects
    assert (top.baseline_difference >= 0).all()


@pytest.mark.parametrize("name", ["mamba", "mistral", "falcon_h1", "qwen3_next"])
def test_families_of_transformers(name):
    model = adapt(small(name, dtype=torch.float64))
    ids = prompts_of(1, 12)
    with torch.no_grad():
        named = [(p.layer, p.part) for p in model(ids[:, :7]).memory.parts()]
        done = edit(model, ids, [Edit(layer, part, 6, "scale", 0.5) for layer, part in named])
        for found, (layer, part) in zip(done.logits, named, strict=True):
            assert close(found, stepwise(model, ids, {6: mapped(layer, part, lambda v: 0.5 * v)}), 1e-10)
    kl = done.effects.kl
    assert (kl.sel(time=slice(0, 6)) == 0).all()
    assert (kl.max(["prompt", "time"]) > 0).all()


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        vocab_size=64, hidden_size=16, state_size=8, num_heads=4, head_dim=8, n_groups=1, num_hidden_layers=2
    )
    hf = transformers.Mamba2ForCausalLM(config).eval()
    ids = tokens(2, 17)
    value = torch.ones(8, 8, requires_grad=True)
    edits = [
        Edit(0, "state", 6, "add", 0.0),
        Edit(1, "conv", 6, "zero"),
        Edit(0, "state", 6, "add", value[None], heads=2),
    ]
    done = edit(hf, ids, edits)
    assert torch.equal(done.logits[0], done.baseline)
    assert torch.equal(done.logits[:, :, :7], done.baseline[:, :7].expand(3, -1, -1, -1))
    model = adapt(hf)
    with torch.no_grad():
        assert close(done.logits[1], stepwise(model, ids, {6: mapped(1, "conv", lambda v: 0 * v)}), 1e-5)

        def change(memory):
            state = memory.get(0, "state").clone()
            state[:, 2] += 1
            return memory.set(0, "state", state)

        assert close(done.logits[2], stepwise(model, ids, {6: change}), 1e-5)
    assert torch.autograd.grad(done.logits[2, :, -1].square().sum(), value)[0].abs().max() > 0
    with editing(hf, edits[1]) as edited:
        assert close(edited(ids).logits, done.logits[1], 1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((7, "state", 3, "zero"), ValueError, "layer from 0 to 6"),
        ((2, "state", 3, "zero"), ValueError, "has \\['window'\\]"),
        ((1, "states", 3, "zero"), ValueError, "has \\['conv', 'state'\\]"),
        ((1, "state", 11, "zero"), ValueError, "from 0 to 10"),
        ((1, "state", -1, "zero"), ValueError, "time: expected"),
        ((1, "state", 3, "erase"), ValueError, "op: expected one of"),
        ((1, "state", 3, "set"), ValueError, "needs one"),
        ((1, "state", 3, "zero", 1.0), ValueError, "takes none"),
        ((1, "state", 3, "set", torch.zeros(4, 8)), ValueError, "got shape \\(4, 8\\)"),
        ((1, "state", 3, "set", torch.zeros(3, 4, 8, 8)), ValueError, "got shape \\(3, 4, 8, 8\\)"),
        ((1, "state", 3, "set", float("nan")), ValueError, "NaN"),
        ((1, "state", 3, "set", "much"), TypeError, "value: expected a number"),
        ((1, "state", 3, "zero", None, 4), ValueError, "heads 0 to 3"),
        ((1, "state", 3, "zero", None, ()), ValueError, "touches nothing"),
        ((1, "state", 3, "zero", None, (1, 1)), ValueError, "each once"),
        ((1, "conv", 3, "zero", None, 0), ValueError, "has none"),
        ((1, "state", 3, "zero", None, None, 0), ValueError, "slots: a state has none"),
        ((2, "window", 1, "zero", None, None, 3), ValueError, "holds 2 tokens"),
        ((2, "window", 3, "zero", None, None, (0, -4)), ValueError, "twice"),
        ((6, "eidetic", 1, "zero", None, None, 5), ValueError, "slot"),
        ((2, "window", 3, "set", torch.zeros(4, 2, 8)), TypeError, "several tensors"),
        ((2, "window", 3, "set", (0.0, 1.0, 2.0)), ValueError, "tuple of 3"),
        ((2, "window", 3, "zero", None, None, None, "keys"), ValueError, "field"),
        ((1, "state", 3, "zero", None, None, None, "key"), ValueError, "one tensor"),
        ((1, "state", 3, "freeze", 0), ValueError, "at least 1"),
        ((1, "state", 3, "zero", None, None, None, None, np.ones((256, 2))), ValueError, "orthonormal"),
        ((1, "state", 3, "zero", None, None, None, None, np.eye(64)[:, :2]), ValueError, "256 entries"),
        ((1, "state", 3, "mean", torch.zeros(2, 4, 8)), ValueError, "takes samples"),
    ],
)
def test_bad_input_says_what_to_do(models, arguments, error, words):
    with pytest.raises(error, match=words):
        edit(models[torch.float32], tokens(2, 12), Edit(*arguments))


def test_other_bad_input(models):
    model, ids = models[torch.float32], tokens(2, 12)
    good = Edit(1, "state", 3, "zero")
    for edits, error in ((3, TypeError), ([], ValueError), ([()], ValueError), ([good, "zero"], TypeError)):
        with pytest.raises(error, match="edits"):
            edit(model, ids, edits)
    with pytest.raises(ValueError, match="same"):
        edit(model, ids, good, answers=(3, 3))
    with pytest.raises(ValueError, match="answers"):
        edit(model, ids, good, answers=(3, [1, 2, 4]))
    with pytest.raises(TypeError, match="model"):
        edit(torch.nn.Linear(2, 2), ids, good)
    empty = Edit(6, "eidetic", 0, "zero")
    if not tensors(model(ids[:, :1]).memory.get(6, "eidetic"))[0].numel():
        with pytest.raises(ValueError, match="touches nothing"):
            edit(model, ids, empty)
