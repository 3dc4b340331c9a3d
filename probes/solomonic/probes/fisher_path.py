"""Information in the weights along a training run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, load

from .fisher_information import DEFAULT_LAMBDAS, fisher_information
from .inputs import as_model, as_rng
from .labelled import provenance, units
from .parameter_blocks import parameter_blocks

__all__ = ["fisher_path"]

_STEP_FOLDER = re.compile(r"step-\d+")
_UNITS = {
    "checkpoint": ("place in the training run", "1"),
    "tokens": ("tokens that the checkpoint was trained on", "token"),
}


def fisher_path(
    checkpoints: str | Path | Sequence[Any],
    ids: Any,
    *,
    tokens: Sequence[float | None] | None = None,
    samples: int = 8,
    lambdas: Iterable[float] | float = DEFAULT_LAMBDAS,
    method: str = "loop",
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    """The Fisher information of several checkpoints of one architecture, in order, on one text.

    A function of its own beside :func:`fisher_information`, so that each returns Datasets with the same dimensions
    always.

    Parameters
    ----------
    checkpoints : path or sequence of models, paths and names
        The folder of a run that :func:`solomonic.models.train` made with ``keep=None`` (all of its ``step-XXXXXXXX``
        are taken), or checkpoints in order: each a model, a folder, or a name of the zoo.
    ids : array_like of int
        Token ids [T] or [prompts, T].
    tokens : sequence of float or None, optional
        Tokens that each checkpoint was trained on. By default, and where an entry is None, what the training run wrote
        down: steps times batch size times context; NaN where nothing says.
    samples, lambdas, method, confidence, resamples
        See :func:`fisher_information`.
    rng : int or None
        Seed. All checkpoints draw their targets from the same uniform numbers, so that their differences are not those
        of the draws.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        The variables of :func:`fisher_information` along a first dimension ``checkpoint``, with coordinates ``tokens``
        and ``name``. The attribute ``checkpoint`` holds the hashes of all.

    Raises
    ------
    TypeError, ValueError
        If there are no checkpoints, or of several architectures, ``tokens`` are not one a checkpoint, or as
        :func:`fisher_information`.
    FileNotFoundError
        If a checkpoint is not there.

    Notes
    -----
    Costs as many calls of :func:`fisher_information` as there are checkpoints; one model is held at a time where they
    are given by name.

    References
    ----------
    Achille, Rovere and Soatto, "Critical learning periods in deep networks" (ICLR 2019), for the trace of the
    Fisher information along the training of a network.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import fisher_path
    >>> config = HybridConfig(pattern="M2", vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=1,
    ...                       num_key_value_heads=1, head_dim=8)
    >>> models = [HybridLM(config, rng=seed) for seed in (0, 1)]
    >>> fisher_path(models, torch.arange(8), tokens=[0, 4096], samples=1).tokens.values
    array([   0., 4096.])
    """
    given = _checkpoints(checkpoints)
    seen = _tokens(given, tokens)
    _, seed = as_rng(rng)
    if not isinstance(seed, int):
        raise TypeError("rng: expected an int or None, since every checkpoint starts from one seed; got a generator")
    options: dict[str, Any] = {"samples": samples, "lambdas": lambdas, "method": method}
    options["lambdas"] = [*lambdas] if isinstance(lambdas, Iterable) else lambdas
    found: list[xr.Dataset] = []
    first: list[tuple[str, tuple[int, ...]]] = []
    for number, each in enumerate(tqdm(given, disable=not progress, unit="checkpoint", desc="fisher_path")):
        model = as_model(load(each) if isinstance(each, str | Path) else each, name=f"checkpoints[{number}]")
        shapes = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
        first = first or shapes
        if shapes != first:
            raise ValueError(
                f"checkpoints[{number}]: expected the parameters of checkpoints[0], got others "
                f"({len(parameter_blocks(model))} blocks); compare one architecture at a time"
            )
        found.append(fisher_information(model, ids, **options, confidence=confidence, resamples=resamples, rng=seed))
    joined = xr.concat(found, "checkpoint", combine_attrs="override", coords="minimal", compat="override")
    joined = joined.assign_coords(
        checkpoint=np.arange(len(given)),
        tokens=("checkpoint", seen),
        name=("checkpoint", [_name(each, i) for i, each in enumerate(given)]),
    )
    arguments = {"checkpoints": [_name(each, i) for i, each in enumerate(given)], "ids": ids, "tokens": seen, **options}
    joined.attrs.update(provenance("fisher_path", arguments=arguments, seed=seed))
    joined.attrs["checkpoint"] = " ".join(each.attrs["checkpoint"] for each in found)
    return units(joined, _UNITS)


def _checkpoints(given: Any) -> list[Any]:
    """Models and paths, in order."""
    if isinstance(given, str | Path):
        folder = Path(given)
        steps = sorted(p for p in folder.glob("step-*") if _STEP_FOLDER.fullmatch(p.name)) if folder.is_dir() else []
        if not steps:
            raise ValueError(
                f"checkpoints: expected the folder of a training run with step-XXXXXXXX in it, or a sequence of "
                f"checkpoints, got {str(given)!r}; train with keep=None to keep them"
            )
        return list(steps)
    if isinstance(given, HybridLM | AdaptedLM | torch.nn.Module) or not isinstance(given, Iterable):
        raise TypeError(f"checkpoints: expected a sequence of them or a folder, got {type(given).__name__}")
    found = list(given)
    if not found:
        raise ValueError("checkpoints: expected at least one, got none")
    return found


def _tokens(given: list[Any], tokens: Sequence[float | None] | None) -> np.ndarray:
    """Tokens seen by each, NaN where nobody says."""
    said = [None] * len(given) if tokens is None else list(tokens)
    if len(said) != len(given):
        raise ValueError(f"tokens: expected one entry for each of {len(given)} checkpoints, got {len(said)}")
    out = []
    for each, value in zip(given, said, strict=True):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float | np.number) or value < 0
        ):
            raise ValueError(f"tokens: expected numbers of at least 0, or None, got {value!r}")
        out.append(_recorded(each) if value is None else float(value))
    return np.array(out)


def _recorded(checkpoint: Any) -> float:
    """What the training run wrote beside the weights."""
    if not isinstance(checkpoint, str | Path):
        return float("nan")
    for name in ("progress.json", "training.json"):
        file = Path(checkpoint) / name
        if file.is_file():
            state = json.loads(file.read_text(encoding="utf-8"))
            recipe = state["recipe"]
            return float(len(state["losses"]) * recipe["batch_size"] * recipe["context"])
    return float("nan")


def _name(checkpoint: Any, number: int) -> str:
    return Path(checkpoint).name if isinstance(checkpoint, str | Path) else f"model {number}"
