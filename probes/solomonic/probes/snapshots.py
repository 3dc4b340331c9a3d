"""What a model holds after chosen tokens, as plain arrays: parts of its memory, and its residual stream."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM
from solomonic.models.memory import StoredTokens, Value, tensors

from .inputs import finite

#: The name of the residual stream among the parts.
RESIDUAL = "residual"


@torch.no_grad()
def snapshots(
    model: HybridLM | AdaptedLM, ids: Tensor, times: np.ndarray, wanted: Iterable[tuple[int, str]]
) -> tuple[dict[tuple[int, str], np.ndarray], np.ndarray]:
    """Features of each wanted (layer, part), and logarithms of the next token's probabilities, after some tokens.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model.
    ids : Tensor
        Texts [prompts, T].
    times : ndarray of int
        Tokens after which to look, ascending.
    wanted : iterable of (int, str)
        Layers and parts; the part ``"residual"`` is the residual stream behind the layer.

    Returns
    -------
    features : dict of (int, str) to ndarray [prompts, times, d]
        Parts flattened. Those that grow with the text are left out.
    log_p : ndarray [prompts, times, vocabulary]
    """
    wanted = list(wanted)
    held: dict[tuple[int, str], list[np.ndarray]] = {key: [] for key in wanted}
    memory, start, predictions = None, 0, []
    device = next(model.parameters()).device
    hidden: dict[int, Tensor] = {}

    def record(layer: int, name: str, value: Tensor) -> None:
        if name == "hidden":
            hidden[layer] = value[:, -1]

    for t in times:
        out = model(ids[:, start : t + 1].to(device), memory=memory, record=record)
        memory, start = out.memory, int(t) + 1
        predictions.append(finite(out.logits[:, -1], "the logits").double().log_softmax(-1).cpu().numpy())
        for layer, part in wanted:
            value = hidden[layer] if part == RESIDUAL else memory.get(layer, part)
            held[layer, part].append(torch.cat([v.double().flatten(1) for v in _floats(value)], 1).cpu().numpy())
    steady = {key: np.stack(rows, 1) for key, rows in held.items() if len({row.shape for row in rows}) == 1}
    return steady, np.stack(predictions, 1)


def _floats(value: Value) -> list[Tensor]:
    """The tensors of a part that hold what was stored; of stored tokens keys and values, and no bookkeeping."""
    found = (value.key, value.value) if isinstance(value, StoredTokens) else tensors(value)
    return [v for v in found if v.is_floating_point()]


def sources(model: HybridLM | AdaptedLM, layers: tuple[int, ...]) -> list[tuple[int, str]]:
    """Every part of these layers, and the residual stream behind them where the model tells it."""
    held = model.empty_memory().layers
    out = [(layer, part) for layer in layers for part in held[layer]]
    return out + ([(layer, RESIDUAL) for layer in layers] if isinstance(model, HybridLM) else [])
