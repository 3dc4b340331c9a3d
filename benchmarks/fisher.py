"""The tables of the page on information in the weights: kinds of parameters, and a training run of the zoo.

Run ``python benchmarks/fisher.py [kinds] [path]``; without names, both. ``path`` reads the checkpoints of ``solomonic
train fading --keep-all --out runs/fading`` (45 minutes on one core; ``--run`` names another folder).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from solomonic.models import load, stdlib_corpus
from solomonic.probes import fisher_information, fisher_path

TEXTS, CONTEXT = 16, 256
MODELS = ("fading", "bmojo-f", "transformer")
KINDS = ("in_proj", "conv", "A_log", "v", "MLP", "head")
ALONG = ("A_log", "conv", "in_proj", "out_proj", "MLP", "embedding", "head")


def texts() -> torch.Tensor:
    """Windows of the validation text, spread evenly."""
    text = stdlib_corpus().validation_plain
    room = len(text) // CONTEXT
    rows = text[: room * CONTEXT].reshape(room, CONTEXT)
    return torch.from_numpy(rows[:: room // TEXTS][:TEXTS].astype("int64"))


def kinds(ids: torch.Tensor) -> None:
    """Print the mean Fisher information of a parameter, by kind and model."""
    means = {}
    for name in MODELS:
        found = fisher_information(load(name), ids, samples=4, rng=0)
        means[name] = found.fisher_mean.groupby("kind").sum() / found["size"].groupby("kind").sum()
    print(f"{'kind':<10}" + "".join(f"{name:>14}" for name in MODELS))
    for kind in KINDS:
        cells = [f"{float(m.sel(kind=kind)):14.1e}" if kind in m.kind else f"{'':14}" for m in means.values()]
        print(f"{kind:<10}" + "".join(cells))


def path(ids: torch.Tensor, run: Path) -> None:
    """Print bits, the trace, the effective number of parameters, and the trace of kinds along a run."""
    found = fisher_path(run, ids, samples=4, lambdas=[1e-5])
    print(f"{'tokens':>9}{'bits':>7}{'trace':>9}{'effective':>11}" + "".join(f"{kind:>11}" for kind in ALONG))
    for i in range(found.sizes["checkpoint"]):
        one = found.isel({"checkpoint": i, "lambda": 0})
        sums = one.fisher_mean.groupby("kind").sum()
        cells = "".join(f"{float(sums.sel(kind=kind)):11.3g}" for kind in ALONG)
        whole = f"{float(one.fisher_mean.sum()):9.1f}{float(one.effective.sum()):11.0f}"
        print(f"{float(one.tokens):9.0f}{float(one.bits.mean()):7.2f}{whole}{cells}")


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description="Information in the weights: the tables of its page.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="kinds, path")
    parser.add_argument("--run", type=Path, default=Path("runs/fading"))
    given = parser.parse_args()
    if unknown := set(given.parts) - {"kinds", "path"}:
        parser.error(f"PART: expected kinds or path, got {unknown.pop()}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    ids = texts()
    if not given.parts or "kinds" in given.parts:
        kinds(ids)
    if not given.parts or "path" in given.parts:
        if given.run.is_dir():
            path(ids, given.run)
        else:
            print(f"no run in {given.run}; solomonic train fading --keep-all --out {given.run} makes one")


if __name__ == "__main__":
    main()
