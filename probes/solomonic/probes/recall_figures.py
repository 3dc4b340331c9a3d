"""Table and figures of the recall study as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from solomonic.models.files import whole_file

from .plots import recall_study
from .recall_table import recall_markdown, recall_table


def write_recall_study(results: Iterable[Mapping[str, Any]], out_dir: str | Path) -> str:
    """Write ``table.md``, ``by-pairs.png``, and for every number N of pairs ``by-lag-N.png`` and ``by-stored-N.png``.

    Parameters
    ----------
    results : iterable of mapping
        What :func:`solomonic.models.recall_study.recall_results` returns.
    out_dir : path
        Folder to write to.

    Returns
    -------
    str
        The table as Markdown.

    Raises
    ------
    ValueError
        If there are no results.

    Examples
    --------
    >>> import tempfile
    >>> run = {"model": "swa", "pairs": 4, "decay": "slow", "seed": 0, "accuracy": 0.3, "choice": 0.3,
    ...        "by_lag": {"to 16": 0.9}, "by_budget": {}, "memory_nbytes": 1024}
    >>> folder = Path(tempfile.mkdtemp())
    >>> text = write_recall_study([run], folder)
    >>> sorted(p.name for p in folder.iterdir())
    ['by-lag-4.png', 'by-pairs.png', 'table.md']
    """
    table, out_dir = recall_table(results), Path(out_dir)
    text = recall_markdown(table)
    with whole_file(out_dir / "table.md") as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    figures = {f"by-lag-{n}.png": {"by": "lag", "pairs": int(n)} for n in table["pairs"].values}
    figures["by-pairs.png"] = {"by": "pairs"}
    for n in table["pairs"].values:
        if np.isfinite(table["far_by_budget"].sel(pairs=n)).any():
            figures[f"by-stored-{n}.png"] = {"by": "stored", "pairs": int(n)}
    for name, options in figures.items():
        ax = recall_study(table, **options)
        with whole_file(out_dir / name) as beside:
            ax.figure.savefig(beside, format="png", dpi=150)  # type: ignore[union-attr]
    return text
