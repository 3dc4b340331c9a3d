"""Parameters by layer and by what they do, read off their published names."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

__all__ = ["ParameterBlock", "parameter_blocks"]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")

#: The first pattern that is found in a name, behind its layer, says the kind.
_KINDS = (
    ("A_log", r"(^|\.)A_log$"),
    ("dt_bias", r"(^|\.)dt_bias$"),
    ("D", r"(^|\.)D$"),
    ("norm", r"(^|\.)\w*norm\w*\.(weight|bias)$"),
    ("conv", r"conv1d"),
    ("embedding", r"(^|\.)(embed_tokens|embeddings?|wte)\.weight$"),
    ("head", r"(^|\.)lm_head\."),
    ("MLP", r"(^|\.)(mlp|feed_forward|block_sparse_moe|experts|shared_mlp|shared_expert\w*|router)\."),
    ("MLP", r"(^|\.)(gate|up|down)_proj\."),
    *((name, rf"(^|\.){name}_proj\.") for name in ("q", "k", "v", "o")),
    *((name, rf"(^|\.){name}\.") for name in ("in_proj", "x_proj", "dt_proj", "out_proj")),
    ("gates", r"(^|\.)(in_proj_\w+|\w+_proj)\."),
)


class ParameterBlock(NamedTuple):
    """Parameters of one kind in one layer.

    Attributes
    ----------
    layer : int
        The layer; -1 of what is in none (embedding, last norm, head).
    kind : str
        ``A_log``, ``dt_bias``, ``D``, ``in_proj``, ``x_proj``, ``dt_proj``, ``conv``, ``out_proj``, ``gates``, ``q``,
        ``k``, ``v``, ``o``, ``MLP``, ``norm``, ``embedding``, ``head`` or ``other``.
    names : tuple of str
        Its parameters, as ``model.named_parameters()`` has them.
    """

    layer: int
    kind: str
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """``"2 A_log"``, or the kind alone of what is in no layer."""
        return self.kind if self.layer < 0 else f"{self.layer} {self.kind}"


def parameter_blocks(model: nn.Module) -> list[ParameterBlock]:
    """The parameters of a model, grouped by layer and kind.

    Parameters
    ----------
    model : torch.nn.Module
        A HybridLM, or any model whose layers are numbered in the names of its parameters.

    Returns
    -------
    list of ParameterBlock
        In the order in which the blocks come first; every parameter is in one of them, a tied one once.

    Examples
    --------
    >>> from solomonic.models import load
    >>> from solomonic.probes.parameter_blocks import parameter_blocks
    >>> [block.label for block in parameter_blocks(load("fading"))][:6]
    ['embedding', '0 dt_bias', '0 A_log', '0 D', '0 in_proj', '0 conv']
    """
    found: dict[tuple[int, str], list[str]] = {}
    for name, _ in model.named_parameters():
        layer = _LAYER.search(name)
        number, rest = (-1, name) if layer is None else (int(layer[1]), name[layer.end() :])
        kind = next((kind for kind, pattern in _KINDS if re.search(pattern, rest)), "other")
        found.setdefault((number, kind), []).append(name)
    return [ParameterBlock(layer, kind, tuple(names)) for (layer, kind), names in found.items()]
