"""Figures as inline SVG whose colours follow the page, in light and in dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..plots._style import PALETTE, diverging_colours

#: Stand-ins that are drawn and then replaced by the page's own colours.
INK, PAPER = "#010203", "#fdfcfb"

#: Colour in the figure -> (CSS variable, light, dark).
THEME = {
    INK: ("ink", "#23272d", "#dcdad5"),
    PAPER: ("paper", "#fdfcfa", "#17191d"),
    PALETTE["blue"]: ("blue", PALETTE["blue"], "#82b4f2"),
    PALETTE["orange"]: ("orange", PALETTE["orange"], "#f0a54e"),
    PALETTE["green"]: ("green", PALETTE["green"], "#52c9a4"),
    PALETTE["purple"]: ("purple", PALETTE["purple"], "#c7a4e8"),
    PALETTE["red"]: ("red", PALETTE["red"], "#f08b98"),
}
#: Colour of a map of signed values -> a mix of the page's own.
_MIXED = {
    mixed: f"color-mix(in srgb, var(--{name}, {PALETTE[name]}) {100 * share:g}%, var(--paper, {THEME[PAPER][1]}))"
    for mixed, (name, share) in diverging_colours().items()
    if share < 1
}

_RC: dict[Any, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.labelsize": "small",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": INK,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "savefig.facecolor": "none",
    "legend.labelcolor": INK,
    "font.family": ["sans-serif"],
    "font.size": 11.0,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "solomonic",
    "axes.unicode_minus": True,
}


def variables(theme: int) -> str:
    """The CSS variables of the light (1) or dark (2) theme."""
    return " ".join(f"--{value[0]}: {value[theme]};" for value in THEME.values())


def draw(plot: Callable[[Axes], object], size: tuple[float, float], *, key: str, alt: str) -> Markup:
    """An inline ``<svg>`` of ``plot``, ``size`` in inches; ``key`` sets its ids apart from other figures'."""
    return Markup(inline(_render(plot, size), key=key, alt=alt))


def standalone(plot: Callable[[Axes], object], size: tuple[float, float], *, alt: str) -> str:
    """A whole SVG file of ``plot`` that follows the reader's light or dark setting by itself."""
    svg = inline(_render(plot, size), key="f", alt=alt)
    style = (
        f"<style>:root {{ {variables(1)} }} @media (prefers-color-scheme: dark) {{ :root {{ {variables(2)} }} }} svg "
        "{ background: var(--paper); } text "
        "{ font-family: system-ui, 'DejaVu Sans', sans-serif !important; }</style>"
    )
    head, body = svg.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>\n{style}{body}\n'


def picture(plot: Callable[[Axes], object], size: tuple[float, float], *, dpi: int = 200) -> bytes:
    """A PNG of ``plot`` on white paper."""
    colours: dict[Any, Any] = {key: THEME[INK][1] for key, value in _RC.items() if value == INK}
    with mpl.rc_context({**_RC, **colours}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = _figure(plot, size)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        return out.getvalue()


def _figure(plot: Callable[[Axes], object], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    plot(figure.add_subplot())
    return figure


def _render(plot: Callable[[Axes], object], size: tuple[float, float]) -> str:
    with mpl.rc_context(_RC), warnings.catch_warnings():
        # Text stays text and is set in the reader's fonts, so what this machine's fonts lack does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = _figure(plot, size)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        return out.getvalue()


_TAG = re.compile(r"<[^>]+>")
_FILLED = re.compile(r"((?:fill|stroke): )(#\w{6})")
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
_IN_TAGS = (
    (re.compile(r'\bid="([^"]*)"'), r'id="{key}-\1"'),
    (re.compile(r'\b(?:xlink:)?href="#([^"]*)"'), r'href="#{key}-\1"'),
    (re.compile(r"url\(#([^)]*)\)"), r"url(#{key}-\1)"),
    (re.compile(r"(\d+\.\d{2})\d+"), r"\1"),
    (re.compile(r"font-family: [^;\"]*"), "font-family: var(--sans, sans-serif)"),
    (re.compile(r"font: ((?:[a-z]+ |\d00 )*)([\d.]+)px [^;\"]*"), r"font: \1\2px var(--sans, sans-serif)"),
    (re.compile(r"\s*\n\s*"), " "),
)


def inline(svg: str, *, key: str, alt: str) -> str:
    """Matplotlib's SVG made fit for a page: ids apart, colours as CSS variables, no namespaces, an accessible name."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = _STYLE.sub("", svg, count=1).split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    width, height = (float(v) for v in box[1].split()[2:])

    def mend(tag: re.Match[str]) -> str:
        text = tag[0]
        for pattern, new in _IN_TAGS:
            text = pattern.sub(new.format(key=key), text)
        for colour, (name, light, _) in THEME.items():
            text = text.replace(colour, f"var(--{name}, {light})")
        return _FILLED.sub(lambda found: found[1] + _MIXED.get(found[2], found[2]), text)

    body = re.sub(r">\s+<", ">\n<", _TAG.sub(mend, body))
    scale = 96 / 72
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width * scale:.0f}" height="{height * scale:.0f}">{body}'
    )
