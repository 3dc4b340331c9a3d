"""The section of one model: what it is, and what was measured of it."""

from __future__ import annotations

import numpy as np

from .. import plots
from . import readings, say
from .cause_sections import cause_blocks
from .compare import scores
from .error_sections import error_blocks
from .figures import Figures, described
from .measure import Measured, verdict
from .memory_readings import not_measured
from .memory_sections import memory_blocks
from .page import Block, ModelPart, Point, Table
from .stored_sections import stored_blocks
from .subjects import look_up
from .weight_sections import weight_blocks


def section(number: int, m: Measured, window: int | None, several: bool) -> ModelPart:
    key = f"m{number}"
    draw = Figures(f"{key}f")
    blocks = [_fading(key, m, draw, window)] if several else []
    found = [_state(key, m, draw), _mass(key, m, draw), _layers(key, m, draw), _structure(key, m, draw)]
    blocks += [
        *filter(None, found),
        *memory_blocks(key, m, draw),
        *stored_blocks(key, m, draw),
        *cause_blocks(key, m, draw),
        *weight_blocks(key, m, draw),
        *error_blocks(key, m, draw),
        _split(key, m, draw),
        *([] if several else scores([m], draw)),
        *_missing(key, m),
    ]
    card = m.subject.card
    facts = [Point("layers", say.pattern(m.subject.model.config.pattern)), Point("parameters", f"{m.parameters:,}")]
    facts.append(
        Point("bits a token, " + ("validation" if "bits" in m.from_card else "these windows"), f"{m.bits:.3f}")
    )
    tokens, minutes = look_up(card, "tokens"), look_up(card, "minutes")
    if isinstance(tokens, int | float):
        facts.append(Point("trained on", f"{tokens / 1e6:.1f} M tokens"))
    if isinstance(minutes, int | float):
        threads = look_up(card, "threads")
        facts.append(
            Point("training" + (f", {threads} thread{'s' * (threads != 1)}" if threads else ""), f"{minutes:.0f} min")
        )
    facts.append(Point("dtype", m.data["fading"].attrs["dtype"]))
    summary = f"{readings.what_it_is(m.subject.model.config)} {readings.memory(m)}"
    return ModelPart(key, m.name, summary, facts, blocks)


#: The sections whose probes may have nothing to measure.
_SECTIONS = {
    "innovations": "Prediction errors",
    "causal_trace": "What an intervention does",
    "eviction": "What is stored",
}


def _missing(key: str, m: Measured) -> list[Block]:
    """What has no section, and why."""
    said = not_measured(m)
    points = [Point(_SECTIONS[probe], f"not measured: {reason}.") for probe, reason in m.missing.items()]
    if not said and not points:
        return []
    return [Block(f"{key}-missing", "What was not measured", [said] if said else [], points)]


def _fading(key: str, m: Measured, draw: Figures, window: int | None) -> Block:
    curve = m.data["fading"]
    figure = draw.panel(
        lambda ax: plots.fading({m.name: curve}, means=True, ax=ax),
        f"Fading curve with median and mean. {described(m)}",
        (
            f"Influence against lag: median with its 95 % interval (solid), mean (dashed), {curve.sizes['prompt']} "
            "windows."
        ),
        size=(6.0, 4.0),
    )
    return Block(f"{key}-fading", "Fading curve", [readings.influence(m), *more(m, window)], figures=[figure])


def _state(key: str, m: Measured, draw: Figures) -> Block | None:
    if "retention" not in m.data:
        return None
    data = m.data["retention"]
    said = readings.half_lives(data)
    figures = [
        draw.panel(
            lambda ax: plots.retention(data, ax=ax),
            f"Share of the state that is left against lag, a line a head, a colour a layer. {said}",
            "What is left of a state after a lag: geometric mean over starting points, one line a head.",
        ),
        draw.panel(
            lambda ax: plots.half_lives(data, ax=ax),
            f"Half-lives of the heads of every layer with intervals. {said}",
            "Half-life of every head: Kaplan–Meier median and interval. Arrows: longer than could be seen.",
        ),
    ]
    proof = (
        "These are the decays of the model's own run: the outputs recomputed from them differ from the model's by at "
        f"most {say.small(m.trace_error)}, relative, and the probe refuses more than its tolerance."
    )
    return Block(f"{key}-state", "What the state keeps", [said, proof], figures=figures)


def _mass(key: str, m: Measured, draw: Figures) -> Block | None:
    data = m.data["fading"]
    if not np.isfinite(data["fading_mass"].to_numpy()).any():
        return None
    said = readings.attention_on_fading(data)
    figure = draw.panel(
        lambda ax: plots.fading_mass(data, ax=ax),
        f"Share of the attention on fading tokens, a dot a head. {said}",
        "Mean share of the attention on fading tokens, at positions of at least 2W.",
        size=(5.2, 3.0),
    )
    return Block(f"{key}-mass", "Attention on fading tokens", [said], figures=[figure])


