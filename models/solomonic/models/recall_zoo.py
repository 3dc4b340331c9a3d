"""The recall pair of the zoo: a model that stores tokens and one whose memory only fades, trained on recall."""

from __future__ import annotations

import dataclasses
import math
import platform
from pathlib import Path
from typing import Any

import torch
from scipy.stats import norm

from .config import HybridConfig
from .files import write_json
from .lm import HybridLM
from .recall_study import RecallStudy, learned, rightly
from .tasks import IGNORED, TaskRows
from .training import Recipe, TrainingRun, train

#: Name -> (model of the study, initial decay).
RECALL_PAIR = {"recall-bmojo": ("bmojo-16", "default"), "recall-fading": ("mamba2-32", "slow")}
_STUDY, _PAIRS, _SEED = RecallStudy(), 4, 0
#: Mamba2 is trained for three times the steps of the study, in which it does not get to its end.
_STEPS = {"recall-fading": 2400}

#: Rows of the accuracies on the cards: their number, and the seed, which no step of a training run has.
_CARD_ROWS, _CARD_SEED = 1024, 1 << 42


def recall_recipe(name: str) -> tuple[HybridConfig, Recipe]:
    """The architecture and the recipe of ``"recall-bmojo"`` or ``"recall-fading"``."""
    model, decay = RECALL_PAIR[name]
    recipe = _STUDY.recipe(model, decay, _SEED)
    return _STUDY.config(model), dataclasses.replace(recipe, steps=_STEPS.get(name, recipe.steps))


def train_recall(name: str, out_dir: Path, *, progress: bool = True) -> TrainingRun:
    """Train one of the pair and write its card: a run of the recall study, about a minute on an idle core."""
    config, recipe = recall_recipe(name)
    task = {"name": "mqar", "length": _STUDY.length, "pairs": _PAIRS, "places": _STUDY.places}
    run = train(
        config, _STUDY.batches(_PAIRS, _SEED), out_dir, recipe, done=learned, note={"task": task}, progress=progress
    )
    write_json(out_dir / "card.json", _card(name, run, recipe, task))
    return run


def recall_rows(batch: int, *, rng: int | list[int] = _CARD_SEED) -> TaskRows:
    """Rows of the task that the recall pair of the zoo was trained on.

    Four pairs of key and value lie anywhere in the first 32 of 64 tokens, and each key comes four times again in the
    rest, where its value is asked for. See ``solomonic.models.tasks.mqar``.

    Parameters
    ----------
    batch : int
        Number of rows.
    rng : int or list of int
        Seed. By default the rows of the accuracies on the cards, if ``batch`` is 1024.

    Returns
    -------
    TaskRows

    Examples
    --------
    >>> from solomonic.models import recall_rows
    >>> recall_rows(2)
    TaskRows((2, 64), 65 tokens, 32 answers asked for)
    """
    return _STUDY.task(batch, _PAIRS, rng)


def recall_accuracy(model: HybridLM, rows: TaskRows, *, confidence: float = 0.95) -> dict[str, dict[str, float]]:
    r"""The share of questions that a model answers rightly, by the distance to the answer, with intervals.

    Wilson's score interval, with the number of questions divided by the design effect: the variance over whole rows of
    the answers summed in each, over what it would be if the questions of a row were independent.

    Parameters
    ----------
    model : HybridLM
        A model of the vocabulary of the task.
    rows : TaskRows
        Rows with questions, from :func:`recall_rows` say.
    confidence : float
        Of the intervals.

    Returns
    -------
    dict of str to dict
        Name of a bin of distances, and ``"all"`` -> ``accuracy``, ``low``, ``high`` and ``questions``.

    Raises
    ------
    ValueError
        If the confidence is not between 0 and 1.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22 (1927); Kish,
    Survey sampling (1965), chapter 8, for the design effect.

    Examples
    --------
    >>> from solomonic.models import load, recall_accuracy, recall_rows
    >>> found = recall_accuracy(load("recall-bmojo"), recall_rows(64))
    >>> found["all"]["accuracy"] > 0.9
    True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    right, asked = rightly(model, rows), rows.targets != IGNORED
    bins = {name: asked & (rows.lags >= low) & (rows.lags <= high) for name, low, high in _STUDY.lags}
    return {name: _interval(right, each, confidence) for name, each in {"all": asked, **bins}.items() if each.any()}


def _interval(right: torch.Tensor, asked: torch.Tensor, confidence: float) -> dict[str, float]:
    count = asked.sum(-1).double()
    hits = (right & asked).sum(-1).double()
    total, n = float(hits.sum()), float(count.sum())
    share, z = total / n, float(norm.ppf(0.5 + confidence / 2))
    alone = share * (1 - share) * n
    effect = float((hits - share * count).square().sum()) / alone if alone > 0 else 1.0
    size = n / max(1.0, effect)
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    low, high = min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
    return {"accuracy": share, "low": low, "high": high, "questions": int(n)}


def _card(name: str, run: TrainingRun, recipe: Recipe, task: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs to know, as JSON."""
    found = recall_accuracy(run.model, recall_rows(_CARD_ROWS))
    return {
        "name": name,
        "pattern": "-".join(run.model.config.pattern),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "task": task,
        "recipe": {k: v for k, v in vars(recipe).items() if k != "seed"},
        "seed": recipe.seed,
        "steps": len(run.losses),
        "minutes": round(run.seconds / 60, 1),
        "threads": torch.get_num_threads(),
        "accuracy": {bin: {k: round(v, 5) for k, v in each.items()} for bin, each in found.items()},
        "accuracy_rows": _CARD_ROWS,
        "confidence": 0.95,
        "memory_nbytes": run.model.memory_nbytes(_STUDY.length),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
