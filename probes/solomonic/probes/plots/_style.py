"""What the plots share: who looks how, axes, log scales, marks and labels at the ends of curves."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Annotation, Text
from matplotlib.ticker import Formatter, LogLocator, NullFormatter

#: Colours that stay apart in grey and for the colour-blind; eidetic memory is blue, fading memory orange, both green.
#: ``"ink"`` is the colour of text, whatever the style in use says it is.
PALETTE = {
    "blue": "#1d5fa8",
    "orange": "#c8690a",
    "green": "#0d7f62",
    "purple": "#7d4ba0",
    "red": "#b3354a",
}
KIND_COLOUR = {"eidetic": "blue", "fading": "orange"}

#: Steps from white to the full colour on each side of a map of signed values: so few that a colour bar is no picture.
_STEPS = 20


def diverging_colours() -> dict[str, tuple[str, float]]:
    """The colours of a map of signed values from the lowest to the highest, each as (palette name, share of it).

    >>> list(diverging_colours().items())[::20]
    [('#1d5fa8', ('blue', 1.0)), ('#fefefe', ('blue', 0.0)), ('#c8690a', ('orange', 1.0))]
    """
    out = {}
    for step in range(-_STEPS, _STEPS + 1):
        name, share = ("orange" if step > 0 else "blue"), abs(step) / _STEPS
        full = (int(PALETTE[name][i : i + 2], 16) for i in (1, 3, 5))
        out["#" + "".join(f"{round(share * value + (1 - share) * 254):02x}" for value in full)] = (name, share)
    return out


class Look(NamedTuple):
    """How the curve of one model is drawn."""

    colour: str
    marker: str
    linestyle: Any


#: The zoo's models always look the same; others take what is left.
_ZOO_LOOKS = {
    "transformer": Look("ink", "o", "-"),
    "deadbeat": Look("blue", "s", (0, (5, 1.5))),
    "fading": Look("orange", "^", (0, (1.2, 1.2))),
    "bmojo-f": Look("green", "D", (0, (6, 1.5, 1.2, 1.5))),
    "bmojo": Look("purple", "p", "-"),
}
_OTHER_LOOKS = (
    Look("purple", "v", "-"),
    Look("red", "P", (0, (5, 1.5))),
    Look("blue", "X", (0, (3, 1, 1, 1, 1, 1))),
    Look("orange", "<", "-"),
    Look("green", ">", (0, (8, 2))),
    Look("ink", "h", (0, (2, 2))),
    Look("blue", "*", "-"),
    Look("orange", "p", (0, (5, 1.5))),
    Look("purple", "d", (0, (1.2, 1.2))),
    Look("red", "o", (0, (8, 2, 1.2, 2))),
    Look("green", "s", (0, (2, 2))),
    Look("ink", "v", (0, (8, 2))),
)


def colour(name: str) -> Any:
    """The colour of a palette name; ink is that of the text in the style in use."""
    return mpl.rcParams["text.color"] if name == "ink" else PALETTE[name]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every name; the same names in the same order look the same in every plot."""
    names = list(names)
    if len(names) == 1 and names[0] not in _ZOO_LOOKS:
        return {names[0]: _ZOO_LOOKS["deadbeat"]._replace(linestyle="-")}
    others = [name for name in names if name not in _ZOO_LOOKS]
    spare = dict(zip(others, (_OTHER_LOOKS[i % len(_OTHER_LOOKS)] for i in range(len(others))), strict=True))
    return {name: _ZOO_LOOKS.get(name) or spare[name] for name in names}


#: Layers from the input to the output.
_LAYERS = (("blue", "-"), ("green", (0, (6, 1.5))), ("orange", (0, (1.2, 1.2))), ("red", (0, (6, 1.5, 1.2, 1.5))))


def layer_lines(number: int) -> tuple[str, Any]:
    """Colour name and line style of a layer's curve."""
    return _LAYERS[number % len(_LAYERS)]


#: Backends that only write files.
_FILES_ONLY = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def axes(ax: Axes | None, *, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """The given axes, or those of a new figure.

    The figure is pyplot's where that shows it, in a notebook and in a window; else it is a bare one.
    """
    if ax is not None:
        if not isinstance(ax, Axes):
            raise TypeError(f"ax: expected matplotlib Axes or None, got {type(ax).__name__}")
        return ax
    in_use = "matplotlib.pyplot" in sys.modules or "ipykernel" in sys.modules
    if in_use and mpl.get_backend().lower() not in _FILES_ONLY:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=size, layout="constrained")[1]
    return Figure(figsize=size, layout="constrained").add_subplot()


