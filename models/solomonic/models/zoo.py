"""The trained checkpoints that ship with the package."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "checkpoints"

#: From exact and unlimited to both at once; the order of plots and tables.
_ORDER = ("transformer", "deadbeat", "fading", "bmojo-f")


def zoo() -> dict[str, Path]:
    """The checkpoints that ship with the package, by name.

    All have the same data, the same number of parameters within 1 % and the same number of training tokens:
    ``transformer`` (attention over all the past), ``deadbeat`` (sliding windows), ``fading`` (Mamba2) and ``bmojo-f``
    (B'MOJO-F). Each folder has a ``card.json`` with recipe, seed and scores.

    Returns
    -------
    dict of str to Path
        Name -> folder; :func:`load` takes either.

    Examples
    --------
    >>> from solomonic.models import zoo
    >>> list(zoo())
    ['transformer', 'deadbeat', 'fading', 'bmojo-f']
    """
    found = {p.parent.name: p.parent for p in _FOLDER.glob("*/config.json")}
    rest = sorted(set(found) - set(_ORDER))
    return {name: found[name] for name in (*_ORDER, *rest) if name in found}
