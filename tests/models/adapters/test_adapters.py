"""Adapted models: transformers' own logits, the split law, a memory that is a value, and taps that are gone after."""

import copy
import importlib
import threading

import pytest
import torch
import transformers

from solomonic.models import AdaptedLM, KeyValue, adapt, generate
from solomonic.models.adapters import FAMILIES, adapted
from solomonic.models.adapters.families import REFUSED
from solomonic.models.memory import tensors

from .small import CONFIGS, small, tokens

transformers.logging.set_verbosity_error()

# Largest error relative to the largest logit. Measured: 2e-6 in float32, 1e-14 in float64.
TIGHT = {torch.float32: 1e-5, torch.float64: 1e-12}
PARTS = {
    "mamba2": [["conv", "state"]] * 2,
    "bamba": [["conv", "state"], ["kv"], ["conv", "state"]],
    "falcon_h1": [["conv", "state", "kv"]] * 2,
    "granitemoehybrid": [["conv", "state"], ["kv"], ["conv", "state"]],
    "zamba2": [["conv", "state"], ["conv", "state", "kv"]] * 2,
    "nemotron_h": [["conv", "state"], [], ["kv"], []],
    "llama": [["kv"]] * 2,
    "mistral": [["window"]] * 2,
    "mistral-full": [["kv"]],
    "mamba": [["conv", "state"]] * 2,
    "falcon_mamba": [["conv", "state"]] * 2,
    "jamba": [["conv", "state"], ["kv"]] * 2,
    "qwen3_next": [["conv", "state"], ["kv"]],
}


def test_every_family_is_tried():
    assert {CONFIGS[name][0] + "ForCausalLM" for name in CONFIGS} == set(FAMILIES)
    assert set(PARTS) == set(CONFIGS)
    for name in [*FAMILIES, *REFUSED]:
        assert hasattr(transformers, name)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name):
    hf, ids = small(name), tokens(3, 21)
    model = adapt(hf)
    assert torch.equal(model(ids).logits, hf(ids).logits)
    assert torch.equal(model(ids[:, :1]).logits, hf(ids[:, :1]).logits)
    # Through another memory, all of it on kernels of this package: the same but for rounding.
    again = model(ids, memory=model.empty_memory(3)).logits
    assert (again - hf(ids).logits).abs().max() <= TIGHT[torch.float32] * hf(ids).logits.abs().max()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", TIGHT)
