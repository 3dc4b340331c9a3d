"""What interventions cost: a causal trace beside a full forward pass for every patch.

Run ``python benchmarks/interventions.py [MODEL]``. The other side is the usual way: run the whole text again for every
layer and position, with the patch made on the way. Both give the same effects; that is checked first.
"""

import sys
import time

import numpy as np
import torch

from solomonic import models, probes
from solomonic.probes.divergence import kl_bits

T, POSITIONS = 512, 64


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """A window of real source, and the same with six bytes changed in its middle."""
    corpus = models.stdlib_corpus(woven=0.0)
    ids = torch.from_numpy(corpus.validation_plain[:T].astype(np.int64))[None]
    other = ids.clone()
    other[:, T // 2 : T // 2 + 6] = torch.tensor(list(b"foobar"))
    return ids, other


def one_by_one(model, ids: torch.Tensor, other: torch.Tensor, times: list[int], part: str) -> np.ndarray:
    """Effects [times, layers], a full pass for each: the text up to the patch, then the rest."""
    goal, plain = model(other).logits[:, -1], model(ids).logits[:, -1]
    found = np.empty((len(times), len(model.layers)))
    for i, when in enumerate(times):
        theirs = model(other[:, : when + 1]).memory  # kept by whoever patches; not counted below
        for layer in range(len(model.layers)):
            mine = model(ids[:, : when + 1]).memory.transplant(theirs, parts=part, layers=layer)
            end = model(ids[:, when + 1 :], memory=mine).logits[:, -1]
            found[i, layer] = (kl_bits(goal, plain) - kl_bits(goal, end)).item()
    return found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    name = sys.argv[1] if len(sys.argv) > 1 else "bmojo-f"
    model = models.load(name)
    part = {"deadbeat": "window", "transformer": "kv"}.get(name, "state")
    ids, other = texts()
    with torch.no_grad():
        model(ids)
        passes = []
        for _ in range(9):
            began = time.process_time()
            model(ids)
            passes.append(time.process_time() - began)
        full = 4 * POSITIONS * float(np.median(passes))
        print(f"{name}, {part}, 4 layers x {POSITIONS} positions of {T} tokens, one thread, processor time")
        print(f"{'':34}{'seconds':>9}{'full passes / this':>20}")
        print(f"{'256 full forward passes':34}{full:9.2f}{1.0:20.1f}")
        spread = np.linspace(T // POSITIONS - 1, T - 2, POSITIONS).astype(int)
        for title, times in (("spread evenly", spread), ("the last 64", np.arange(T - 1 - POSITIONS, T - 1))):
            some = times[:: POSITIONS // 4].tolist()
            want = one_by_one(model, ids, other, some, part)
            probes.causal_trace(model, ids, other, times=some, parts=part)
            began = time.process_time()
            found = probes.causal_trace(model, ids, other, times=times, parts=part)
            took = time.process_time() - began
            gap = abs(found.effect.sel(time=some)[0].values - want).max()
            print(f"{'causal_trace, ' + title:34}{took:9.2f}{full / took:20.1f}   (largest difference {gap:.1e} bit)")
        began = time.process_time()
        found = probes.causal_trace(model, ids, other, times=spread, parts=part, first_order=True)
        estimate = time.process_time() - began
        print(f"{'  with first-order estimates':34}{estimate:9.2f}{'':20}   (rank correlation with the exact effects "
              f"{found.attrs['agreement']:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
