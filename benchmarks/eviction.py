"""The table of the page on stored tokens: what innovation keeps, and what it does, on three kinds of rows.

Run ``python benchmarks/eviction.py``; two minutes on one thread.
"""

from __future__ import annotations

import torch

from solomonic.models import load, recall_rows, with_eidetic
from solomonic.models.tasks import mqar
from solomonic.probes import eviction

ROWS, CUT = 64, 32


def main() -> None:
    """Print a row for each kind of rows and layer."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model, rows = load("recall-bmojo"), recall_rows(ROWS, rng=11)
    noise = mqar(ROWS, length=64, pairs=4, queries=4, noise=True, rng=1)
    at_random = with_eidetic(model, model.config.eidetic_tokens, norm="random")
    for name, subject, given in (
        ("filler", model, rows),
        ("drawn at random", at_random, rows),
        ("noise", model, noise),
    ):
        found = eviction(subject, given.ids, cut=CUT, targets=given.targets)
        for layer in found.layer.values:
            one = found.sel(layer=layer)
            low, high = one.rank_correlation_mean_interval.sel(ranking="score").values
            rank = f"{float(one.rank_correlation_mean.sel(ranking='score')):.2f} ({low:.2f} to {high:.2f})"
            effects = f"{float(one.stored_effect_mean):.3f}, {float(one.other_effect_mean):.3f} ({float(one.p):.2g})"
            share = ", ".join(f"{float(one.share_mean.sel(choice=s)):.2f}" for s in ("kept", "oracle", "random"))
            loss = ", ".join(
                f"{float(one.set_loss.sel(choice=s).mean('prompt')):.2f}" for s in ("kept", "oracle", "random", "none")
            )
            print(f"| {name}, {layer} | {rank} | {effects} | {share} | {loss} |", flush=True)


if __name__ == "__main__":
    main()
