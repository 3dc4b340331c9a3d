"""The block of one model about what interventions on its memory do."""

from __future__ import annotations

from .. import plots
from ..taps import has_fading_tokens, layer_window
from . import cause_readings as said
from .figures import Figures
from .measure import Measured
from .page import Block, Table


def cause_blocks(key: str, m: Measured, draw: Figures) -> list[Block]:
    """The block, where it was measured."""
    if "causal_trace" not in m.data:
        return []
    data = m.data["causal_trace"]
    most = said.strongest(data)
    figures = [
        draw.panel(
            lambda ax, path=path: plots.causal_trace(data, path=path, part=_whole(data), ax=ax),
            f"Map of the {path} effects of each layer's memory, over the tokens after which it was put back. {most}",
            f"{caption} A dot: its interval holds 0.",
        )
        for path, caption in (
            ("total", "What of the difference comes back with the memory of each layer, by when it is put back."),
            ("direct", "What of it the last token reads from that layer's own memory."),
        )
    ]
    table = Table(
        "What each memory does, put back right after the exchanged beginning",
        [*said.HEAD, said.control_head(data)],
        said.rows(data),
        "Positive: towards the prediction after the window's own beginning. 95 % intervals over windows.",
    )
    config = m.subject.model.config
    windows = [layer_window(config, i) or 0 for i, s in enumerate(config.pattern) if has_fading_tokens(s)]
    late = said.late(data, min(windows, default=None))
    reading = [said.pairs_said(data), most, said.controlled(data), *([late] if late else []), said.unsaid(data)]
    return [Block(f"{key}-causes", "What an intervention does", reading, figures=figures, tables=[table])]


def _whole(data) -> str:
    """What stands for a layer's whole memory: a model whose layers have one part has no other name for it."""
    parts = [str(each) for each in data["part"].to_numpy()]
    return "all" if "all" in parts else parts[0]
