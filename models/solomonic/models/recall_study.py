"""Which memory recalls what? Two-layer models of every kind on associative recall, run by run, resumable."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .config import HybridConfig
from .eidetic import with_eidetic
from .files import write_json
from .lm import HybridLM
from .tasks import IGNORED, TaskRows, mqar
from .training import Recipe, train

#: Name -> pattern symbols of the two layers, and options of the configuration.
STUDIED: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "attention": (("*", "*"), {}),
    "swa": (("SWA", "SWA"), {}),
    "mamba2": (("M2", "M2"), {}),
    "mamba2-small": (("M2", "M2"), {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 8}),
    "gdn": (("GDN", "GDN"), {}),
    "hybrid": (("M2", "SWA"), {}),
    "bmojo-f": (("BMF", "BMF"), {}),
    "bmojo-4": (("BMO", "BMO"), {"eidetic_tokens": 4}),
    "bmojo-16": (("BMO", "BMO"), {"eidetic_tokens": 16}),
    "bmojo-32": (("BMO", "BMO"), {"eidetic_tokens": 32}),
    "bmojo-random": (("BMO", "BMO"), {"eidetic_tokens": 32, "innovation_norm": "random"}),
}

#: Budgets of stored tokens that trained B'MOJO models are read out with.
BUDGETS = (0, 4, 8, 16, 24, 32, 48, 64)

_KEYS = _VALUES = 32
_TEST, _CHOICE = 1 << 40, 1 << 41  # seeds that no step of a training run has


@dataclass(frozen=True)
class RecallStudy:
    """What is trained and asked.

    Parameters
    ----------
    length, window : int
        Tokens of a row, and W of every window.
    pairs : tuple of int
        How many pairs of key and value a row has, from easy to hard.
    seeds : tuple of int
        Of weights and rows; each is a run.
    models : tuple of str
        Names in ``STUDIED``.
    decays : tuple of str
        Initial decays to try on models with a state; each model is told by the better one, chosen on rows of its own.
    places : str
        Where pairs lie, see :func:`~solomonic.models.tasks.mqar`.
    steps, batch_size, rows : int
        Optimizer steps of a run, rows a step, and rows of the test.

    Examples
    --------
    >>> from solomonic.models.recall_study import RecallStudy
    >>> len(RecallStudy(models=("swa", "bmojo-f"), pairs=(4,), seeds=(0, 1)).runs())
    6
    """

    length: int = 128
    window: int = 16
    pairs: tuple[int, ...] = (4, 8, 12)
    seeds: tuple[int, ...] = (0, 1, 2)
    models: tuple[str, ...] = tuple(STUDIED)
    decays: tuple[str, ...] = ("slow", "default")
    places: str = "random"
    steps: int = 1200
    batch_size: int = 32
    rows: int = 256

    def __post_init__(self) -> None:
        for name in ("pairs", "seeds", "models", "decays"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        unknown = sorted(set(self.models) - set(STUDIED))
        if unknown:
            raise ValueError(f"models: expected names among {', '.join(STUDIED)}, got {', '.join(unknown)}")
        for decay in self.decays:
            if decay not in ("slow", "default"):
                raise ValueError(f"decays: expected 'slow' or 'default', got {decay!r}")

    def runs(self) -> list[dict[str, Any]]:
        """Every run, such that whole seeds are done first: what there is can be compared at any time."""
        out = []
        for seed, pairs, model in product(self.seeds, self.pairs, self.models):
            fading = {"M2", "GDN", "BMF", "BMO"} & set(STUDIED[model][0])
            for decay in self.decays if fading else self.decays[:1]:
                out.append({"model": model, "pairs": pairs, "decay": decay, "seed": seed})
        return out

    def config(self, model: str) -> HybridConfig:
        """The architecture: two layers, d = 64, heads of 32 channels half of which are rotated, narrow MLPs."""
        symbols, options = STUDIED[model]
        base = {
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "bmojo_window": self.window,
            "swa_window": self.window,
        }
        return HybridConfig(
            pattern=symbols,
            vocab_size=_KEYS + _VALUES + 1,
            hidden_size=64,
            intermediate_size=64,
            partial_rotary_factor=0.5,
            max_position_embeddings=self.length,
            **{**base, **options},
        )

    def task(self, batch: int, pairs: int, rng: int | list[int]) -> TaskRows:
        """Rows with so many pairs."""
        return mqar(
            batch,
            length=self.length,
            pairs=pairs,
            queries=min(4, self.length // (4 * pairs)),
            keys=_KEYS,
            values=_VALUES,
            places=self.places,
            rng=np.random.default_rng(rng),
        )

    @property
    def lags(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first and last lag of the bins that accuracy is told in."""
        W = self.window
        return ((f"to {W}", 1, W), (f"to {2 * W}", W + 1, 2 * W), (f"to {4 * W}", 2 * W + 1, 4 * W),
                (f"over {4 * W}", 4 * W + 1, self.length))  # fmt: skip