def named(results: Any, default: str = "", *, kind: type = xr.Dataset, what: str = "result") -> dict[str, Any]:
    """One result or a mapping name -> result, as a mapping."""
    if isinstance(results, kind) and not (isinstance(results, dict) and all(map(_is_result, results.values()))):
        return {default: results}
    if isinstance(results, Mapping) and results:
        for name, value in results.items():
            if not isinstance(value, kind):
                raise TypeError(f"{what}[{name!r}]: expected {kind.__name__}, got {type(value).__name__}")
        return {str(name): value for name, value in results.items()}
    raise TypeError(f"{what}: expected {kind.__name__}, or a mapping from names to them, got {type(results).__name__}")


def _is_result(value: Any) -> bool:
    return isinstance(value, Mapping)


def variables(result: xr.Dataset, *names: str, what: str = "result") -> None:
    """Refuse what is no Dataset, or lacks variables."""
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"{what}: expected Dataset, got {type(result).__name__}")
    missing = [name for name in names if name not in result]
    if missing:
        raise ValueError(f"{what}: lacks {', '.join(missing)}; it has {', '.join(map(str, result.variables))}")


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(exponent: float) -> str:
    """10 to a whole exponent, in plain characters.

    >>> power(-12)
    '10⁻¹²'
    """
    return "10" + str(round(exponent)).translate(_SUPERSCRIPT)


class PowerFormatter(Formatter):
    """Ticks of a log axis as 0.01, 0.1, 1, 10 or as powers of ten, without mathematical typesetting."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if x <= 0:
            return ""
        exponent = math.log10(x)
        if abs(exponent - round(exponent)) > 1e-6:
            return f"{x:g}" if 1e-3 < x < 1e5 else ""
        return f"{x:g}" if -2 <= round(exponent) <= 3 else power(exponent)


def log_lags(ax: Axes, largest: float, *, smallest: float = 1) -> None:
    """A log axis of lags with ticks at powers of two."""
    ax.set_xscale("log", base=2)
    ax.set_xlim(smallest * 0.9, largest * 1.08)
    first, last = math.ceil(math.log2(smallest)), math.floor(math.log2(largest * 1.08) + 1e-9)
    step = 1 if last - first <= 6 or _inches(ax)[0] > 4.2 else 2
    ticks = [2.0**e for e in range(first, last + 1) if (last - e) % step == 0]
    if len(ticks) < 3:
        ticks = sorted({*ticks, *(3 * 2.0 ** (e - 1) for e in range(first - 1, last + 1))})
        ticks = [t for t in ticks if smallest <= t <= largest * 1.08]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("lag, tokens")


def log_bits(ax: Axes, low: float, high: float) -> None:
    """A log axis between two positive numbers with ticks at powers of ten."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    decades = math.log10(high / low)
    ax.yaxis.set_major_locator(LogLocator(base=10 ** max(1, math.ceil(decades / 7)), numticks=12))
    ax.yaxis.set_minor_locator(LogLocator(base=10, subs=(1.0,), numticks=40))
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())


def plain(ax: Axes) -> None:
    """No frame at the top and the right, a faint grid behind the curves."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", linewidth=0.6, alpha=0.25)
    ax.set_axisbelow(True)


def mark(ax: Axes, x: float, label: str, *, bottom: float | None = None) -> None:
    """A thin upright line at a lag, from ``bottom`` up, with its name above the axes."""
    low, high = ax.get_ylim()
    ax.vlines(
        x,
        low if bottom is None else max(low, bottom),
        high,
        color=colour("ink"),
        linewidth=0.8,
        alpha=0.45,
        linestyle=(0, (2, 2)),
        zorder=1,
    )
    ax.annotate(
        label,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize="small",
        parse_math=False,
    )


def bands(ax: Axes, layers: np.ndarray, heads: int) -> np.ndarray:
    """A band for every layer from the top down; returns the height [layers, heads] at which each head is drawn."""
    count = len(layers)
    where = np.arange(count)[:, None] + (np.arange(heads) - (heads - 1) / 2) * (0.7 / max(heads, 1))
    plain(ax)
    ax.grid(False, axis="y")
    for i in range(1, count):
        ax.axhline(i - 0.5, color=colour("ink"), linewidth=0.6, alpha=0.25)
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_yticks(range(count), [f"layer {layer}" for layer in layers])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return where


def bounds(result: xr.Dataset, name: str, *dims: str, **chosen: Any) -> np.ndarray | None:
    """Lower and upper bound [2, ...] of an interval, its dims in that order and some of them chosen; None without."""
    if name not in result:
        return None
    return result[name].sel(bound=["lower", "upper"], **chosen).transpose("bound", *dims).to_numpy()


def shade(ax: Axes, x: np.ndarray, limits: np.ndarray | None, tint: Any, *, alpha: float = 0.16) -> None:
    """The light band of a curve's interval, where it is known."""
    if limits is None or not np.isfinite(limits).all(0).any():
        return
    low, high = limits
    ax.fill_between(x, low, high, where=np.isfinite(limits).all(0), color=tint, alpha=alpha, linewidth=0)


