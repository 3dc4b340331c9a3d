"""Which memory recalls what? Two-layer models of every kind on associative recall, run by run, resumable."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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

#: Name -> pattern symbols of the two layers, and options of the configuration. A number is that of the directions of
#: the state a head (Mamba2), or of stored tokens (B'MOJO).
STUDIED: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "attention": (("*", "*"), {}),
    "swa": (("SWA", "SWA"), {}),
    "mamba2-8": (("M2", "M2"), {"state_sizes": (8, 8)}),
    "mamba2-32": (("M2", "M2"), {}),
    "gdn": (("GDN", "GDN"), {}),
    "hybrid": (("M2", "SWA"), {}),
    "bmojo-f": (("BMF", "BMF"), {}),
    "bmojo-4": (("BMO", "BMO"), {"eidetic_tokens": 4}),
    "bmojo-16": (("BMO", "BMO"), {"eidetic_tokens": 16}),
    "bmojo-random-16": (("BMO", "BMO"), {"eidetic_tokens": 16, "innovation_norm": "random"}),
}

#: Models whose initial decay is that of another one, which it is tried on.
_DECAY_OF = {
    "mamba2-8": "mamba2-32",
    "hybrid": "mamba2-32",
    "bmojo-4": "bmojo-f",
    "bmojo-16": "bmojo-f",
    "bmojo-random-16": "bmojo-f",
}

#: Budgets of stored tokens that trained B'MOJO models are read out with.
BUDGETS = (0, 2, 4, 8, 12, 16, 24, 32, 48)

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
        How many pairs of key and value a row has; the initial decays are chosen with the first of them.
    seeds : tuple of int
        Of weights and rows; each is a run.
    models : tuple of str
        Names in ``STUDIED``.
    decays : tuple of str
        Initial decays to try on Mamba2 and B'MOJO-F with the first number of pairs and the first seed. The better one,
        on rows that are not those of the test, is that of all other runs of the model and of those with its layers.
    places : str
        Where pairs lie, see :func:`~solomonic.models.tasks.mqar`.
    steps, batch_size, rows : int
        Optimizer steps of a run at most, rows a step, and rows of the test. Models with Mamba2 layers have twice as
        many steps, each of which takes half as long as one of B'MOJO. A run ends when the mean loss of 20 steps is
        under 0.05 nats.

    Examples
    --------
    >>> from solomonic.models.recall_study import RecallStudy
    >>> len(RecallStudy(models=("swa", "bmojo-f"), pairs=(4,), seeds=(0, 1)).runs({}))
    5
    """

    length: int = 64
    window: int = 8
    pairs: tuple[int, ...] = (4, 2, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    models: tuple[str, ...] = tuple(name for name in STUDIED if name != "gdn")
    decays: tuple[str, ...] = ("slow", "default")
    places: str = "random"
    steps: int = 400
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

    def runs(self, choices: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
        """Every run, one number of pairs after the other and whole seeds first.

        ``choices`` has (model, decay) -> accuracy of the first runs, which the better initial decay is chosen by; runs
        that wait for it have the decay None.
        """
        out = []
        for pairs, seed, model in product(self.pairs, self.seeds, self.models):
            fading = {"M2", "GDN", "BMF", "BMO"} & set(STUDIED[model][0])
            tried = self.decays if fading else self.decays[:1]
            owner = _DECAY_OF[model] if _DECAY_OF.get(model) in self.models else model
            first = (pairs, seed) == (self.pairs[0], self.seeds[0]) and owner == model
            if not first and len(tried) > 1:
                known = [decay for decay in tried if (owner, decay) in choices]
                tried = (max(known, key=lambda d: choices[owner, d]),) if len(known) == len(tried) else (None,)
            out += [{"model": model, "pairs": pairs, "decay": decay, "seed": seed} for decay in tried]
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
            queries=max(1, self.length // (4 * pairs)),
            keys=_KEYS,
            values=_VALUES,
            places=self.places,
            rng=np.random.default_rng(rng),
        )

    def recipe(self, model: str, decay: str, seed: int) -> Recipe:
        """How a model is trained."""
        twice = {"M2", "GDN"} & set(STUDIED[model][0])
        steps = self.steps * (2 if twice else 1)
        return Recipe(
            steps=steps,
            warmup=min(50, steps),
            batch_size=self.batch_size,
            context=self.length,
            betas=(0.9, 0.98),
            floor=0.05,
            matrix_lr=0.02,
            decay=decay,
            seed=seed,
        )

    def batches(self, pairs: int, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """The rows and targets of every step."""

        def at(step: int) -> tuple[Tensor, Tensor]:
            rows = self.task(self.batch_size, pairs, [seed, step])
            return rows.ids, rows.targets

        return at

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
    A run takes from ten seconds on one idle core (attention) to a minute (B'MOJO).

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
    with tqdm(total=len(study.runs({})), disable=not progress, unit="run", desc="recall") as bar:
        while (minutes is None or time.monotonic() - began <= 60 * minutes) and (run := _next(out_dir, study)):
            bar.update(len(study.runs({})) - len(_waiting(out_dir, study)) - bar.n)
            _run(_folder(out_dir, run), study, run)
        bar.update(len(study.runs({})) - len(_waiting(out_dir, study)) - bar.n)
    return recall_results(out_dir)


def _folder(out_dir: Path, run: Mapping[str, Any]) -> Path:
    return out_dir / "-".join(str(run[key]) for key in ("model", "pairs", "decay", "seed"))


def _waiting(out_dir: Path, study: RecallStudy) -> list[dict[str, Any]]:
    """The runs that are not done."""
    first = [r for r in recall_results(out_dir) if (r["pairs"], r["seed"]) == (study.pairs[0], study.seeds[0])]
    runs = study.runs({(r["model"], r["decay"]): r["choice"] for r in first})
    return [run for run in runs if run["decay"] is None or not (_folder(out_dir, run) / "result.json").is_file()]


def _next(out_dir: Path, study: RecallStudy) -> dict[str, Any] | None:
    """The first run that is not done and need not wait for another one."""
    return next((run for run in _waiting(out_dir, study) if run["decay"] is not None), None)


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
        ``choice``, the accuracy on the rows that the initial decay is chosen by; for B'MOJO, with other numbers of
        stored tokens than in training, ``by_budget`` and, chosen at random, ``by_budget_random`` (stored tokens ->
        accuracy over all questions, and at the farthest lags); ``memory_nbytes``, ``parameters``, ``steps`` and
        ``seconds``.

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
    results = [json.loads(p.read_text(encoding="utf-8")) for p in out_dir.glob("*/result.json")]
    return sorted(results, key=lambda r: (list(STUDIED).index(r["model"]), r["pairs"], r["decay"], r["seed"]))


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
    right = rightly(model, rows)
    asked = rows.targets != IGNORED
    if lags is not None:
        asked = asked & (rows.lags >= lags[0]) & (rows.lags <= lags[1])
    return float(right[asked].float().mean())


@torch.no_grad()
def rightly(model: HybridLM, rows: TaskRows) -> Tensor:
    """Where the likeliest token is the one that is asked for [B, T]; of no meaning where nothing is asked."""
    return torch.cat([model(ids).logits.argmax(-1) for ids in rows.ids.split(64)]) == rows.targets


def _run(folder: Path, study: RecallStudy, run: dict[str, Any]) -> None:
    config, recipe = study.config(run["model"]), study.recipe(run["model"], run["decay"], run["seed"])
    batches = study.batches(run["pairs"], run["seed"])
    done = train(config, batches, folder, recipe, save_every=200, done=learned, note=run, progress=False)
    test = study.task(study.rows, run["pairs"], [run["seed"], _TEST])
    choice = study.task(study.rows, run["pairs"], [run["seed"], _CHOICE])
    model = done.model.eval()
    result = {
        **run,
        "accuracy": accuracy(model, test),
        "by_lag": {name: _number(accuracy(model, test, lags=(low, high))) for name, low, high in study.lags},
        "choice": accuracy(model, choice),
        "by_budget": {},
        "by_budget_random": {},
        "memory_nbytes": model.memory_nbytes(study.length),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(done.losses),
        "seconds": round(done.seconds, 1),
        "losses": [round(x, 4) for x in done.losses[:: max(1, recipe.steps // 60)]],
        "torch": torch.__version__,
    }
    if "BMO" in config.pattern:
        farthest = study.lags[-1][1:]
        for name, norm in (("by_budget", None), ("by_budget_random", "random")):
            for tokens in BUDGETS:
                other = with_eidetic(model, tokens, norm=norm)
                result[name][str(tokens)] = [accuracy(other, test), _number(accuracy(other, test, lags=farthest))]
    for step in folder.glob("step-*"):  # the model itself stays
        shutil.rmtree(step)
    write_json(folder / "result.json", result)


def learned(losses: Sequence[float]) -> bool:
    """Whether the task is: the mean loss of 20 steps is under 0.05 nats."""
    return len(losses) >= 20 and sum(losses[-20:]) < 20 * 0.05


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


#: A study that shows in a minute whether everything works, and nothing else.
SMOKE = RecallStudy(
    length=64,
    window=8,
    pairs=(2,),
    seeds=(0,),
    models=("swa", "bmojo-f", "bmojo-4"),
    decays=("slow",),
    steps=20,
    rows=32,
)
