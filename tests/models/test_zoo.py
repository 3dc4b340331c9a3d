"""The checkpoints of byte models that ship: their configurations, their recipes and their cards."""

import json

from solomonic.models import load, zoo, zoo_recipe


def test_the_byte_models_fit_their_recipes_and_their_cards():
    steps = set()
    for name, folder in zoo("bytes").items():
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        config, recipe = zoo_recipe(name)
        assert load(name).config == config
        assert (folder / "model.safetensors").stat().st_size < 4_100_000
        assert 1 < card["validation"]["bits_per_byte"] < 1.6
        if name in zoo("equal") and "tokens" in card:
            steps.add(card["tokens"])
        if "recipe" in card:
            assert {
                "matrix_lr": None,
                "cooldown": None,
                **card["recipe"],
                "betas": tuple(card["recipe"]["betas"]),
                "seed": card["seed"],
            } == vars(recipe)
    assert len(steps) == 1
