"""Fisher information: every target by enumeration, the head in closed form, and what must not change it."""

import itertools

import numpy as np
import pytest
import torch
from torch.func import functional_call

from solomonic.models import HybridConfig, HybridLM, Recipe, train
from solomonic.probes import fisher_information, fisher_path, load_dataset, save_dataset
from solomonic.probes.fisher_information import fisher_diagonal
from solomonic.probes.parameter_blocks import parameter_blocks

from .small import small_model, tokens

TINY = {
    "vocab_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 4,
}  # fmt: skip


def scores(model, text, targets):
    """Gradient of the log-likelihood of targets at all positions, as one vector."""
    leaves = {name: value.clone().requires_grad_() for name, value in model.named_parameters()}
    logits = functional_call(model, leaves, (text[None],)).logits[0]
    likelihood = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return likelihood, leaves


def exact(model, text):
    """Diagonal of the Fisher information by enumerating every target at every position, over T."""
    total, steps = 0.0, len(text)
    p = model(text[None]).logits[0].softmax(-1)
    for y in range(p.shape[1]):
        likelihood, leaves = scores(model, text, torch.full((steps,), y))
        for t in range(steps):
            grads = torch.autograd.grad(likelihood[t], [*leaves.values()], retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, leaves.values(), strict=True)]
            total = total + p[t, y] * torch.cat([g.flatten() for g in flat]).square()
    return total / steps


@pytest.mark.parametrize("pattern", ["M2-SWA", "BMF", "GDN"])
def test_draws_come_to_the_enumerated_fisher_information(pattern):
    """Within 4.5 standard errors for every one of the parameters, and on average within a few percent."""
    model, text = small_model(pattern, dtype=torch.float64, **TINY), tokens(1, 4, vocabulary=4)[0]
    truth = exact(model, text).numpy()
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(24):
        diagonal, _ = fisher_diagonal(model, text, rng.random((50, 4)), "vmap")
        draws.append(torch.cat([diagonal[name].flatten() for name, _ in model.named_parameters()]).numpy())
    mean, error = np.mean(draws, 0), np.std(draws, 0, ddof=1) / np.sqrt(len(draws))
    seen = truth > 1e-3 * truth.max()
    assert (np.abs(mean - truth)[seen] < 4.5 * error[seen]).all()
    assert (mean[truth == 0] == 0).all()
    assert mean.sum() == pytest.approx(truth.sum(), rel=0.1)


def test_the_square_of_the_sum_is_the_sum_of_the_squares():
    """Over all 4^3 sequences of targets with their probabilities: scores of positions are uncorrelated, exactly."""
    model, text = small_model("M2", dtype=torch.float64, **TINY), tokens(1, 3, vocabulary=4)[0]
    p = model(text[None]).logits[0].softmax(-1)
    total = 0.0
    for y in itertools.product(range(4), repeat=3):
        likelihood, leaves = scores(model, text, torch.tensor(y))
        grads = torch.autograd.grad(likelihood.sum(), [*leaves.values()])
        total = total + p[range(3), y].prod() * torch.cat([g.flatten() for g in grads]).square()
    torch.testing.assert_close(total / 3, exact(model, text), rtol=1e-10, atol=1e-14)


def test_the_head_has_a_closed_form():
    """f of W[v, i] is the mean over positions of p_v (1 - p_v) h_i^2, with h behind the last norm."""
    model, text = small_model("M2-*", dtype=torch.float64), tokens(1, 20)[0]
    kept = []
    handle = model.model.norm.register_forward_hook(lambda module, inputs, out: kept.append(out[0]))
    p = model(text[None]).logits[0].softmax(-1)
    handle.remove()
    truth = (p * (1 - p)).T @ kept[0].square() / 20
    rng = np.random.default_rng(1)
    draws = torch.stack(
        [fisher_diagonal(model, text, rng.random((20, 20)), "vmap")[0]["lm_head.weight"] for _ in range(30)]
    )
    error = draws.std(0) / 30**0.5
    z = ((draws.mean(0) - truth) / error)[truth > 1e-3 * truth.max()]
    assert float(z.abs().max()) < 6
    assert float(z.square().mean()) == pytest.approx(1, abs=0.25)


def test_a_miscalibrated_model_tells_the_true_from_the_empirical_one():
    """Text of one token that the model does not expect: the empirical information of the head is many times higher."""
    model = small_model("M2", dtype=torch.float64, **TINY)
    model.lm_head.weight.mul_(4)
    text = torch.zeros(6, dtype=torch.int64)
    p = model(text[None]).logits[0].softmax(-1)
    text = torch.full((6,), int(p.mean(0).argmin()))
    likelihood, leaves = scores(model, text, text)
    empirical = 0.0
    for t in range(6):
        (grad,) = torch.autograd.grad(likelihood[t], [leaves["lm_head.weight"]], retain_graph=True)
        empirical += float(grad.square().sum()) / 6
    found = fisher_information(model, text, samples=400)
    at = [block.kind for block in parameter_blocks(model)].index("head")
    sizes = [p.numel() for p in model.parameters()]
    truth = float(exact(model, text)[-sizes[-1] :].sum())
    assert float(found.fisher_mean[at]) == pytest.approx(truth, rel=0.25)
    assert empirical > 2 * truth


