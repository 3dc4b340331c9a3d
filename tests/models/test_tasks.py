"""Recall tasks: golden rows, and answers that the row itself gives."""

import numpy as np
import pytest
import torch

from solomonic.models.tasks import (
    IGNORED,
    TASKS,
    fuzzy_recall,
    induction_heads,
    mqar,
    noisy_mqar,
    parity,
    selective_copying,
    word_problem,
)

#: Seed 0, as generated when the tasks were written: they must not change, since results are told by their seeds.
GOLDEN = {
    "mqar": (
        {"length": 12, "pairs": 2, "queries": 1, "keys": 4, "values": 4},
        [3, 6, 0, 0, 1, 5, 0, 0, 0, 1, 3, 0],
        {9: (5, 4), 10: (6, 9)},
    ),
    "fuzzy_recall": (
        {"length": 16, "pairs": 2, "keys": 3, "values": 3},
        [1, 3, 4, 4, 3, 2, 4, 4, 3, 2, 4, 4, 1, 3, 4, 4],
        {9: (4, 3), 10: (4, 3), 13: (4, 11), 14: (4, 11)},
    ),
    "selective_copying": (
        {"length": 9, "marked": 2, "symbols": 4},
        [0, 0, 0, 0, 3, 3, 0, 1, 1],
        {7: (3, 3), 8: (3, 3)},
    ),
    "induction_heads": ({"length": 8, "symbols": 4}, [3, 4, 2, 1, 1, 0, 0, 4], {7: (2, 5)}),
    "parity": ({"length": 4}, [1, 1, 1, 0], {0: (1, 0), 1: (0, 0), 2: (1, 0), 3: (1, 0)}),
    "word_problem": ({"length": 3, "group": "S3"}, [5, 3, 3], {0: (5, 0), 1: (2, 0), 2: (1, 0)}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_rows(name):
    options, ids, asked = GOLDEN[name]
    row = TASKS[name](1, **options, rng=0)
    assert row.ids[0].tolist() == ids
    found = {t: (y, lag) for t, (y, lag) in enumerate(zip(row.targets[0].tolist(), row.lags[0].tolist(), strict=True))}
    assert {t: pair for t, pair in found.items() if pair[0] != IGNORED} == asked
    assert all(pair == (IGNORED, -1) for t, pair in found.items() if t not in asked)


@pytest.mark.parametrize("name", TASKS)
def test_rows_come_from_their_seed(name):
    a, b, c = (TASKS[name](5, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.targets, b.targets)
    assert not torch.equal(a.ids, c.ids)
    assert 0 <= a.ids.min() <= a.ids.max() < a.vocab_size
    assert a.ids.shape == (5, 128)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    TASKS[name](1)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.parametrize("options", [{}, {"places": "first"}, {"noise": True}, {"pairs": 16, "queries": 2}])
def test_mqar_answers_stand_behind_the_same_key_as_far_back_as_it_says(options):
    row = mqar(20, **options, rng=3)
    pairs, queries = options.get("pairs", 4), options.get("queries", 4)
    for b in range(20):
        asked = [t for t in range(128) if row.targets[b, t] != IGNORED]
        assert len(asked) == pairs * queries
        for t in asked:
            at = t - int(row.lags[b, t])
            assert row.ids[b, at] == row.targets[b, t]
            assert row.ids[b, at - 1] == row.ids[b, t]
        keys = row.ids[b, asked]
        assert len(set(keys.tolist())) == pairs
        if not options.get("noise"):  # nothing but pairs and queries stands between the filler
            assert (row.ids[b] > 0).sum() == 2 * pairs + pairs * queries


def test_mqar_pairs_can_lie_anywhere_in_the_first_half():
    row = mqar(3000, length=32, pairs=2, queries=1, rng=0)
    first = torch.tensor([[t - lag - 1 for t, lag in enumerate(lags) if lag >= 0] for lags in row.lags.tolist()])
    counts = torch.bincount(first.flatten(), minlength=16)
    assert (counts[:15] > 200).all()  # 6000 pairs over 15 places
    assert counts[15:].sum() == 0


def test_noise_shows_no_key_of_a_pair_but_where_it_is_asked():
    row = noisy_mqar(20, rng=1)
    for b in range(20):
        asked = row.targets[b] != IGNORED
        for key in set(row.ids[b, asked].tolist()):
            assert (row.ids[b] == key).sum() == 4 + 1


def test_fuzzy_answers_follow_the_whole_key():
    row = fuzzy_recall(10, pairs=5, queries=2, rng=2)
    for b in range(10):
        for t in range(128):
            if row.targets[b, t] != IGNORED:
                at = t - int(row.lags[b, t])
                assert row.ids[b, at] == row.targets[b, t] == row.ids[b, t + 1]


def test_copies_and_inductions():
    row = selective_copying(10, rng=0)
    for b in range(10):
        symbols = [int(i) for i in row.ids[b] if i > 1]
        assert symbols == row.targets[b, -8:].tolist()
        assert [int(row.ids[b, 120 + i - row.lags[b, 120 + i]]) for i in range(8)] == symbols
    row = induction_heads(10, rng=0)
    for b in range(10):
        at = row.ids[b].tolist().index(16)
        assert row.targets[b, -1] == row.ids[b, at + 1]


def test_products():
    row = parity(5, length=40, rng=0)
    assert torch.equal(row.targets, row.ids.cumsum(1) % 2)
    row = word_problem(5, length=40, group="Z7", rng=0)
    assert torch.equal(row.targets, row.ids.cumsum(1) % 7)
    for group, size in (("S3", 6), ("A4", 12), ("A5", 60), ("S5", 120)):
        row = word_problem(2, length=300, group=group, rng=0)
        assert row.vocab_size == size
        # A group: cancelling the last element gives the product before, whatever the order of the products is.
        table = {}
        for before, element, after in zip(row.targets[0], row.ids[0, 1:], row.targets[0, 1:], strict=False):
            key = (int(before), int(element))
            assert table.setdefault(key, int(after)) == int(after)
    products = word_problem(1, length=2000, group="S3", rng=1)
    pairs = {(int(a), int(e)): int(p) for a, e, p in
             zip(products.targets[0], products.ids[0, 1:], products.targets[0, 1:], strict=False)}  # fmt: skip
    assert any(pairs[a, b] != pairs[b, a] for a in range(6) for b in range(6))  # not commutative
    assert all(
        pairs[pairs[a, b], c] == pairs[a, pairs[b, c]] for a in range(6) for b in range(6) for c in range(6)
    )  # associative


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mqar(1, pairs=40), "40 pairs and 160 queries need 32"),
        (lambda: mqar(1, pairs=32, noise=True), "need 31 >= pairs keys"),
        (lambda: mqar(1, places="last"), "places: expected 'random' or 'first'"),
        (lambda: mqar(0), "batch: expected a positive integer, got 0"),
        (lambda: fuzzy_recall(1, length=8), "need 32 tokens"),
        (lambda: selective_copying(1, marked=65), "need 130 tokens"),
        (lambda: induction_heads(1, length=2), "at least 3 tokens"),
        (lambda: word_problem(1, group="D4"), "group: expected Zn"),
        (lambda: word_problem(1, group="S7"), "up to 6, got 'S7'"),
        (lambda: parity(1, length=2.0), "length: expected a positive integer"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
