"""The example of the page on linear probes: does a state know that a bracket is open?

Run ``python benchmarks/brackets.py [CHECKPOINT ...]``; without names, ``fading`` and ``bmojo-f``. About a minute each.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from solomonic.models import load, stdlib_corpus
from solomonic.probes import state_probe

TEXTS, CONTEXT, APART = 160, 256, 4096


def is_open(text: bytes) -> bool:
    """Whether more brackets were opened than closed."""
    depth = 0
    for byte in text:
        depth = depth + 1 if byte in b"([{" else max(0, depth - 1) if byte in b")]}" else depth
    return depth > 0


def main() -> None:
    """Print the scores of the best head, and of its controls."""
    parser = argparse.ArgumentParser(description="Does a state know that a bracket is open?")
    parser.add_argument("checkpoints", nargs="*", default=["fading", "bmojo-f"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = np.asarray(stdlib_corpus().validation)[: TEXTS * APART].reshape(TEXTS, APART)[:, :CONTEXT]
    labels = np.array([is_open(bytes(row.tolist())) for row in text], dtype=int)
    print(f"{TEXTS} texts of {CONTEXT} bytes, {100 * labels.mean():.0f} % with an open bracket")
    ids = torch.from_numpy(text.astype(np.int64))
    for name in given.checkpoints:
        found = state_probe(load(name), ids, labels, shuffles=2, strength=100.0)
        unit = found.score_mean.dims
        best = {dim: int(place) for dim, place in found.score_mean.argmax(unit).items()}
        controls = found.control_score.isel(best).mean("prompt")
        others = "  ".join(f"{c!s} {float(controls.sel(control=c)):.2f}" for c in found.control.values)
        at = ", ".join(f"{dim} {place}" for dim, place in best.items())
        scores = found.score_mean
        print(f"{name:12} {at}  {float(scores.isel(best)):.2f}  {others}  all {float(scores.min()):.2f} to "
              f"{float(scores.quantile(0.75)):.2f} (three quarters)")  # fmt: skip


if __name__ == "__main__":
    main()
