"""The command ``solomonic``: report, zoo, describe, train, check, recall."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

#: Exit codes: a check that failed, a call that cannot work, Ctrl-C.
FAILED, WRONG, STOPPED = 1, 2, 130


class Stopped(Exception):
    """Ctrl-C, with what stays of the work."""


def _version() -> str:
    from importlib.metadata import version

    return f"solomonic {version('solomonic')}"


app = App(
    name="solomonic",
    help="A laboratory for the memory of trained sequence models.",
    version=_version,
    suppress_keyboard_interrupt=False,
)

Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), help="No progress bars.")]


@app.command
def report(
    *checkpoints: str,
    out: Annotated[Path, Parameter(name=["--out", "--out-dir", "-o"])] = Path("report"),
    windows: int = 32,
    length: int | None = None,
    text: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    quiet: Quiet = False,
) -> None:
    """Measure how checkpoints forget and write the report: one page, its data beside it.

    Parameters
    ----------
    checkpoints
        Checkpoint folders, or names from `solomonic zoo`; without any, the four of the zoo that were
        trained alike are compared.
    out
        Folder to write to; an earlier report there is replaced.
    windows
        How many windows of text to measure on.
    length
        Length of a window, tokens.
    text
        A file to take the windows from, read as bytes; the standard library's source by default.
    seed
        Of the choice of windows and replacements.
    jobs
        How many checkpoints are measured at once, each in a process of its own; two by default where there are two
        cores.
    """
    from solomonic.models import zoo

    from .report import report as write

    models = _unique(checkpoints) if checkpoints else dict(zoo("equal"))
    if not models:
        raise FileNotFoundError("no checkpoint ships with this package; name a checkpoint folder")
    _ready()
    try:
        page = write(
            models,
            out,
            text=None if text is None else _read(text),
            windows=windows,
            length=length,
            jobs=jobs,
            rng=seed,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        raise Stopped(f"nothing was written; what was in {out} before is as it was") from None
    print(page)


@app.command
def zoo() -> None:
    """List the checkpoints that ship with the package."""
    from solomonic.models import describe
    from solomonic.models import zoo as shipped

    rows = [("name", "pattern", "parameters", "score", "training", "memory after 512 tokens")]
    for name, folder in shipped().items():
        about, card = describe(folder, tokens=512), _card(folder)
        bits, recalled = card.get("validation", {}).get("bits_per_byte"), card.get("accuracy", {}).get("all")
        score = "" if bits is None else f"{bits:.3f} bits a byte"
        if recalled is not None:
            score = f"{100 * recalled['accuracy']:.0f} % recalled"
        trained = [f"{card['tokens'] / 1e6:.0f} M bytes"] if "tokens" in card else []
        trained += [f"{card['minutes']:.0f} min"] if "minutes" in card else []
        rows.append(
            (
                name,
                "-".join(about.config.pattern),
                f"{about.parameters:,}",
                score,
                ", ".join(trained),
                f"{about.memory_nbytes:,} bytes",
            )
        )
    if len(rows) == 1:
        raise FileNotFoundError("no checkpoint ships with this package")
    print(_table(rows))


@app.command
def describe(path: str, *, tokens: int = 2048) -> None:
    """Show the layers, parameters and memory of a checkpoint, without reading its weights.

    Parameters
    ----------
    path
        Checkpoint folder, config.json, or a name from `solomonic zoo`.
    tokens
        Length of context for which the memory is counted.
    """
    from solomonic.models import describe as look

    print(look(path, tokens=tokens))


@app.command
def train(
    name: str | None = None,
    *,
    config: Path | None = None,
    out: Annotated[Path, Parameter(name=["--out", "--out-dir", "-o"])],
    steps: int | None = None,
    batch_size: int | None = None,
    context: int | None = None,
    lr: float | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    save_every: int | None = None,
    keep_all: bool = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on the source of the standard library; the same call goes on where a stopped run was.

    Parameters
    ----------
    name
        A model of the zoo, trained by its own recipe.
    config
        A config.json to train instead; it needs --steps.
    out
        Folder of the run; the finished model lies there.
    steps, batch_size, context, lr, dtype, seed
        Change the recipe.
    save_every
        Steps between checkpoints; 200, or what the recipe of the zoo says.
    keep_all
        Keep all of the run's checkpoints, not only the newest.
    """
    changes = {"steps": steps, "batch_size": batch_size, "context": context, "lr": lr, "dtype": dtype, "seed": seed}
    changes = {key: value for key, value in changes.items() if value is not None}
    if (name is None) == (config is None):
        got = "neither" if name is None else "both"
        raise ValueError(f"train: expected either the name of a model of the zoo or --config FILE, got {got}")
    if config is not None and steps is None:
        raise ValueError("train: --config needs --steps N, the number of optimizer steps")
    keep = None if keep_all else 1
    _ready()
    try:
        if name is not None and not changes and save_every is None:
            from solomonic.models import train_zoo

            folder = train_zoo(name, out, keep=keep, progress=not quiet).folder
        else:
            folder = _train(name, config, changes, out, save_every or 200, keep, quiet)
    except KeyboardInterrupt:
        raise Stopped(f"the last checkpoint is kept in {out}; the same command goes on from there") from None
    print(folder)


