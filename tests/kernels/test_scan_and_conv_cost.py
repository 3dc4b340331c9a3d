"""The cost models of selective_scan and short_conv, against the tensors of a call."""

import torch

from solomonic.kernels.selective_scan import cost as scan_cost
from solomonic.kernels.short_conv import cost as conv_cost


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
