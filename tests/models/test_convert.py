"""Priming: what of a transformer is kept, and training a part of the parameters."""

import json

import pytest
import torch

from solomonic.models import Recipe, load, prime, save, train

from .small import small_config, small_model, tokens


def test_every_mixer_gets_what_it_should():
    source = small_model("attention", num_key_value_heads=2)
    attention = source.layers[0].mixer
    options = {"bmojo_window": 5, "swa_window": 40, "eidetic_tokens": 2, "rng": 0}
    for symbol in ("M2", "GDN", "GKA", "BMF", "BMO"):
        for mixer in ("mamba2", "gdn", "gka") if symbol in ("BMF", "BMO") else ("mamba2",):
            primed = prime(source, f"{symbol}-*", ssm_mixer=mixer, tie_attn_weights=False, **options)
            assert torch.equal(primed.lm_head.weight, source.lm_head.weight)
            here = dict(primed.layers[0].mixer.named_parameters())
            o, v = attention.o_proj.weight, attention.v_proj.weight
            gate = (o.T + v.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)) / 2
            if symbol in ("BMF", "BMO"):
                for name, value in attention.named_parameters():
                    assert torch.equal(here[f"bmojo_attn.{name}"], value)
                    if not name.startswith("o_proj"):
                        assert torch.equal(here[f"bmojo_attn.{name.replace('.', '_.')}"], value)
                here = dict(primed.layers[0].mixer.ssm.named_parameters())
            if symbol in ("GDN", "GKA") or (symbol != "M2" and mixer != "mamba2"):
                assert torch.equal(here["g_proj.weight"], gate)
                for name in ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"):
                    assert torch.equal(here[name], attention.get_parameter(name))
            else:
                rows = torch.cat([gate, v, attention.k_proj.weight, attention.q_proj.weight])
                assert torch.equal(here["in_proj.weight"][: len(rows)], rows)
                assert torch.equal(here["out_proj.weight"], o)
                assert torch.equal(here["B_norm.weight"], attention.k_norm.weight)
                assert torch.equal(here["C_norm.weight"], attention.q_norm.weight)


def test_a_window_over_everything_is_the_transformer_itself():
    source, ids = small_model("attention"), tokens(2, 17)
    want = source(ids).logits
    assert torch.equal(prime(source, "SWA-*", swa_window=40)(ids).logits, want)
    # Below W tokens B'MOJO reads its window alone, and its attention is the transformer's.
    assert torch.equal(prime(source, "BMO-BMF", bmojo_window=40)(ids).logits, want)
    assert not torch.equal(prime(source, "BMO-BMF", bmojo_window=4)(ids).logits, want)


def test_what_cannot_be_primed():
    with pytest.raises(ValueError, match="expected 2 layers as the model has, got 1"):
        prime(small_model("attention"), "BMF")
    with pytest.raises(ValueError, match=r"layer 0 is 'M2': only attention \(\*, SWA\) can become 'BMF'"):
        prime(small_model("mamba2"), "BMF-M2")


def test_a_qwen3_transformer_is_read(tmp_path):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=29,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=False,
    )
    theirs = Qwen3ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen3"
    ours, ids = load(tmp_path), tokens(2, 17)
    assert ours.config.pattern == ("*", "*")
    with torch.no_grad():
        assert (ours(ids).logits - theirs(ids).logits).abs().max() < 1e-6
    primed = prime(ours, "*-BMO", bmojo_window=4, rng=0)
    assert torch.equal(load(save(primed, tmp_path / "primed"))(ids).logits, primed(ids).logits)


def test_training_a_part(tmp_path):
    config = small_config("bmojo", eidetic_tokens=2)
    start = prime(small_model("attention", dtype=torch.float32), "BMO-*", bmojo_window=5, eidetic_tokens=2, rng=1)
    config = start.config
    before = {n: p.clone() for n, p in start.state_dict().items()}

    def batches(step):
        ids = tokens(2, 12, seed=step)
        return ids, torch.where(ids % 2 == 0, ids, -100)

    recipe = Recipe(steps=3, warmup=1)
    run = train(
        config, batches, tmp_path, recipe, start=start, parameters=["*.mamba.*", "lm_head.weight"], progress=False
    )
    after = run.model.state_dict()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed
    assert all(".mamba." in n or n == "lm_head.weight" for n in changed)
    assert all(torch.equal(before[n], v) for n, v in start.state_dict().items())
    with pytest.raises(ValueError, match="trains other parameters"):
        train(config, batches, tmp_path, recipe, start=start, progress=False)
    with pytest.raises(ValueError, match=r"no parameter is named '\*\.s4\.\*'"):
        train(config, batches, tmp_path / "a", recipe, parameters=["*.s4.*"], progress=False)
    with pytest.raises(TypeError, match="expected a list of names"):
        train(config, batches, tmp_path / "a", recipe, parameters="lm_head.weight", progress=False)
    with pytest.raises(ValueError, match="start: expected a model of the configuration"):
        train(config, batches, tmp_path / "b", recipe, start=small_model("attention"), progress=False)
