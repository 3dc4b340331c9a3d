"""Speed and memory of ``ssd`` beside the torch path of transformers (Mamba-2, chunks of 256).

Two rivals: the torch path of the transformers that is installed, and the same chunked form with every product of
matrices written as a broadcast product and a sum, which is how transformers computed it up to 5.3.

Run ``python benchmarks/ssd.py``. Results are compared with the float64 reference first; no speed is printed
for an operation that is wrong. Times are the least of several runs, taken in turns, so that other work on the machine
counts little and alike; what states and statistics add is a ratio of medians of processor time, in turns too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import torch
from _memory import peak_resident

from solomonic.kernels import ssd

# Largest error relative to the largest value of the reference, for outputs and for gradients.
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
TRANSFORMERS_CHUNK = 256


class Shape(NamedTuple):
    """Sizes of one call, and the threads it runs on."""

    B: int
    T: int
    H: int
    P: int
    N: int
    G: int
    threads: int


SHAPES = {
    "one layer, shared B and C": Shape(1, 4096, 8, 64, 64, 1, threads=2),
    "training, a group per head": Shape(4, 512, 4, 32, 32, 4, threads=1),
}
LENGTHS = (4096, 8192, 16384, 32768)


def inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x, dt, A, B, C and D with the ranges of a freshly initialised Mamba-2 layer."""
    g = torch.Generator().manual_seed(0)
    B, T, H, P, N, G, _ = shape
    step = torch.exp(torch.empty(B, T, H, dtype=torch.float64).uniform_(-6.9, -2.3, generator=g))
    rate = -torch.empty(H, dtype=torch.float64).uniform_(1, 16, generator=g)
    normal = [torch.randn(B, T, *s, generator=g, dtype=torch.float64) for s in ((H, P), (G, N), (G, N))]
    tensors = [normal[0], step, rate, normal[1], normal[2], torch.ones(H, dtype=torch.float64)]
    return [t.to(dtype).requires_grad_() for t in tensors]


def ours(tensors: list[torch.Tensor], backend: str = "auto") -> torch.Tensor:
    """y from `solomonic.kernels.ssd`."""
    *required, D = tensors
    x, dt, A, B, C = required
    return ssd(x, dt, A, B, C, D=D, backend=backend).y


def theirs(tensors: list[torch.Tensor]) -> torch.Tensor:
    """y from the torch path of transformers."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    x, dt, A, B, C, D = tensors
    return mamba2_chunk_scan(x, dt, A, B, C, TRANSFORMERS_CHUNK, D=D)  # type: ignore[return-value]


def broadcast_products(tensors: list[torch.Tensor]) -> torch.Tensor:
    """y by the chunked form in chunks of 256, each contraction as an elementwise product and a sum."""
    x, dt, A, B, C, D = tensors
    T, H = x.shape[1:3]
    Q, n = TRANSFORMERS_CHUNK, -(-T // TRANSFORMERS_CHUNK)

    def chunks(value: torch.Tensor) -> torch.Tensor:
        value = torch.nn.functional.pad(value, (0, 0) * (value.dim() - 2) + (0, n * Q - T))
        return value.unflatten(1, (n, Q))

    keys, queries = (chunks(v.repeat_interleave(H // v.shape[2], 2)) for v in (B, C))  # [b, n, Q, H, N]
    writes = chunks(x * dt[..., None])  # [b, n, Q, H, P]
    c = chunks(dt * A).cumsum(2)  # [b, n, Q, H]
    lower = torch.ones(Q, Q, dtype=torch.bool).tril()[:, :, None]
    tile = (c[:, :, :, None] - c[:, :, None]).masked_fill(~lower, -torch.inf).exp()  # [b, n, Q, Q, H]
    scores = (queries[:, :, :, None] * keys[:, :, None]).sum(-1) * tile
    inside = (scores[..., None] * writes[:, :, None]).sum(3)
    decayed = keys * (c[:, :, -1:] - c).exp()[..., None]
    made = (decayed[..., None, :] * writes[..., None]).sum(2)  # [b, n, H, P, N]
    state, entering = torch.zeros_like(made[:, 0]), []
    for i in range(n):
        entering.append(state)
        state = c[:, i, -1].exp()[..., None, None] * state + made[:, i]
    carried = (queries[..., None, :] * torch.stack(entering, 1)[:, :, None]).sum(-1) * c.exp()[..., None]
    return (inside + carried).flatten(1, 2)[:, :T] + D[:, None] * x


def least(calls: dict[str, Callable[[], object]], seconds: float = 0.5, rounds: int = 6) -> dict[str, float]:
    """The least wall time of each call in milliseconds; in a round each runs for some seconds, and at least once."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = began = time.perf_counter()
            while began - start < seconds:
                call()
                now = time.perf_counter()
                best[name], began = min(best[name], now - began), now
    return {name: 1e3 * value for name, value in best.items()}


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return ((got.double() - want).abs().max() / want.abs().max()).item()


