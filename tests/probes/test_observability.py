"""Observability of a state against the Jacobian itself, and pairs of states that say the same."""

import numpy as np
import pytest
import torch
from torch.func import jacrev

from solomonic.models import generate
from solomonic.probes import observability, unsaid
from solomonic.probes.products import StateToLogits

from .small import small_model, tokens

TAU = 6


def jacobian(model, ids, layer: int, horizon: int) -> np.ndarray:
    """J [tau V, n] by reverse mode, row by row."""
    cut = ids.shape[1] - horizon
    memory = model(ids[:, :cut]).memory
    operator = StateToLogits(model, memory, ids[:, cut:], layer)
    full = jacrev(lambda h: operator.logits(h[None])[0])(operator.state)
    return full.reshape(horizon * 64, -1).numpy()


@pytest.mark.parametrize(("pattern", "layer", "horizon"), [("M2-SWA", 0, TAU), ("*-M2", 1, TAU), ("BMF-M2", 0, 14)])
def test_singular_pairs_are_those_of_the_jacobian(pattern, layer, horizon):
    model = small_model(pattern, dtype=torch.float64)
    ids = tokens(1, 40)
    J = jacobian(model, ids, layer, horizon)
    _, s, Vt = np.linalg.svd(J, full_matrices=False)
    found = observability(model, ids, layers=layer, horizon=horizon, directions=10, iterations=12)
    values = found.singular_value.sel(layer=layer).to_numpy()
    np.testing.assert_allclose(values, s[:10], rtol=1e-6)
    v = found.vector.sel(layer=layer).to_numpy().reshape(10, -1)
    np.testing.assert_allclose(np.abs((v * Vt[:10]).sum(1)), 1, atol=1e-5)
    # The residual says how far a pair is from one of J'J.
    gram = np.linalg.norm(v @ J.T @ J - values[:, None] ** 2 * v, axis=1)
    np.testing.assert_allclose(found.residual.sel(layer=layer), gram, atol=1e-8 * values[0] ** 2)
    assert abs(float(found.energy.sel(layer=layer)) / (s**2).sum() - 1) < 1
    assert found["rank"].item() == (s[:10] > 1e-2 * s[0]).sum()


def test_products_do_not_depend_on_how_many_are_computed_at_a_time():
    model = small_model("M2", dtype=torch.float64)
    memory = model(tokens(1, 9)).memory
    v = torch.randn(5, 4 * 8 * 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = StateToLogits(model, memory, tokens(1, 4, seed=1), 0, rows=1).gram(v)
    two = StateToLogits(model, memory, tokens(1, 4, seed=1), 0, rows=3).gram(v)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_the_energy_is_estimated_without_bias():
    model = small_model("M2", dtype=torch.float64)
    ids = tokens(1, 20)
    exact = (jacobian(model, ids, 0, 3) ** 2).sum()
    found = [
        observability(model, ids, horizon=3, directions=24, iterations=0, rng=seed).energy.item() for seed in range(8)
    ]
    error = np.std(found, ddof=1) / np.sqrt(8)
    assert abs(np.mean(found) - exact) < 4 * error


def test_a_fading_token_is_not_seen_before_it_is_read():
    model = small_model("BMF", dtype=torch.float64)  # W = 6
    ids = tokens(1, 30)
    for horizon, seen in ((6, False), (7, True)):
        found = observability(model, ids, horizon=horizon, directions=4)
        assert bool((found.singular_value > 0).any()) is seen
        assert bool(found["rank"] > 0) is seen


def test_a_layer_that_nothing_reads_is_unseen():
    model = small_model("M2-M2", dtype=torch.float64)
    model.layers[1].mixer.out_proj.weight.zero_()
    found = observability(model, tokens(1, 20), horizon=5, directions=4)
    assert (found.singular_value.sel(layer=1) == 0).all()
    assert (found.singular_value.sel(layer=0) > 0).all()
    assert float(found.seen_share.sel(layer=1)) == 0


def test_feedback_uses_the_tokens_that_the_model_says():
    model = small_model("M2", dtype=torch.float64)
    ids = tokens(1, 15)
    found = observability(model, ids, horizon=5, future="greedy", directions=3)
    said = ids
    for _ in range(5):
        said = torch.cat([said, model(said).logits[:, -1:].argmax(-1)], 1)
    np.testing.assert_array_equal(found.token, said[0, 15:])
    assert found.attrs["cut"] == 15


@pytest.mark.parametrize("pattern", ["M2-SWA", "BMF-M2"])
def test_a_pair_of_states_says_the_same(pattern):
    model = small_model(pattern, dtype=torch.float64)
    ids = tokens(1, 25)
    pair = unsaid(model, ids, 0, horizon=8, directions=40)
    memory = model(ids).memory
    first = model(ids).logits[:, -1:].argmax(-1)
    state = memory.get(0, "state")
    np.testing.assert_allclose(pair.state, state[0], atol=1e-12)
    changed = memory.set(0, "state", state + torch.from_numpy(pair.change.sel(kind="unsaid").to_numpy())[None])
    one, two = (generate(model, first, 8, memory=m).ids for m in (memory, changed))
    assert torch.equal(one, two)
    np.testing.assert_array_equal(one[0], pair.token)
    norms = np.sqrt((pair.change**2).sum(("head", "channel", "state"))) / np.sqrt((pair.state**2).sum())
    np.testing.assert_allclose(norms, float(pair.amount), rtol=1e-9)
    assert 0 < float(pair.amount) <= 1
    assert int(pair.agreeing.sel(kind="unsaid")) == 8
    # It is less visible than a random change of its size, and far less than one along the most visible direction.
    mean = pair.kl.mean("time")
    assert mean.sel(kind="unsaid") <= mean.sel(kind="random") <= mean.sel(kind="said")


def test_what_they_refuse():
    model = small_model("M2-SWA")
    ids = tokens(1, 20)
    with pytest.raises(ValueError, match="one text"):
        observability(model, tokens(2, 20))
    with pytest.raises(ValueError, match=r"layer 1 \(SWA\)"):
        observability(model, ids, layers=[1])
    with pytest.raises(ValueError, match="layers"):
        observability(small_model("SWA"), ids)
    with pytest.raises(ValueError, match="horizon"):
        observability(model, ids, horizon=20)
    with pytest.raises(ValueError, match="future"):
        observability(model, ids, horizon=4, future="past")
    with pytest.raises(ValueError, match="tol"):
        observability(model, ids, horizon=4, tol=2)
    with pytest.raises(ValueError, match="amount"):
        unsaid(model, ids, 0, amount=0)
    with pytest.raises(ValueError, match="layers"):
        unsaid(model, ids, 7)
