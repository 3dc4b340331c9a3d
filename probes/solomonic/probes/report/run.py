"""The report: measure, draw, write, all or nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from tqdm.auto import tqdm

from ..inputs import as_count, as_rng
from ..labelled import versions
from . import svg
from .assemble import page
from .card import card_file, memory_card
from .figures import WIDE, headline
from .folder import CARD, FORMAT, SUMMARY, report_folder
from .measure import STEPS, Measured, bend_edges, common_lags, measure, widest
from .memories import STEPS as MEMORY_STEPS
from .page import ModelPart, render
from .sections import section
from .stored import STEPS as STORED_STEPS
from .subjects import Subject, Text, context, subjects, text_for
from .work import work_on

PAGE = "index.html"


def report(
    models: Any,
    out_dir: str | Path = "report",
    *,
    name: str | None = None,
    text: Any = None,
    windows: int = 32,
    length: int | None = None,
    memories: bool = True,
    jobs: int | None = None,
    rng: int | None = 0,
    progress: bool = True,
) -> Path:
    r"""Measure how models forget and write it down: one page that is complete in itself, and the data beside it.

    The page has the fading curves :math:`F(\tau) = \mathrm{KL}(p \,\|\, p')` of all models on one pair of axes, and for
    each model its fading curve, the retention and half-lives of its state, the attention on fading tokens, the
    structure of its layers and heads, how much of its memories is used, seen, moved and needed, what interventions on
    them do, the information in its weights, its prediction errors,
    the split law, and bits by position and by distance. A table holds the numbers that a model card can quote.

    Parameters
    ----------
    models : HybridLM, path, str, sequence or mapping
        A model, a checkpoint folder or a name in :func:`solomonic.models.zoo`; or several of these, in a list or by
        name in a mapping. All have one vocabulary.
    out_dir : path
        The folder to write. An earlier report there is replaced (files in it that are not the report's stay);
        any other folder with something in it is refused.
    name : str or None
        What to call a single model; None takes the folder's name.
    text : str, bytes, array of int or None
        What the models read: text, for models of 256 tokens, read as bytes; token ids [prompts, T], for any. None
        takes the validation files of the standard library.
    windows : int
        Number of windows of text.
    length : int or None
        Length of a window, tokens; None takes 512, or four times the largest window of a layer if that is more.
    memories : bool
        Whether to measure how much of the memories is used, seen, moved and needed too, which takes half of the time.
    jobs : int or None
        How many models are measured at once, each in a process of its own; None takes two where there are two cores.
        The numbers are the same for any. Each process holds a model and what is measured of it, about 1 GB for a
        model of the zoo; 1 stays in this process.
    rng : int or None
        Seed of the choice of windows, of replacements and of bootstraps.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Path
        The page, ``index.html``. Beside it: a netCDF file for each model with a group for each probe (open it with
        ``xarray.open_datatree``), the picture as ``fading.svg`` and ``fading.png``, ``summary.json``, and
        ``memory-card.json``: half-life, exact span, effective state and observable share, each with its interval.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, the vocabularies differ, the text is too short, or ``out_dir`` is a file or a
        folder that holds something else.
    FileNotFoundError
        If a checkpoint is not there.
    RuntimeError
        If a process died, for want of memory most likely.
    OSError
        If the report cannot be written. Whatever stops it, Ctrl-C included, leaves what was in ``out_dir`` as it was.

    Notes
    -----
    The four models of the zoo take two to three minutes on two cores. Several models are measured with one torch thread
    each, whatever ``jobs`` is. The cost of the fading curves grows with
    ``windows`` times the sum of the lags; the probes of the memories read a few of the windows.

    Examples
    --------
    >>> import tempfile, torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import report
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (4, 24), generator=torch.Generator().manual_seed(0))
    >>> report(model, tempfile.mkdtemp(), name="tiny", text=ids, progress=False).name
    'index.html'
    """
    generator, seed = as_rng(rng)
    given = subjects(models, name)
    jobs = min(as_count(jobs, "jobs") if jobs is not None else min(2, os.cpu_count() or 1), len(given))
    with report_folder(out_dir) as beside:  # before the work, so that a folder that is refused is refused at once
        size = context(given, length)
        reading = text_for(given, text, windows, size, generator)
        lags = common_lags(given, reading.ids.shape[1])
        edges = bend_edges(given, reading.ids.shape[1])
        files = file_names([subject.name for subject in given])
        tasks = [_Task(i, subject, int(generator.integers(2**31))) for i, subject in enumerate(given)]
        tasks.sort(key=lambda task: -len(task.subject.model.empty_memory().parts()))  # what takes long comes first
        work = partial(
            _analyse,
            text=reading,
            lags=lags,
            edges=edges,
            memories=memories,
            folder=beside,
            files=files,
            window=widest(given),
            several=len(given) > 1,
            progress=progress and jobs == 1,
        )
        steps = len(STEPS) + 1 - (0 if memories else len(MEMORY_STEPS) + len(STORED_STEPS))
        with tqdm(total=len(given) * steps + 1, disable=not progress, unit="step", desc="report") as bar:

            def told(number: int, what: str) -> None:
                name = tasks[number].subject.name
                bar.set_description(f"{name}: {what}" if what else name)
                bar.update(what != STEPS[0])

            done = work_on(tasks, work, jobs=jobs, told=told)
            done = [each for _, each in sorted(zip([task.number for task in tasks], done, strict=True), key=_first)]
            measured = [replace(m, subject=subject) for (m, _), subject in zip(done, given, strict=True)]
            bar.set_description("page")
            _write(beside, measured, [part for _, part in done], reading, seed, files)
            bar.update()
    return Path(out_dir) / PAGE


class _Task(NamedTuple):
    """A model, its place on the page, and the seed of what is drawn for it."""

    number: int
    subject: Subject
    seed: int


def _analyse(
    task: _Task,
    step: Callable[[str], None],
    *,
    text: Text,
    lags: Any,
    edges: list[int],
    memories: bool,
    folder: Path,
    files: Mapping[str, str],
    window: int | None,
    several: bool,
    progress: bool,
) -> tuple[Measured, ModelPart]:
    """Measure a model, write its data and draw its section."""
    m = measure(task.subject, text, lags, edges, memories=memories, rng=task.seed, step=step, progress=progress)
    tree = xr.DataTree.from_dict({f"/{key}": dataset for key, dataset in m.data.items()})
    tree.to_netcdf(folder / files[m.name], engine="h5netcdf")
    part = section(task.number, m, window, several)
    step("")
    return m, part


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _write(
    folder: Path,
    models: Sequence[Measured],
    parts: Sequence[ModelPart],
    text: Text,
    seed: Any,
    files: Mapping[str, str],
) -> None:
    about = [(file, f"all Datasets of {name}, a group for each probe") for name, file in files.items()]
    about += [
        ("fading.svg", "the fading curves; follows light and dark"),
        ("fading.png", "the same on white"),
        (SUMMARY, "the numbers of this page for programs"),
        (CARD, "the memory of each model in numbers, for its card"),
    ]
    plot, alt = headline(models)
    (folder / "fading.svg").write_text(svg.standalone(plot, WIDE, alt=alt), encoding="utf-8")
    (folder / "fading.png").write_bytes(svg.picture(plot, WIDE, dpi=160))
    now = datetime.now(UTC)
    html = render(page(models, parts, text, date=f"{now:%-d %B %Y}", seed=seed, files=about))
    (folder / PAGE).write_text(html, encoding="utf-8")
    cards = {m.name: memory_card(m.data) for m in models}
    hashes = {m.name: m.data["fading"].attrs["checkpoint"] for m in models}
    reading = {"text": text.source, "windows": int(text.ids.shape[0]), "length": int(text.ids.shape[1]), "seed": seed}
    whole = json.dumps(card_file(cards, hashes, reading), indent=2, allow_nan=False)
    (folder / CARD).write_text(whole + "\n", encoding="utf-8")
    summary = {
        "format": FORMAT,
        "versions": versions(),
        "date": now.isoformat(timespec="seconds"),
        "seed": seed,
        "text": text.source,
        "windows": int(text.ids.shape[0]),
        "length": int(text.ids.shape[1]),
        "files": sorted([PAGE, *(file for file, _ in about)]),
        "models": {m.name: {"file": files[m.name], **summary_of(m), "card": cards[m.name]} for m in models},
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A netCDF file for every name: of plain characters, and different where they are the same.

    >>> file_names(["a/b", "a b", "../<x>"])
    {'a/b': 'a-b.nc', 'a b': 'a-b-2.nc', '../<x>': 'x.nc'}
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-._")[:80] or "model"
        file, number = f"{plain}.nc", 2
        while file.lower() in taken:
            file, number = f"{plain}-{number}.nc", number + 1
        taken.add(file.lower())
        out[name] = file
    return out


def summary_of(m: Measured) -> Mapping[str, Any]:
    """The numbers of one model, for programs; infinities and NaN are None."""
    curve = m.data["fading"]
    out: dict[str, Any] = {
        "pattern": m.pattern,
        "parameters": m.parameters,
        "checkpoint": curve.attrs["checkpoint"],
        "bits_a_token": m.bits,
        "memory_nbytes": {str(tokens): size for tokens, size in m.memory.items()},
        "cut": int(curve.attrs["cut"]),
        "last_influence": int(curve.attrs["last_influence"]),
        "reach": int(curve.attrs["reach"]),
        "lag": curve["lag"].to_numpy().tolist(),
        "kl_median": curve["kl_median"].to_numpy().tolist(),
        "kl_mean": curve["kl_mean"].to_numpy().tolist(),
        "split_law": {key: m.data["split_law"].attrs[key] for key in ("holds", "largest_error", "tolerance")},
        "trace_error": m.trace_error,
        "seconds": {key: round(value, 2) for key, value in m.seconds.items()},
    }
    if "bend" in m.data:
        found = m.data["bend"]
        out["bands"] = found["band"].to_numpy().tolist()
        out["edges"] = found["edge"].to_numpy().tolist()
        for key in ("slope", "slope_interval", "slope_change", "slope_change_interval", "step", "step_interval"):
            out[key] = found[key].to_numpy().tolist()
    if "innovations" in m.data:
        found = m.data["innovations"]
        out["errors"] = {
            "autocorrelation": found["autocorrelation"].to_numpy().tolist(),
            "p_value": float(found["p_value"].sel(test="redraw")),
            **{key: float(found[key]) for key in ("ece", "ece_calibrated", "ece_p_value")},
        }
    if "retention" in m.data:
        out["half_life"] = m.data["retention"]["half_life"].to_numpy().tolist()
        out["half_life_layers"] = m.data["retention"]["layer"].to_numpy().tolist()
    mass = curve["fading_mass"].dropna("layer", how="all")
    if mass.sizes["layer"]:
        out["fading_mass"] = mass.to_numpy().tolist()
    return _finite(out)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value
