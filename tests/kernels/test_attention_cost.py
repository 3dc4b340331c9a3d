"""The cost model of memory_attention, against the tensors themselves."""

import pytest

from solomonic.kernels.memory_attention import cost

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
