"""The end of the page: how it was measured, what limits it, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..labelled import versions
from . import causes, say, weights
from .errors import PREDICTED
from .measure import JACOBIANS, TRACED, Measured
from .page import Block, Point, Table
from .stored import AHEAD, WINDOWS
from .subjects import Text, look_up

_LIMITS = (
    "Influence is that of one replaced token on one prediction. A memory may hold what a prediction does not use.",
    "Means ride on a few windows; conclusions here are drawn from medians.",
    "Retention freezes the gates at the values they had: what is left of the state, not what the model makes of it.",
    "Half-lives of neighbouring starting points share their decays: their intervals are too narrow.",
    "Bends at W and 2W are softened by depth, since the reaches of the layers add up.",
)


def method(models: Sequence[Measured], text: Text, prompts: int, length: int, unit: str) -> Block:
    """What was measured, and how."""
    confidence = say.share(float(models[0].data["fading"].attrs["confidence"]))
    points = {
        "Text": (
            f"{prompts} windows of {length} {unit} that do not overlap, from: {text.source}. All models read the same."
            + (" A token is a byte." if unit == "bytes" else "")
        ),
        "Fading": (
            "The token at a lag before the last one is replaced by a draw from the text's own distribution. The "
            "influence is the divergence KL(p ‖ p′) of the prediction after the last token, in bits; logits are taken "
            f"to float64. {confidence} intervals are bootstraps over windows."
        ),
        "Exactly 0": (
            "Clean and changed runs start from the same memory and have the same shape, so that what is not affected "
            "is equal to the last bit. "
            + ("A repeated clean run was equal for every model." if not (odd := _not_repeatable(models)) else
               f"A repeated clean run was not equal for {say.listed(odd)}: zeros there mean less.")
        ),
        "Retention": (
            f"The exponential of summed log decays of every head, over all starting points of {TRACED} windows at "
            "most. Half-lives are Kaplan–Meier medians; a start whose end was not seen in the window counts as cut "
            "off."
        ),
        "One layer": (
            "Frobenius norm of the Jacobian of a mixer by random projections, its gates differentiated too, root mean "
            f"square over {JACOBIANS} windows at most and over bins of lags."
        ),
        "Split law": (
            "On the first window, 3W + 5 tokens of it where there is a window W: splits at every eighth token and "
            "around W, 2W and the ends."
        ),
        "Prediction errors": (
            f"On {PREDICTED} windows at most. Tokens are drawn from the model's own predictions, and the errors that "
            "they would have made tell how correlated errors are, and how far confidence is from accuracy, by chance."
        ),
        "Interventions": (
            f"On {causes.TRACED} windows at most, of {causes.CANDIDATES} those whose last prediction changes most (KL) "
            f"when all but the last {causes.AHEAD} tokens at most are those of the next window. Memories of the "
            f"unchanged run are put into the changed one, after up to {say.count(causes.TIMES, 'token')}, evenly "
            "spaced to the end. Intervals are bootstraps over windows."
        ),
        "Information in the weights": (
            f"On the beginnings of {weights.READ} windows at most, up to {weights.TOKENS} tokens each, with "
            f"{weights.DRAWS} draws of all targets from the model. Intervals of traces are studentized bootstraps over "
            "windows, those of shares percentile ones, those of effective numbers from the jackknife."
        ),
        "What is stored": (
            f"On {WINDOWS} windows at most, in the first and the last layer that stores tokens, up to {AHEAD} tokens "
            "ahead, with stored tokens taken out one at a time and others put in the place of the one of lowest "
            "innovation. Signs of whole windows are flipped for the p-value."
        ),
    }  # fmt: skip
    for name, probe in (
        ("Prediction errors", "innovations"),
        ("What is stored", "eviction"),
        ("Interventions", "causal_trace"),
    ):
        if not any(probe in m.data for m in models):
            del points[name]
    if not any("retention" in m.data for m in models):
        del points["Retention"]
    return Block("method", "What was measured, and how", points=[Point(name, said) for name, said in points.items()])


def _not_repeatable(models: Sequence[Measured]) -> list[str]:
    """The models whose clean run, repeated, did not give the same bits."""
    checks = {m.name: json.loads(m.data["fading"].attrs["checks"]) for m in models}
    return [name for name, found in checks.items() if not found.get("repeated_run_equal")]


def limits(models: Sequence[Measured]) -> Block:
    """What the numbers do not say."""
    said: list[str] = list(_LIMITS)
    if len(models) > 1:
        said.append("Each model is one training run: differences between models include the luck of training.")
    return Block("limits", "Limits", points=[Point("", text) for text in said])


def provenance(models: Sequence[Measured], seed: Any, files: Sequence[tuple[str, str]]) -> Block:
    """Checkpoints, software and files."""
    rows = []
    for m in models:
        card = m.subject.card
        trained = [look_up(card, "seed"), look_up(card, "torch")]
        rows.append(
            [
                m.name,
                m.data["fading"].attrs["checkpoint"].removeprefix("sha256:")[:16],
                *("–" if value is None else str(value) for value in trained),
                f"{sum(m.seconds.values()):.0f}",
            ]
        )
    head = ["Model", "Parameters, SHA-256", "Training seed", "Trained with torch", "Seconds to measure"]
    tables = [
        Table("Checkpoints", head, rows, numbers=False),
        Table("Software of this report", ["Package", "Version"], [list(v) for v in versions().items()], numbers=False),
        Table("Files beside this page", ["File", "What it holds"], [list(f) for f in files], numbers=False),
    ]
    reading = (
        f"Everything random was drawn with seed {seed}; the same call on the same versions gives the same numbers."
    )
    return Block("provenance", "Provenance", [reading], tables=tables)