def _layers(key: str, m: Measured, draw: Figures) -> Block:
    pattern = m.subject.model.config.pattern
    jacobians = {f"layer {i}": m.data[f"layer_influence_{i}"] for i in range(len(pattern))}
    said = readings.layers(m)
    figures = [
        draw.panel(
            lambda ax: plots.layer_influence(jacobians, ax=ax),
            f"Norm of the Jacobian of each layer's mixer against lag. {said}",
            "Norm of the Jacobian from a mixer's input to its output so many tokens later, layer by layer.",
        )
    ]
    with_paths = [i for i, symbol in enumerate(pattern) if symbol == "BMF"]
    if with_paths:
        mass = m.data["fading"]["fading_mass"].mean("head").fillna(0.0).to_numpy()
        chosen = max(with_paths, key=lambda i: float(mass[i]))
        paths = m.data[f"layer_influence_{chosen}"]
        figures.append(
            draw.panel(
                lambda ax: plots.layer_influence(paths, ax=ax),
                f"The same for layer {chosen}, through the window, through the fading tokens, and both.",
                (
                    f"Layer {chosen}, which reads fading tokens most, path by path: the window ends at W, the fading "
                    "tokens take over."
                ),
            )
        )
    reading = [
        "In the whole model the reaches of the layers add up, which softens every bend. One layer alone shows where "
        "its own memory ends."
    ]
    return Block(f"{key}-layers", "One layer at a time", [*reading, *filter(None, [said])], figures=figures)


def _structure(key: str, m: Measured, draw: Figures) -> Block:
    pattern = m.subject.model.config.pattern
    first = {symbol: pattern.index(symbol) for symbol in dict.fromkeys(pattern)}
    figures = []
    for symbol, layer in first.items():
        data = m.data[f"structure_{layer}"]
        if data.attrs["order"] < 0:
            continue  # a register that is never cut is no finite matrix
        small = f" and W = {data.attrs['small_window']}" if data.attrs["window"] else ""
        side = min(4.6, 2.0 + 0.2 * data.sizes["to"])
        figures.append(
            draw.panel(
                lambda ax, d=data: plots.structure(d, ax=ax),
                f"Transition matrix of a {symbol} layer as a block matrix. {readings.parts(data)}.",
                f"Layer {layer} ({symbol}), reduced to one channel{small}. Blue shifts on and is gone; orange decays.",
                size=(side, side),
            )
        )
    rows = []
    for layer, symbol in enumerate(pattern):
        data = m.data[f"structure_{layer}"]
        decay = data["decay"].isel(at=len(data["at"]) // 2).to_numpy() if "decay" in data else np.array([])
        spectrum = f"{decay.min():.3f} to {decay.max():.3f}" if decay.size else "–"
        order, reach = int(data.attrs["order"]), int(data.attrs["eidetic_reach"])
        rows.append(
            [
                f"{layer}, {symbol}",
                f"{order:,}" if order >= 0 else "grows",
                spectrum,
                str(reach) if reach >= 0 else "no bound",
                data.attrs["certified"] if order >= 0 else "–",
            ]
        )
    head = [
        "Layer",
        "Numbers held",
        "Decays at the median step",
        "Reach of its registers, tokens",
        "Nilpotent part certified",
    ]
    reading = [
        "Once its gates are computed, a layer is a linear system. Its registers shift: their block is nilpotent, so "
        "what they hold is exact and then gone. Its state decays: its block is diagonal, so what it holds fades and "
        "never ends."
    ]
    reading += readings.dynamics([m.data[f"structure_{layer}"] for layer in range(len(pattern))])
    points = [Point(f"{symbol}", readings.parts(m.data[f"structure_{layer}"]) + ".") for symbol, layer in first.items()]
    table = Table("The layers as realizations", head, rows)
    return Block(f"{key}-structure", "What its layers are", reading, points, figures, [table])


def _split(key: str, m: Measured, draw: Figures) -> Block:
    data = m.data["split_law"]
    figure = draw.panel(
        lambda ax: plots.split_law(data, ax=ax),
        f"Error of the split law against the place of the split. {verdict(data)}",
        "Deviation of each layer's output when a text is read in two pieces, as a share of its scale.",
        size=(5.2, 3.0),
    )
    reading = [
        "Reading a text at once, or in two pieces with the memory handed over, must give the same logits: then the "
        "memory is a state, and prefill and decode are the same system.",
        verdict(data),
    ]
    return Block(f"{key}-split", "Split law", reading, figures=[figure])


def more(m: Measured, window: int | None) -> list[str]:
    """The slopes of a curve, its bends, and its mean against its median."""
    said = [readings.means_and_medians(m)]
    if "bend" in m.data:
        said = [
            readings.steepness(m.data["bend"]),
            readings.bending(m.data["bend"], window) if window and m.subject.window else "",
            *said,
        ]
    return [s for s in said if s]
