"""Training on a CPU: resumable, deterministic for a seed."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from tqdm.auto import tqdm

from .checkpoint import save
from .config import HybridConfig
from .files import whole_folder, write_json
from .lm import HybridLM
from .muon import Muon

logger = logging.getLogger("solomonic")

_STEP_FOLDER = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW or Muon, linear warm-up, a fall to a floor, clipping.

    Parameters
    ----------
    steps, warmup : int
        Optimizer steps in all, and those of the warm-up.
    batch_size, context : int
        Sequences a step and their length in tokens.
    lr, floor : float
        Highest learning rate, and the share of it that is left at the end.
    cooldown : float or None
        Share of the steps, at the end, in which the rate falls linearly; it stays at its highest before, so that runs
        of any length begin alike. None falls from the warm-up on, as a cosine.
    betas, weight_decay, clip : tuple of float, float, float
        Of AdamW (decay on matrices alone), and the largest gradient norm.
    matrix_lr : float or None
        Highest learning rate of the matrices between embedding and head, which Muon then moves; None leaves them to
        AdamW too.
    decay : str
        Initial decays of state space layers, see :class:`~solomonic.models.HybridLM`.
    dtype : str
        ``"float32"``, or ``"bfloat16"`` for mixed precision.
    seed : int
        Of the initial weights and the batches.

    Examples
    --------
    >>> Recipe(steps=100).learning_rate(0) < Recipe(steps=100).learning_rate(60)
    True
    """

    steps: int
    warmup: int = 60
    batch_size: int = 4
    context: int = 512
    lr: float = 3e-3
    floor: float = 0.02
    cooldown: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    matrix_lr: float | None = None
    decay: str = "slow"
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch_size", "context"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if self.cooldown is not None and not 0 < self.cooldown <= 1:
            raise ValueError(f"cooldown: expected None or a share of the steps in (0, 1], got {self.cooldown!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16', got {self.dtype!r}")

    def learning_rate(self, step: int) -> float:
        """The learning rate of a ``step``: linear warm-up, then the fall to ``floor * lr``."""
        return self.lr * self.schedule(step)

    def schedule(self, step: int) -> float:
        """The share of the highest learning rates that a ``step`` has."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.cooldown is None:
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        left = (self.steps - step) / (self.cooldown * self.steps)
        return self.floor + (1 - self.floor) * min(1.0, max(0.0, left))


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A finished training run.

    Parameters
    ----------
    model : HybridLM
        The trained model, in evaluation mode.
    losses : list of float
        The loss of every step, nats a token.
    curve : list of tuples
        A row (step, seconds, score) for every checkpoint, where ``validate`` was given.
    seconds : float
        How long it took, over all parts of the run.
    folder : Path
        Where its checkpoint lies.
    """

    model: HybridLM
    losses: list[float] = field(repr=False)
    curve: list[tuple[int, float, float]] = field(repr=False)
    seconds: float
    folder: Path


