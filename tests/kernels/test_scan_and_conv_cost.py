"""The cost models of selective_scan and short_conv, against the tensors of a call."""

import torch

from solomonic.kernels.selective_scan import cost as scan_cost
from solomonic.kernels.selective_scan.triton_op import selective_scan_triton
from solomonic.kernels.short_conv import cost as conv_cost
from solomonic.kernels.short_conv.triton_op import short_conv_triton

from .traffic import moved, started


def test_selective_scan_counts_the_bytes_of_its_tensors():
    B, T, E, N = 2, 7, 40, 4
    x, keys, A, state = torch.ones(B, T, E), torch.ones(B, T, N), torch.ones(E, N), torch.ones(B, E, N)
    tensors = (x, x, x, keys, keys, A, torch.ones(E), state, state)
    found = scan_cost.forward(B, T, E, N, itemsize=4)
    assert found.compulsory == sum(t.nbytes for t in tensors)
    assert found.exponentials == B * T * E * N
    assert found.reread == 2 * 2 * keys.nbytes  # three programs of 16 channels


def test_short_conv_counts_the_bytes_of_its_tensors():
    B, T, C, k = 2, 7, 5, 4
    tensors = (torch.ones(B, T, C), torch.ones(B, T, C), torch.ones(B, k - 1, C), torch.ones(C, k), torch.ones(C))
    found = conv_cost.forward(B, T, C, k, itemsize=4)
    assert found.compulsory == found.moved == sum(t.nbytes for t in tensors)
    assert found.flops == 2 * k * B * T * C


def new(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def test_selective_scan_moves_the_bytes_of_the_tensors_that_kernels_touch():
    B, T, E, N = 2, 70, 40, 16

    def call():
        A, D, h0 = (new(*shape, dtype=torch.float32) for shape in ((E, N), (E,), (B, E, N)))
        return selective_scan_triton(new(B, T, E), new(B, T, E), A, new(B, T, N), new(B, T, N), D, h0, None)

    kernels = started(call, backward=True)
    (_, sizes), found = kernels[0], scan_cost.backward(B, T, E, N)
    # the parts of the gradients of A, B, C and D are read again, and their sums written
    parts = sum(sizes[name] for name in ("dA_p", "dB_p", "dC_p", "dD_p"))
    sums = 2 * B * T * N * 2 + (E * N + E) * 4
    assert moved(kernels) + parts + sums == found.moved
    states = 2 * B * E * N * 4
    assert found.compulsory == 5 * B * T * E * 2 + 4 * B * T * N * 2 + 2 * (E * N + E) * 4 + states
    assert found.exponentials == 3 * scan_cost.forward(B, T, E, N).exponentials


def test_short_conv_moves_the_bytes_of_the_tensors_that_kernels_touch():
    B, T, C, k = 2, 70, 40, 4

    def call():
        return short_conv_triton(new(B, T, C), new(C, k), new(C), new(B, k - 1, C), None, "silu")[:1]

    kernels = started(call, backward=True)
    (_, sizes), found = kernels[0], conv_cost.backward(B, T, C, k)
    assert moved(kernels) + sizes["parts_p"] + C * (k + 1) * 2 == found.moved
    assert moved(started(call)) == conv_cost.forward(B, T, C, k).moved