def _train(
    name: str | None,
    config: Path | None,
    changes: dict[str, Any],
    out: Path,
    save_every: int,
    keep: int | None,
    quiet: bool,
) -> Path:
    """Train by a changed recipe of the zoo or by a configuration, and write a card."""
    from solomonic.models import HybridConfig, Recipe, bits_per_token, score, stdlib_corpus, zoo_recipe
    from solomonic.models import train as run
    from solomonic.models.evaluation import windows
    from solomonic.models.files import write_json
    from solomonic.models.recipes import card

    if name is not None:
        what, recipe = zoo_recipe(name)
        recipe = dataclasses.replace(recipe, **changes)
        if what.vocab_size != 256:
            raise ValueError(f"train: {name} is trained on recall by its own recipe alone; leave out the options")
    else:
        assert config is not None
        what, recipe = HybridConfig.from_file(config), Recipe(**changes)
        if what.vocab_size != 256:
            raise ValueError(f"{config}: expected vocab_size 256, since the text is bytes, got {what.vocab_size}")
    corpus = stdlib_corpus()
    rows = windows(corpus.validation_plain, recipe.context, most=48)
    done = run(
        what,
        corpus.batches(recipe.batch_size, recipe.context, seed=recipe.seed),
        out,
        recipe,
        save_every=save_every,
        keep=keep,
        validate=lambda model: float(bits_per_token(model, rows).mean()),
        note={"corpus": corpus.info},
        progress=not quiet,
    )
    scores = score(done.model, corpus, context=recipe.context, most=200)
    write_json(out / "card.json", card(name or out.resolve().name, done, recipe, corpus.info, scores))
    return done.folder


@app.command
def check(
    path: str,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    quiet: Quiet = False,
) -> int:
    """Check what every probe takes for granted, as a table: steps, chunks, batches, positions, edits, taps.

    Of our checkpoints also the split law at every split. Exit code 1 where something fails.

    Parameters
    ----------
    path
        Checkpoint folder, ours or of a family of transformers that has an adapter, or a name from `solomonic zoo`.
    out
        A file to write the table to, `.nc` or `.json`.
    """
    from solomonic.models import load

    from .conformance import conformance, conformance_table
    from .report.measure import check as look

    if out is not None and out.suffix not in (".nc", ".json"):
        raise ValueError(f"--out: expected a file that ends in .nc or .json, got {out}")
    _ready()
    model = _of_transformers(path)
    holds, sentence = True, ""
    if model is None:
        model = load(path)
        holds, sentence = look(model, progress=not quiet)
    found = conformance(model, progress=not quiet)
    if out is not None:
        _write_found(found, out)
    print("\n".join(each for each in (sentence, conformance_table(found)) if each))
    return 0 if holds and found.attrs["holds"] == "yes" else FAILED


def _of_transformers(path: str) -> Any | None:
    """The model of a folder that transformers wrote, from the folder alone; None where it is none."""
    from solomonic.models.adapters import FAMILIES

    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        named = set(config.get("architectures") or ())
    except (OSError, ValueError, AttributeError):
        return None  # load says what is wrong with it
    if not named & FAMILIES.keys():
        return None
    from transformers import AutoModelForCausalLM  # pyright: ignore[reportMissingImports]

    return AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval().requires_grad_(False)


