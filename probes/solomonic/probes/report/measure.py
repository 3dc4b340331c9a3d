"""Everything that a report measures of one model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from solomonic.models import HybridLM, bits_per_token, score, stdlib_corpus

from ..bend import bend
from ..fading import default_lags, fading
from ..influence import layer_influence
from ..retention import retention
from ..split_law import split_law
from ..structure import structure
from ..trace import trace
from .causes import STEPS as CAUSE_STEPS
from .causes import measure_causes
from .errors import STEPS as ERROR_STEPS
from .errors import measure_errors
from .memories import STEPS as MEMORY_STEPS
from .memories import measure_memories
from .stored import STEPS as STORED_STEPS
from .stored import measure_stored
from .subjects import Subject, Text, look_up
from .weights import STEPS as WEIGHT_STEPS
from .weights import measure_weights

#: Steps of the measurement of one model, for a progress bar.
STEPS = (
    *("trace", "retention", "fading", "bends", "layers", "split law"),
    *(*ERROR_STEPS, *CAUSE_STEPS, *WEIGHT_STEPS, *MEMORY_STEPS, *STORED_STEPS),
    "bits",
)

#: Windows that are traced for the retention of the state, those that are scored where there is no card, and those on
#: which the Jacobians of single layers are taken.
TRACED, SCORED, JACOBIANS = 12, 24, 6

#: Lengths for which the bytes of the memory are given, tokens.
LENGTHS = (512, 32768)


@dataclass(frozen=True, eq=False)
class Measured:
    """A model and what was measured of it; Datasets by the name of their probe, as they are saved.

    ``missing`` has the reason for each probe that was tried and had nothing to measure.
    """

    subject: Subject
    data: Mapping[str, xr.Dataset]
    parameters: int
    memory: Mapping[int, int]
    bits: float
    position: Mapping[str, Any]
    recall: Mapping[str, Any] | None
    from_card: frozenset[str]
    trace_error: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.subject.name

    @property
    def pattern(self) -> str:
        """The layers, as the checkpoint's configuration has them."""
        return "-".join(self.subject.model.config.pattern)


def measure(
    subject: Subject,
    text: Text,
    lags: np.ndarray,
    edges: list[int],
    *,
    memories: bool = True,
    rng: int,
    step: Callable[[str], None],
    progress: bool = False,
) -> Measured:
    """Everything that a report says of one model; ``step`` gets the name of each step that begins, "" at the end."""
    model, ids = subject.model, text.ids
    clock = _Clock(step)
    data: dict[str, xr.Dataset] = {}
    clock("trace")
    run = trace(model, ids[:TRACED]).require()
    clock("retention")
    if run.state_layers:
        data["retention"] = retention(run)
    error = run.error
    del run
    clock("fading")
    data["fading"] = fading(model, ids, lags=lags, rng=rng, progress=progress)
    clock("bends")
    if edges:
        data["bend"] = bend(data["fading"], edges=edges, rng=rng)
    clock("layers")
    for layer in range(len(model.config.pattern)):
        data[f"structure_{layer}"] = structure(model, layer, ids=ids[:2])
        data[f"layer_influence_{layer}"] = layer_influence(model, layer, ids[:JACOBIANS], projections=4, rng=rng)
    clock("split law")
    tokens = ids[:1, : split_length(subject, ids.shape[1])]
    data["split_law"] = split_law(model, tokens, splits=some_splits(subject, tokens.shape[1]))
    clock(ERROR_STEPS[0])
    cut = int(data["fading"].attrs["cut"])
    missing: dict[str, str] = {}

    def also(found: tuple[dict[str, xr.Dataset], dict[str, str]]) -> None:
        data.update(found[0])
        missing.update(found[1])

    also(measure_errors(model, ids, rng=rng))
    clock(CAUSE_STEPS[0])
    also(measure_causes(model, ids, cut=cut, rng=rng))
    clock(WEIGHT_STEPS[0])
    data |= measure_weights(model, ids, rng=rng)
    if memories:
        data |= measure_memories(model, ids, data["fading"], rng=rng, step=clock)
        clock(STORED_STEPS[0])
        also(measure_stored(model, ids, rng=rng))
    clock("bits")
    bits, position, recall, from_card = _scores(subject, text)
    clock("figures")
    return Measured(
        subject,
        data,
        sum(p.numel() for p in model.parameters()),
        {tokens: model.memory_nbytes(tokens) for tokens in LENGTHS},
        bits,
        position,
        recall,
        from_card,
        error,
        clock.seconds,
        missing,
    )


