"""The sequence mixers, one a file. To add one: write its file and add its line to ``MIXERS``.

A mixer is an ``nn.Module`` whose parameters have the published names, with

``name``
    the attribute it has in a decoder layer, which is its prefix in a checkpoint;
``__init__(config, symbol)``
    builds it from a :class:`~solomonic.models.HybridConfig`;
``empty(batch_size, like)``
    its parts of the memory before the first token, tensors like ``like``;
``sizes(tokens)``
    numbers stored in each part after that many tokens, for one sequence;
``forward(h, past, tables, record)``
    h [B, T, d], its parts of the memory, the rotary tables and a recorder; returns the output [B, T, d] and the
    parts after the last token. ``record(name, value)`` hands out intermediate values, and is None where nobody asks.
"""

from ..config import HybridConfig
from .attention import Attention
from .bmojo_f import BMojoF
from .mamba2 import Mamba2

#: Pattern symbol -> mixer.
MIXERS = {
    "*": Attention,
    "SWA": Attention,
    "M2": Mamba2,
    "BMF": BMojoF,
}


def build_mixer(config: HybridConfig, symbol: str) -> Attention | Mamba2 | BMojoF:
    """The mixer of a pattern symbol."""
    return MIXERS[symbol](config, symbol)


__all__ = ["MIXERS", "Attention", "BMojoF", "Mamba2", "build_mixer"]