def limit(shape: Shape) -> float:
    """Milliseconds that the recurrence needs at this machine's rate of multiplications and additions.

    A token takes three vector instructions for each state (decay, write, read), and a product of matrices tells how
    many of these the machine does in a second, at two operations each.
    """
    torch.set_num_threads(shape.threads)
    a, b = torch.randn(2, 1024, 1024)
    instructions = 1024**3 / least({"product": lambda: a @ b})["product"]
    return 3 * shape.B * shape.T * shape.H * shape.P * shape.N / instructions


def check(shape: Shape) -> dict[str, float]:
    """Errors of both implementations against the reference; raises RuntimeError if ours is wrong."""
    tensors, exact = inputs(shape), inputs(shape, torch.float64)
    with torch.no_grad():
        want = ours(exact, "reference")
        errors = {
            "ours": error(ours(tensors), want),
            "transformers": error(theirs(tensors), want),
            "broadcast": error(broadcast_products(tensors), want),
        }
    # The reference's own backward pass over thousands of tokens takes minutes: a shorter call is enough.
    short = shape._replace(T=min(shape.T, 300))
    tensors, exact = inputs(short), inputs(short, torch.float64)
    got = torch.autograd.grad(ours(tensors).sum(), tensors)
    wanted = torch.autograd.grad(ours(exact, "reference").sum(), exact)
    errors["gradients"] = max(error(g, w) for g, w in zip(got, wanted, strict=True))
    if not (errors["ours"] < TOLERANCE and errors["gradients"] < GRADIENT_TOLERANCE):
        raise RuntimeError(f"ssd is wrong at {shape}: {errors}; no speed is reported")
    return errors


def version() -> str:
    """The transformers that is installed."""
    return f"transformers {metadata.version('transformers')}"


Scan = Callable[[list[torch.Tensor]], torch.Tensor]
RIVALS: dict[str, Scan] = {"solomonic": ours, "transformers": theirs, "broadcast products": broadcast_products}


def forward_times(shape: Shape) -> dict[str, float]:
    """Milliseconds of the forward pass of each."""
    torch.set_num_threads(shape.threads)
    tensors = inputs(shape)
    calls = {name: lambda scan=scan: scan(tensors) for name, scan in RIVALS.items()}
    # The broadcast products write gigabytes of memory anew in every call, which is fastest without a pause.
    alone = {"broadcast products": calls.pop("broadcast products")}
    with torch.no_grad():
        return least(calls) | least(alone, seconds=2.0, rounds=2)


def gradient_times(shape: Shape) -> dict[str, float]:
    """Milliseconds of forward and backward, of ours and of the torch path of transformers."""
    torch.set_num_threads(shape.threads)
    tensors = inputs(shape)
    dy = torch.randn(shape.B, shape.T, shape.H, shape.P)
    scans = {name: RIVALS[name] for name in ("solomonic", "transformers")}
    return least({n: lambda scan=scan: torch.autograd.grad(scan(tensors), tensors, dy) for n, scan in scans.items()})


