"""The blocks of one model about its prediction errors."""

from __future__ import annotations

from .. import plots
from . import error_readings as said
from .figures import Figures
from .measure import Measured
from .page import Block


def error_blocks(key: str, m: Measured, draw: Figures) -> list[Block]:
    """All blocks for which something was measured."""
    return [block for block in (_errors(key, m, draw),) if block is not None]


def _errors(key: str, m: Measured, draw: Figures) -> Block | None:
    if "innovations" not in m.data:
        return None
    data = m.data["innovations"]
    white, calibrated = said.whiteness(data), said.calibration(data)
    figures = [
        draw.panel(
            lambda ax: plots.innovations(data, ax=ax),
            f"Autocorrelation of the prediction errors against the lag. {white}",
            "Autocorrelation of the errors; the band holds 95 % of those of white errors, lag by lag.",
        ),
        draw.panel(
            lambda ax: plots.innovations(data, value="reliability", ax=ax),
            f"Share of the top predictions that came against their probability. {calibrated}",
            "How often the top prediction comes, bin by bin of its probability; on the line for a calibrated model.",
        ),
    ]
    reading = [
        "An error is the surprise of the token that came less the surprise that the prediction expects, over its "
        "standard deviation. If the memory holds all of the past that matters, no error can be foreseen from earlier "
        "ones.",
        white,
        calibrated,
    ]
    return Block(f"{key}-errors", "Prediction errors", reading, figures=figures)
