"""Bits a token against its position in the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ._style import axes, colour, end_labels, log_lags, looks, plain


def bits_by_position(results: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the mean bits a token, -log2 p(x_t | x_1 .. x_t-1), against the position t in the context.

    Parameters
    ----------
    results : mapping
        ``{"edges": [...], "bits": [...]}``, as a checkpoint's card has it under ``bits_per_byte_by_position``, or a
        mapping from names to such mappings. Bits of the bin from one edge to the next, which are in tokens; or
        ``"positions"`` in the place of the edges, one for each entry of ``bits``.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        If ``results`` has other keys, or lists of different lengths.

    Examples
    --------
    >>> ax = bits_by_position({"edges": [0, 64, 512], "bits": [1.9, 1.4]})
    >>> ax.get_ylabel()
    'bits a token'
    """
    ax = axes(ax)
    tables = series(results, "positions")
    draw(ax, tables)
    ax.set_xlabel("position in the context, tokens")
    return ax


def series(results: Any, points: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One table, or a mapping from names to tables, as (where, bits) by name; entries without a number are left out."""
    if not isinstance(results, Mapping) or not results:
        raise TypeError(f"results: expected a mapping with 'edges' and 'bits', got {results!r:.80}")
    tables = {"": results} if "bits" in results else results
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, table in tables.items():
        where = f"results[{name!r}]" if name else "results"
        if not isinstance(table, Mapping) or "bits" not in table or not {"edges", points} & set(table):
            raise ValueError(f"{where}: expected the keys 'edges' (or {points!r}) and 'bits', got {table!r:.80}")
        bits = np.array([np.nan if v is None else v for v in table["bits"]], dtype=float)
        x = centres(table["edges"]) if "edges" in table else np.asarray(table[points], dtype=float)
        if len(x) != len(bits) or not len(bits):
            raise ValueError(f"{where}: expected a number of bits for every bin, got {len(bits)} for {len(x)} bins")
        out[str(name)] = x[np.isfinite(bits)], bits[np.isfinite(bits)]
    return out


def centres(edges: Any) -> np.ndarray:
    """The geometric middles of bins, where the first edge counts as at least 1."""
    edges = np.maximum(np.asarray(edges, dtype=float), 1.0)
    return np.sqrt(edges[:-1] * edges[1:])


def draw(ax: Axes, tables: Mapping[str, tuple[np.ndarray, np.ndarray]], *, from_zero: bool = False) -> None:
    """A curve of bits for every name, on a log axis of tokens."""
    style = looks(tables)
    ends = []
    for name, (x, bits) in tables.items():
        if not len(x):
            continue
        look = style[name]
        tint = colour(look.colour)
        ax.plot(x, bits, color=tint, marker=look.marker, linestyle=look.linestyle, markersize=5, label=name or None)
        ends.append((float(x[-1]), float(bits[-1]), name, tint))
    if ends:
        x = np.concatenate([x for x, _ in tables.values()])
        log_lags(ax, float(x.max()), smallest=float(x.min()))
    if from_zero:
        ax.set_ylim(0, ax.get_ylim()[1] * 1.05)
    ax.set_ylabel("bits a token")
    plain(ax)
    if len(ends) > 1:
        end_labels(ax, ends)
