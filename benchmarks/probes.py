"""What each probe takes on a checkpoint of the zoo, one after another: wall time, CPU time and the growth of memory.

    python benchmarks/probes.py                    # bmojo-f, T = 1024, two threads
    python benchmarks/probes.py --only steer fading --model fading

Every probe runs with its default arguments on windows of the library's own text. CPU time is that of all threads: on
a machine that others use, it says what wall time hides. Peak memory is the growth of the process's largest resident
size, each probe in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from typing import Any

#: Windows of text for probes that read several: a bootstrap needs some, and smaller states are scored on half.
WINDOWS = 8


def probes(name: str, length: int) -> dict[str, Callable[[], Any]]:
    """Every probe of a model, ready to be called."""
    import numpy as np
    import torch

    from solomonic import probes as p
    from solomonic.models import load, stdlib_corpus

    model = load(name)
    text = stdlib_corpus().validation_plain
    many = torch.from_numpy(text[: WINDOWS * length].astype(np.int64)).view(WINDOWS, length)
    one, swapped = many[0], many[:2].clone()
    swapped[:, length // 2 : length // 2 + 8] = many[2:4, length // 2 : length // 2 + 8]
    states = [i for i, parts in enumerate(model.empty_memory().layers) if "state" in parts]
    layer = states[-1] if states else None
    run = p.trace(model, one, attention=True)
    out: dict[str, Callable[[], Any]] = {
        "trace": lambda: p.trace(model, one, attention=True),
        "retention": lambda: p.retention(run),
        "effective_state": lambda: p.effective_state(run),
        "receptive_field": lambda: p.receptive_field(run),
        "memory_curve": lambda: p.memory_curve(run),
        "fading": lambda: p.fading(model, many),
        "decay_law": lambda: p.decay_law(p.fading(model, many)),
        "fading_by_memory": lambda: p.fading_by_memory(model, many[:2]),
        "layer_influence": lambda: p.layer_influence(model, 0, one),
        "sensitivity": lambda: p.sensitivity(model, one),
        "lyapunov": lambda: p.lyapunov(model, one),
        "structure": lambda: p.structure(model, 0, ids=one),
        "structures": lambda: p.structures(model, ids=one),
        "split_law": lambda: p.split_law(model, one),
        "distinguishability": lambda: p.distinguishability(model, many),
        "innovations": lambda: p.innovations(model, many),
        "sufficiency": lambda: p.sufficiency(model, many[:4, :-32], many[4:8, :-32]),
        "extra_information": lambda: p.extra_information(model, many, part="residual", folds=4),
        "fisher_information": lambda: p.fisher_information(model, many[:4]),
        "causal_trace": lambda: p.causal_trace(model, many[:2], swapped, parts="all", controls=()),
    }
    if layer is not None:
        target = 1.02 * model(one[None]).memory.get(layer, "state")[0]  # type: ignore[index]
        out |= {
            "hidden_attention": lambda: p.hidden_attention(run, layer, 0),
            "observability": lambda: p.observability(model, one),
            "controllability": lambda: p.controllability(model, one),
            "empirical_gramians": lambda: p.empirical_gramians(model, one, layer),
            "unsaid": lambda: p.unsaid(model, one, layer),
            "steer": lambda: p.steer(model, one, target, layer),
            "compress": lambda: p.compress(model, many),
            "compression": lambda: p.compression(model, many[:4]),
        }
    return out


def once(model: str, length: int, name: str, threads: int, out: Any) -> None:
    """Time one probe in this process and put (wall, CPU, growth of memory in MiB) or the error."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(
        True
    )  # as the command does: decaying states end in numbers that are slow and change nothing
    with torch.no_grad():
        call = probes(model, length)[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    out.put((wall, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What each probe takes on a checkpoint of the zoo.")
    parser.add_argument("--model", default="bmojo-f")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    names = given.only or list(probes(given.model, 256))
    spawn = multiprocessing.get_context("spawn")
    print(f"{given.model}, T = {given.length}, {given.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'probe':20s} {'wall, s':>8s} {'CPU, s':>8s} {'memory, MiB':>12s}")
    for name in names:
        queue = spawn.Queue()
        process = spawn.Process(target=once, args=(given.model, given.length, name, given.threads, queue))
        process.start()
        process.join()
        wall, cpu, size = queue.get() if process.exitcode == 0 else (float("nan"),) * 3
        print(f"{name:20s} {wall:8.1f} {cpu:8.1f} {size:12.0f}", flush=True)


if __name__ == "__main__":
    main()