def train(
    config: HybridConfig,
    batches: Callable[[int], Tensor | tuple[Tensor, Tensor]],
    out_dir: str | Path,
    recipe: Recipe,
    *,
    start: HybridLM | None = None,
    parameters: Sequence[str] | None = None,
    save_every: int = 200,
    keep: int | None = 1,
    validate: Callable[[HybridLM], float] | None = None,
    done: Callable[[Sequence[float]], bool] | None = None,
    note: dict[str, Any] | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a model from scratch, or go on where an earlier run in the same folder stopped.

    The run keeps its checkpoints in ``out_dir/step-XXXXXXXX`` and ends with a model in ``out_dir`` itself. Stopping it
    (Ctrl-C, a full disk, a lost machine) leaves the last whole checkpoint; the same call goes on from there with the
    same losses as a run that was never stopped.

    Parameters
    ----------
    config : HybridConfig
        The architecture.
    batches : callable
        step -> token ids [batch, context + 1], of which each but the first is asked for at the one before it; or
        (ids, targets) [batch, context] each, where -100 asks for nothing, as the generators of ``models.tasks`` give. A
        pure function of the step, as :meth:`Corpus.batches` is.
    out_dir : path
        Folder of the run.
    recipe : Recipe
        Optimizer, schedule and seed.
    start : HybridLM or None
        A model of this configuration whose weights to begin with (:func:`prime` makes one of a transformer); it stays
        as it is. None begins with random weights.
    parameters : sequence of str or None
        Names of the parameters to train, with wildcards as in a shell, such as ``["*.mamba.*"]``; the others stay as
        they are. None trains all.
    save_every : int
        Steps between checkpoints.
    keep : int or None
        How many of the newest checkpoints stay; None keeps all.
    validate : callable or None
        model -> score, called at every checkpoint; its values go into the run's ``curve``. It must leave the model
        as it is.
    done : callable or None
        The losses so far -> whether that is enough: the run then ends before the recipe's steps are over. A pure
        function, so that a run that goes on ends where one that was never stopped does.
    note : dict or None
        Written into the checkpoints' ``progress.json`` (what the data were, say).
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TrainingRun
        ``.model``, ``.losses``, ``.seconds``, ``.folder``.

    Raises
    ------
    ValueError
        If the folder holds a run with another configuration or recipe or other parameters, a name fits no parameter,
        ``start`` is of another configuration, or the loss is not finite.

    Notes
    -----
    Sets ``torch.set_flush_denormal(True)``: decaying states run into denormal numbers, which are ten times slower.
    Bits are the same from run to run for the same torch version and number of threads.

    Examples
    --------
    >>> import tempfile, torch
    >>> config = HybridConfig(pattern="M2", vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=1,
    ...                       num_key_value_heads=1, head_dim=8)
    >>> run = train(config, lambda step: torch.arange(9)[None] % 8, tempfile.mkdtemp(), Recipe(steps=3, warmup=1),
    ...             progress=False)
    >>> len(run.losses)
    3
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"out_dir: expected a folder, {out_dir} is a file")
    out_dir.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    model = HybridLM(config, rng=recipe.seed, decay=recipe.decay)
    if start is not None:
        if start.config != config:
            raise ValueError("start: expected a model of the configuration that is trained, got another; see .config")
        model.load_state_dict(start.state_dict())
    names = _chosen(model, parameters)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    optimizers = _optimizers(model, recipe)
    what = {
        "config": config.to_dict(),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
        "parameters": None if parameters is None else names,
    }
    losses: list[float] = []
    curve: list[tuple[int, float, float]] = []
    seconds = 0.0
    newest = _newest(out_dir)
    if newest is not None:
        losses, curve, seconds = _restore(newest, what, model, optimizers, names)
        logger.info("going on from %s", newest)

    def checkpoint() -> None:
        nonlocal seconds, began
        seconds += time.monotonic() - began
        if validate is not None:
            curve.append((len(losses), seconds, float(validate(model))))
        state = {"losses": losses, "curve": curve, "seconds": seconds, "note": note or {}, **what}
        _write_checkpoint(out_dir / f"step-{len(losses):08d}", model, optimizers, names, state)
        _prune(out_dir, keep)
        began = time.monotonic()  # neither validation nor writing counts as training

    began = time.monotonic()
    bar = tqdm(total=recipe.steps, initial=len(losses), disable=not progress, unit="step", desc=out_dir.name)
    try:
        with bar:
            while len(losses) < recipe.steps and not (done is not None and losses and done(losses)):
                loss = _step(model, optimizers, batches(len(losses)), recipe, len(losses))
                losses.append(loss)
                bar.update()
                bar.set_postfix(bits=f"{sum(losses[-50:]) / len(losses[-50:]) / math.log(2):.3f}", refresh=False)
                if len(losses) % save_every == 0 and len(losses) < recipe.steps:
                    checkpoint()
    except KeyboardInterrupt:
        if len(losses) and _newest_step(out_dir) != len(losses):
            checkpoint()
        logger.warning("stopped at step %d of %d; the same call goes on from there", len(losses), recipe.steps)
        raise
    if _newest_step(out_dir) != len(losses):
        checkpoint()
    model.requires_grad_(True)
    save(model, out_dir)
    record = {"losses": losses, "curve": curve, "seconds": seconds, "note": note or {}, **what}
    write_json(out_dir / "training.json", record)
    return TrainingRun(model, losses, curve, seconds, out_dir)


