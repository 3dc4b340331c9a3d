"""Controllability of a state against the Jacobian itself, and inputs that steer it."""

import numpy as np
import pytest
import torch
from torch.func import jacrev

from solomonic.probes import controllability, steer
from solomonic.probes.products import InputsToState

from ..models.adapters.small import small
from .small import small_model, tokens


def jacobian(model, ids, layer: int, span: int) -> np.ndarray:
    memory = model(ids[:, : ids.shape[1] - span]).memory
    operator = InputsToState(model, memory, ids[:, -span:], layer)
    full = jacrev(lambda e: operator.states(e[None])[0])(operator.embedded)
    return full.reshape(operator.inputs, -1).numpy()


@pytest.mark.parametrize(("pattern", "layer"), [("M2", 0), ("SWA-BMF", 1)])
def test_singular_pairs_are_those_of_the_jacobian(pattern, layer):
    model, ids = small_model(pattern, dtype=torch.float64), tokens(1, 20)
    U, s, _ = np.linalg.svd(jacobian(model, ids, layer, 3), full_matrices=False)
    found = controllability(model, ids, layers=layer, span=3, directions=6, iterations=12)
    np.testing.assert_allclose(found.singular_value[0], s[:6], rtol=1e-6)
    v = found.vector[0].to_numpy().reshape(6, -1)
    np.testing.assert_allclose(np.abs((v * U.T[:6]).sum(1)), 1, atol=1e-5)


def test_one_token_moves_no_more_directions_than_it_has():
    model = small_model("M2", dtype=torch.float64)  # d = 32
    found = controllability(model, tokens(1, 12), span=1, directions=40, tol=1e-9, iterations=4)
    assert found["rank"].item() <= 32
    assert not found.saturated.item()


def test_the_model_is_as_it_was():
    model, ids = small_model("M2", dtype=torch.float64), tokens(1, 12)
    before = model(ids).logits
    controllability(model, ids, span=2, directions=3)
    assert torch.equal(model(ids).logits, before)
    assert not model.model.embed_tokens._forward_hooks


def test_a_reachable_target_is_approached_and_the_gap_is_true():
    model, ids = small_model("M2", dtype=torch.float64), tokens(1, 24)
    memory = model(ids[:, :14]).memory
    operator = InputsToState(model, memory, ids[:, 14:], 0)
    push = 0.02 * torch.randn(10, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = operator.states((operator.embedded + push)[None])[0].detach()
    found = steer(model, ids, target, 0, span=10, steps=3, iterations=150)
    assert (found.gap.diff("step") < 0).all()
    assert found.gap[-1].item() < 0.05
    moved = operator.states((operator.embedded + torch.from_numpy(found.move.to_numpy()))[None])[0]
    gap = (moved - target).norm() / (operator.state - target).norm()
    assert found.gap[-1].item() == pytest.approx(gap.item(), rel=1e-6)
    # The least move is no larger than the one that made the target.
    assert found.move_energy.item() <= push.square().sum().item()


def test_the_bound_is_that_of_the_gramian():
    model, ids = small_model("M2", dtype=torch.float64), tokens(1, 20)
    J = jacobian(model, ids, 0, 16)
    state = model(ids).memory.get(0, "state")[0]
    delta = J @ (J.T @ np.random.default_rng(0).standard_normal(len(J))) * 1e-3  # along what is easy to reach
    found = steer(model, ids, state + torch.from_numpy(delta).view_as(state), 0, span=16, steps=1, iterations=150)
    assert found.energy_bound.item() == pytest.approx(delta @ np.linalg.pinv(J @ J.T, rcond=1e-12) @ delta, rel=1e-2)


def test_tokens_are_the_nearest_and_their_gap_is_told():
    model, ids = small_model("M2", dtype=torch.float64), tokens(1, 20)
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 7) % 64
    target = model(other).memory.get(0, "state")[0]
    found = steer(model, ids, target, 0, span=1, steps=2, iterations=20)
    state = model(torch.cat([ids[:, :-1], torch.from_numpy(found.token.to_numpy())[None]], 1)).memory.get(0, "state")[0]
    before = model(ids).memory.get(0, "state")[0]
    expected = (state - target).norm() / (before - target).norm()
    assert found.gap_tokens.item() == pytest.approx(expected.item(), rel=1e-9)


def test_models_of_transformers_are_reached_too():
    found = controllability(small("mamba2", dtype=torch.float64), tokens(1, 12, vocabulary=48), span=4, directions=3)
    assert (found.singular_value > 0).all()


def test_what_they_refuse():
    model, ids = small_model("M2-SWA"), tokens(1, 12)
    state = model(ids).memory.get(0, "state")[0]
    with pytest.raises(ValueError, match="span"):
        controllability(model, ids, span=13)
    with pytest.raises(ValueError, match=r"layer 1 \(SWA\)"):
        controllability(model, ids, layers=1)
    with pytest.raises(ValueError, match="target: expected the shape"):
        steer(model, ids, state[:1], 0, span=4)
    with pytest.raises(ValueError, match="NaN"):
        steer(model, ids, state * np.nan, 0, span=4)
    with pytest.raises(ValueError, match="already"):
        steer(model, ids, state, 0, span=12)
