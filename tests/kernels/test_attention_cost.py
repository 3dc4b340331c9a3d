"""The cost model of memory_attention, against the tensors themselves."""

import pytest
import torch

from solomonic.kernels.memory_attention import cost
from solomonic.kernels.memory_attention.triton_op import memory_attention_triton

from .traffic import moved, started

LAYER = cost.Sizes(B=1, T=8192, S=8192, SF=8192, M=128, seen=32, H=32, G=8, K=128, V=128, W=512)


def test_compulsory_bytes_are_those_of_the_tensors():
    s = cost.Sizes(B=2, T=64, S=70, SF=71, M=5, seen=2, H=4, G=2, K=8, V=16, W=9, itemsize=4)
    queries = 2 * 64 * 4 * (8 + 16 + 3)  # q, out and three log-sum-exps
    keys = 2 * (70 + 71 + 5) * 2 * (8 + 16)
    assert cost.forward(s).compulsory == 4 * (queries + keys) + 2 * 5 * 8


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("size", [64, 128])
def test_a_layer_moves_what_it_must(size, arch):
    found = cost.forward(LAYER._replace(K=size, V=size), arch)
    assert 1.0 <= found.ratio <= 1.2
    assert found.reread > found.compulsory  # windows overlap: the cache serves that


def test_without_stored_tokens_nothing_is_moved_twice():
    assert cost.forward(LAYER._replace(M=0, seen=0)).ratio == 1.0
    assert cost.forward(LAYER._replace(M=0, seen=0, SF=0)).flops < cost.forward(LAYER).flops


def call(s, dtype=torch.float32):
    def new(*shape, dtype=dtype):
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=dtype.is_floating_point)

    def pair(tokens):
        return (new(s.B, tokens, s.G, s.K), new(s.B, tokens, s.G, s.V)) if tokens else (None, None)

    spans = (new(s.B, s.M, dtype=torch.int32), new(s.B, s.M, dtype=torch.int32)) if s.M else None
    q = new(s.B, s.T, s.H, s.K)
    return memory_attention_triton(q, *pair(s.S), None, *pair(s.SF), None, *pair(s.M), spans, s.W, 0.1, None)


@pytest.mark.parametrize("stored", [0, 24])
@pytest.mark.parametrize("fading", [0, 2100])
def test_moved_bytes_are_those_of_the_tensors_that_kernels_touch(fading, stored):
    s = cost.Sizes(B=2, T=2048, S=2100, SF=fading, M=stored, seen=stored, H=4, G=2, K=64, V=32, W=128, itemsize=4)
    kernels = started(lambda: call(s))
    assert [name for name, _ in kernels] == ["forward_kernel"]
    assert moved(kernels) == cost.forward(s).moved
    kernels = started(lambda: call(s), backward=True)
    out, lse = 4 * s.B * s.T * s.H * s.V, 4 * s.B * s.T * s.H * (1 + bool(fading) + bool(stored))
    # out, dO and the log-sum-exps with their gradients make the statistics; the parts of stored tokens are added up
    made = 2 * out + 2 * lse + 3 * lse
    parts = 2 * s.B * s.M * s.G * (s.K + s.V) * 4 + s.B * s.M * s.G * (s.K + s.V) * 4
    assert moved(kernels) + made + parts == cost.backward(s).moved


def test_backward_costs_more_than_forward_and_grows_with_what_is_read():
    assert 2 < cost.backward(LAYER).flops / cost.forward(LAYER).flops < 8
    assert cost.backward(LAYER).compulsory > cost.forward(LAYER).compulsory
    assert cost.backward(LAYER._replace(W=1024)).flops > 1.5 * cost.backward(LAYER).flops
    assert cost.backward(LAYER._replace(M=0, seen=0)).ratio < cost.backward(LAYER).ratio < 3.2
