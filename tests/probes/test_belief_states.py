"""Read-outs of beliefs: exact where the model holds them, more than random weights after training, none if shuffled."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from solomonic.models import HybridLM
from solomonic.models.tasks import mess3
from solomonic.probes import belief_states, bootstrap_interval, load_dataset, save_dataset
from solomonic.probes.linear_read import compact, explained, held_out_errors

from .small import small_model, tokens

SOURCE = mess3(x=0.05, a=0.85)


@pytest.fixture(scope="module")
def rows():
    return SOURCE.sample(40, length=48, rng=10**6)


class Observer(HybridLM):
    """A model whose residual stream behind layer 0 is an affine map of the exact beliefs."""

    belief = torch.zeros(0)

    def forward(self, ids, memory=None, *, record=None):
        out = super().forward(ids, memory)
        before = torch.from_numpy(SOURCE.start.copy()).expand(len(ids), -1) if memory is None else self.belief
        matrices, beliefs = torch.from_numpy(SOURCE.transitions.copy()), []
        for token in ids.T:
            before = torch.einsum("bi,bij->bj", before, matrices[token])
            before = before / before.sum(1, keepdim=True)
            beliefs.append(before)
        self.belief = before
        if record is not None:
            mix = torch.linspace(-1, 2, 12, dtype=torch.float64).sin().reshape(3, 4)
            for layer in range(len(self.layers)):
                record(layer, "hidden", 5 + 100 * torch.stack(beliefs, 1) @ mix)
        return out


def test_a_system_that_holds_the_beliefs_has_all_of_them(rows):
    plain = small_model("M2", vocab_size=3)
    model = Observer(plain.config)
    model.load_state_dict(plain.state_dict())
    found = belief_states(model, rows.ids, rows.beliefs, samples=6, resamples=199)
    shares = found.r2.sel(layer=0, source="residual")
    assert float(shares.sel(control="model")) == pytest.approx(1.0, abs=1e-9)
    assert float(shares.sel(control="random weights")) < 0.99
    assert float(shares.sel(control="shuffled beliefs")) < 0.05
    assert float(found.above_random_interval.sel(source="residual", layer=0, bound="lower")) > 0


@pytest.fixture(scope="module")
def trained():
    """A layer of Mamba2 after a few seconds on Mess3."""
    model = small_model("M2", vocab_size=3).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(100):
        ids = SOURCE.sample(32, length=33, rng=step).ids
        loss = cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


def test_a_trained_model_holds_more_than_random_weights_and_a_token(trained, rows):
    found = belief_states(trained, rows.ids, rows.beliefs, samples=8, resamples=499)
    shares = found.r2.sel(layer=0, source="residual")
    assert float(shares.sel(control="model")) > 0.97
    assert float(shares.sel(control="model")) > float(found.r2_token) + 0.1
    assert float(found.above_random_interval.sel(layer=0, source="residual", bound="lower")) > 0.005
    assert float(found.above_random_p_value.sel(layer=0, source="residual")) < 0.01
    assert (found.r2.sel(control="shuffled beliefs") < 0.05).all()
    low, high = found.r2_interval
    assert (low <= found.r2 + 1e-9).all()
    assert (found.r2 <= high + 1e-9).all()


def test_random_weights_are_not_above_random_weights(rows):
    """Two draws of weights: which one tells more is chance, over seeds."""
    gaps = []
    for seed in range(5):
        model = small_model("M2", vocab_size=3, rng=seed)
        found = belief_states(model, rows.ids, rows.beliefs, samples=4, resamples=19, rng=100 + seed)
        gaps.append(float(found.above_random.sel(layer=0, source="residual")))
    assert min(gaps) < 0 < max(gaps)
    assert np.abs(gaps).max() < 0.1


def test_parts_that_grow_are_left_out_and_models_of_transformers_have_a_control(rows, tmp_path):
    found = belief_states(small_model("*-M2", vocab_size=3), rows.ids, rows.beliefs, samples=4, resamples=99)
    assert found.attrs["left_out"] == "kv"
    assert found.source.values.tolist() == ["conv", "state", "residual"]
    assert np.isnan(found.r2.sel(layer=0, source="state")).all()
    assert found.identical(load_dataset(save_dataset(found, tmp_path / "found.nc")))
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        vocab_size=3, hidden_size=16, state_size=8, num_heads=4, head_dim=8, n_groups=1, num_hidden_layers=1,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model, other = (transformers.Mamba2ForCausalLM(config).eval().requires_grad_(False) for _ in range(2))
    before = torch.random.get_rng_state()
    options = {"samples": 3, "resamples": 99}
    found = belief_states(model, rows.ids, rows.beliefs, **options)
    assert found.source.values.tolist() == ["conv", "state"]
    assert np.isfinite(found.above_random).all()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.isfinite(belief_states(model, rows.ids, rows.beliefs, control=other, **options).above_random).all()


@pytest.mark.parametrize("pattern", ["BMO-M2", "GDN-GKA", "BMF-SWA"])
def test_every_part_is_read(pattern, rows):
    found = belief_states(small_model(pattern, vocab_size=3), rows.ids, rows.beliefs, samples=3, resamples=19)
    assert np.isfinite(found.r2.sel(source="residual")).all()
    held = small_model(pattern, vocab_size=3)(rows.ids[:1]).memory
    assert {part for layer in held.layers for part in layer} <= {*found.source.values, *found.attrs["left_out"].split()}


# ---------------------------------------------------------------- the read-out
def test_a_ridge_of_almost_nothing_is_least_squares():
    source = np.random.default_rng(0)
    x, prompt = source.standard_normal((200, 4)), np.repeat(np.arange(20), 10)
    y = x @ source.standard_normal((4, 2)) + 3.0
    errors, variations = held_out_errors([x], y, prompt, folds=5, generator=source)
    assert errors.sum() < 1e-16 * variations.sum()


def test_what_has_no_relation_explains_nothing_and_costs_little():
    source = np.random.default_rng(1)
    x, y, prompt = source.standard_normal((200, 400)), source.standard_normal((200, 2)), np.repeat(np.arange(20), 10)
    errors, variations = held_out_errors([x], y, prompt, folds=5, generator=source)
    assert -0.1 < 1 - errors.sum() / variations.sum() < 0.05
    constant, _ = held_out_errors([np.ones((200, 3))], y, prompt, folds=5, generator=np.random.default_rng(0))
    _, alone = held_out_errors([x], y, prompt, folds=5, generator=np.random.default_rng(0))
    np.testing.assert_allclose(constant, alone)


def test_intervals_of_explained_shares_cover():
    """24 prompts whose variations spread like gamma variables; the true share is 0.8."""
    source, hits = np.random.default_rng(3), 0
    for _ in range(400):
        variation = source.gamma(3, 1.0, 24)
        sums = np.stack([variation * source.beta(1, 4, 24), variation], 1)[:, :, None]
        low, high = bootstrap_interval(sums, explained, resamples=300, rng=source)
        hits += low[0] <= 0.8 <= high[0]
    assert 0.89 <= hits / 400 <= 0.98


def test_compact_features_have_the_same_inner_products():
    x = np.random.default_rng(2).standard_normal((30, 500))
    small, centred = compact(x), x - x.mean(0)
    assert small.shape[1] <= 30
    np.testing.assert_allclose(small @ small.T, centred @ centred.T, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"beliefs": np.ones((40, 47, 3))}, ValueError, "beliefs"),
        ({"beliefs": np.full((40, 48, 3), np.nan)}, ValueError, "beliefs"),
        ({"beliefs": np.ones((40, 48, 3))}, ValueError, "vary"),
        ({"folds": 21}, ValueError, "42 prompts"),
        ({"folds": 1}, ValueError, "folds"),
        ({"samples": 0}, ValueError, "samples"),
        ({"layers": 1}, ValueError, "layers"),
        ({"control": small_model("M2-M2", vocab_size=3)}, ValueError, "control"),
        ({"control": 3}, TypeError, "control"),
        ({"ids": tokens(40, 48)}, ValueError, "ids"),
    ],
)
def test_bad_input_says_what_to_do(options, error, words, rows):
    arguments = {"ids": rows.ids, "beliefs": rows.beliefs, **options}
    with pytest.raises(error, match=words):
        belief_states(small_model("M2", vocab_size=3), **arguments)
