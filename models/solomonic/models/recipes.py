"""How the checkpoints that ship with the package were trained, and how to train them again."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import torch

from .config import HybridConfig
from .corpus import stdlib_corpus
from .evaluation import bits_per_token, score, windows
from .files import write_json
from .recall_zoo import RECALL_PAIR, recall_recipe, train_recall
from .training import Recipe, TrainingRun, train

#: Name -> (pattern symbol of the four layers, width of the MLPs, which makes up for what the mixers take).
_MODELS = {
    "transformer": ("*", 432),
    "deadbeat": ("SWA", 432),
    "fading": ("M2", 384),
    "bmojo-f": ("BMF", 216),
    "bmojo": ("BMO", 216),
}

#: B'MOJO: an eighth of a row at most is stored, as many tokens as a window has.
_STORED = 64

_RECIPE = Recipe(steps=12_000, batch_size=2, context=512, lr=3e-3, warmup=100)
#: Its steps take twice as long; Muon learns as much from fewer of them.
_STORING_RECIPE = dataclasses.replace(_RECIPE, steps=5_000, matrix_lr=0.01)
_WOVEN = 0.08


def zoo_recipe(name: str) -> tuple[HybridConfig, Recipe]:
    """The architecture and the recipe of a model of the zoo.

    Those that read bytes have four layers, d = 128, 4 heads of 32, windows of 64 tokens, half of each head rotated,
    just under a million parameters; ``"bmojo"`` stores 64 tokens a layer, refreshed every 64 tokens, and takes fewer
    steps, with Muon. The recall pair has two layers, d = 64, 2 heads of 32 and windows of 8.

    Parameters
    ----------
    name : str
        ``"transformer"``, ``"deadbeat"``, ``"fading"``, ``"bmojo-f"``, ``"bmojo"``, ``"recall-fading"`` or
        ``"recall-bmojo"``.

    Returns
    -------
    tuple of HybridConfig and Recipe

    Raises
    ------
    ValueError
        If there is no recipe of that name.

    Examples
    --------
    >>> config, recipe = zoo_recipe("bmojo-f")
    >>> config.pattern, config.bmojo_window
    (('BMF', 'BMF', 'BMF', 'BMF'), 64)
    """
    if name in RECALL_PAIR:
        return recall_recipe(name)
    if name not in _MODELS:
        raise ValueError(f"name: expected one of {', '.join((*_MODELS, *RECALL_PAIR))}, got {name!r}")
    symbol, width = _MODELS[name]
    config = HybridConfig(
        pattern=(symbol,) * 4,
        vocab_size=256,
        hidden_size=128,
        intermediate_size=width,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        swa_window=64 if symbol == "SWA" else None,
        bmojo_window=64 if symbol in ("BMF", "BMO") else 2048,
        eidetic_tokens=_STORED if symbol == "BMO" else 16,
        partial_rotary_factor=0.5,
        max_position_embeddings=512,
    )
    return config, _STORING_RECIPE if symbol == "BMO" else _RECIPE


def train_zoo(name: str, out_dir: str | Path, *, keep: int | None = 1, progress: bool = True) -> TrainingRun:
    """Train a model of the zoo and write its card; about 40 minutes on one core, or one for the recall pair.

    Parameters
    ----------
    name : str
        As for :func:`zoo_recipe`.
    out_dir : path
        Folder of the run; an interrupted run goes on.
    keep : int or None
        How many checkpoints of the run stay beside the finished model; None keeps all, as
        :func:`~solomonic.probes.fisher_path` reads them. The recall pair keeps one.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TrainingRun
        Its folder holds ``config.json``, ``model.safetensors`` and ``card.json``.

    Examples
    --------
    >>> train_zoo("deadbeat", "runs/deadbeat")  # doctest: +SKIP
    """
    if name in RECALL_PAIR:
        return train_recall(name, Path(out_dir), progress=progress)
    config, recipe = zoo_recipe(name)
    corpus = stdlib_corpus(woven=_WOVEN)
    rows = windows(corpus.validation_plain, recipe.context, most=48)

    def validate(model) -> float:
        return float(bits_per_token(model, rows).mean())

    batches = corpus.batches(recipe.batch_size, recipe.context, seed=recipe.seed)
    note = {"name": name, "corpus": corpus.info}
    run = train(config, batches, out_dir, recipe, save_every=750, keep=keep, validate=validate, note=note,
                progress=progress)  # fmt: skip
    write_json(Path(out_dir) / "card.json", card(name, run, recipe, corpus.info, score(run.model, corpus)))
    return run


def card(name: str, run: TrainingRun, recipe: Recipe, corpus: dict, validation: dict) -> dict[str, Any]:
    """What a reader needs to know of a trained checkpoint, as JSON."""
    a_step = recipe.batch_size * recipe.context
    return {
        "name": name,
        "pattern": "-".join(run.model.config.pattern),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "recipe": {k: v for k, v in vars(recipe).items() if k != "seed"},
        "seed": recipe.seed,
        "tokens": recipe.steps * a_step,
        "minutes": round(run.seconds / 60, 1),
        "threads": torch.get_num_threads(),
        "corpus": corpus,
        "validation": validation,
        "curve": [[round(seconds / 60, 2), step * a_step, round(bits, 4)] for step, seconds, bits in run.curve],
        "curve_windows": 48,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