def run_recall_study(
    out_dir: str | Path, study: RecallStudy, *, minutes: float | None = None, progress: bool = True
) -> list[dict[str, Any]]:
    """Train and test what is not there yet; stopped at any point, the same call goes on.

    Parameters
    ----------
    out_dir : path
        Folder of the study: a folder a run, with its checkpoint and ``result.json``.
    study : RecallStudy
        What to run. A folder holds one study; more seeds, pairs and models may be added to it.
    minutes : float or None
        Begin no run later than that after the call; None runs everything.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    list of dict
        The results that there are, see :func:`recall_results`.

    Raises
    ------
    ValueError
        If the folder holds a study of other rows, windows or steps.

    Notes
    -----
    A run of 1200 steps takes about a minute on two idle cores (attention) to two (B'MOJO).

    Examples
    --------
    >>> import tempfile
    >>> from solomonic.models.recall_study import RecallStudy, run_recall_study
    >>> study = RecallStudy(length=32, window=4, pairs=(2,), seeds=(0,), models=("swa",), steps=2, rows=4)
    >>> (result,) = run_recall_study(tempfile.mkdtemp(), study, progress=False)
    >>> result["model"], result["pairs"], 0 <= result["accuracy"] <= 1
    ('swa', 2, True)
    """
    out_dir, began = Path(out_dir), time.monotonic()
    fixed = {k: getattr(study, k) for k in ("length", "window", "places", "steps", "batch_size", "rows")}
    note = out_dir / "study.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != fixed:
        raise ValueError(
            f"out_dir: {out_dir} holds a study with {note.read_text(encoding='utf-8')}; use another folder"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(note, fixed)
    for run in tqdm(study.runs(), disable=not progress, unit="run", desc="recall"):
        folder = out_dir / "-".join(str(v) for v in run.values())
        if (folder / "result.json").is_file():
            continue
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            break
        _run(folder, study, run)
    return recall_results(out_dir)


def recall_results(out_dir: str | Path) -> list[dict[str, Any]]:
    """The results of the runs that are done.

    Parameters
    ----------
    out_dir : path
        Folder of a study.

    Returns
    -------
    list of dict
        For each run its ``model``, ``pairs``, ``decay`` and ``seed``; ``accuracy`` over all questions and ``by_lag``;
        ``choice``, the accuracy on the rows that the initial decay is chosen by; ``by_budget`` (stored tokens ->
        accuracy, for B'MOJO); ``memory_nbytes``, ``parameters``, ``steps`` and ``seconds``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile
    >>> from solomonic.models.recall_study import recall_results
    >>> recall_results(tempfile.mkdtemp())
    []
    """
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        raise FileNotFoundError(f"{out_dir}: no such folder; `solomonic recall` makes one")
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(out_dir.glob("*/result.json"))]


def accuracy(model: HybridLM, rows: TaskRows, *, lags: tuple[int, int] | None = None) -> float:
    """The share of questions that a model answers rightly.

    Parameters
    ----------
    model : HybridLM
        The model.
    rows : TaskRows
        Rows with questions.
    lags : (int, int) or None
        Count only questions whose answer lies between so many tokens back, both ends included.

    Returns
    -------
    float
        From 0 to 1; NaN where nothing is asked.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.models.recall_study import accuracy
    >>> from solomonic.models.tasks import parity
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=2, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8), rng=0)
    >>> 0.3 < accuracy(model, parity(20, length=50, rng=0)) < 0.7
    True
    """
    right = _right(model, rows)
    asked = rows.targets != IGNORED
    if lags is not None:
        asked = asked & (rows.lags >= lags[0]) & (rows.lags <= lags[1])
    return float(right[asked].float().mean())


@torch.no_grad()
def _right(model: HybridLM, rows: TaskRows) -> Tensor:
    return torch.cat([model(ids).logits.argmax(-1) for ids in rows.ids.split(64)]) == rows.targets


def _run(folder: Path, study: RecallStudy, run: dict[str, Any]) -> None:
    config = study.config(run["model"])
    recipe = Recipe(
        steps=study.steps,
        warmup=min(50, study.steps),
        batch_size=study.batch_size,
        context=study.length,
        betas=(0.9, 0.98),
        floor=0.05,
        decay=run["decay"],
        seed=run["seed"],
    )

    def batches(step: int) -> tuple[Tensor, Tensor]:
        rows = study.task(study.batch_size, run["pairs"], [run["seed"], step])
        return rows.ids, rows.targets

    done = train(config, batches, folder, recipe, save_every=200, note=run, progress=False)
    test = study.task(study.rows, run["pairs"], [run["seed"], _TEST])
    choice = study.task(study.rows, run["pairs"], [run["seed"], _CHOICE])
    model = done.model.eval()
    result = {
        **run,
        "accuracy": accuracy(model, test),
        "by_lag": {name: _number(accuracy(model, test, lags=(low, high))) for name, low, high in study.lags},
        "choice": accuracy(model, choice),
        "by_budget": {},
        "memory_nbytes": model.memory_nbytes(study.length),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": study.steps,
        "seconds": round(done.seconds, 1),
        "losses": [round(x, 4) for x in done.losses[:: max(1, study.steps // 60)]],
    }
    if "BMO" in config.pattern:
        farthest = study.lags[-1][1:]
        for tokens in BUDGETS:
            other = with_eidetic(model, tokens)
            result["by_budget"][str(tokens)] = [accuracy(other, test), _number(accuracy(other, test, lags=farthest))]
    for step in folder.glob("step-*"):  # the model itself stays
        shutil.rmtree(step)
    write_json(folder / "result.json", result)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


#: A study that shows in a minute whether everything works, and nothing else.
SMOKE = RecallStudy(
    length=64,
    window=8,
    pairs=(2,),
    seeds=(0,),
    models=("swa", "bmojo-f", "bmojo-16"),
    decays=("slow",),
    steps=20,
    rows=32,
)