def access(shape: Shape) -> dict[str, float]:
    """CPU milliseconds on one thread of what `save`, `want` and `edit` add; interleaved, the median of 21 rounds."""
    torch.set_num_threads(1)
    x, dt, A, B, C, D = (t.detach() for t in inputs(shape))
    want, value = (
        ("log_decay", "controllability", "observability", "row_sums", "innovation"),
        torch.ones(shape.P, shape.N),
    )
    slow = 0 * dt + 1e-5  # no weight of a Gramian underflows
    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: ssd(x, dt, A, B, C, D=D),
        "want all, save chunk": lambda: ssd(x, dt, A, B, C, D=D, want=want, save="chunk"),
        "  with slow decays": lambda: ssd(x, slow, A, B, C, D=D, want=want, save="chunk"),
        "one intervention": lambda: ssd(x, dt, A, B, C, D=D, edit=(100, "add", value)),
        "eight interventions": lambda: ssd(x, dt, A, B, C, D=D, edit=[(100 + 37 * k, "add", value) for k in range(8)]),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for call in calls.values():
            call()
        for _ in range(21):
            for name, call in calls.items():
                began = time.process_time()
                call()
                spent[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(values) for name, values in spent.items()}


def peak(T: int, backward: bool) -> float:
    """Growth of the peak resident memory in MB over one call, to be run in a process of its own."""
    torch.set_num_threads(1)
    sizes = ((1, T, 8, 64), (1, T, 8), (8,), (1, T, 1, 64), (1, T, 1, 64), (8,))
    tensors = [torch.empty(size).uniform_(0.01, 0.1) for size in sizes]
    tensors[2].neg_()
    tensors = [t.requires_grad_() for t in tensors]
    # Inputs are made in place, so that the peak so far is what they take and not what making them took.
    before = peak_resident()
    if backward:
        torch.autograd.grad(ours(tensors).sum(), tensors)
    else:
        with torch.no_grad():
            ours(tensors)
    return (peak_resident() - before) / 2**20


def peak_elsewhere(T: int, backward: bool) -> float:
    """`peak` in a fresh process."""
    command = [sys.executable, __file__, "--peak", str(T), *(["--backward"] if backward else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", type=int, metavar="T", help="print the peak memory of one call in MB")
    parser.add_argument("--backward", action="store_true", help="with --peak: forward and backward")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.peak is not None:
        print(peak(arguments.peak, arguments.backward))
        return
    for title, shape in SHAPES.items():
        errors = check(shape)
        fast, slow, old = forward_times(shape).values()
        fast_both, slow_both = gradient_times(shape).values()
        print(f"\n{title}: {', '.join(f'{n}={v}' for n, v in shape._asdict().items())}, float32")
        print(f"{'':24}{'solomonic':>12}{version():>20}{'ratio':>8}{'broadcast products':>20}{'ratio':>8}")
        print(f"{'forward, ms':24}{fast:12.2f}{slow:20.2f}{slow / fast:8.1f}{old:20.2f}{old / fast:8.1f}")
        print(f"{'forward + backward, ms':24}{fast_both:12.2f}{slow_both:20.2f}{slow_both / fast_both:8.1f}")
        print(f"{'both / forward':24}{fast_both / fast:12.1f}{slow_both / slow:20.1f}")
        floor = limit(shape)
        print(f"{'forward / limit':24}{fast / floor:12.1f}{slow / floor:20.1f}{'':8}{old / floor:20.1f}")
        print(f"  (limit of the recurrence on this machine: {floor:.2f} ms)")
        print(
            f"{'max relative error':24}{errors['ours']:12.1e}{errors['transformers']:20.1e}{'':8}"
            f"{errors['broadcast']:20.1e}"
        )
        print(f"{'  of gradients':24}{errors['gradients']:12.1e}")
    spent = access(SHAPES["one layer, shared B and C"])
    print("\nstates and statistics inside the scan, one layer, one thread, CPU ms")
    for name, value in spent.items():
        print(f"{name:24}{value:12.2f}{value / spent['plain']:8.2f}")
    print(f"eight interventions / one: {spent['eight interventions'] / spent['one intervention']:.2f}")
    print("\npeak memory of one call, MB (B=1, H=8, P=N=64, G=1)")
    print(f"{'T':>8}{'forward':>12}{'+ backward':>12}{'inputs':>12}")
    for T in LENGTHS:
        size = sum(t.numel() * t.element_size() for t in inputs(Shape(1, T, 8, 64, 64, 1, 1))) / 2**20
        print(f"{T:8}{peak_elsewhere(T, False):12.0f}{peak_elsewhere(T, True):12.0f}{size:12.0f}")


if __name__ == "__main__":
    main()
