"""What a stored token is worth: against memories edited by hand, and on a model that answers from what it stores."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from solomonic.models import HybridLM, evict, insert, load, recall_rows, stored_tokens, with_eidetic
from solomonic.models.memory import StoredTokens
from solomonic.probes import eviction, load_dataset, save_dataset
from solomonic.probes.divergence import kl_bits
from solomonic.probes.eviction import _mean, _shares, _spearman
from solomonic.probes.eviction_runs import Change, changed_memories, read_on, read_prefix

from .small import small_model, tokens

W = 6


def bmo(pattern="BMO-BMO", eidetic_tokens=3, dtype=torch.float64, **changes) -> HybridLM:
    return small_model(pattern, dtype=dtype, eidetic_tokens=eidetic_tokens, **changes)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def recalled():
    """The trained model, rows that it answers, and what every token is worth by the loss of the answers."""
    model, rows = load("recall-bmojo").requires_grad_(False), recall_rows(6, rng=11)
    return model, rows, eviction(model, rows.ids, cut=32, targets=rows.targets, by="loss", rng=0)


def held_for_good(memory, layer: int, token: int):
    """The memory with the score of a stored token set to infinity."""
    old = stored_tokens(memory, layer)
    there = (old.position == token) & (old.admitted > 0)
    assert there.sum() == 1
    return memory.set(layer, "eidetic", old._replace(score=old.score.masked_fill(there, torch.inf)))


# ---------------------------------------------------------------- against memories edited by hand
VARIANTS = [
    {},
    {"fading_tokens": 1},
    {"fading_tokens": 0},
    {"innovation_norm": "relative"},
    {"innovation_norm": "random"},
    {"bmojo_positions": "none"},
    {"tie_attn_weights": False, "fading_tokens": 2},
    {"ssm_mixer": "gdn"},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize(("cut", "hold"), [(18, False), (20, True)])
def test_an_eviction_is_a_run_with_a_memory_edited_by_hand(changes, cut, hold):
    model, ids = bmo(**changes), tokens(2, 32)
    found = eviction(model, ids, cut=cut, hold=hold)
    assert found.sizes["token"] == 13
    for prompt, text in enumerate(ids):
        memory = model(text[None, :cut]).memory
        base = model(text[None, cut:], memory).logits[0]
        for layer in (0, 1):
            tokens_held = stored_tokens(memory, layer)
            here = tokens_held.position[0][tokens_held.admitted[0] > 0].tolist()
            assert sorted(here) == np.flatnonzero(found.stored[layer, prompt]).tolist()
            for token in here:
                if hold:
                    base = model(text[None, cut:], held_for_good(memory, layer, token)).logits[0]
                gone = model(text[None, cut:], evict(memory, layer, token)).logits[0]
                np.testing.assert_allclose(found.kl[layer, prompt, token], kl_bits(base, gone), rtol=1e-6, atol=1e-14)
                follow = text[cut + 1 :, None]
                change = (base.log_softmax(-1) - gone.log_softmax(-1))[:-1].gather(-1, follow).mean() / np.log(2)
                assert float(found.loss[layer, prompt, token]) == pytest.approx(float(change), abs=1e-12)
            assert set(map(int, found.replaced[layer, prompt])) == {-1, min(
                here, key=lambda t: float(found.score[layer, prompt, t])
            )}  # fmt: skip


@pytest.mark.parametrize("hold", [False, True])
def test_a_token_that_was_not_stored_is_put_in_with_the_key_that_a_larger_store_holds(hold):
    """In the first layer, keys depend on no memory: those of a model that stores every token are the true ones."""
    model, ids, cut = bmo("BMO-SWA"), tokens(1, 32), 18
    found = eviction(model, ids, cut=cut, hold=hold)
    memory = model(ids[:, :cut]).memory
    everything = stored_tokens(with_eidetic(model, 13)(ids[:, :cut]).memory, 0)
    lowest = int(found.replaced[0, 0].max())
    base, follow = model(ids[:, cut:], memory).logits[0], ids[:, cut:]
    without = model(follow, evict(memory, 0, lowest)).logits[0]
    score = torch.inf if hold else float(found.score[0, 0, lowest])
    for token in np.flatnonzero(~found.stored[0, 0]):
        (at,) = torch.where(everything.position[0] == int(token))[0].tolist()
        pair = everything.key[:, at], everything.value[:, at]
        put = insert(evict(memory, 0, lowest), 0, *pair, position=int(token), score=score)
        there = model(follow, put).logits[0]
        np.testing.assert_allclose(found.kl[0, 0, token], kl_bits(there, without), rtol=1e-6, atol=1e-14)
        after = torch.stack([there, base]).log_softmax(-1)[:, :-1].gather(-1, follow[0, 1:, None].expand(2, -1, 1))
        swap = float(after[1].mean() - after[0].mean()) / np.log(2)
        assert float(found.swap[0, 0, token]) == pytest.approx(swap, abs=1e-12)
    assert np.isnan(found.swap.values[found.stored.values]).all()


def test_evicting_nothing_gives_the_same_bits():
    model, ids = load("recall-bmojo").requires_grad_(False), recall_rows(1, rng=3).ids
    prefix = read_prefix(model, ids[:, :32], (0, 1))
    plain = model(ids[:, 32:], model(ids[:, :32]).memory).logits
    assert torch.equal(read_on(model, prefix, 0, ids[0, 32:], [[]], None), plain)
    itself = [Change(1, slot, position) for position, slot in prefix.slots(1, 0).items()]
    assert torch.equal(read_on(model, prefix, 0, ids[0, 32:], [itself], None), plain)
    checks = json.loads(eviction(model, ids).attrs["checks"])
    assert checks == {"changed": 1.0, "null": 0.0}


def test_a_memory_is_never_changed_in_place():
    model, ids = bmo(), tokens(1, 24)
    prefix = read_prefix(model, ids[:, :18], (0, 1))
    before = [[t.clone() for t in stored_tokens(prefix.memory, layer)] for layer in (0, 1)]
    slot = next(iter(prefix.slots(0, 0).values()))
    changed = changed_memories(prefix, 0, [[], [Change(0, slot, -1)], [Change(1, slot, 2), Change(0, slot, 2)]])
    for layer in (0, 1):
        for was, now, new in zip(before[layer], stored_tokens(prefix.memory, layer), stored_tokens(changed, layer),
                                 strict=True):  # fmt: skip
            assert torch.equal(was, now)
            assert torch.equal(new[:1], was)
    assert stored_tokens(changed, 0).position[1, slot] == -1
    assert stored_tokens(changed, 1).position[:, slot].tolist()[2] == 2
    forever = stored_tokens(changed_memories(prefix, 0, [[Change(0, slot, 2, True)], [Change(0, slot, 2)]]), 0)
    assert forever.score[0, slot] == torch.inf
    assert forever.score[1, slot] == before[0][3][0, slot]
    assert stored_tokens(changed, 1).position[1, slot] == stored_tokens(prefix.memory, 1).position[0, slot]


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_how_many_share_a_call_does_not_matter(batch_size):
    model, ids = bmo(), tokens(2, 26)
    one, other = eviction(model, ids), eviction(model, ids, batch_size=batch_size)
    for name in one.data_vars:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-7, atol=1e-12, err_msg=str(name))


@settings(max_examples=12, deadline=None)
@given(st.integers(6, 23), st.integers(1, 9), st.sampled_from(["lowest", "random"]), st.integers(0, 99))
def test_at_any_cut_and_budget_tokens_are_stored_by_their_scores(cut, budget, replace, seed):
    model, ids = bmo("BMO", budget), tokens(1, 25, seed=seed)
    found = eviction(model, ids, cut=cut, replace=replace, rng=seed)
    count = cut // W * W - W + 1
    stored, score = found.stored.values[0, 0], found.score.values[0, 0]
    assert stored.size == count
    assert stored.sum() == min(budget, count)
    if count > budget:
        assert score[stored].min() >= score[~stored].max()
        assert set(found.replaced.values[0, 0][~stored]) <= set(np.flatnonzero(stored))
        assert np.isfinite(found.swap.values[0, 0][~stored]).all()
    else:
        assert np.isnan(found.difference).all()
        assert np.isnan(found.p).all()
        assert float(found.share[0, 0, 0]) == pytest.approx(1)
    assert (found.kl >= 0).all()
    for choice, low in (("kept", 0), ("oracle", found.share.sel(choice="random").item()), ("none", 0)):
        assert low - 1e-9 <= found.share.sel(choice=choice).item() <= 1 + 1e-9
    assert found.share.sel(choice="oracle").item() >= found.share.sel(choice="kept").item() - 1e-12


def test_sets_are_runs_with_all_slots_set_by_hand():
    model, ids, cut = bmo("BMO"), tokens(1, 32), 18
    found = eviction(model, ids, cut=cut)
    memory, follow = model(ids[:, :cut]).memory, ids[:, cut:]

    def loss(m) -> float:
        return -float(
            model(follow, m).logits[0].log_softmax(-1)[:-1].gather(-1, follow[0, 1:, None]).mean() / np.log(2)
        )

    held = np.flatnonzero(found.stored[0, 0]).tolist()
    assert found.set_loss.sel(choice="kept").item() == pytest.approx(loss(memory), abs=1e-12)
    assert found.set_loss.sel(choice="none").item() == pytest.approx(loss(evict(memory, 0, held)), abs=1e-12)
    best = np.argsort(-found.effect.values[0, 0])[:3]
    everything = stored_tokens(with_eidetic(model, 13)(ids[:, :cut]).memory, 0)
    at = [int(torch.where(everything.position[0] == int(token))[0]) for token in best]
    old = stored_tokens(memory, 0)
    order = torch.argsort(-old.score[0].masked_fill(old.admitted[0] == 0, -torch.inf))[:3]
    key, value, position = (t.clone() for t in old[:3])
    key[0, order], value[0, order], position[0, order] = (t[0, at] for t in everything[:3])
    by_hand = memory.set(0, "eidetic", StoredTokens(key, value, position, *old[3:]))
    assert found.set_loss.sel(choice="oracle").item() == pytest.approx(loss(by_hand), abs=1e-12)


# ---------------------------------------------------------------- empty slots
class Emptied(HybridLM):
    """A model that forgets the best of its stored tokens when it has read 18 tokens."""

    def forward(self, ids, memory=None, *, record=None):
        out = super().forward(ids, memory, record=record)
        if out.memory.position != 18:
            return out
        best = int(stored_tokens(out.memory, 0).position[0, 0])
        return type(out)(out.logits, evict(out.memory, 0, best))


def test_empty_slots_and_waiting_tokens_are_never_counted():
    whole, ids = bmo("BMO"), tokens(1, 30)
    model = Emptied(whole.config).double().requires_grad_(False)
    model.load_state_dict(whole.state_dict())
    first, found = eviction(whole, ids, cut=18), eviction(model, ids, cut=18)
    held = stored_tokens(model(ids[:, :18]).memory, 0)
    assert (held.position < 0).sum() == 1
    assert (held.admitted == 0).sum() == 6  # five that wait, and the empty one
    best = int(first.score[0, 0].where(first.stored[0, 0]).argmax("token"))
    assert found.stored.sum() == 2
    assert set(np.flatnonzero(found.stored[0, 0])) == set(np.flatnonzero(first.stored[0, 0])) - {best}
    assert not bool(found.stored[0, 0, best])
    assert (found.replaced != best).all()
    assert set(map(int, found.replaced[0, 0])) == {-1, int(first.replaced.max())}
    assert found.share.sel(choice="random").item() == pytest.approx(2 / 13)


# ---------------------------------------------------------------- a model that answers from what it stores
def test_evicting_the_pair_that_is_asked_for_destroys_its_answer_and_no_other(recalled):
    """A single token carries the answer: the value, in the second layer, once it has left the fading tokens too."""
    model, rows, found = recalled
    own, others, own_right, others_right = [], [], [], []
    for prompt in range(len(rows.ids)):
        memory = model(rows.ids[prompt : prompt + 1, :32]).memory
        questions = np.flatnonzero(rows.lags[prompt] >= 0)
        behind = questions - rows.lags[prompt].numpy()[questions]
        for value in {int(v) for v in behind if v <= 32 - 2 * 8 and bool(found.stored[1, prompt, int(v)])}:
            kl = found.kl[1, prompt, value]
            of_it, of_others = questions[behind == value], questions[behind != value]
            own.append(float(kl.sel(time=of_it).mean()))
            others.append(float(kl.sel(time=of_others).mean()))
            assert own[-1] > 5 * others[-1]
            gone = model(rows.ids[prompt : prompt + 1, 32:], evict(memory, 1, value)).logits[0]
            right = gone.argmax(-1).numpy() == rows.targets[prompt, 32:].numpy()
            own_right.append(right[of_it - 32].mean())
            others_right.append(right[of_others - 32].mean())
            neighbours = [t for t in (value - 1, value + 1) if bool(found.stored[1, prompt, t])]
            assert found.kl[1, prompt, neighbours].sel(time=of_it).max() < 0.1
    assert len(own) > 5
    assert np.mean(own) > 2
    assert np.mean(others) < 0.05
    assert np.mean(own_right) < 0.5
    assert np.mean(others_right) > 0.9


def test_what_the_second_layer_keeps_is_what_the_answers_need(recalled):
    _, _, found = recalled
    one = found.sel(layer=1)
    loss = one.set_loss.mean("prompt")
    assert float(loss.sel(choice="kept")) < 0.2
    assert float(loss.sel(choice="none")) > 2
    assert float(loss.sel(choice="random")) > float(loss.sel(choice="kept")) + 0.3
    assert float(one.difference_interval.sel(bound="lower")) > 0
    assert float(one.p) == pytest.approx(2 / 2**6)
    assert float(one.share_mean.sel(choice="kept")) > 0.9
    assert float(one.share_mean.sel(choice="random")) == pytest.approx(16 / 25)


def test_scores_that_are_shuffled_or_drawn_say_nothing():
    """Two controls: scores that are shuffled, and a layer that stores tokens by a number drawn for every position.

    The numbers are the same in every row, so what they have to do with positions remains. If tokens go when others
    come, more does: a high score then is a long life, whatever the score is.
    """
    model, rows = load("recall-bmojo").requires_grad_(False), recall_rows(24, rng=5)
    found = eviction(model, rows.ids, cut=32, layers=1, rng=1)
    low, high = found.rank_correlation_mean_interval.sel(layer=1).transpose("bound", "ranking").values
    assert low[0] > 0.2
    assert low[1] < 0 < high[1]
    chance = with_eidetic(model, 16, norm="random")
    drawn = eviction(chance, rows.ids, cut=32, layers=1, rng=1)
    assert abs(drawn.rank_correlation_mean.sel(ranking="score").item()) < 0.2
    assert drawn.p.item() > 0.05
    going = eviction(chance, rows.ids, cut=32, layers=1, rng=1, hold=False)
    assert going.rank_correlation_mean_interval.sel(layer=1, ranking="score", bound="lower").item() > 0.2


def test_what_one_layer_holds_is_changed_alone(recalled):
    model, rows, found = recalled
    one = eviction(model, rows.ids, cut=32, targets=rows.targets, by="loss", layers=[1])
    for name in ("score", "kl", "loss", "swap"):
        np.testing.assert_allclose(one[name].sel(layer=1), found[name].sel(layer=1), rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- summaries
def test_summaries_in_closed_form():
    effect = np.array([[[4.0, 3.0, 2.0, 1.0]], [[-1.0, 0.0, 0.0, -2.0]]])
    stored = np.array([[[True, False, True, False]], [[True, True, False, False]]])
    kept, oracle, random, none = (each[:, 0] for each in _shares(effect, stored))
    np.testing.assert_allclose([kept[0], oracle[0], random[0], none[0]], [0.6, 0.7, 0.5, 0.0])
    assert np.isnan([kept[1], oracle[1], random[1], none[1]]).all()
    np.testing.assert_allclose(_mean(effect, stored)[:, 0], [3.0, -0.5])
    assert np.isnan(_mean(effect, np.zeros_like(stored))).all()
    score = np.array([[[1.0, 5.0, 2.0, 9.0]], [[3.0, 3.0, 3.0, 3.0]]])
    np.testing.assert_allclose(_spearman(score, effect)[:, 0], [-0.8, np.nan])
    assert np.isnan(_spearman(score[..., :2], effect[..., :2])).all()


def test_summaries_are_those_of_the_tokens(recalled, tmp_path):
    _, _, found = recalled
    for layer in (0, 1):
        for prompt in range(6):
            here = found.isel(layer=layer, prompt=prompt)
            assert float(here.rank_correlation[0]) == pytest.approx(spearmanr(here.score, here.effect)[0])
            gain = here.effect.where(here.effect > 0, 0)
            share = gain.where(here.stored, 0).sum() / gain.sum()
            assert float(here.share.sel(choice="kept")) == pytest.approx(float(share))
            assert float(here.stored_effect) == pytest.approx(float(here.effect.where(here.stored).mean()))
    difference = (found.stored_effect - found.other_effect).mean("prompt")
    np.testing.assert_allclose(found.difference, difference)
    low, high = found.difference_interval
    assert (low < difference).all()
    assert (difference < high).all()
    assert load_dataset(save_dataset(found, tmp_path / "e.nc")).identical(found)


def test_the_same_seed_gives_the_same_numbers():
    model, ids = bmo(), tokens(3, 26)
    one, other = (eviction(model, ids, replace="random", rng=7) for _ in range(2))
    assert one.identical(other)
    assert not one.replaced.identical(eviction(model, ids, replace="random", rng=8).replaced)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    eviction(model, ids, rng=None)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_bfloat16_and_several_layers():
    found = eviction(bmo("BMO-M2-BMO", dtype=torch.bfloat16), tokens(2, 26))
    assert found.layer.values.tolist() == [0, 2]
    assert found.attrs["dtype"] == "bfloat16"
    assert all(np.isfinite(found[name]).all() for name in ("score", "kl", "loss", "set_loss"))
    assert (eviction(bmo("BMO-M2-BMO"), tokens(1, 26)[0], layers=2).kl > 0).any()


# ---------------------------------------------------------------- what it refuses
def test_what_it_refuses():
    model, ids = bmo("BMO-SWA"), tokens(2, 30)
    damaged = bmo("BMO")
    damaged.get_parameter("model.embed_tokens.weight")[3] = torch.nan
    deaf = bmo("BMO")
    deaf.get_parameter("model.layers.0.bmojo.bmojo_attn.o_proj.weight").zero_()
    nothing = torch.full((2, 30), -100)
    for call, error, message in (
        (lambda: eviction(small_model("BMF"), ids), ValueError, "BMO layers that store tokens.*this one is BMF"),
        (lambda: eviction(small_model("M2-SWA"), ids), ValueError, "this one is M2-SWA"),
        (lambda: eviction(bmo("BMO", 0), ids), ValueError, "eidetic_tokens of at least 1"),
        (lambda: eviction(torch.nn.Linear(2, 2), ids), TypeError, "model: expected a HybridLM"),
        (lambda: eviction(model, ids, layers=1), ValueError, "layers: .*layer 1 is SWA"),
        (lambda: eviction(model, ids, layers=2), ValueError, "layers: expected layers from 0 to 1"),
        (lambda: eviction(model, ids[:, :6]), ValueError, "ids: expected texts of more than W = 6"),
        (lambda: eviction(model, ids, cut=5), ValueError, "cut: expected at least W = 6"),
        (lambda: eviction(model, ids, cut=30), ValueError, "cut: .*less than the 30 tokens"),
        (lambda: eviction(model, ids, cut=29), ValueError, "cut: nothing is asked for after token 29"),
        (lambda: eviction(model, ids, cut=1.5), ValueError, "cut: expected a whole number"),
        (lambda: eviction(model, ids, targets=nothing), ValueError, "targets: nothing is asked"),
        (lambda: eviction(model, ids, targets=ids[:1]), ValueError, "targets: expected the shape of ids"),
        (lambda: eviction(model, ids, targets=ids + 64), ValueError, "targets: expected tokens below 64"),
        (lambda: eviction(model, ids, targets=ids.double()), TypeError, "targets: expected integers"),
        (lambda: eviction(model, ids, replace="first"), ValueError, "replace: expected 'lowest' or 'random'"),
        (lambda: eviction(model, ids, by="accuracy"), ValueError, "by: expected 'kl' or 'loss'"),
        (lambda: eviction(model, ids, hold=1), TypeError, "hold: expected True or False"),
        (lambda: eviction(model, ids, batch_size=1), ValueError, "batch_size"),
        (lambda: eviction(model, ids, confidence=95), ValueError, "confidence"),
        (lambda: eviction(model, ids, rng="seed"), TypeError, "rng"),
        (lambda: eviction(damaged, torch.full((2, 30), 3)), ValueError, "NaN or infinite"),
        (lambda: eviction(deaf, ids), ValueError, "no eviction changes any of the logits"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_tap_that_does_not_tell_what_is_stored_is_refused():
    from .small import tampered

    wrong = tampered(bmo("BMO"), lambda layer, name, value: value + 1 if name == "v" else value)
    with pytest.raises(ValueError, match="not what its tap 'v' shows"):
        eviction(wrong, tokens(1, 30))
