"""What a report measures of the memory's effects: what a memory of another past, put in its place, does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..causal_trace import causal_trace
from ..divergence import kl_bits

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("causal effects",)

#: Windows that are looked at, those of them that are traced, their tokens, the last ones of them that stay, and times.
CANDIDATES, TRACED, TOKENS, AHEAD, TIMES = 16, 8, 128, 32, 3

#: Sequences in a call: few, as each carries a whole memory, and large copies of it cost more than many small calls.
AT_ONCE = 16


class Pairs(NamedTuple):
    """Texts that differ in their beginnings, and the tokens whose probabilities that changes most.

    Attributes
    ----------
    clean, corrupt : Tensor
        Token ids [prompts, T].
    tail : int
        How many of the last tokens are the same.
    answer, other : Tensor
        The tokens [prompts] whose probability the own beginning raises and lowers most.
    """

    clean: Tensor
    corrupt: Tensor
    tail: int
    answer: Tensor
    other: Tensor


def measure_causes(model: HybridLM, ids: Tensor, *, cut: int, rng: int) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """The Dataset of the causal effects, or the reason why there is none; ``cut`` as in a fading curve."""
    found = pairs(model, ids, cut=cut)
    if isinstance(found, str):
        return {}, {"causal_trace": found}
    last = found.clean.shape[1] - 1
    lags = np.unique(np.linspace(1, found.tail, min(TIMES, found.tail)).round().astype(int))
    result = causal_trace(
        model,
        found.clean,
        found.corrupt,
        times=last - lags,
        answers=(found.answer, found.other),
        controls=["resample" if len(found.clean) > 1 else "random"],
        attribution=False,
        batch_size=AT_ONCE,
        rng=rng,
    )
    result.attrs["candidates"] = min(len(ids), CANDIDATES)
    return {"causal_trace": result}, {}


@torch.no_grad()
def pairs(model: HybridLM, ids: Tensor, *, cut: int) -> Pairs | str:
    """Windows beside themselves with the beginning of another one; those whose last prediction that changes most.

    The last tokens that stay are at most half as many as a token has an influence over, where ``cut`` (at least 0)
    says that it ends. A reason instead where no pair can be made or no prediction changes.
    """
    if len(ids) < 2:
        return "there is one window only, so that no other beginning can be put in the place of its own"
    steps = min(ids.shape[1], TOKENS)
    tail = min(AHEAD, steps // 2, max(1, cut // 2) if cut >= 0 else AHEAD)
    clean = ids[:CANDIDATES, -steps:]
    corrupt = torch.cat([clean.roll(1, 0)[:, :-tail], clean[:, -tail:]], 1)
    logits = model(torch.cat([clean, corrupt]).to(next(model.parameters()).device)).logits[:, -1].double().cpu()
    own, changed = logits.split(len(clean))
    most = kl_bits(own, changed).argsort(descending=True, stable=True)
    gain = own.softmax(-1) - changed.softmax(-1)
    answer, other = gain.argmax(-1), gain.argmin(-1)
    chosen = most[(answer != other)[most]][:TRACED]
    if not len(chosen):
        return f"no prediction changes when all but the last {tail} tokens are those of another window"
    return Pairs(clean[chosen], corrupt[chosen], tail, answer[chosen], other[chosen])
