"""How the Fisher information of the weights moves while a model is trained: a short run of the zoo's ``fading``.

Run ``python benchmarks/fisher_path.py --out FOLDER``. The run takes about five minutes on one core and is kept there;
the same command goes on with it, and only reads it when it is done.
"""

from __future__ import annotations

import argparse
import dataclasses

import torch

from solomonic.models import stdlib_corpus, train, zoo_recipe
from solomonic.probes import fisher_path

STEPS, EVERY, TEXTS, CONTEXT = 800, 100, 16, 256
KINDS = ("A_log", "conv", "in_proj", "out_proj", "MLP", "embedding", "head")


def main() -> None:
    """Train, and print the table: bits, all parameters, and the information of kinds of parameters."""
    parser = argparse.ArgumentParser(description="How the Fisher information of the weights moves in training.")
    parser.add_argument("--out", default="runs/fisher-path")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config, recipe = zoo_recipe("fading")
    recipe = dataclasses.replace(recipe, steps=STEPS, matrix_lr=0.01)
    corpus = stdlib_corpus(woven=0.08)
    batches = corpus.batches(recipe.batch_size, recipe.context)
    train(config, batches, given.out, recipe, save_every=EVERY, keep=None)
    room = len(corpus.validation_plain) // CONTEXT
    text = corpus.validation_plain[: room * CONTEXT].reshape(room, CONTEXT)
    ids = torch.from_numpy(text[:: room // TEXTS][:TEXTS].astype("int64"))
    path = fisher_path(given.out, ids, samples=4, lambdas=[1e-5])
    print(f"{'tokens':>9}{'bits':>7}{'trace':>9}{'effective':>11}" + "".join(f"{kind:>11}" for kind in KINDS))
    for i in range(path.sizes["checkpoint"]):
        one = path.isel({"checkpoint": i, "lambda": 0})
        kinds = one.fisher_mean.groupby("kind").sum()
        cells = "".join(f"{float(kinds.sel(kind=kind)):11.3g}" for kind in KINDS)
        whole = f"{float(one.fisher_mean.sum()):9.1f}{float(one.effective.sum()):11.0f}"
        print(f"{float(one.tokens):9.0f}{float(one.bits.mean()):7.2f}{whole}{cells}")


if __name__ == "__main__":
    main()