def _write_found(found: Any, out: Path) -> None:
    from solomonic.models.files import whole_file

    from .labelled import save_dataset

    if out.suffix == ".nc":
        save_dataset(found, out)
        return
    names = ["status", "size", "layer_of_failure", "position", "detail"]
    rows = []
    for name in found.check.values:
        row = {"check": str(name), **{each: found[each].sel(check=name).item() for each in names}}
        # JSON has no NaN and no infinity.
        row["size"] = None if row["size"] != row["size"] else row["size"]
        rows.append({key: str(value) if value in (float("inf"),) else value for key, value in row.items()})
    with whole_file(out) as beside:
        beside.write_text(json.dumps({"table": rows, **found.attrs}, indent=1) + "\n", encoding="utf-8")


@app.command
def recall(
    *,
    out: Annotated[Path, Parameter(name=["--out", "--out-dir", "-o"])] = Path("runs/recall"),
    minutes: float | None = None,
    seeds: int | None = None,
    models: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    smoke: Annotated[bool, Parameter(negative=())] = False,
    quiet: Quiet = False,
) -> None:
    """Train two-layer models of every kind on associative recall; table and plots of what each recalls.

    Stopped at any point, the same command goes on; whole seeds are done first.

    Parameters
    ----------
    out
        Folder of the study; `table.md` and the plots are written into it after every call.
    minutes
        Begin no run later than that after the start.
    seeds
        How many seeds, from 0 on.
    models
        Only these models.
    smoke
        One tiny run of three models, to see that it works.
    """
    from solomonic.models.recall_study import SMOKE, RecallStudy, run_recall_study

    from .recall_figures import write_recall_study

    _ready()
    study = SMOKE if smoke else RecallStudy()
    changes: dict[str, Any] = {} if seeds is None else {"seeds": tuple(range(seeds))}
    if models:
        changes["models"] = tuple(models)
    study = dataclasses.replace(study, **changes)
    try:
        results = run_recall_study(out, study, minutes=minutes, progress=not quiet)
    except KeyboardInterrupt:
        raise Stopped(f"{out} holds what is done; the same command goes on") from None
    if not results:
        raise Stopped(f"no run is done yet; {out} holds the beginnings")
    print(write_recall_study(results, out))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the entry point of ``solomonic``.

    Parameters
    ----------
    arguments : sequence of str or None
        What stands after ``solomonic`` on the command line; None takes it from there.

    Raises
    ------
    SystemExit
        Always: 0, 1 (a check failed), 2 (a call that cannot work) or 130 (Ctrl-C).

    Examples
    --------
    >>> try:
    ...     main(["describe", "no-such-folder"])
    ... except SystemExit as stop:
    ...     stop.code
    2
    """
    for stream in (sys.stdout, sys.stderr):  # a name that a terminal cannot show must not stop the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(_run(lambda: app(arguments, exit_on_error=False, result_action="return_value")))


def _run(call: Callable[[], Any]) -> int:
    try:
        done = call()
        sys.stdout.flush()
        return done if isinstance(done, int) else 0
    except CycloptsError:
        return WRONG  # already told
    except Stopped as stopped:
        return _say(f"stopped: {stopped}", STOPPED)
    except KeyboardInterrupt:
        return _say("stopped", STOPPED)
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (OSError, ValueError, TypeError) as error:
        return _say(f"solomonic: {_line(error)}", WRONG)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _line(error: Exception) -> str:
    """One line for an error; an OSError without its number."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return " ".join(f"{where}{error.strerror}".split())
    return " ".join(str(error).split()) or type(error).__name__


def _ready() -> None:
    """Denormal numbers make decaying states ten times slower, and change nothing that a report shows."""
    import torch

    torch.set_flush_denormal(True)


def _unique(checkpoints: Sequence[str]) -> dict[str, str]:
    """Each checkpoint by a name of its own: the folder's, with its parents' where two are alike."""
    out: dict[str, str] = {}
    for given in dict.fromkeys(checkpoints):
        parts = [part for part in Path(given).resolve().parts if part != os.sep] if Path(given).exists() else [given]
        depth = 1
        while "/".join(parts[-depth:]) in out and depth < len(parts):
            depth += 1
        out["/".join(parts[-depth:])] = given
    return out


def _read(text: Path) -> bytes:
    if not text.is_file():
        raise FileNotFoundError(f"--text: {text} is no file")
    return text.read_bytes()


def _card(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