def test_loop_and_vmap_agree():
    model, ids = small_model("BMF-SWA-GDN", dtype=torch.float64), tokens(2, 15)
    one, other = (fisher_information(model, ids, samples=3, method=method) for method in ("loop", "vmap"))
    for name in ("fisher", "effective", "information"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-12)


def test_what_is_not_read_has_none():
    """A B'MOJO-F layer reads its state W = 6 tokens late; a token that is not in the text has an unread row."""
    model, text = small_model("BMF"), tokens(1, 6)
    found = fisher_information(model, text)
    inside = [i for i, b in enumerate(parameter_blocks(model)) if all("mamba" in name for name in b.names)]
    assert len(inside) > 4
    assert (found.fisher[0, inside] == 0).all()
    assert (found.effective[:, inside] == 0).all()
    longer = fisher_information(model, tokens(1, 12))
    assert (longer.fisher[0, inside] > 0).all()
    diagonal, _ = fisher_diagonal(model, text[0], np.random.default_rng(0).random((2, 6)))
    rows = diagonal["model.embed_tokens.weight"].sum(1) > 0
    assert set(torch.nonzero(rows)[:, 0].tolist()) == set(text[0].tolist())


def test_a_shift_of_all_logits_and_a_change_of_units():
    model, ids = small_model("M2-SWA", dtype=torch.float64), tokens(3, 12)
    before = fisher_information(model, ids)
    head = [b.kind for b in parameter_blocks(model)].index("head")
    model.lm_head.weight.add_(torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    after = fisher_information(model, ids)
    rest = [i for i in range(before.sizes["block"]) if i != head]
    np.testing.assert_allclose(after.fisher[:, rest], before.fisher[:, rest], rtol=1e-5)
    scaled = small_model("M2-SWA", dtype=torch.float64)
    scaled.model.norm.weight.mul_(2)
    scaled.lm_head.weight.div_(2)
    found = fisher_information(scaled, ids)
    np.testing.assert_allclose(found.fisher[:, head], 4 * before.fisher[:, head], rtol=1e-5)
    last = list(found.block.values).index("norm")
    np.testing.assert_allclose(found.fisher[:, last], before.fisher[:, last] / 4, rtol=1e-5)


def test_the_sums_are_those_of_the_diagonal():
    """From diagonals that are made one by one with the same numbers; lambda runs from all parameters to none."""
    model, ids = small_model("SWA"), tokens(4, 10)
    grid = [1e-12, 1e-4, 1e9]
    found = fisher_information(model, ids, samples=2, lambdas=grid, rng=5)
    rng = np.random.default_rng(5)
    each = [fisher_diagonal(model, text, rng.random((2, 10)))[0] for text in ids]
    for i, block in enumerate(parameter_blocks(model)):
        f = sum(torch.cat([one[name].flatten() for name in block.names]).double() for one in each) / 4
        np.testing.assert_allclose(found.fisher_mean[i], float(f.sum()), rtol=1e-5)
        for strength in grid:
            at = {"block": i, "lambda": grid.index(strength)}
            np.testing.assert_allclose(found.effective[at], float((f / (f + strength)).sum()), rtol=1e-5)
            full = 0.5 * float((f + strength).log().sum())
            np.testing.assert_allclose(found.log_det[at], full, rtol=1e-5)
            np.testing.assert_allclose(found.information[at], 0.5 * float((f / strength).log1p().sum()), rtol=1e-5)
            offset = found.information[at] + 0.5 * len(f) * np.log(strength)
            np.testing.assert_allclose(found.log_det[at], offset, rtol=1e-12)
    assert (found.effective <= found["size"]).all()
    assert (found.effective_interval.sel(bound="lower") <= found.effective + 1e-9).all()
    assert (found.effective_interval.sel(bound="upper") >= found.effective - 1e-9).all()
    assert int(found["size"].sum()) == sum(p.numel() for p in model.parameters())


def test_the_jackknife_of_a_quadratic_is_exact():
    """For n = mean^2 the jackknife takes off all of the bias: what is left is the mean of the products of two."""
    from solomonic.probes.fisher_information import _jackknife

    squares = np.random.default_rng(0).exponential(size=(5, 7)).astype(np.float32)
    value, pseudo = _jackknife(squares, [slice(0, 3), slice(3, 7)], np.array([1.0]), lambda f, strength: f**2)
    pairs = [a * b for i, a in enumerate(squares) for j, b in enumerate(squares) if i != j]
    truth = np.mean(np.array(pairs, dtype=float), 0)
    np.testing.assert_allclose(pseudo.mean(0)[0], [truth[:3].sum(), truth[3:].sum()], rtol=1e-5)
    np.testing.assert_allclose(
        value[0], [(squares.mean(0) ** 2)[:3].sum(), (squares.mean(0) ** 2)[3:].sum()], rtol=1e-5
    )


def test_every_parameter_is_in_one_block_and_the_kinds_are_known():
    for pattern in ("M2", "SWA-*", "BMF", "BMO", "GDN", "GKA"):
        model = small_model(pattern, attention_bias=True)
        blocks = parameter_blocks(model)
        names = [name for block in blocks for name in block.names]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        assert "other" not in {block.kind for block in blocks}
        assert len({block.label for block in blocks}) == len(blocks)
    kinds = {name: block.kind for block in parameter_blocks(small_model("BMF")) for name in block.names}
    assert kinds["model.layers.0.bmojo_f.mamba.conv1d.bias"] == "conv"
    assert kinds["model.layers.0.bmojo_f.bmojo_attn.q_norm.weight"] == "norm"
    assert kinds["model.layers.0.mlp.gate_proj.weight"] == "MLP"


def test_the_model_stays_as_it_is(tmp_path):
    model, ids = small_model("M2-SWA").requires_grad_(True), tokens(2, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    with torch.no_grad():
        found = fisher_information(model, ids, samples=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fisher_information(model, ids, samples=1).identical(found)
    assert not fisher_information(model, ids, samples=1, rng=1).fisher.identical(found.fisher)
    assert load_dataset(save_dataset(found, tmp_path / "f.nc")).identical(found)
    assert np.isnan(fisher_information(model, ids[:1], samples=1).fisher_mean_interval).all()
    bits = torch.nn.functional.cross_entropy(model(ids[:1]).logits[0, :-1].detach(), ids[0, 1:]) / np.log(2)
    assert float(found.bits[0]) == pytest.approx(float(bits), rel=1e-5)


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    found = fisher_information(transformers.LlamaForCausalLM(config).eval(), tokens(2, 6, vocabulary=16), samples=2)
    assert {"embedding", "0 q", "1 MLP", "norm"} <= set(found.block.values)
    assert (found.fisher > 0).all()


def test_a_path_along_a_training_run(tmp_path):
    """Checkpoints of a run that learns a cycle: tokens are read off the run, each row is the single call's."""
    config = HybridConfig(pattern="M2", **TINY)
    ids = torch.arange(9)[None] % 4
    recipe = Recipe(steps=30, warmup=2, batch_size=1, context=8, lr=0.01)
    run = train(config, lambda step: ids, tmp_path, recipe, save_every=10, keep=None, progress=False)
    found = fisher_path(tmp_path, ids, samples=2)
    assert found.tokens.values.tolist() == [80, 160, 240]
    assert found.name.values.tolist() == ["step-00000010", "step-00000020", "step-00000030"]
    assert (found.bits.mean("prompt").diff("checkpoint") < 0).all()
    last = fisher_information(run.model, ids, samples=2)
    for name in ("fisher", "effective", "information_interval"):
        np.testing.assert_allclose(found[name].isel(checkpoint=2), last[name], rtol=1e-5)
    mixed = fisher_path([HybridLM(config, rng=0), tmp_path / "step-00000010", run.model], ids, tokens=[0, None, 240])
    assert mixed.tokens.values.tolist() == [0, 80, 240]
    assert load_dataset(save_dataset(found, tmp_path / "f.nc")).identical(found)


def test_what_they_refuse():
    model, nan = small_model("M2"), small_model("M2")
    nan.get_parameter("model.embed_tokens.weight")[3] = torch.nan
    ids = tokens(2, 8)
    for call, message in (
        (lambda: fisher_information(model, ids, samples=0), "samples"),
        (lambda: fisher_information(model, ids, lambdas=0.0), "lambdas: expected positive"),
        (lambda: fisher_information(model, ids, lambdas=[1.0, np.nan]), "lambdas"),
        (lambda: fisher_information(model, ids, lambdas=[]), "lambdas"),
        (lambda: fisher_information(model, ids, method="jvp"), "method"),
        (lambda: fisher_information(model, ids, confidence=1.0), "confidence"),
        (lambda: fisher_information(model, ids + 64), "ids"),
        (lambda: fisher_information(nan, torch.full((1, 4), 3)), "model: logits are NaN"),
        (lambda: fisher_path([], ids), "checkpoints: expected at least one"),
        (lambda: fisher_path("nowhere", ids), "checkpoints: expected the folder"),
        (lambda: fisher_path([model, small_model("SWA")], ids, samples=1), r"checkpoints\[1\]"),
        (lambda: fisher_path([model], ids, tokens=[1, 2]), "tokens: expected one entry"),
        (lambda: fisher_path([model], ids, tokens=[-1]), "tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: fisher_information("fading", ids), "model"),
        (lambda: fisher_information(model, [[0.5]]), "ids"),
        (lambda: fisher_information(model, ids, rng=-1), "rng"),
        (lambda: fisher_path(model, ids), "checkpoints"),
        (lambda: fisher_path([model], ids, rng=np.random.default_rng(0)), "rng"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
