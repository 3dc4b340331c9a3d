"""Validation bits during training, at equal tokens and at equal minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ._style import axes, colour, end_labels, looks, plain

_COLUMN = {"minutes": (0, 1.0, "training time, minutes"), "tokens": (1, 1e-6, "training tokens, millions")}


def learning_curves(
    curves: Mapping[str, Sequence[Any] | np.ndarray], *, against: str = "tokens", ax: Axes | None = None
) -> Axes:
    """Draw validation bits a token during training against tokens seen or minutes spent.

    Parameters
    ----------
    curves : mapping
        Name -> rows (minutes, tokens, bits), as a checkpoint's card has them under ``curve``.
    against : {"tokens", "minutes"}
        What to draw them against: equal data or equal time.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If ``against`` is something else, or a curve has no rows of three numbers.

    Examples
    --------
    >>> ax = learning_curves({"fading": [[1, 1e6, 2.1], [2, 2e6, 1.8]]}, against="minutes")
    >>> ax.get_xlabel()
    'training time, minutes'
    """
    if against not in _COLUMN:
        raise ValueError(f"against: expected 'tokens' or 'minutes', got {against!r}")
    column, unit, label = _COLUMN[against]
    if not isinstance(curves, Mapping):
        raise TypeError(f"curves: expected a mapping from names to rows, got {type(curves).__name__}")
    rows = {str(name): table(name, curve) for name, curve in curves.items()}
    if not rows:
        raise ValueError("curves: expected at least one, got none")
    ax = axes(ax)
    style = looks(rows)
    ends = []
    for name, curve in rows.items():
        look = style[name]
        tint = colour(look.colour)
        x = curve[:, column] * unit
        every = max(1, len(x) // 8)
        ax.plot(
            x,
            curve[:, 2],
            color=tint,
            linestyle=look.linestyle,
            marker=look.marker,
            markevery=every,
            markersize=5,
        )
        ends.append((float(x[-1]), float(curve[-1, 2]), str(name), tint))
    lowest = min(float(curve[:, 2].min()) for curve in rows.values())
    # The first rows are those of an untrained model: leave out what is far above where the curves spend their time.
    usual = max(float(np.quantile(curve[:, 2], 0.9)) for curve in rows.values())
    pad = max(0.08 * (usual - lowest), 0.02)
    ax.set_ylim(lowest - pad, usual + pad)
    ax.set_xlim(left=0)
    ax.set_xlabel(label)
    ax.set_ylabel("validation, bits a token")
    plain(ax)
    if len(rows) > 1:
        end_labels(ax, ends)
    return ax


def table(name: str, curve: Any) -> np.ndarray:
    """The rows (minutes, tokens, bits) of a curve as an array."""
    try:
        rows = np.asarray(curve, dtype=float)
    except (TypeError, ValueError):
        rows = np.empty((0, 3))
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(
            f"curves[{name!r}]: expected rows (minutes, tokens, bits) of finite numbers, got {curve!r:.80}"
        )
    return rows
