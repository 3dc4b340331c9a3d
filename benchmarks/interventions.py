"""What a sweep of patches costs next to whole forward passes: 4 layers x 64 times of a text of 512 tokens.

Run ``python benchmarks/interventions.py``. Both sides measure the same 256 total effects on the last prediction. The
full forwards read the text from its first token for every patch, in two calls around it; a further column takes one
plain call without any patch as the cost of each. Seconds of processor time on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from solomonic.models import HybridConfig, HybridLM, load
from solomonic.probes import causal_trace
from solomonic.probes.causal_plan import default_times

STEPS, TIMES = 512, 64


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of a call, and what it returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


@torch.no_grad()
def full_forwards(model: HybridLM, clean: torch.Tensor, corrupt: torch.Tensor, times: np.ndarray, two: Any) -> Any:
    """Total effects [layer, time] of all parts of a layer, every run from its first token."""
    out = np.zeros((len(model.layers), len(times)))
    base = model(corrupt).logits[0, -1].double()
    for place, t in enumerate(times.tolist()):
        donor = model(clean[:, : t + 1]).memory
        for layer in range(len(model.layers)):
            first = model(corrupt[:, : t + 1])
            memory = first.memory.transplant(donor, layers=layer)
            logits = model(corrupt[:, t + 1 :], memory).logits[0, -1].double()
            out[layer, place] = (logits - base)[two[0]] - (logits - base)[two[1]]
    return out


def compare(name: str, model: HybridLM, clean: torch.Tensor, corrupt: torch.Tensor) -> None:
    """Print the rows of one model."""
    with torch.no_grad():
        plain = min(seconds(lambda: model(clean))[0] for _ in range(5))
    places = {
        "default (by lag)": default_times(4, STEPS, TIMES),
        "last 64": np.arange(STEPS - 1 - TIMES, STEPS - 1),
        "evenly spaced": np.linspace(4, STEPS - 2, TIMES).astype(int),
    }
    for where, times in places.items():
        options = {"parts": "all", "paths": "total", "controls": (), "attribution": False, "batch_size": 128}
        fast, found = seconds(
            lambda times=times, options=options: causal_trace(model, clean, corrupt, times=times, **options)
        )
        two = [int(found.answer[0]), int(found.other[0])]
        slow, exact = seconds(lambda times=times, two=two: full_forwards(model, clean, corrupt, times, two))
        got = found.effect.to_numpy()[0, 0, 0]
        error = np.abs(got - exact).max() / np.abs(exact).max()
        four = 4 * len(times) * plain
        print(
            f"{name:>14}{where:>18}{slow:9.2f}{four:9.2f}{fast:9.2f}{slow / fast:8.1f}{four / fast:8.1f}{error:11.1e}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"{'model':>14}{'times':>18}{'full':>9}{'256 fwd':>9}{'trace':>9}{'faster':>8}{'(fwd)':>8}{'deviation':>11}")
    random = torch.Generator().manual_seed(0)
    for name in ("hybrid d=256", "fading"):
        if name.startswith("hybrid"):
            config = HybridConfig(
                pattern=("M2", "SWA", "M2", "SWA"), vocab_size=256, hidden_size=256, intermediate_size=768,
                num_attention_heads=8, num_key_value_heads=2, head_dim=32, swa_window=64,
            )  # fmt: skip
            model = HybridLM(config, rng=0)
        else:
            model = load(name)
        model = model.requires_grad_(False)
        clean = torch.randint(32, 127, (1, STEPS), generator=random)
        corrupt = clean.clone()
        corrupt[:, 4:8] = torch.randint(32, 127, (1, 4), generator=random)
        corrupt[:, 100:480:40] = torch.randint(32, 127, (1, 10), generator=random)
        compare(name, model, clean, corrupt)


if __name__ == "__main__":
    main()
