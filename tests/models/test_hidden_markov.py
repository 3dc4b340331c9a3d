"""Hidden Markov data: exact beliefs against enumeration, closed forms and frequencies."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.models.tasks import HiddenMarkov, mess3

GOLDEN_MEAN = [[[0.5, 0], [1, 0]], [[0, 0.5], [0, 0]]]


def any_model(seed: int, tokens: int = 3, states: int = 3) -> HiddenMarkov:
    source = np.random.default_rng(seed)
    value = source.dirichlet(np.full(tokens * states, 0.7), size=states).reshape(states, tokens, states)
    return HiddenMarkov(np.moveaxis(value, 1, 0))


def test_mess3_has_the_published_matrices():
    """x = 0.05, a = 0.85, as printed for the token A; the other two are its rotations."""
    first = [[0.765, 0.00375, 0.00375], [0.0425, 0.0675, 0.00375], [0.0425, 0.00375, 0.0675]]
    found = mess3(x=0.05, a=0.85)
    np.testing.assert_allclose(found.transitions[0], first, atol=1e-15)
    np.testing.assert_allclose(found.transitions[1], np.roll(first, 1, (0, 1)), atol=1e-15)
    np.testing.assert_allclose(found.start, 1 / 3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_beliefs_are_bayes_by_enumeration_of_all_paths(seed):
    """The posterior of the last state over all paths of hidden states, summed one by one."""
    model = any_model(seed)
    ids = np.random.default_rng(seed).integers(3, size=(1, 4))
    joint = np.zeros(3)
    for path in product(range(3), repeat=5):
        weight = model.start[path[0]]
        for t, token in enumerate(ids[0]):
            weight *= model.transitions[token, path[t], path[t + 1]]
        joint[path[-1]] += weight
    np.testing.assert_allclose(model.beliefs(ids)[0, -1], joint / joint.sum(), atol=1e-12)
    assert model.start @ model.transitions.sum(0) == pytest.approx(model.start, abs=1e-9)


def test_beliefs_are_the_frequencies_of_states():
    """Among rows with the same tokens, states come as often as they are believed."""
    model = mess3(x=0.15, a=0.6)
    rows = model.sample(60000, length=3, rng=0)
    for word in ((0, 0, 1), (2, 1, 0), (1, 1, 1)):
        same = (rows.ids == torch.tensor(word)).all(1)
        count = torch.bincount(rows.states[same, -1], minlength=3).numpy()
        belief = rows.beliefs[same, -1][0].numpy()
        error = np.sqrt(belief * (1 - belief) / count.sum())
        assert (np.abs(count / count.sum() - belief) < 4 * error).all()


def test_tokens_come_as_the_beliefs_predict():
    model = any_model(3)
    rows = model.sample(20000, length=3, rng=1)
    p = model.next_token(rows.beliefs.numpy())[:, 1]
    np.testing.assert_allclose(p.sum(-1), 1.0)
    came = np.eye(3)[rows.ids[:, 2].numpy()]
    assert np.abs((came - p).mean(0) / (came - p).std(0) * np.sqrt(len(p))).max() < 4


def test_a_golden_mean_never_says_one_twice():
    rows = HiddenMarkov(GOLDEN_MEAN).sample(200, length=50, rng=0)
    assert not ((rows.ids[:, 1:] == 1) & (rows.ids[:, :-1] == 1)).any()
    assert (rows.beliefs[rows.ids == 1] == torch.tensor([0.0, 1.0])).all()
    states = torch.nn.functional.one_hot(rows.states, 2).double()
    torch.testing.assert_close(states, rows.beliefs)  # every token tells the state


def test_rows_come_from_their_seed():
    one, two, other = (mess3().sample(3, length=20, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.beliefs, two.beliefs)
    assert not torch.equal(one.ids, other.ids)
    assert one.ids.dtype == torch.int64
    assert "3 tokens, 3 states" in repr(mess3())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: HiddenMarkov(np.eye(2)), "transitions: expected .tokens, states, states."),
        (lambda: HiddenMarkov([[[0.5, 0.4], [0.5, 0.5]]]), "sum to 1"),
        (lambda: HiddenMarkov([[[1.5, -0.5], [0.5, 0.5]]]), "negative"),
        (lambda: HiddenMarkov([[[np.nan, 1.0], [0.5, 0.5]]]), "NaN"),
        (lambda: HiddenMarkov([np.eye(2)]), "start: the states have 2 stationary"),
        (lambda: HiddenMarkov([np.eye(2)], start=[0.4, 0.4]), "start"),
        (lambda: HiddenMarkov([np.eye(2)], start=[1.0]), "start"),
        (lambda: mess3(x=0.6), "x: expected"),
        (lambda: mess3(a=-0.1), "a: expected"),
        (lambda: mess3().sample(0), "batch"),
        (lambda: mess3().sample(1, length=0), "length"),
        (lambda: mess3().beliefs([[0, 3]]), "ids"),
        (lambda: mess3().beliefs([[0.5]]), "ids"),
        (lambda: mess3().beliefs([0, 1]), "ids"),
        (lambda: HiddenMarkov(GOLDEN_MEAN).beliefs([[0, 0, 0], [0, 1, 1]]), "row 1 cannot come from this model: .* 2"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
