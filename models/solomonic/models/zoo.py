"""The trained checkpoints that ship with the package."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "checkpoints"

#: From exact and unlimited to both at once; the order of plots and tables.
_ORDER = ("transformer", "deadbeat", "fading", "bmojo-f", "bmojo")
#: Trained alike, for the same number of tokens.
_EQUAL = _ORDER[:4]
_RECALL = ("recall-fading", "recall-bmojo")


def zoo(task: str | None = None) -> dict[str, Path]:
    """The checkpoints that ship with the package, by name.

    Those that read bytes have the same data and the same number of parameters within 1 %: ``transformer`` (attention
    over all the past), ``deadbeat`` (sliding windows), ``fading`` (Mamba2) and ``bmojo-f`` (B'MOJO-F) were trained
    alike, for the same number of tokens; ``bmojo`` (B'MOJO, which stores 64 tokens a layer) saw fewer, and Muon moved
    its matrices, so that its bits are not to be compared with theirs. The small pair ``recall-fading`` (Mamba2) and
    ``recall-bmojo`` (B'MOJO) was trained to recall values by their keys (:func:`~solomonic.models.recall_rows`). Each
    folder has a ``card.json`` with recipe, seed and scores.

    Parameters
    ----------
    task : str or None
        ``"bytes"`` or ``"recall"`` for the models of one task alone, ``"equal"`` for the four that were trained alike.

    Returns
    -------
    dict of str to Path
        Name -> folder; :func:`load` takes either.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> from solomonic.models import zoo
    >>> list(zoo("bytes"))
    ['transformer', 'deadbeat', 'fading', 'bmojo-f', 'bmojo']
    >>> list(zoo("equal")) == list(zoo("bytes"))[:4]
    True
    >>> list(zoo("recall"))
    ['recall-fading', 'recall-bmojo']
    """
    if task not in (None, "bytes", "equal", "recall"):
        raise ValueError(f"task: expected 'bytes', 'equal', 'recall' or None, got {task!r}")
    found = {p.parent.name: p.parent for p in _FOLDER.glob("*/config.json")}
    rest = sorted(set(found) - set(_ORDER) - set(_RECALL))
    names = {"bytes": (*_ORDER, *rest), "equal": _EQUAL, "recall": _RECALL, None: (*_ORDER, *rest, *_RECALL)}[task]
    return {name: found[name] for name in names if name in found}
