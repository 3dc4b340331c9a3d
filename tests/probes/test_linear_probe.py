"""Linear probes: one unit that carries the label, labels that nothing carries, and controls that know it."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from solomonic.probes import linear_probe, load_dataset, save_dataset, state_probe
from solomonic.probes.state_probe import part_features

from .small import small_model, tokens


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_one_unit_that_carries_the_label_is_found(tmp_path):
    x = noise(120, 6, 8)
    y = (x[:, 4] @ noise(8, seed=1) > 0).astype(int)
    found = linear_probe(x, y, np.repeat(np.arange(60), 2), controls={"other": noise(120, 6, 8, seed=2)})
    assert found.selective.values.tolist() == [False] * 4 + [True, False]
    assert float(found.score_mean[4]) > 0.85
    low, high = found.selectivity_interval.isel(unit=4)
    assert (low > 0).all()
    assert (low <= found.selectivity[:, 4]).all()
    assert (found.selectivity[:, 4] <= high).all()
    assert (np.abs(found.score_mean[[0, 1, 2, 3, 5]] - 0.5) < 0.2).all()
    assert load_dataset(save_dataset(found, tmp_path / "p.nc")).identical(found)
    assert linear_probe(x, y, np.repeat(np.arange(60), 2), rng=3).identical(
        linear_probe(x, y, np.repeat(np.arange(60), 2), rng=3)
    )


def test_random_labels_are_seldom_found():
    """Of 6 runs of 6 units few find something; test_held_out_tests.py has the level itself."""
    hits, both = 0, 0
    for seed in range(6):
        y = np.random.default_rng(1000 + seed).integers(2, size=30)
        other = {"other": noise(30, 6, 5, seed=500 + seed)}
        found = linear_probe(noise(30, 6, 5, seed=seed), y, controls=other, resamples=400, rng=seed)
        hits += bool(found.discovery.sel(control="shuffled").any())
        both += bool(found.selective.any())
    assert hits <= 2  # more has a probability of 2 in 1000 where each finds something with 5 %
    assert both <= 1


def test_regression_is_the_ridge_of_the_normal_equations():
    """Each fold by hand: standardized features, (X'X + s)^-1 X'y; the score is the share of the variance."""
    x = noise(40, 3)
    y = x @ [1.0, -2.0, 0.0] + 0.3 * noise(40, seed=1)
    found = linear_probe(x, y, strength=2.0, folds=40, shuffles=1)  # every sample is left out once
    err, base = np.empty(40), np.empty(40)
    for i in range(40):
        keep = np.arange(40) != i
        mean, std = x[keep].mean(0), x[keep].std(0)
        z, level = (x[keep] - mean) / std, y[keep].mean()
        w = np.linalg.solve(z.T @ z + 2.0 * np.eye(3), z.T @ (y[keep] - level))
        err[i], base[i] = (y[i] - level - (x[i] - mean) / std @ w) ** 2, (y[i] - level) ** 2
    assert found.attrs["task"] == "regress"
    np.testing.assert_allclose(found.score_mean[0], 1 - err.sum() / base.sum(), rtol=1e-10)
    np.testing.assert_allclose(found.score[0], (base - err) / base.mean(), rtol=1e-10)


def test_a_prompt_is_never_on_both_sides():
    """Samples of a prompt are copies with a label of their own: across prompts there is nothing to learn."""
    x = np.repeat(noise(40, 30), 5, axis=0)
    y = np.repeat(np.random.default_rng(1).integers(2, size=40), 5)
    apart = linear_probe(x, y, np.repeat(np.arange(40), 5))
    mixed = linear_probe(x, y)
    assert float(apart.score_mean[0]) < 0.72
    assert float(mixed.score_mean[0]) > 0.9
    assert abs(float(apart.selectivity[0, 0])) < 0.25


def test_a_control_that_knows_the_label_leaves_no_selectivity():
    """In a sparse matrix as in a dense one."""
    y = np.random.default_rng(0).integers(3, size=90)
    codes = np.eye(3)[y]
    x = np.stack([codes + 0.3 * noise(90, 3), noise(90, 3, seed=1)], 1)
    for control in (csr_matrix(codes), codes):
        found = linear_probe(x, y, controls={"recent": control})
        assert bool(found.discovery.sel(control="shuffled")[0])
        assert float(found.control_score.sel(control="recent").mean()) == 1
        assert not found.selective.any()


def test_intervals_of_shares_stay_in_their_range():
    """One prompt of forty is wrong, or none: the bounds are shares still."""
    y = np.arange(40) % 2
    x = np.where(np.arange(40) == 7, 1 - y, y)[:, None] + 0.01 * noise(40, 1)
    found = linear_probe(x, y)
    low, high = found.score_interval[:, 0]
    assert float(found.score_mean[0]) == 39 / 40
    assert 0.85 < float(low) <= 39 / 40 <= float(high) <= 1


def test_a_cache_holds_what_the_last_tokens_do_not_tell():
    """The first token's class is in the keys of attention over all the past, and not in the last four tokens."""
    ids = tokens(96, 8)
    ids[:, 0] = torch.where(ids[:, 0] % 2 == 1, 3, 40)
    found = state_probe(small_model("*"), ids, ids[:, 0], part="kv", positions=-1, recent=4)
    assert float(found.score_mean.max()) > 0.9
    assert found.discovery.sel(control=["shuffled", "recent"]).all()
    assert abs(float(found.control_score.sel(control="recent").mean()) - 0.5) < 0.2
    assert not found.selective.any()  # keys of a random network hold the token as well
    last = state_probe(small_model("*"), ids.flip(1), ids[:, 0], part="kv", recent=1)
    assert float(last.control_score.sel(control="recent").min()) == 1
    assert (last.selectivity.sel(control="recent") <= 0).all()


def test_the_head_whose_state_makes_the_label_scores_highest():
    model, ids = small_model("M2-M2"), tokens(120, 10)
    state = model(ids).memory.get(1, "state")[:, 2].flatten(1)
    state = (state - state.mean(0)) / state.std(0)
    direction = torch.linalg.svd(state, full_matrices=False).Vh[3]
    found = state_probe(model, ids, (state @ direction).double().numpy(), shuffles=1, strength=0.1)
    assert found.score_mean.dims == ("layer", "head")
    best = found.score_mean.stack(unit=("layer", "head"))
    assert best.unit[int(best.values.argmax())].item() == (1, 2)
    assert float(best.max()) > 0.9
    assert found.selectivity.dims == ("control", "layer", "head")
    assert [str(c) for c in found.control.values] == ["shuffled", "random", "recent"]


def test_features_are_those_of_the_memory_at_each_position():
    model, ids = small_model("BMF-M2-SWA-*"), tokens(3, 12)
    at = np.array([[5, 9], [7, 5], [11, 6]])
    for part, layer in (("state", 1), ("conv", 1), ("state", 0), ("window", 2)):
        found = part_features(model, ids, part, [layer], at, batch_size=2)
        for i, row in enumerate(at):
            for j, t in enumerate(row):
                value = model(ids[i : i + 1, : t + 1]).memory.get(layer, part)
                for (_, head), array in found.items():
                    if part == "window":
                        truth = torch.cat([value.key[0, :, head].flatten(), value.value[0, :, head].flatten()])
                    else:
                        truth = value[0, head].flatten() if part == "state" else value[0].flatten()
                    np.testing.assert_allclose(array[2 * i + j], truth, rtol=1e-4, atol=1e-5)


def test_a_model_of_transformers_and_layers_with_other_numbers_of_heads():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model, ids = transformers.LlamaForCausalLM(config).eval(), tokens(20, 6, vocabulary=16)
    state = torch.random.get_rng_state()
    found = state_probe(model, ids, ids[:, 1] > 7, part="kv", folds=3, shuffles=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert dict(found.score_mean.sizes) == {"layer": 2, "head": 2}


def test_what_they_refuse():
    x, y, model, ids = noise(20, 3), np.arange(20) % 2, small_model("M2-*"), tokens(6, 9)
    for call, message in (
        (lambda: linear_probe(x, y[:19]), "features: expected shape"),
        (lambda: linear_probe(x, 0 * y), "at least two different"),
        (lambda: linear_probe(x, np.full(20, np.nan)), "labels: expected finite"),
        (lambda: linear_probe(x * np.nan, y), "features: expected finite"),
        (lambda: linear_probe(x[:, :0], y), "features"),
        (lambda: linear_probe({}, y), "at least one unit"),
        (lambda: linear_probe(x, y, np.zeros(20, int)), "at least as many as folds"),
        (lambda: linear_probe(x, y, np.zeros(3, int)), "prompts"),
        (lambda: linear_probe(x, y, strength=0), "strength"),
        (lambda: linear_probe(x, y, folds=1), "folds"),
        (lambda: linear_probe(x, y, task="svm"), "task"),
        (lambda: linear_probe(x, y.astype(str), task="regress"), "task"),
        (lambda: linear_probe(x, y, controls={"shuffled": x}), "controls"),
        (lambda: linear_probe({"a": x}, y, controls={"c": {"b": x}}), "expected the units"),
        (lambda: state_probe(model, ids, y[:5]), "labels: expected shape"),
        (lambda: state_probe(model, ids, y[:6], part="window"), "part"),
        (lambda: state_probe(model, ids, y[:6], layers=1), "part: expected a part that the layers have"),
        (lambda: state_probe(model, ids, y[:6], positions=9), "positions"),
        (lambda: state_probe(model, ids, np.ones((6, 2)), positions=[1, -8]), "positions: expected each once"),
        (lambda: state_probe(model, ids, y[:12].reshape(6, 2), part="kv", positions=[1, 4]), "numbers a head"),
        (lambda: state_probe(model, ids, y[:6], recent=0), "recent"),
        (lambda: state_probe(model, ids, y[:6], controls={}), "controls"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: linear_probe(x.astype(str), y), "features"),
        (lambda: state_probe("fading", ids, y[:6]), "model"),
        (lambda: linear_probe(x, y, rng=-1), "rng"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
