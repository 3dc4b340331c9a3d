"""Speed and memory of ``memory_attention`` beside dense attention as transformers computes it on a CPU.

Run ``python benchmarks/memory_attention.py``. The other side is
``torch.nn.functional.scaled_dot_product_attention`` as transformers' "sdpa" path calls it: with a dense T x T
mask for a window, with keys and values of both sources side by side where there are fading tokens. Results
are compared with the float64 reference first; no speed is printed for an operation that is wrong. Times are
the least of several runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from _memory import peak_resident
from torch.nn import functional as F

from solomonic.kernels import memory_attention

# Largest error relative to the largest value of the reference, for outputs and for gradients.
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


class Shape(NamedTuple):
    """Sizes of one call (K = V), and the threads it runs on."""

    B: int
    T: int
    H: int
    K: int
    window: int | None
    fading: bool
    threads: int


SHAPES = {
    "training, window": Shape(4, 512, 4, 32, 64, False, threads=1),
    "training, window and fading": Shape(4, 512, 4, 32, 64, True, threads=1),
    "training, all the past": Shape(4, 512, 4, 32, None, False, threads=1),
    "long, window and fading": Shape(1, 4096, 8, 64, 256, True, threads=2),
}
LENGTHS = (4096, 8192, 16384, 32768)


def inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """q, k, v and, where asked for, keys and values of the fading tokens."""
    g = torch.Generator().manual_seed(0)
    size = (shape.B, shape.T, shape.H, shape.K)
    tensors = [torch.randn(size, generator=g, dtype=torch.float64) for _ in range(5 if shape.fading else 3)]
    return [t.to(dtype).requires_grad_() for t in tensors]


def ours(tensors: list[torch.Tensor], window: int | None, backend: str = "auto") -> torch.Tensor:
    """The output of `solomonic.kernels.memory_attention`."""
    q, k, v, *fading = tensors
    source = (fading[0], fading[1]) if fading else None
    return memory_attention(q, k, v, window=window, fading=source, backend=backend).out


def dense(tensors: list[torch.Tensor], window: int | None, mask: torch.Tensor | None) -> torch.Tensor:
    """The same output from scaled_dot_product_attention with a dense mask."""
    q, k, v, *fading = tensors
    if fading:
        k, v = torch.cat([k, fading[0]], 1), torch.cat([v, fading[1]], 1)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2)


def dense_mask(shape: Shape) -> torch.Tensor | None:
    """The mask that `dense` needs; None for plain causal attention."""
    if shape.window is None:
        return None
    lag = torch.arange(shape.T)[:, None] - torch.arange(shape.T)[None, :]
    near = (lag >= 0) & (lag < shape.window)
    far = (lag >= shape.window) & (lag < 2 * shape.window)
    return torch.cat([near, far], 1) if shape.fading else near


def least(call: Callable[[], object], seconds: float = 2.0, runs: int = 5) -> float:
    """The least wall time of a call in milliseconds."""
    call()
    best, start, done = float("inf"), time.perf_counter(), 0
    while done < runs or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
        done += 1
    return 1e3 * best


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return ((got.double() - want).abs().max() / want.abs().max()).item()


def check(shape: Shape) -> dict[str, float]:
    """Errors of both implementations against the reference; raises RuntimeError if ours is wrong."""
    tensors, exact = inputs(shape), inputs(shape, torch.float64)
    with torch.no_grad():
        want = ours(exact, shape.window, "reference")
        other = dense(tensors, shape.window, dense_mask(shape))
        errors = {"ours": error(ours(tensors, shape.window), want), "dense": error(other, want)}
    # The reference's own backward pass over thousands of tokens takes minutes: a shorter call is enough.
    narrow = None if shape.window is None else min(shape.window, 64)
    short = shape._replace(T=min(shape.T, 300), window=narrow)
    tensors, exact = inputs(short), inputs(short, torch.float64)
    got = torch.autograd.grad(ours(tensors, short.window).square().sum(), tensors)
    wanted = torch.autograd.grad(ours(exact, short.window, "reference").square().sum(), exact)
    errors["gradients"] = max(error(g, w) for g, w in zip(got, wanted, strict=True))
    if not (errors["ours"] < TOLERANCE and errors["gradients"] < GRADIENT_TOLERANCE):
        raise RuntimeError(f"memory_attention is wrong at {shape}: {errors}; no speed is reported")
    return errors


def times(function: Callable[[list[torch.Tensor]], torch.Tensor], shape: Shape) -> tuple[float, float]:
    """Milliseconds of the forward pass, and of forward and backward."""
    torch.set_num_threads(shape.threads)
    tensors = inputs(shape)
    dy = torch.randn(shape.B, shape.T, shape.H, shape.K)

    def forward() -> None:
        with torch.no_grad():
            function(tensors)

    def both() -> None:
        torch.autograd.grad(function(tensors), tensors, dy)

    return least(forward), least(both)


def decode(window: int, fading: bool) -> float:
    """Microseconds of one token against a full register, 8 heads of 64, one thread."""
    torch.set_num_threads(1)
    q, k = torch.randn(1, 1, 8, 64), torch.randn(1, 2 * window, 8, 64)
    source = (k, k) if fading else None

    def step() -> None:
        with torch.no_grad():
            memory_attention(q, k, k, window=window, fading=source)

    return 1e3 * least(step, 0.5)


def peak(T: int, backward: bool) -> float:
    """Growth of the peak resident memory in MB over one call, to be run in a process of its own."""
    torch.set_num_threads(1)
    tensors = [torch.empty(1, T, 8, 64).uniform_(-1, 1).requires_grad_() for _ in range(5)]
    # Inputs are made in place, so that the peak so far is what they take and not what making them took.
    before = peak_resident()
    if backward:
        torch.autograd.grad(ours(tensors, 512).sum(), tensors)
    else:
        with torch.no_grad():
            ours(tensors, 512)
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
        errors, mask = check(shape), dense_mask(shape)
        window = shape.window
        fast, fast_both = times(lambda tensors, window=window: ours(tensors, window), shape)
        slow, slow_both = times(lambda tensors, w=window, mask=mask: dense(tensors, w, mask), shape)
        print(f"\n{title}: {', '.join(f'{n}={v}' for n, v in shape._asdict().items())}, float32")
        print(f"{'':24}{'solomonic':>12}{'dense sdpa':>14}{'ratio':>8}")
        print(f"{'forward, ms':24}{fast:12.2f}{slow:14.2f}{slow / fast:8.1f}")
        print(f"{'forward + backward, ms':24}{fast_both:12.2f}{slow_both:14.2f}{slow_both / fast_both:8.1f}")
        print(f"{'max relative error':24}{errors['ours']:12.1e}{errors['dense']:14.1e}")
        print(f"{'  of gradients':24}{errors['gradients']:12.1e}")
    print("\none token against a full register, microseconds (8 heads of 64)")
    for width in (64, 512):
        print(f"  W={width:4}: {decode(width, False):6.0f}, with fading tokens {decode(width, True):6.0f}")
    print("\npeak memory of one call, MB (B=1, 8 heads of 64, W=512, with fading tokens)")
    print(f"{'T':>8}{'forward':>12}{'+ backward':>12}{'inputs':>12}")
    for T in LENGTHS:
        size = sum(t.numel() * t.element_size() for t in inputs(Shape(1, T, 8, 64, 512, True, 1))) / 2**20
        print(f"{T:8}{peak_elsewhere(T, False):12.0f}{peak_elsewhere(T, True):12.0f}{size:12.0f}")


if __name__ == "__main__":
    main()
