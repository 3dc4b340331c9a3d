"""What the stored tokens of the zoo's ``bmojo`` are worth: bits and accuracy of digits that the text gave earlier.

Run ``python benchmarks/stored_tokens.py``. The number of stored tokens and the norm by which they are chosen are
changed when the model is read out, not trained again. Woven lines give a random value of three digits and use it again;
a digit that is not recalled costs 3.32 bits. Errors are standard errors over the digits.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from solomonic.models import HybridLM, bits_per_token, load, stdlib_corpus
from solomonic.models.evaluation import windows

CONTEXT, WINDOWS = 512, 160
EDGES = (32, 64, 128, 256, 512)
VARIANTS = [("l2", 0), ("l2", 4), ("l2", 16), ("l2", 64), ("random", 16), ("random", 64)]


def variant(name: str, norm: str | None, tokens: int | None) -> HybridLM:
    """A model of the zoo, with another number of stored tokens chosen by another norm."""
    model = load(name)
    if tokens is None:
        return model
    changed = HybridLM(dataclasses.replace(model.config, eidetic_tokens=tokens, innovation_norm=norm))
    changed.load_state_dict(model.state_dict())
    return changed.eval()


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    corpus = stdlib_corpus(woven=0.08)
    rows, plain = (windows(each, CONTEXT, most=WINDOWS) for each in (corpus.validation, corpus.validation_plain))
    starts = np.arange(0, len(corpus.validation) - CONTEXT, CONTEXT)
    starts = starts[np.linspace(0, len(starts) - 1, WINDOWS).astype(int)]
    row, place, distance = [], [], []
    for i, start in enumerate(starts):
        low, high = np.searchsorted(corpus.recall[:, 0], [start + 1, start + CONTEXT + 1])
        where, back = corpus.recall[low:high, 0] - start, corpus.recall[low:high, 1]
        inside = back <= where  # the earlier value is in the window too
        row += [i] * int(inside.sum())
        place += (where[inside] - 1).tolist()
        distance += back[inside].tolist()
    back = np.array(distance)
    bands = [(a, b, (back >= a) & (back < b)) for a, b in itertools.pairwise(EDGES)]
    print(f"{'model':12}{'stored':>14}{'plain':>8}" + "".join(f"{f'{a} to {b} ({n.sum()})':>18}" for a, b, n in bands))
    others = [(name, None, None) for name in ("transformer", "deadbeat", "fading", "bmojo-f")]
    for name, norm, tokens in [("bmojo", *each) for each in VARIANTS] + others:
        model = variant(name, norm, tokens)
        bits = bits_per_token(model, rows)[row, place].numpy()
        text = float(bits_per_token(model, plain).mean())
        cells = [f"{bits[n].mean():11.2f} ± {bits[n].std() / max(1, n.sum()) ** 0.5:.2f}" for _, _, n in bands]
        stored = "-" if tokens is None else f"{tokens} {norm}"
        print(f"{name:12}{stored:>14}{text:8.3f}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
