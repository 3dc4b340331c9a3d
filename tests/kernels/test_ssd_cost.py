"""The cost model of ssd, against sums by hand and against the tensors themselves."""

import pytest

from solomonic.kernels.ssd import cost

LAYER = cost.Sizes(B=1, T=8192, H=64, P=64, N=64, GB=64, GC=64)


def test_compulsory_bytes_are_those_of_the_tensors():
    s = cost.Sizes(B=2, T=48, H=4, P=16, N=8, GB=1, GC=2, itemsize=4)
    tokens = 2 * 48
    tensors = tokens * 4 * 16 * 2 + tokens * 4 + 2 * 4 + tokens * 8 * 3  # x and y, dt, A and D, B and C
    states = 2 * (2 * 4 * 16 * 8)
    exact = cost.forward(s)
    assert exact.compulsory == exact.moved == 4 * (tensors + states)
    assert exact.reread == 4 * tokens * 8 * ((4 - 1) + (4 - 2))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("size", [64, 128])
def test_the_published_layers_move_what_they_must(size, arch):
    s = LAYER._replace(P=size, N=size)
    assert cost.forward(s, arch).ratio <= 1.3
    assert cost.forward(s, arch).reread == 0
    assert 1.0 < cost.backward(s, arch).ratio < 2.6


def test_shared_groups_are_stated_apart():
    shared = cost.forward(LAYER._replace(GB=1, GC=1))
    assert shared.ratio == 1.0
    assert shared.reread == 8192 * 2 * 63 * 64 * 2


def test_flops_by_hand():
    s = cost.Sizes(B=1, T=64, H=1, P=64, N=64, GB=1, GC=1)
    Q = cost.config("forward", "sm_90", 2, 64, 64).Q
    assert cost.forward(s).flops == (64 // Q) * (4 * Q * Q * 64 + 4 * Q * 64 * 64)
    assert cost.recurrence(s).flops == 5 * 64 * 64 * 64
    assert cost.step(s).flops == 5 * 64 * 64
    assert cost.forward(s).exponentials == (64 // Q) * (Q * Q + 2 * Q + 1)


@pytest.mark.parametrize("arch", ["sm_80", "gfx942"])
def test_flops_of_the_backward_pass_are_those_of_its_products(arch):
    """Rows, columns and sums of every product of matrices in the three kernels, chunk by chunk."""
    P, N, T = 48, 24, 64
    s = cost.Sizes(B=2, T=T, H=3, P=P, N=N, GB=3, GC=1, itemsize=4)
    total = 0
    for kernel in ("C", "B", "x"):
        Q = cost.config(kernel, arch, 4, P, N).Q
        products = {
            "C": [(Q, Q, P), (N, Q, P), (Q, Q, N), (N, Q, Q), (N, P, Q)],
            "B": [(Q, Q, P), (N, Q, P), (N, Q, Q), (N, P, Q)],
            "x": [(Q, Q, N), (P, Q, N), (P, Q, Q), (P, N, Q)],
        }[kernel]
        total += T // Q * sum(2 * rows * columns * inner for rows, columns, inner in products)
    assert cost.backward(s, arch).flops == 2 * 3 * total
