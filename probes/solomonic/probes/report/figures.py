"""The figures of a report: a plot, its size, its caption and what it shows for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from .. import plots
from . import svg
from .measure import Measured
from .page import Figure
from .say import listed, small

#: Sizes in inches at 96 pixels each: across the page, on a small screen, and half of the page.
WIDE, NARROW, PANEL = (10.4, 5.6), (4.4, 4.6), (5.2, 3.7)


class Figures:
    """Draws figures whose ids begin with a key, and are apart from each other."""

    def __init__(self, key: str = "f") -> None:
        self._key, self._drawn = key, 0

    def _draw(self, plot: Callable[[Axes], object], size: tuple[float, float], alt: str):
        self._drawn += 1
        return svg.draw(plot, size, key=f"{self._key}{self._drawn}", alt=alt)

    def panel(
        self, plot: Callable[[Axes], object], alt: str, caption: str, *, size: tuple[float, float] = PANEL
    ) -> Figure:
        """A figure of half the page's width."""
        return Figure(self._draw(plot, size, alt), caption)

    def headline(self, models: Sequence[Measured], caption: str) -> Figure:
        """The fading curves of all models on one pair of axes."""
        plot, alt = headline(models)
        return Figure(self._draw(plot, WIDE, alt), caption, self._draw(plot, NARROW, alt), wide=True)


def headline(models: Sequence[Measured]) -> tuple[Callable[[Axes], object], str]:
    """The plot of all fading curves, and what it shows in words."""
    curves: Mapping[str, xr.Dataset] = {m.name: m.data["fading"] for m in models}

    def plot(ax: Axes) -> Axes:
        return plots.fading(curves if len(curves) > 1 else next(iter(curves.values())), ax=ax)

    return plot, "Fading curves on logarithmic axes, influence in bits against lag in tokens. " + " ".join(
        described(m) for m in models
    )


def described(m: Measured) -> str:
    """A fading curve in a sentence, for alternative texts."""
    curve = m.data["fading"]
    first, farthest = int(curve["lag"][0]), int(curve["lag"][-1])
    start = small(float(curve["kl_median"].sel(lag=first)), "bits")
    cut = int(curve.attrs["cut"])
    end = small(float(curve["kl_median"].sel(lag=farthest)), "bits")
    fall = f"exactly 0 from lag {cut} on" if cut >= 0 else f"{end} at lag {farthest}"
    return f"{m.name}: median {start} at lag {first}, {fall}."


def in_words(name: str, result: Mapping[str, Any] | None, what: str) -> str:
    """Bits in bins, in a sentence."""
    if not result:
        return ""
    pairs = [
        f"{small(float(v))} at {a} to {b}"
        for a, b, v in zip(result["edges"], result["edges"][1:], result["bits"], strict=False)
        if v is not None
    ]
    return f"{name}: bits {what} of {listed(pairs)}."