def common_lags(given: list[Subject], length: int) -> np.ndarray:
    """The lags at which all models of a report are measured: every one's own structural points, for each of them."""
    return np.unique(np.concatenate([default_lags(s.model.config, length) for s in given]))


def bend_edges(given: list[Subject], length: int) -> list[int]:
    """Lags at which a curve may bend: where its steep head ends, W and 2W, for the widest W of all models (else 64)."""
    window = widest(given) or 64
    return sorted(edge for edge in {max(2, window // 8), window, 2 * window} if edge < length - 1)


def widest(given: list[Subject]) -> int | None:
    """The widest window of all models of a report, tokens."""
    return max((s.window for s in given if s.window), default=None)


def split_length(subject: Subject, longest: int) -> int:
    """3W + 5 tokens, so that splits fall inside and between windows; 64 where no layer has a window."""
    return min(longest, 3 * subject.window + 5 if subject.window else 64)


def some_splits(subject: Subject, length: int) -> list[int]:
    """Splits around 0, W, 2W and the end, and every eighth: inside windows, between them and at their edges."""
    marks = [0, length] + ([subject.window, 2 * subject.window] if subject.window else [])
    near = {m + d for m in marks for d in (-2, -1, 0, 1, 2)}
    return sorted(s for s in near | set(range(8, length, 8)) if 1 <= s <= length - 1)


def verdict(data: xr.Dataset) -> str:
    """What a split law Dataset says, in a sentence."""
    attrs = data.attrs
    return (
        f"The split law {'holds' if attrs['holds'] == 'yes' else 'FAILS'}: over {data.sizes['split']} splits of "
        f"{int(data['split'].max()) + 1} tokens the largest error is {attrs['largest_error']:.1e} of the scale; "
        f"{attrs['tolerance']:g} is allowed in {attrs['dtype']}."
    )


def check(model: HybridLM, *, progress: bool = False) -> tuple[bool, str]:
    """The split law of a model on random tokens at every split, and its verdict in a sentence."""
    generator = torch.Generator().manual_seed(0)
    length = split_length(Subject("model", model, None, {}), 1 << 30)
    found = split_law(
        model, torch.randint(model.config.vocab_size, (1, length), generator=generator), progress=progress
    )
    return found.attrs["holds"] == "yes", verdict(found)


def _scores(subject: Subject, text: Text) -> tuple[float, Mapping[str, Any], Mapping[str, Any] | None, frozenset[str]]:
    """Bits a token, by position, and recall: from the card, else measured; and which are from the card."""
    model, card = subject.model, subject.card
    told = {
        "bits": look_up(card, "validation", "bits_per_byte"),
        "position": look_up(card, "validation", "bits_per_byte_by_position"),
        "recall": look_up(card, "validation", "recall"),
    }
    good = {
        "bits": isinstance(told["bits"], int | float) and np.isfinite(told["bits"]),
        "position": binned(told["position"]),
        "recall": binned(told["recall"]),
    }
    from_card = frozenset(name for name, fine in good.items() if fine)
    if len(from_card) == len(good):
        return float(told["bits"]), told["position"], told["recall"], from_card
    if text.library:
        found = score(model, stdlib_corpus(), context=text.ids.shape[1], most=SCORED)
        measured = (found["bits_per_byte"], found["bits_per_byte_by_position"], found["recall"])
    else:
        by_token = bits_per_token(model, text.ids[:SCORED]).mean(0).numpy()
        edges = [0, *(2**e for e in range(3, 20) if 2**e < len(by_token)), len(by_token)]
        means = [float(by_token[a:b].mean()) for a, b in itertools.pairwise(edges)]
        measured = (float(by_token.mean()), {"edges": edges, "bits": means}, None)
    chosen = [told[name] if good[name] else value for name, value in zip(good, measured, strict=True)]
    return float(chosen[0]), chosen[1], chosen[2], from_card


def binned(table: Any) -> bool:
    """Whether a card's entry is bits in bins, some of which may be empty."""
    if (
        not isinstance(table, Mapping)
        or not isinstance(table.get("edges"), list)
        or not isinstance(table.get("bits"), list)
    ):
        return False
    edges, bits = table["edges"], table["bits"]
    numbers = [*edges, *(b for b in bits if b is not None)]
    return len(edges) == len(bits) + 1 > 1 and all(isinstance(n, int | float) and np.isfinite(n) for n in numbers)


class _Clock:
    """Tells which step begins, and keeps how long each took, seconds."""

    def __init__(self, step: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._step, self._name, self._began = step, "", time.monotonic()

    def __call__(self, name: str) -> None:
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = now - self._began
        self._name, self._began = name, now
        self._step(name)