def _chosen(model: HybridLM, patterns: Sequence[str] | None) -> list[str]:
    """Names of the parameters to train."""
    names = [name for name, _ in model.named_parameters()]
    if patterns is None:
        return names
    if isinstance(patterns, str):
        raise TypeError(f"parameters: expected a list of names, got the string {patterns!r}")
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"parameters: no parameter is named {pattern!r}; there are {', '.join(names[:4])}, ...")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _step(
    model: HybridLM, optimizers: Sequence[Optimizer], rows: Tensor | tuple[Tensor, Tensor], recipe: Recipe, step: int
) -> float:
    ids, targets = rows if isinstance(rows, tuple) else (rows[:, :-1], rows[:, 1:])
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.dtype == "bfloat16"):
        logits = model(ids).logits
    loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    if not math.isfinite(loss.item()) or not math.isfinite(float(norm)):
        raise ValueError(f"step {step}: loss {loss.item()}, gradient norm {float(norm)}; try a smaller learning rate")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * recipe.schedule(step)
        optimizer.step()
    return loss.item()


def _optimizers(model: HybridLM, recipe: Recipe) -> list[Optimizer]:
    """AdamW for everything, or for what is no matrix between embedding and head, and Muon for those."""
    ends = ("model.embed_tokens.weight", "lm_head.weight")
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    by_muon = [n for n, p in trained.items() if recipe.matrix_lr is not None and p.ndim == 2 and n not in ends]
    by_adam = {n: p for n, p in trained.items() if n not in set(by_muon)}
    matrices = [p for p in by_adam.values() if p.ndim >= 2]
    vectors = [p for p in by_adam.values() if p.ndim < 2]  # norms, biases, A_log, D, dt_bias: not decayed
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay, "highest_lr": recipe.lr},
        {"params": vectors, "weight_decay": 0.0, "highest_lr": recipe.lr},
    ]
    optimizers: list[Optimizer] = [torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)]
    if recipe.matrix_lr is not None and by_muon:
        params = dict(model.named_parameters())
        muon = Muon([params[n] for n in by_muon], recipe.matrix_lr, weight_decay=recipe.weight_decay)
        muon.param_groups[0]["highest_lr"] = recipe.matrix_lr
        optimizers.append(muon)
    return optimizers


def _write_checkpoint(
    folder: Path, model: HybridLM, optimizers: Sequence[Optimizer], names: list[str], state: dict
) -> None:
    params = dict(model.named_parameters())
    moments: dict[str, Tensor] = {}
    for name in names:
        for optimizer in optimizers:
            moments.update(
                {f"{name}.{key}": torch.as_tensor(v) for key, v in optimizer.state.get(params[name], {}).items()}
            )
    with whole_folder(folder) as beside:
        save(model, beside)
        save_file(moments, beside / "optimizer.safetensors")
        write_json(beside / "progress.json", state)


def _restore(
    folder: Path, what: dict, model: HybridLM, optimizers: Sequence[Optimizer], names: list[str]
) -> tuple[list[float], list[tuple[int, float, float]], float]:
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        moments = load_file(folder / "optimizer.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: this checkpoint cannot be read ({error}); delete it to go on without it") from None
    if state.get("parameters") != what["parameters"]:
        raise ValueError(f"out_dir: {folder.parent} holds a run that trains other parameters; use another folder")
    for key in ("config", "recipe"):
        if state[key] != what[key]:
            differs = sorted(k for k in what[key] if state[key].get(k) != what[key][k])
            raise ValueError(f"out_dir: {folder.parent} holds a run with another {key} ({', '.join(differs)}); "
                             "use another folder, or delete it")  # fmt: skip
    model.load_state_dict(weights)
    params = dict(model.named_parameters())
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for name in names:
        own = {key.removeprefix(f"{name}."): v for key, v in moments.items() if key.rpartition(".")[0] == name}
        owner[params[name]].state[params[name]] = own
    return state["losses"], [tuple(row) for row in state["curve"]], state["seconds"]


def _steps(out_dir: Path) -> list[Path]:
    return sorted(p for p in out_dir.iterdir() if _STEP_FOLDER.fullmatch(p.name) and p.is_dir())


def _newest(out_dir: Path) -> Path | None:
    steps = _steps(out_dir)
    return steps[-1] if steps else None


def _newest_step(out_dir: Path) -> int:
    newest = _newest(out_dir)
    return -1 if newest is None else int(newest.name.removeprefix("step-"))


def _prune(out_dir: Path, keep: int | None) -> None:
    if keep is not None:
        for folder in _steps(out_dir)[:-keep]:
            shutil.rmtree(folder, ignore_errors=True)