def test_the_split_law(name, dtype):
    model, ids = adapt(small(name, dtype=dtype)), tokens(2, 21)
    whole = model(ids)
    scale = whole.logits.abs().max()
    for splits in ([1], [3], [8, 9], [20], list(range(1, 21))):
        memory, rows = None, []
        for start, stop in zip([0, *splits], [*splits, 21], strict=True):
            out = model(ids[:, start:stop], memory=memory)
            memory = out.memory
            rows.append(out.logits)
        assert memory is not None
        assert memory.position == 21
        assert (torch.cat(rows, 1) - whole.logits).abs().max() <= TIGHT[dtype] * scale
        for part in memory.parts():
            ends = zip(tensors(memory.get(*part[:2])), tensors(whole.memory.get(*part[:2])), strict=True)
            for mine, its in ends:
                assert mine.shape == its.shape
                assert (mine - its).abs().max() <= TIGHT[dtype] * max(1.0, float(its.abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_memory_is_a_value_with_the_familys_parts(name):
    hf = small(name)
    model, ids = adapt(hf), tokens(2, 9)
    memory = model(ids).memory
    assert [list(layer) for layer in memory.layers] == PARTS[name] == [list(x) for x in model.empty_memory().layers]
    before = copy.deepcopy(memory)
    first = model(ids, memory=memory).logits
    model(ids[:, :1], memory=memory)
    for part in memory.parts():
        for now, then in zip(tensors(memory.get(*part[:2])), tensors(before.get(*part[:2])), strict=True):
            assert torch.equal(now, then)
    assert torch.equal(model(ids, memory=memory).logits, first)
    assert memory.nbytes == model.memory_nbytes(9, 2)
    # Every part is read: without it the logits are others.
    zero = {p: memory.get(*p[:2]) for p in memory.parts()}
    for part, value in zero.items():
        emptied = KeyValue(*(0 * t for t in value)) if isinstance(value, KeyValue) else 0 * value
        changed = model(ids, memory=memory.set(part.layer, part.part, emptied)).logits
        assert (changed - first).abs().max() > 1e-6 * first.abs().max(), part


@pytest.mark.parametrize("name", [name for name in CONFIGS if PARTS[name][0][0] == "conv"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_shorter_than_the_convolution_are_filled_up_with_nothing(name, length):
    """The register of the convolution has its full width from the first token on, zeros where no token was."""
    model, ids = adapt(small(name, dtype=torch.float64)), tokens(2, length + 6)
    memory = model(ids[:, :length]).memory
    empty, full = model.empty_memory(2), model(ids).memory
    for layer, part, _ in memory.parts():
        if part == "conv":
            held = memory.get(layer, part)
            assert held.shape == empty.get(layer, part).shape == full.get(layer, part).shape
            before = max(held.shape[1] - length, 0)
            assert (held[:, :before] == 0).all()
            assert (held[:, before:] != 0).any()
    rest = model(ids[:, length:], memory=memory).logits
    again = model(ids[:, length:], memory=model(ids[:, :length], memory=empty).memory).logits
    whole = model(ids).logits[:, length:]
    for found in (rest, again):
        assert (found - whole).abs().max() <= TIGHT[torch.float64] * whole.abs().max()


def test_padding_is_no_argument():
    """Rows of one length only: a mask of padding would reach states through the convolution."""
    model, ids = adapt(small("mamba2")), tokens(2, 5)
    with pytest.raises(TypeError, match="attention_mask"):
        model(ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_flow_through_the_memory(name):
    model, ids = adapt(small(name, dtype=torch.float64)), tokens(1, 6)
    memory = model(ids).memory
    for length in (1, 3):  # one token would be a step in place in transformers
        leaves = memory.map(lambda t: t.clone().requires_grad_(True))
        model(ids[:, :length], memory=leaves).logits.square().sum().backward()
        for part in leaves.parts():
            for leaf in tensors(leaves.get(*part[:2])):
                assert leaf.grad is not None
                assert leaf.grad.abs().max() > 0, part


@pytest.mark.parametrize("name", [name for name in CONFIGS if PARTS[name][0][0] == "conv"])
def test_forward_and_reverse_products_with_a_state(name):
    """Both modes of torch.func, against differences: fused attention has no forward mode in torch."""
    model, ids = adapt(small(name, dtype=torch.float64)), tokens(1, 12)
    memory = model(ids[:, :8]).memory
    state = memory.get(0, "state")
    assert isinstance(state, torch.Tensor)
    direction = torch.randn(state.shape, dtype=state.dtype, generator=torch.Generator().manual_seed(0))

    def logits(value):
        return model(ids[:, 8:], memory=memory.set(0, "state", value)).logits

    value, product, *_ = torch.func.jvp(logits, (state,), (direction,))
    torch.testing.assert_close(value, logits(state), atol=1e-12, rtol=0)
    step = 1e-6
    difference = (logits(state + step * direction) - logits(state - step * direction)) / (2 * step)
    assert (product - difference).abs().max() <= 1e-6 * difference.abs().max()
    (gradient,) = torch.func.vjp(logits, state)[1](product)
    torch.testing.assert_close((gradient * direction).sum(), product.square().sum(), rtol=1e-10, atol=0)


def test_the_limits_of_the_step_hold_for_one_token_too():
    hf, ids = small("mamba2", time_step_limit=(0.2, 0.25)), tokens(2, 12)
    model = adapt(hf)
    whole = hf(ids).logits
    stepped = model(ids[:, 11:], memory=model(ids[:, :11]).memory).logits
    torch.testing.assert_close(stepped, whole[:, 11:], atol=2e-5, rtol=0)
    past = hf(ids[:, :11], use_cache=True).cache_params
    theirs = hf(ids[:, 11:], cache_params=past).logits
    assert (theirs - whole[:, 11:]).abs().max() > 1e-2  # what transformers does with them


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "jamba"])
def test_what_transformers_does_with_a_state_of_mamba(name):
    hf, ids = small(name), tokens(2, 16)
    key = FAMILIES[type(hf).__name__].cache
    whole = hf(ids).logits
    cache = getattr(hf(ids[:, :8], use_cache=True), key)
    theirs = hf(ids[:, 8:], **{key: cache, "position_ids": torch.arange(8, 16)[None]}).logits
    model = adapt(hf)
    ours = model(ids[:, 8:], memory=model(ids[:, :8]).memory).logits
    scale = whole.abs().max()
    assert (ours - whole[:, 8:]).abs().max() < 1e-5 * scale
    assert (theirs - whole[:, 8:]).abs().max() > 1e-3 * scale


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("granitemoehybrid", {"layer_types": ["mamba"] * 3}),
        ("qwen3_next", {"layer_types": ["linear_attention"] * 2}),
        ("jamba", {"attn_layer_offset": 9, "attn_layer_period": 10}),
    ],
)
def test_hybrids_whose_layers_all_scan(name, changes):
    hf, ids = small(name, **changes), tokens(2, 12)
    model = adapt(hf)
    whole = model(ids)
    assert torch.equal(whole.logits, hf(ids, use_cache=False).logits)
    rest = model(ids[:, 5:], memory=model(ids[:, :5]).memory).logits
    assert (rest - whole.logits[:, 5:]).abs().max() <= TIGHT[torch.float32] * whole.logits.abs().max()
    assert model.config.num_attention_heads == model.blocks[0].shapes["state"][0]


def test_generation_goes_on_from_a_memory():
    model, ids = adapt(small("bamba")), tokens(2, 7)
    new = generate(model, ids, 5).ids
    text = ids
    for i in range(5):
        assert torch.equal(model(text).logits[:, -1].argmax(-1), new[:, i])
        text = torch.cat([text, new[:, i : i + 1]], 1)


def functions(hf):
    family = FAMILIES[type(hf).__name__]
    module = importlib.import_module(family.module)
    return {name: getattr(module, name) for name in family.taps}


@pytest.mark.parametrize("name", ["mamba2", "jamba", "qwen3_next"])
def test_functions_and_hooks_are_back_afterwards(name):
    hf = small(name)
    before = functions(hf)
    model, ids = adapt(hf), tokens(1, 5)
    model(ids)
    assert functions(hf) == before

    def broken(layer, tap, value):
        raise KeyError(tap)

    with pytest.raises(KeyError):
        model(ids, record=broken)
    assert functions(hf) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())
    assert torch.equal(model(ids).logits, hf(ids).logits)


