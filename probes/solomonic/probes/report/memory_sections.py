"""The blocks of one model about its memories: how much is used, through which it remembers, what shows of it."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes

from .. import plots
from . import memory_readings as said
from .figures import Figures
from .measure import Measured
from .page import Block, Figure, Table


def memory_blocks(key: str, m: Measured, draw: Figures) -> list[Block]:
    """All blocks for which something was measured."""
    found = [
        _use(key, m, draw), _curves(key, m, draw), _law(key, m, draw), _paths(key, m, draw), _seen(key, m, draw),
        _unsaid(key, m, draw), _apart(key, m, draw), _moved(key, m, draw), _smaller(key, m, draw),
        _selecting(key, m, draw), _heads(key, m),
    ]  # fmt: skip
    return [block for block in found if block is not None]


def _panel(draw: Figures, plot: Callable[[Axes], object], what: str, reading: str, caption: str) -> Figure:
    return draw.panel(plot, f"{what} {reading}", caption)


def _use(key: str, m: Measured, draw: Figures) -> Block | None:
    if "effective_state" not in m.data:
        return None
    size, field = m.data["effective_state"], m.data["receptive_field"]
    figures, reading = [], [
        "Cut the text: what came before acts on what follows through the memory alone. The rank of that action is the "
        "least state that could do it; how many directions carry 99.9 % of it says how much of the memory is in use."
    ]  # fmt: skip
    for part in size["part"].to_numpy().tolist():
        told = said.sizes(size, part)
        reading.append(told)
        what = "state" if part == "state" else "registers"
        figures.append(
            _panel(
                draw,
                lambda ax, part=part: plots.effective_state(size, part=part, ax=ax),
                f"Directions in use of the {what} against the cut.",
                told,
                f"Directions of each head's {what} that are in use at every cut; thick lines are layers.",
            )
        )
    told = said.distances(field)
    figures.append(
        _panel(
            draw,
            lambda ax: plots.receptive_field(field, ax=ax),
            "Mean distance of what each head reads.",
            told,
            "How far back each head reads at the gates of the run: mean distance, with a line to 90 % of the weights.",
        )
    )
    return Block(f"{key}-use", "How much of its memory is in use", [*reading, told], figures=figures)


def _curves(key: str, m: Measured, draw: Figures) -> Block | None:
    if "memory_curve" not in m.data:
        return None
    curve = m.data["memory_curve"]
    told = said.curves(curve)
    figures = [
        _panel(
            draw,
            lambda ax: plots.memory_curve(curve, ax=ax),
            "Fisher memory curves against the time that an input is held.",
            told,
            "Fisher information about an input of unit norm, with noise of variance 1 in every state and step.",
        )
    ]
    if bool(curve["decoded"].notnull().any()):
        figures.append(
            _panel(
                draw,
                lambda ax: plots.memory_curve(curve, kind="decoded", ax=ax),
                "Share of the variance of the text's own inputs that a linear read-out of the state finds.",
                said.decoded(curve),
                "The text's own inputs, decoded from the state by a linear map in windows that it was not fitted to.",
            )
        )
    return Block(f"{key}-curves", "What it tells of an input that long ago", [told, said.decoded(curve)],
                 figures=figures)  # fmt: skip


def _law(key: str, m: Measured, draw: Figures) -> Block | None:
    if "decay_law" not in m.data:
        return None
    law = m.data["decay_law"]
    told = said.law(law)
    figure = _panel(
        draw,
        lambda ax: plots.decay_law(law, ax=ax),
        "Laws of decay by held-out likelihood.",
        told,
        "How far each law of decay is behind the best one, with two standard errors.",
    )
    return Block(f"{key}-law", "The law by which it forgets", [told], figures=[figure])


def _paths(key: str, m: Measured, draw: Figures) -> Block | None:
    names = [name for name in ("fading_by_memory", "fading_by_memory_ahead") if name in m.data]
    if not names:
        return None
    figures, reading = [], [
        "The text with one token replaced leads to another memory. Its parts are transplanted one set at a time; the "
        "Shapley values of the parts sum exactly to the influence."
    ]  # fmt: skip
    for name in names:
        split = m.data[name]
        told = said.paths(split)
        reading.append(told)
        when = "when the last token is read" if split.attrs["ahead"] == 1 else f"{split.attrs['ahead']} tokens earlier"
        figures.append(
            _panel(
                draw,
                lambda ax, split=split: plots.fading_by_memory(split, ax=ax),
                f"Shares of the parts of the memory {when}, against lag.",
                told,
                f"Which part of the memory carries the influence {when}.",
            )
        )
    return Block(f"{key}-paths", "Through which memory it remembers", reading, figures=figures)


def _seen(key: str, m: Measured, draw: Figures) -> Block | None:
    if "observability" not in m.data:
        return None
    seen, reached = m.data["observability"], m.data["controllability"]
    first = seen.isel(prompt=0)
    told, moved = said.seen(seen), said.reached(reached)
    figures = [
        _panel(
            draw,
            lambda ax: plots.observability(first, ax=ax),
            "Singular values of the map from the state of each layer to the next logits.",
            told,
            f"How strongly directions of the state show in the next {seen.attrs['horizon']} logits (first window).",
        ),
        _panel(
            draw,
            lambda ax: plots.controllability(reached, ax=ax),
            "Singular values of the map from the last embeddings to the state of each layer.",
            moved,
            f"How far the last {reached.attrs['span']} inputs can move directions of the state (first window).",
        ),
    ]
    reading = [told, moved]
    if "empirical_gramians" in m.data:
        whole = m.data["empirical_gramians"]
        bend = said.plateau(whole)
        reading.append(bend)
        figures.append(
            _panel(
                draw,
                lambda ax: plots.empirical_gramians(whole, ax=ax),
                "Distance of empirical Gramians from those of the derivative against the size of the differences.",
                bend,
                f"How far differences of that size are from what the derivative says, layer {whole.attrs['layer']}.",
            )
        )
    return Block(f"{key}-seen", "What can be seen of its state, and moved", reading, figures=figures)


def _unsaid(key: str, m: Measured, draw: Figures) -> Block | None:
    if "unsaid" not in m.data:
        return None
    pair = m.data["unsaid"]
    told = said.unsaid(pair)
    figure = _panel(
        draw,
        lambda ax: plots.unsaid(pair, ax=ax),
        "Divergence of the predictions after three changes of the state of one size.",
        told,
        "What three changes of the state of the same size do to the predictions; crosses where another token is said.",
    )
    return Block(f"{key}-unsaid", "What it holds and does not say", [told], figures=[figure])


def _apart(key: str, m: Measured, draw: Figures) -> Block | None:
    found = {
        name: m.data[where]
        for name, where in (("whole memories", "distinguishability"), ("states alone", "distinguishability_state"))
        if where in m.data
    }
    if not found:
        return None
    told = " ".join(said.apart(name, each) for name, each in found.items())
    figure = _panel(
        draw,
        lambda ax: plots.distinguishability(found, ax=ax),
        "Share of the pairs of memories that have said the same against the tokens said.",
        told,
        "Pairs of memories that have said the same so far, all going on greedily from the same token.",
    )
    return Block(f"{key}-apart", "Which memories can be told apart", [told], figures=[figure])


def _moved(key: str, m: Measured, draw: Figures) -> Block | None:
    if "steer" not in m.data:
        return None
    steered = m.data["steer"]
    told = said.steered(steered)
    figure = _panel(
        draw,
        lambda ax: plots.steer(steered, ax=ax),
        "Distance from the target state step by step.",
        told,
        f"Steering the state of layer {steered.attrs['layer']} to that of another window by its last inputs.",
    )
    return Block(f"{key}-steer", "Where it can be steered", [told], figures=[figure])


def _smaller(key: str, m: Measured, draw: Figures) -> Block | None:
    if "compression" not in m.data:
        return None
    cost = m.data["compression"]
    told = said.smaller(cost)
    figure = _panel(
        draw,
        lambda ax: plots.compression(cost, ax=ax),
        "Bits more than the full model against the directions kept of each head's state.",
        told,
        "Cost of smaller states on windows that were not balanced on; the diamond is what the spectra propose.",
    )
    return Block(f"{key}-smaller", "How small a state would do", [told], figures=[figure])


def _selecting(key: str, m: Measured, draw: Figures) -> Block | None:
    if "sensitivity" not in m.data:
        return None
    norms, speed = m.data["sensitivity"], m.data["lyapunov"]
    told, dying = said.selecting(norms), said.exponents(speed)
    figures = [
        _panel(
            draw,
            lambda ax: plots.sensitivity(norms, ax=ax),
            "Norm of the derivative of the logits by each embedding, full and at frozen gates.",
            told,
            "Derivative of the last logits by the embedding at each lag: whole (full), and with all gates held fixed.",
        ),
        _panel(
            draw,
            lambda ax: plots.lyapunov(speed, ax=ax),
            "Growth of differences of memories along a window.",
            dying,
            "How fast differences between memories die: finite-time exponents of the whole memory.",
        ),
    ]
    return Block(f"{key}-selecting", "What selecting adds", [told, dying], figures=figures)


def _heads(key: str, m: Measured) -> Block | None:
    if "structures" not in m.data:
        return None
    found = m.data["structures"]
    rows = []
    for layer, symbol in zip(found["layer"].to_numpy(), found["symbol"].to_numpy(), strict=True):
        for head in found["head"].to_numpy():
            one = found.sel(layer=layer, head=head)
            index, whole = int(one["nilpotent_index"]), int(one["full_index"])
            rows.append(
                [
                    f"{layer}, {symbol}, head {head}",
                    f"{index} of {int(one['nilpotent_order'])}",
                    "never cut" if whole < 0 else f"{whole:,}",
                    f"{float(one['decay']):.4f}" if bool(one["decay"].notnull()) else "–",
                    "yes" if bool(one["certified"]) else "undecided",
                ]
            )
    head = ["Layer and head", f"Nilpotent index of dimension, W = {found.attrs['small_window']}",
            "Index at full size, tokens", "Decay at the median step", "Certified"]  # fmt: skip
    table = Table("Every head as a realization: its Fitting split", head, rows)
    return Block(f"{key}-heads", "Its heads as realizations", [said.heads(found)], tables=[table])
