"""From measurements to a page: what comes where, and in what words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..labelled import versions
from . import card, readings, say
from .closing import limits, method, provenance
from .compare import comparison, scores
from .figures import Figures
from .folder import CARD
from .measure import Measured, widest
from .page import Block, ModelPart, Page, Point, Table
from .sections import more
from .subjects import Text, look_up


def page(
    models: Sequence[Measured],
    parts: Sequence[ModelPart],
    text: Text,
    *,
    date: str,
    seed: Any,
    files: Sequence[tuple[str, str]],
) -> Page:
    """The whole page: the sections of the models, and what comes before and after them."""
    draw = Figures()
    window = widest([m.subject for m in models])
    prompts, length = models[0].data["fading"].sizes["prompt"], int(models[0].data["fading"].attrs["tokens"])
    unit = "bytes" if models[0].subject.model.config.vocab_size == 256 else "tokens"
    several = len(models) > 1
    one = models[0]
    name = f"How {say.count(len(models), 'memory', 'memories')} forget" if several else f"How {one.name} forgets"
    reads = "Each model reads" if several else "The model reads"
    lede = (
        f"{reads} the same {prompts} windows of {length} {unit}. One {unit[:-1]} is replaced, and the change of the "
        f"prediction that many {unit} later, in bits, shows how much of it is still remembered."
    )
    opening = [_headline(models, draw, prompts, window)]
    if several:
        opening += [
            _table(models),
            _card(models),
            *_bends(models, window),
            *comparison(models, draw),
            *scores(models, draw),
        ]
    else:
        opening.append(_card(models))
    closing = [method(models, text, prompts, length, unit), limits(models), provenance(models, seed, files)]
    return Page(name, lede, versions()["solomonic"], date, opening, parts, closing)


def _headline(models: Sequence[Measured], draw: Figures, prompts: int, window: int | None) -> Block:
    caption = (
        f"Median over {prompts} windows of the influence of the token at each lag; bands are 95 % bootstrap intervals. "
        "Both axes are logarithmic. A curve that falls to the lowest line is exactly 0 from there on."
    )
    if window:
        named = say.listed([m.name for m in models if m.subject.window == window])
        caption += f" W = {window} tokens is the window of {named}."
    figure = draw.headline(models, caption)
    if len(models) == 1:
        said = [readings.influence(models[0]), *more(models[0], window)]
        return Block("fading-curves", "How far back it reaches", figures=[figure], points=[Point("", s) for s in said])
    points = [Point(m.name, readings.influence(m)) for m in models]
    return Block("fading-curves", "How far back each memory reaches", figures=[figure], points=points)


def _table(models: Sequence[Measured]) -> Block:
    short, long = min(models[0].memory), max(models[0].memory)
    head = ["Model", "Layers", "Parameters", "Bits a token, validation", "Training, minutes",
            f"Memory after {short:,} tokens", f"after {long:,}", "Influence ends at lag", "Half-life, tokens",
            "Attention on fading tokens"]  # fmt: skip
    rows = []
    for m in models:
        minutes = look_up(m.subject.card, "minutes")
        cut = int(m.data["fading"].attrs["cut"])
        half = m.data["retention"]["half_life"].to_numpy() if "retention" in m.data else np.array([])
        mass = m.data["fading"]["fading_mass"].to_numpy()
        rows.append(
            [
                m.name,
                say.pattern(m.subject.model.config.pattern),
                f"{m.parameters:,}",
                f"{m.bits:.3f}",
                "–" if not isinstance(minutes, int | float) else f"{minutes:.0f}",
                say.nbytes(m.memory[short]),
                say.nbytes(m.memory[long]),
                str(cut) if cut >= 0 else "no end seen",
                say.small(float(np.nanmedian(half))) if half.size else "–",
                say.share(float(np.nanmean(mass))) if np.isfinite(mass).any() else "–",
            ]
        )
    note = (
        "Memory is what one sequence carries while it decodes. The half-life is the median over the heads of the "
        "state; models without a state have none."
    )
    return Block("models", "The models", tables=[Table("What they are and what they keep", head, rows, note, left=[1])])


def _card(models: Sequence[Measured]) -> Block:
    """The numbers that a model card can quote."""
    cards = {m.name: card.memory_card(m.data) for m in models}
    rows = [[name, *card.cells(found)] for name, found in cards.items()]
    seen = next((found["observable_share"] for found in cards.values() if "observable_share" in found), None)
    note = (
        "Medians or means over heads and layers, with 95 % intervals over windows; a dash: the model has no such "
        "memory. What is held exactly needs no interval: it is the size of the registers, certified nilpotent. "
        "Directions in "
        "use hold 99.9 % of the Hankel singular values at a cut."
    )
    if seen is not None:
        note += (
            f" The share of the state that is seen lies in its {seen['directions']} most visible directions at most, "
            "so it can be more."
        )
    reading = [f"For a model card. The same numbers, with what each one means, are in {CARD}."]
    table = Table("The memory of each model in numbers", ["Model", *card.HEAD], rows, note)
    return Block("card", "Memory in numbers", reading, tables=[table])


def _bends(models: Sequence[Measured], window: int | None) -> list[Block]:
    """How steeply all curves fall, band by band, and where they bend."""
    found = {m.name: m.data["bend"] for m in models if "bend" in m.data}
    if not found:
        return []
    fallen = {name: readings.falls(data) for name, data in found.items()}
    head = ["Model", *(f"lags {band}" for band, _ in next(iter(fallen.values())))]
    rows = [[name, *(fall or "–" for _, fall in one)] for name, one in fallen.items()]
    note = (
        "Each number is 2 to minus the slope of log median influence against log lag, with its 95 % bootstrap "
        "interval over windows. A dash: fewer than three measured lags with an influence."
    )
    reading = [
        "On logarithmic axes even a plain exponential gets steeper all the way. So a curve bends where its rate of "
        "decay changes: where each further token costs more than it did before."
    ]
    points = []
    if window:
        reading[0] += f" For one layer theory puts the bends at W = {window} and 2W = {2 * window}."
        points = [Point(name, said) for name, data in found.items() if (said := readings.bending(data, window))]
    table = Table("How many times smaller the influence gets when the lag doubles", head, rows, note)
    return [Block("bends", "Where the curves bend", reading, points, tables=[table])]
