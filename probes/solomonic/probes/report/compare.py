"""Models side by side: at equal data, at equal time, and by what context is worth to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import plots
from ..plots.learning_curves import table
from . import readings, say
from .figures import Figures, in_words
from .measure import Measured
from .page import Block, Point, Table
from .subjects import look_up

#: Bits of a random decimal digit: what a value costs that is not recalled.
CHANCE = float(np.log2(10))


def curves(models: Sequence[Measured]) -> dict[str, np.ndarray]:
    """The training curves [n, 3] of (minutes, tokens, bits) that the cards have; a damaged one counts as missing."""
    out = {}
    for m in models:
        try:
            out[m.name] = table(m.name, look_up(m.subject.card, "curve"))
        except ValueError:
            continue
    return out


def at(curve: np.ndarray, column: int, place: float) -> float:
    """Bits where a column (0: minutes, 1: tokens) reaches a place, on straight lines between the rows."""
    order = np.argsort(curve[:, column], kind="stable")
    return float(np.interp(place, curve[order, column], curve[order, 2]))


def comparison(models: Sequence[Measured], draw: Figures) -> list[Block]:
    """The block that compares at equal tokens and at equal minutes; empty where fewer than two cards have a curve."""
    found = curves(models)
    if len(found) < 2:
        return []
    minutes = min(float(c[:, 0].max()) for c in found.values())
    tokens = min(float(c[:, 1].max()) for c in found.values())
    by_tokens = {name: at(c, 1, tokens) for name, c in found.items()}
    by_minutes = {name: at(c, 0, minutes) for name, c in found.items()}
    unit = "bytes" if models[0].subject.model.config.vocab_size == 256 else "tokens"
    data, time = f"{tokens / 1e6:.1f} M {unit}", f"{minutes:.0f} minutes"
    reading = [
        f"At equal data, after {data}, the order is {order(by_tokens)} bits a token on validation windows. At equal "
        f"time, after {time}, when the fastest was through, it is {order(by_minutes)}.",
        "The learning rate fell over the whole run, so a model that is cut off at equal time has not cooled down: "
        "its number is higher than that of a run planned for that time.",
    ]
    figures = [
        draw.panel(
            lambda ax, a=against: plots.learning_curves(found, against=a, ax=ax),
            f"Validation bits a token during training against {against}. {order(ends)}.",
            caption,
        )
        for against, ends, caption in (
            ("tokens", by_tokens, "Equal data: validation bits against training tokens."),
            ("minutes", by_minutes, "Equal time: validation bits against training minutes, on the same machine."),
        )
    ]
    rows = [
        [name, f"{by_tokens[name]:.3f}", f"{by_minutes[name]:.3f}", f"{c[:, 0].max():.0f}"] for name, c in found.items()
    ]
    head = ["Model", f"Bits after {data}", f"Bits after {time}", "Minutes in all"]
    block = Table("Validation bits a token at equal data and at equal time", head, rows)
    return [Block("equal", "At equal data, at equal time", reading, figures=figures, tables=[block])]


def order(values: dict[str, float]) -> str:
    """Names from best to worst with their bits."""
    return say.listed([f"{name} {bits:.3f}" for name, bits in sorted(values.items(), key=lambda item: item[1])])


def scores(models: Sequence[Measured], draw: Figures) -> list[Block]:
    """Bits by position in the context, and bits of values said before by the distance to them."""
    position = {m.name: m.position for m in models if m.position}
    recall = {m.name: m.recall for m in models if m.recall and any(v is not None for v in m.recall["bits"])}
    figures = []
    if position:
        alt = " ".join(in_words(name, table, "by position") for name, table in position.items())
        caption = "Bits a token against the position in the context, on plain text."
        figures.append(draw.panel(lambda ax: plots.bits_by_position(position, ax=ax), alt, caption))
    if recall:
        alt = " ".join(in_words(name, table, "by distance") for name, table in recall.items())
        caption = "Bits a token of values that stood in the text before, against the distance to where they last stood."
        figures.append(draw.panel(lambda ax: plots.recall(recall, chance=CHANCE, ax=ax), alt, caption))
    if not figures:
        return []
    told = [m for m in models if m.name in recall]
    points = [Point(m.name if len(models) > 1 else "", readings.recall(m)) for m in told]
    carded = [m.name for m in models if {"position", "recall"} <= m.from_card]
    rest = [m.name for m in models if m.name not in carded]
    reading = [
        "A memory is worth what it saves: bits a token with more of the text before it, and bits of what was said "
        "before."
    ]
    if recall:
        reading.append(
            "The values are random digits, which lines woven into the text give and use again. A digit that is not "
            f"recalled costs log₂ 10 = {CHANCE:.2f} bits, and one guess in ten is right."
        )
    if carded:
        reading.append(f"Scores of {say.listed(carded)} are from the card of the checkpoint.")
    if rest:
        reading.append(f"Scores of {say.listed(rest)} were measured for this report, on a share of the text.")
    return [Block("scores", "What context is worth", reading, points, figures)]
