"""The recall pair: accuracies that come out again, intervals that cover, and recipes that are those of the study."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import norm

from solomonic.models import HybridLM, load, recall_accuracy, recall_rows, zoo, zoo_recipe
from solomonic.models.recall_study import accuracy
from solomonic.models.recall_zoo import RECALL_PAIR, _interval
from solomonic.models.tasks import IGNORED


@pytest.fixture(scope="module", params=sorted(RECALL_PAIR))
def shipped(request):
    folder = zoo()[request.param]
    return load(request.param), json.loads((folder / "card.json").read_text(encoding="utf-8"))


def test_the_accuracy_of_the_card_comes_out_again(shipped):
    """On the card's rows: the same, but for near ties that another processor's rounding decides otherwise."""
    model, card = shipped
    found = recall_accuracy(model, recall_rows(card["accuracy_rows"]), confidence=card["confidence"])
    assert list(found) == list(card["accuracy"])
    for name, each in card["accuracy"].items():
        assert each["low"] <= each["accuracy"] <= each["high"]
        assert found[name]["accuracy"] == pytest.approx(each["accuracy"], abs=2e-3)
        assert found[name]["questions"] == each["questions"]


def test_the_accuracy_of_other_rows_is_within_the_intervals(shipped):
    """Two intervals of 99.99 % for the same number meet, on rows of another seed too."""
    model, card = shipped
    factor = norm.ppf(0.99995) / norm.ppf(0.975)
    found = recall_accuracy(model, recall_rows(512, rng=3), confidence=0.9999)
    for name, each in card["accuracy"].items():
        low = each["accuracy"] - factor * (each["accuracy"] - each["low"])
        high = each["accuracy"] + factor * (each["high"] - each["accuracy"])
        assert found[name]["low"] <= high
        assert found[name]["high"] >= low


def test_cards_say_what_was_trained(shipped):
    model, card = shipped
    config, recipe = zoo_recipe(card["name"])
    assert config == model.config
    assert {"cooldown": None, **card["recipe"], "betas": tuple(card["recipe"]["betas"]), "seed": card["seed"]} == vars(
        recipe
    )
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["memory_nbytes"] == model(recall_rows(1).ids).memory.nbytes
    assert (zoo()[card["name"]] / "model.safetensors").stat().st_size < 600_000


def test_the_pair_is_in_the_zoo():
    assert list(zoo("recall")) == ["recall-fading", "recall-bmojo"]
    assert not set(zoo("recall")) & set(zoo("bytes"))
    assert set(zoo()) == {*zoo("recall"), *zoo("bytes")}
    with pytest.raises(ValueError, match="task: expected 'bytes', 'equal', 'recall' or None, got 'text'"):
        zoo("text")


def test_recipes_of_byte_models_have_equal_parameters():
    counts = {}
    for name in ("transformer", "deadbeat", "fading", "bmojo-f", "bmojo"):
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in HybridLM(zoo_recipe(name)[0]).parameters())
    assert max(counts.values()) < 1.01 * min(counts.values())
    assert counts["bmojo"] == counts["bmojo-f"]  # stored tokens have no parameters
    with pytest.raises(ValueError, match=r"expected one of transformer, .*, recall-bmojo, recall-fading, got 'gpt'"):
        zoo_recipe("gpt")


def test_all_counts_what_the_study_counts(shipped):
    model, _ = shipped
    rows = recall_rows(32, rng=5)
    found = recall_accuracy(model, rows)
    assert found["all"]["accuracy"] == pytest.approx(accuracy(model, rows))
    assert sum(each["questions"] for name, each in found.items() if name != "all") == found["all"]["questions"]
    assert found["all"]["questions"] == int((rows.targets != IGNORED).sum())
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1, got 95"):
        recall_accuracy(model, rows, confidence=95)


def test_intervals_cover_where_the_answers_of_a_row_depend_on_each_other():
    """Half of the rows are easy: of 1000 intervals of 95 %, at least 930 hold the true share."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(1000):
        easy = rng.random(200) < 0.5
        right = torch.from_numpy(rng.random((200, 16)) < np.where(easy, 0.95, 0.55)[:, None])
        found = _interval(right, torch.ones_like(right), 0.95)
        covered += found["low"] <= 0.75 <= found["high"]
        naive += abs(found["accuracy"] - 0.75) <= 1.96 * (0.75 * 0.25 / 3200) ** 0.5
    assert covered >= 930
    assert naive < 850  # taken as independent, the answers would promise too much


def test_an_interval_of_none_and_all_is_not_a_point():
    asked = torch.ones(10, 4, dtype=torch.bool)
    every, none = _interval(asked, asked, 0.95), _interval(~asked, asked, 0.95)
    assert (every["accuracy"], every["high"], every["questions"]) == (1, 1, 40)
    assert every["low"] == pytest.approx(0.9124, abs=1e-4)  # 40 of 40 by Wilson's interval
    assert (none["accuracy"], none["low"]) == (0, 0)
    assert none["high"] == pytest.approx(1 - 0.9124, abs=1e-4)
