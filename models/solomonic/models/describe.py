"""What a checkpoint is, without reading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .checkpoint import _dtype, _locate, find, read_config
from .config import HybridConfig
from .lm import HybridLM
from .memory import KINDS


@dataclass(frozen=True)
class LayerDescription:
    """One layer: its symbol, its parameters, and the memory it carries (part -> bytes after ``tokens`` tokens)."""

    index: int
    symbol: str
    parameters: int
    memory_nbytes: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """What :func:`describe` returns.

    Parameters
    ----------
    config : HybridConfig
        The architecture.
    shapes : mapping
        Shape of each tensor by its published name.
    layers : tuple of LayerDescription
        Parameters and memory of each layer.
    parameters, nbytes : int
        Numbers in all, and their bytes in the stored dtype.
    tokens : int
        The length for which the memory is given.
    memory_nbytes : int
        Bytes of the memory of one sequence after that many tokens.
    files : tuple of str
        The files with weights that were found; empty where there are none.
    """

    config: HybridConfig
    shapes: Mapping[str, tuple[int, ...]]
    layers: tuple[LayerDescription, ...]
    parameters: int
    nbytes: int
    tokens: int
    memory_nbytes: int
    files: tuple[str, ...]

    def __repr__(self) -> str:
        c = self.config
        head = (
            f"{len(c.pattern)} layers, d = {c.hidden_size}, {c.num_attention_heads} heads of {c.head_dim} "
            f"({c.num_key_value_heads} of keys and values), vocabulary {c.vocab_size}\n"
            f"{self.parameters:,} parameters, {self.nbytes:,} bytes in {c.dtype}\n"
            f"memory of one sequence after {self.tokens:,} tokens: {self.memory_nbytes:,} bytes"
        )
        rows = [
            f"{layer.index:>5}  {layer.symbol:<4} {layer.parameters:>13,}  "
            + ", ".join(f"{part} {size:,} ({KINDS[part]})" for part, size in layer.memory_nbytes.items())
            for layer in self.layers
        ]
        return "\n".join([head, "layer        parameters  memory, bytes", *rows])


def describe(path: str | Path, *, tokens: int = 2048) -> Description:
    """Names, shapes and bytes of a checkpoint and of the memory it carries, from its configuration alone.

    Parameters
    ----------
    path : path or str
        A checkpoint folder (its files with weights may be missing), a ``config.json``, or a name in the zoo.
    tokens : int
        Length for which the memory is counted, tokens.

    Returns
    -------
    Description
        It prints as a table.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load` does for the folder and its configuration.

    Examples
    --------
    >>> from solomonic.models import describe
    >>> describe("deadbeat", tokens=512).layers[0].memory_nbytes
    {'window': 65536}
    """
    if not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"tokens: expected a whole number of at least 0, got {tokens!r}")
    folder = Path(path) if Path(path).is_file() else find(path)
    config = read_config(folder)
    width = torch.empty((), dtype=_dtype(config.dtype)).element_size()
    with torch.device("meta"):
        model = HybridLM(config).to(_dtype(config.dtype))
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    layers = tuple(
        LayerDescription(
            i,
            symbol,
            sum(p.numel() for p in layer.parameters()),
            layer.mixer.nbytes(tokens, width),
        )
        for i, (symbol, layer) in enumerate(zip(config.pattern, model.layers, strict=True))
    )
    parameters = sum(p.numel() for p in model.parameters())
    try:
        files = tuple(sorted({file.name for file in _locate(folder).values()})) if folder.is_dir() else ()
    except FileNotFoundError:
        files = ()
    return Description(
        config, shapes, layers, parameters, parameters * width, tokens, model.memory_nbytes(tokens), files
    )