def test_runs_do_not_nest():
    model, ids = adapt(small("mamba2")), tokens(1, 5)
    with pytest.raises(RuntimeError, match="do not nest"):
        model(ids, record=lambda *_: model(ids))
    assert model(ids).memory.position == 5


def test_other_threads_wait_or_pass_through():
    hf, other = small("mamba2"), small("mamba2", seed=1)
    model, ids = adapt(hf), tokens(1, 5)
    expected = other(ids).logits, adapt(other)(ids).logits
    found: dict[str, torch.Tensor] = {}
    waiting = threading.Thread(target=lambda: found.update(adapted=adapt(other)(ids).logits))

    def meanwhile(layer, tap, value):
        if "plain" not in found:
            plain = threading.Thread(target=lambda: found.update(plain=other(ids).logits))
            plain.start()
            plain.join(30)
            waiting.start()

    counted = model(ids, record=meanwhile)  # the other model's calls are not counted as this one's
    waiting.join(30)
    assert counted.memory.position == 5
    assert torch.equal(found["plain"], expected[0])
    assert torch.equal(found["adapted"], expected[1])


def test_a_kernel_that_took_the_functions_place_is_tapped_too(monkeypatch):
    """The tap sits outside of whatever the module's name stands for."""
    hf, ids = small("mamba2"), tokens(1, 5)
    module = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    scan, calls = module.mamba2_chunk_scan, []

    def kernel(*args, **kwargs):
        calls.append(1)
        y, state = scan(*args, **kwargs)
        return 2 * y, state

    plain = adapt(hf)(ids).logits
    monkeypatch.setattr(module, "mamba2_chunk_scan", kernel)
    seen = []
    doubled = adapt(hf)(ids, record=lambda layer, tap, value: seen.append(tap)).logits
    assert len(calls) == 2
    assert seen.count("y") == 2
    assert not torch.equal(doubled, plain)


def test_a_mixer_that_does_not_call_the_functions_is_refused():
    hf = small("mamba2")
    mixer = hf.backbone.layers[1].mixer
    mixer.forward = lambda hidden_states, **_: hidden_states
    with pytest.raises(ValueError, match=r"layer 1 \(M2\) called the tapped functions {}, expected {'scan': 1}"):
        adapt(hf)(tokens(1, 5))


def test_a_scan_that_is_called_twice_is_refused():
    hf = small("mamba2")
    mixer = hf.backbone.layers[0].mixer
    once = mixer.forward
    mixer.forward = lambda *args, **kwargs: once(*args, **kwargs) + once(*args, **kwargs)
    with pytest.raises(ValueError, match=r"layer 0 \(M2\) called the tapped functions {'scan': 2}"):
        adapt(hf)(tokens(1, 5))


