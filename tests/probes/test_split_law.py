"""The split law holds for our models, and a memory that is no state is caught."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from solomonic.models import HybridLM, KeyValue, LMOutput, load, zoo
from solomonic.probes import load_dataset, save_dataset, split_law
from solomonic.probes.split_law import default_splits

from .small import PATTERNS, small_model, tokens

# Measured: 4e-7 in float32, 1e-15 in float64, 1e-2 in bfloat16.
TIGHT = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 5e-2}


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_our_models_obey(pattern, dtype):
    found = split_law(small_model(pattern, dtype=dtype), tokens(2, 23))
    assert found.attrs["holds"] == "yes"
    assert float(found.error.max()) <= TIGHT[dtype]
    assert float(found.logits_error.max()) <= TIGHT[dtype]
    assert found.split.values.tolist() == list(range(1, 23))
    assert found.attrs["first_layer"] == -1


class Forgetful(HybridLM):
    """Hands over a memory in which one part of one layer is lost."""

    lost: tuple[int, str] = (0, "state")

    def forward(self, ids, memory=None, *, record=None):
        out = super().forward(ids, memory, record=record)
        layer, part = self.lost
        value = out.memory.get(layer, part)
        zero = KeyValue(*(0 * v for v in value)) if isinstance(value, KeyValue) else 0 * value
        return LMOutput(out.logits, out.memory.set(layer, part, zero))


def forgetful(model: HybridLM, layer: int, part: str) -> HybridLM:
    other = Forgetful(model.config)
    other.load_state_dict(model.state_dict())
    other.lost = (layer, part)
    return other.requires_grad_(False)


@pytest.mark.parametrize(
    ("pattern", "layer", "part", "first"),
    [
        ("*-M2-SWA", 1, "state", 1),
        ("*-M2-SWA", 1, "conv", 1),
        ("M2-SWA-M2", 1, "window", 1),
        ("BMF-M2", 0, "state", 0),
        ("M2-BMF", 1, "fading_tokens", 1),
        ("M2-*", 1, "kv", 1),
    ],
)
def test_a_part_that_is_lost_is_caught(pattern, layer, part, first):
    found = split_law(forgetful(small_model(pattern), layer, part), tokens(1, 30))
    assert found.attrs["holds"] == "no"
    assert found.attrs["first_layer"] == first
    assert found.attrs["largest_error"] > 50 * found.attrs["tolerance"]
    assert (found.error.sel(layer=slice(0, first - 1)) <= 1e-5).all()


def test_a_lost_state_under_a_window_shows_late():
    """What published code does: the state is lost, and shows W tokens after the split, where fading tokens come in."""
    found = split_law(forgetful(small_model("BMF"), 0, "state"), tokens(1, 30), splits=[10])
    assert found.attrs["holds"] == "no"
    assert int(found.position[0, 0]) >= 10 + 6
    assert float(split_law(forgetful(small_model("BMF"), 0, "state"), tokens(1, 15), splits=[10]).error.max()) < 1e-5


def test_a_position_that_starts_again_is_caught():
    class Restarting(HybridLM):
        def forward(self, ids, memory=None, *, record=None):
            out = super().forward(ids, memory, record=record)
            return LMOutput(out.logits, dataclasses.replace(out.memory, position=0))

    model = small_model("SWA")
    other = Restarting(model.config)
    other.load_state_dict(model.state_dict())
    assert split_law(other, tokens(1, 12)).attrs["holds"] == "no"


def test_nan_is_no_state():
    class Poisoned(HybridLM):
        def forward(self, ids, memory=None, *, record=None):
            out = super().forward(ids, memory, record=record)
            return LMOutput(out.logits, out.memory.map(lambda t: t * float("nan")))

    model = small_model("SWA-M2")
    other = Poisoned(model.config)
    other.load_state_dict(model.state_dict())
    found = split_law(other, tokens(1, 12))
    assert found.attrs["holds"] == "no"
    assert found.attrs["first_layer"] == 0


def test_long_texts_are_split_where_it_matters():
    config = small_model(swa_window=64, bmojo_window=32).config
    splits = default_splits(config, 600)
    assert {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 599, 600 - 64, 600 - 128} <= set(splits.tolist())
    assert splits.size < 90
    assert default_splits(config, 256).size == 255


def test_chosen_splits_and_tolerance(tmp_path):
    model = small_model("M2-SWA")
    found = split_law(model, tokens(1, 12)[0], splits=[7, 2, 7], tolerance=1e-12)
    assert found.split.values.tolist() == [2, 7]
    assert found.attrs["holds"] == "no"
    assert 0 < found.attrs["largest_error"] < 1e-5
    assert load_dataset(save_dataset(found, tmp_path / "law.nc")).identical(found)


def test_bad_arguments():
    model = small_model("M2")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"splits": [0]}, "splits after 1 to 11 of them"),
        ({"splits": [12]}, "splits after 1 to 11 of them"),
        ({"splits": []}, "at least one"),
        ({"splits": [1.5]}, "whole numbers"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": np.nan}, "tolerance"),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            split_law(model, tokens(1, 12), **arguments)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        split_law(model, tokens(1, 1))


@pytest.mark.parametrize("name", ["transformer", "deadbeat", "fading", "bmojo-f", "bmojo"])
def test_the_zoo(name):
    if name not in zoo():
        pytest.skip(f"{name} is not trained yet")
    model = load(name)
    found = split_law(model, tokens(1, 210, vocabulary=256), splits=[1, 63, 64, 100, 128, 150, 209])
    assert found.attrs["holds"] == "yes"