def keep_curves_large(ax: Axes, top: float, bottom: float = 0.0) -> None:
    """Let bands leave the axes rather than press the curves between ``bottom`` and ``top`` flat."""
    room = 2.0 * (top - bottom)
    if room > 0:
        low, high = max(ax.dataLim.y0, bottom - room), min(ax.dataLim.y1, top + room)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def whiskers(ax: Axes, at: Any, limits: np.ndarray | None, tint: Any, *, across: bool = False, **style: Any) -> None:
    """Thin bars of the intervals of points, upright or ``across``, where they are known."""
    if limits is None or not np.isfinite(limits).all(0).any():
        return
    known = np.isfinite(limits).all(0)
    draw = ax.hlines if across else ax.vlines
    draw(np.asarray(at)[known], *limits[:, known], **{"color": tint, "linewidth": 1.1, "alpha": 0.75, **style})


def sparse(x: np.ndarray, count: int = 12, shift: float = 0.0) -> list[int]:
    """Indices of about ``count`` values spread evenly in their logarithm: where to put markers."""
    where = np.log(np.maximum(x, 1e-300))
    step = (where[-1] - where[0]) / max(count - 1, 1)
    if step <= 0:
        return [0]
    targets = where[0] + step * (np.arange(count) + shift)
    return sorted({int(np.abs(where - target).argmin()) for target in targets})


def end_labels(ax: Axes, ends: Sequence[tuple[float, float, str, Any]], *, gap: float = 1.25) -> list[Annotation]:
    """Names to the right of the ends of curves, pushed apart so that none covers another.

    ``ends`` holds (x, y, name, colour); ``gap`` is the distance of two lines in heights of the text.
    """
    if not ends:
        return []
    size = FontProperties(size="medium").get_size_in_points()
    height = size * gap / 72 * ax.figure.dpi / _height(ax)  # in axes fractions
    to_axes = ax.transData + ax.transAxes.inverted()
    where = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    placed = spread(where, height, low=0.0, high=1.0)
    out = []
    for (x, y, name, tint), target in zip(ends, placed, strict=True):
        out.append(
            ax.annotate(
                name,
                (x, y),
                xytext=(1.02, target),
                textcoords="axes fraction",
                va="center",
                ha="left",
                color=tint,
                fontweight="bold",
                annotation_clip=False,
                parse_math=False,
            )
        )
    return out


def _height(ax: Axes) -> float:
    """Height of the axes in pixels; before the layout has run, from the figure's size."""
    return max(_inches(ax)[1] * ax.figure.dpi, 1.0)


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes."""
    box = ax.get_position().transformed(ax.figure.transSubfigure)
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def spread(wanted: Sequence[float], gap: float, *, low: float, high: float) -> list[float]:
    """Places near the wanted ones, at least ``gap`` apart and between ``low`` and ``high`` where they fit.

    >>> [round(p, 2) for p in spread([0.5, 0.5, 0.0], 0.1, low=0, high=1)]
    [0.45, 0.55, 0.0]
    """
    order = np.argsort(wanted, kind="stable")
    at = np.asarray(wanted, dtype=float)[order]
    gap = min(gap, (high - low) / max(len(at) - 1, 1))
    for _ in range(200):
        close = np.diff(at) < gap - 1e-9
        if not close.any():
            break
        for i in np.flatnonzero(close):
            push = (gap - (at[i + 1] - at[i])) / 2
            at[i] -= push
            at[i + 1] += push
    at = np.clip(at, low, high)
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + gap)
    if at[-1] > high:
        at[-1] = high
        for i in range(len(at) - 2, -1, -1):
            at[i] = min(at[i], at[i + 1] - gap)
    out = [0.0] * len(at)
    for place, i in zip(at, order, strict=True):
        out[i] = float(place)
    return out


def in_bins(
    lag: np.ndarray, values: np.ndarray, edges: Iterable[int], *, count: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares over bins of lags that are even in their logarithm and never reach across an edge."""
    if len(lag) <= count:
        return lag, values
    spaced = np.unique(np.rint(np.geomspace(lag[0], lag[-1] + 1, count)))
    limits = np.unique([*spaced, *(e for e in edges if lag[0] < e <= lag[-1])])
    place = np.searchsorted(limits, lag, side="right") - 1
    x = [np.exp(np.log(lag[place == i]).mean()) for i in np.unique(place)]
    y = [np.sqrt((values[place == i] ** 2).mean()) for i in np.unique(place)]
    return np.array(x), np.array(y)


def legend(ax: Axes, **kwargs: Any) -> None:
    """A legend without a frame whose names are shown as they are (a dollar sign is a dollar sign); none of nothing."""
    if not ax.get_legend_handles_labels()[0]:
        return
    shown = ax.legend(frameon=False, fontsize="small", **kwargs)
    for text in shown.get_texts():
        text.set_parse_math(False)


def title(ax: Axes, text: str) -> Text:
    """A title at the left, shown as it is."""
    shown = ax.set_title(text, loc="left", fontsize="medium")
    shown.set_parse_math(False)
    return shown