def test_adapting_twice_and_representations():
    model = adapt(small("zamba2"))
    assert adapt(model) is model
    assert repr(model) == "AdaptedLM(Zamba2ForCausalLM, M2-*>M2-M2-*>M2)"
    assert isinstance(model, AdaptedLM)
    assert model.config.num_attention_heads == 4
    assert adapt(small("mistral")).config.swa_window == 5
    assert model.hf.config.vocab_size == model.config.vocab_size == 48


class Stranger(transformers.PreTrainedModel):
    config_class = transformers.LlamaConfig


def test_bad_models(monkeypatch):
    with pytest.raises(TypeError, match="expected a model of transformers, got Linear"):
        adapt(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no adapter for Stranger; expected one of Bamba.*CONTRIBUTING"):
        adapt(Stranger(transformers.LlamaConfig()))
    config = transformers.RwkvConfig(vocab_size=8, hidden_size=8, num_hidden_layers=2, attention_hidden_size=8)
    with pytest.raises(ValueError, match="RwkvForCausalLM has no adapter: its steps"):
        adapt(transformers.RwkvForCausalLM(config).eval())
    hf = small("llama")
    with pytest.raises(ValueError, match=r"training mode; call model.eval\(\)"):
        adapt(small("llama").train())
    model = adapt(hf)
    hf.train()
    with pytest.raises(ValueError, match=r"training mode; call model.eval\(\)"):
        model(tokens(1, 3))
    with pytest.raises(ValueError, match="window of at least 2"):
        adapt(small("mistral", sliding_window=1))
    bare = small("llama")
    del bare.model.layers[0].self_attn.k_proj
    with pytest.raises(ValueError, match=r"does not look as the adapter for 'llama' expects .*k_proj"):
        adapt(bare)
    for found, message in (("4.57.1", "from 5.20 to before 6.0, got 4.57.1"), ("6.0.0", "got 6.0.0")):
        monkeypatch.setattr(adapted, "version", lambda _, found=found: found)
        with pytest.raises(ValueError, match=rf"{message}.*pip install 'solomonic\[transformers\]'"):
            adapt(small("llama"))


def test_a_version_without_the_function(monkeypatch):
    module = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    model = adapt(small("mamba2"))
    monkeypatch.delattr(module, "mamba2_chunk_scan")
    with pytest.raises(ValueError, match=r"modeling_mamba2 has no mamba2_chunk_scan; install a version in the range"):
        model(tokens(1, 3))


def test_bad_runs():
    model, ids = adapt(small("bamba")), tokens(2, 5)
    for bad, message in (
        (ids[:, :0], "empty prompt"),
        (ids + 48, "expected tokens from 0 to 47"),
        (ids[0], "two axes"),
    ):
        with pytest.raises(ValueError, match=message):
            model(bad)
    with pytest.raises(TypeError, match="integer tensor"):
        model(ids.float())
    with pytest.raises(ValueError, match="memory: holds 2 sequences, but ids has 1"):
        model(ids[:1], memory=model(ids).memory)
    with pytest.raises(ValueError, match="memory: expected 3 layers, got 2; is it another model's"):
        model(ids, memory=adapt(small("llama"))(ids).memory)
    with pytest.raises(ValueError, match=r"memory: layer 0 is 'M2': expected the parts \['conv', 'state'\]"):
        model(ids, memory=adapt(small("granitemoehybrid", layer_types=["attention", "mamba", "mamba"]))(ids).memory)


def test_options_of_attention_that_would_be_misread_are_refused(monkeypatch):
    hf = small("llama")
    for block in hf.model.layers:
        attend = block.self_attn.forward
        block.self_attn.forward = lambda *args, attend=attend, **kwargs: attend(*args, softcap=3.0, **kwargs)
    with pytest.raises(ValueError, match="attention of layer 0 has softcap"):
        adapt(hf)(tokens(1, 4))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_any_implementation_of_attention(implementation):
    hf, ids = small("mistral", attn_implementation=implementation), tokens(2, 14)
    assert hf.config._attn_implementation == implementation
    model = adapt(hf)
    whole = model(ids).logits
    assert torch.equal(whole, hf(ids).logits)
    rest = model(ids[:, 9:], memory=model(ids[:, :9]).memory).logits
    torch.testing.assert_close(rest, whole[:, 9:], atol=1e-5, rtol=0)


def test_bfloat16_runs():
    model, ids = adapt(small("jamba", dtype=torch.bfloat16)), tokens(1, 12)
    first = model(ids[:, :5])
    assert first.memory.get(0, "state").dtype == torch.float32
    rest = model(ids[:, 5:], memory=first.memory).logits
    whole = model(ids).logits[:, 5:]
    assert (rest - whole).abs().max() < 0.1 * whole.abs().max()
