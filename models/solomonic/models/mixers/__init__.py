"""The sequence mixers, one a file. To add one: write its file (:class:`Mixer` says what it has) and add its line."""

from collections.abc import Callable

from ..config import HybridConfig
from .attention import Attention
from .bmojo import BMojo
from .bmojo_f import BMojoF
from .gdn import GatedDeltaNet
from .gka import GatedKalmaNet
from .mamba2 import Mamba2
from .mixer import Mixer, Record

#: Pattern symbol -> mixer, built from a configuration and the symbol.
MIXERS: dict[str, Callable[[HybridConfig, str], Mixer]] = {
    "*": Attention,
    "SWA": Attention,
    "M2": Mamba2,
    "GDN": GatedDeltaNet,
    "GKA": GatedKalmaNet,
    "BMF": BMojoF,
    "BMO": BMojo,
}

__all__ = ["MIXERS", "Attention", "BMojo", "BMojoF", "GatedDeltaNet", "GatedKalmaNet", "Mamba2", "Mixer", "Record"]
