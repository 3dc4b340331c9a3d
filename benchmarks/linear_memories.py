"""Speed of ``delta_rule`` and ``ridge_readout`` beside loops over the tokens.

Two loops: that of the reference, in float64, and the same recurrence in the dtype of the fast path. Run
``python benchmarks/linear_memories.py``. Results are compared with the float64 reference first; no speed is printed for
an operation that is wrong. Times are the least processor time of several runs on one thread, which other processes
on the machine change little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import normalize

from solomonic.kernels import delta_rule, ridge_readout
from solomonic.kernels.delta_rule.naive import delta_rule_step
from solomonic.kernels.ridge_readout.naive import ridge_readout_step

TOLERANCE = {"delta_rule": 1e-5, "ridge_readout": 5e-4}  # the solve multiplies rounding by its condition number
WANTED = 20  # times the loops


class Shape(NamedTuple):
    """Sizes of one call."""

    B: int
    T: int
    H: int
    G: int
    D: int


SHAPES = {
    "a layer of the zoo": Shape(1, 2048, 4, 4, 32),
    "four heads of a wide layer": Shape(1, 2048, 4, 1, 64),
}


def inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """q, k, v, log decay and gate."""
    rng, (B, T, H, G, D) = torch.Generator().manual_seed(0), shape

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=rng, dtype=torch.float64)

    q, k, v = normalize(normal(B, T, H, D), dim=-1), normalize(normal(B, T, G, D), dim=-1), normal(B, T, G, D)
    g, gate = -0.1 * torch.rand(B, T, H, generator=rng), torch.rand(B, T, H, generator=rng)
    return [t.to(dtype) for t in (q, k, v, g, gate)]


def loop(name: str, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The recurrence, token by token, in the dtype of the tensors."""
    q, k, v, g, gate = tensors
    B, T, H, D = q.shape
    k, v = (x.repeat_interleave(H // x.shape[2], 2) for x in (k, v))
    state = gram = q.new_zeros(B, H, D, D)
    out = []
    for t in range(T):
        if name == "delta_rule":
            read, state = delta_rule_step(state, q[:, t], k[:, t], v[:, t], g[:, t], gate[:, t])
        else:
            token = (q[:, t], k[:, t], v[:, t], g[:, t], gate[:, t])
            read, gram, state = ridge_readout_step(gram, state, *token, 0.02, 30, True)
        out.append(D**-0.5 * read)
    return torch.stack(out, 1)


def least(call: Callable[[], object], runs: int) -> float:
    """The least processor time of a call in milliseconds."""
    best = float("inf")
    for _ in range(runs):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return 1e3 * best


@torch.no_grad()
def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    operations = {"delta_rule": delta_rule, "ridge_readout": ridge_readout}
    print(f"{torch.get_num_threads()} thread(s), float32; wanted: {WANTED} times the loops")
    print(f"{'':44}{'ours, ms':>10}{'loop, ms':>10}{'ratio':>7}{'reference, ms':>15}{'ratio':>7}{'error':>10}")
    for title, shape in SHAPES.items():
        for name, call in operations.items():
            tensors, exact = inputs(shape), inputs(shape, torch.float64)
            began = time.process_time()
            want = call(*exact, backend="reference").out
            reference = 1e3 * (time.process_time() - began)
            error = ((call(*tensors).out - want).abs().max() / want.abs().max()).item()
            if not error < TOLERANCE[name]:
                raise RuntimeError(f"{name} is wrong at {shape}: {error}; no speed is reported")
            slow = least(lambda name=name, tensors=tensors: loop(name, tensors), 2)
            reference = min(reference, least(lambda call=call, exact=exact: call(*exact, backend="reference"), 1))
            fast = least(lambda call=call, tensors=tensors: call(*tensors), 20)
            print(
                f"{name + ', ' + title:44}{fast:10.1f}{slow:10.0f}{slow / fast:7.0f}{reference:15.0f}"
                f"{reference / fast:7.0f}{error:10.1e}"
            )


if __name__ == "__main__":
    main()
