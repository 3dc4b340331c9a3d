"""The block of one model about the information in its weights."""

from __future__ import annotations

from .. import plots
from . import weight_readings as said
from .figures import Figures
from .measure import Measured
from .page import Block, Table
from .say import small


def weight_blocks(key: str, m: Measured, draw: Figures) -> list[Block]:
    """The block, where it was measured."""
    if "fisher_information" not in m.data:
        return []
    data = m.data["fisher_information"]
    most = said.largest(data)
    figure = draw.panel(
        lambda ax: plots.fisher_information(data, ax=ax),
        f"Fisher information of a parameter of each kind, layer by layer. {most}",
        "Fisher information of a parameter, mean over its kind, with 95 % intervals over windows; a mark a layer.",
        size=(6.4, 3.9),
    )
    strength = float(data["lambda"][data.sizes["lambda"] // 2])
    table = Table(
        "The information in the weights by layer and block",
        said.HEAD,
        said.rows(data),
        f"A parameter counts as f / (f + λ), f its Fisher information and λ = {small(strength)}. 95 % intervals over "
        "windows, where there are several.",
    )
    reading = [said.what_it_is(data), most, said.limits()]
    return [Block(f"{key}-weights", "Information in the weights", reading, figures=[figure], tables=[table])]
