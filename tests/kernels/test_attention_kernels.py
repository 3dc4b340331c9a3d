"""memory_attention's Triton kernels in the interpreter: against the loop, tiles, splits, far scores."""

import pytest
import torch

from solomonic.kernels.memory_attention import configs, triton_op

from .attention_cases import Case, as_double, error, gradients, intervals, make, outputs, run
from .interpreted import guarded

# Largest error relative to the largest value, and beside it the largest one measured over the cases below.
FORWARD = {torch.float64: 1e-12, torch.float32: 1e-5}  # measured 7e-16, 3e-7
BACKWARD = {torch.float64: 1e-12, torch.float32: 1e-4}  # measured 2e-15, 5e-7

CASES = [
    Case(T=0, window=4, fading="yes", stored=3),
    Case(T=1, window=4, past=11, fading="own", stored=5, eidetic="own", H=4, B=1),
    Case(T=1, window=None, past=7, G=1, B=1),
    Case(T=9, window=30, fading="yes", stored=1, G=1, B=1),
    Case(T=40, window=1, fading="own", G=1, B=1),
    Case(T=32, window=9, past=5, fading="yes", more=-4, G=1, B=1),
    Case(T=32, window=9, past=5, fading="own", more=6, stored=40, eidetic="own", H=3, G=1, B=1),
    Case(T=32, window=9, fading="yes", more=-32, stored=4, G=1, B=1),
    Case(T=33, window=9, past=5, fading="yes", stored=20, H=4, G=2, K=17, V=20),
    Case(T=63, window=None, stored=9, G=1, B=1, H=1),
    Case(T=257, window=40, fading="yes", stored=70, H=1, G=1, B=1),
    Case(T=5, window=2, fading="yes", stored=3, B=0),
]


@pytest.fixture
def tiles(monkeypatch):
    """Choose tiles; large ones make few steps for the interpreter."""

    def choose(BQ, BN):
        def config(kernel, arch, itemsize, width, rows):
            return configs.Config(BQ, BN, 4, 1, "ieee")

        monkeypatch.setattr(triton_op, "config", config)

    choose(64, 64)
    return choose


def compare(tensors, window, dtype, **options):
    exact = {n: t.detach().to(torch.float64, copy=True).requires_grad_() for n, t in tensors.items()}
    want = run(exact, window, backend="reference", **options)
    expected = gradients(want, exact)
    with guarded() as ran:
        got = run(tensors, window, backend="triton", **options)
        found = gradients(got, tensors)
    for name, value in outputs(got).items():
        assert value.dtype == dtype
        assert error(value, outputs(want)[name]) < FORWARD[dtype], name
    for name, grad in found.items():
        assert error(grad, expected[name]) < BACKWARD[dtype], name
    return ran


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, dtype, tiles):
    compare(make(case, dtype), case.window, dtype)


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)], ids=str)
def test_tiles_change_nothing(shape, tiles):
    tiles(*shape)
    case = Case(T=33, window=9, past=5, fading="yes", stored=20, H=3, G=1, B=1)
    ran = compare(make(case), 9, torch.float64)
    assert ran == ["forward_kernel", "backward_query_kernel", *["backward_band_kernel"] * 2, "backward_stored_kernel"]


def test_the_checked_in_configuration_in_the_interpreter():
    compare(make(Case(T=20, window=9, fading="yes", stored=5, H=2, G=1, B=1), torch.float32), 9, torch.float32)


@pytest.mark.parametrize("past", [0, 90])
def test_one_query_is_split_among_programs(past, tiles, monkeypatch):
    tiles(16, 16)
    monkeypatch.setattr(triton_op, "_KEYS_OF_A_SPLIT", 32)
    case = Case(T=1, window=50, past=past, fading="yes", stored=50, H=2, G=1, B=1)
    tensors = make(case)
    nothing = torch.zeros(1, 50, dtype=torch.int64)
    compare(tensors, 50, torch.float64)
    compare(tensors, 50, torch.float64, spans=(nothing, nothing))


def test_gradients_of_stored_tokens_are_split_among_programs(tiles, monkeypatch):
    monkeypatch.setattr(configs, "_QUERIES_OF_A_SPLIT", 20)
    compare(make(Case(T=65, window=9, stored=30, G=1, B=1)), 9, torch.float64)


def test_prefill_in_chunks_and_decoding_are_the_same_kernel(tiles):
    tensors = {n: t.detach() for n, t in make(Case(T=24, window=4, fading="yes", stored=9, G=1, B=1)).items()}
    spans = intervals(tensors)
    whole = outputs(run(tensors, 4, backend="triton", spans=spans))
    parts = []
    for a, b in ((0, 7), (7, 8), (8, 24)):
        part = {n: t[:, a:b] if n == "q" else t if n in ("ke", "ve") else t[:, :b] for n, t in tensors.items()}
        parts.append(outputs(run(part, 4, backend="triton", spans=spans, position=a)))
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([p[name] for p in parts], 1), value, rtol=0, atol=1e-14)


def test_large_and_far_apart_scores(tiles):
    tensors = {n: t.detach() for n, t in make(Case(T=20, window=5, fading="yes", stored=9, G=1, B=1)).items()}
    tensors["q"], tensors["kf"], tensors["ke"] = tensors["q"] * 1e3, tensors["kf"] - 1e3, tensors["ke"] * 1e-3
    want, got = (run(tensors, 5, backend=backend) for backend in ("reference", "triton"))
    for name, value in outputs(got).items():
        assert error(value, outputs(want)[name]) < 1e-9, name  # scores of 1e6: their rounding is 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_raised_in_the_interpreter(dtype, tiles):
    tensors = make(Case(T=20, window=9, fading="yes", stored=5, G=1, B=1), dtype)
    want, got = run(as_double(tensors), 9, backend="reference"), run(tensors, 9, backend="triton")
    assert got.out.dtype == dtype
    assert got.lse.window.dtype == torch.float32
    assert error(got.lse.window, want.lse.window) < 1e-6
    assert error(got.out, want.out) < torch.finfo(dtype).eps


def test_what_the_kernels_lack():
    with pytest.raises(ValueError, match=r"backend: 'triton' .* 300 channels"):
        run(make(Case(T=3, window=2, K=300)), 2, backend="triton")
    with pytest.raises(ValueError, match=r"backend: 'triton' .* no channels"):
        run(make(Case(T=3, window=2, V=0)), 2, backend="triton")
    tensors = make(Case(T=3, window=2, B=1, G=1))
    out = run(tensors, 2, backend="triton").out
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(out.sum(), tensors["q"], create_graph=True)


def test_non_contiguous_inputs(tiles):
    tensors = make(Case(T=9, window=4, fading="own", G=1, B=1))
    shuffled = {n: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for n, t in tensors.items()}
    torch.testing.assert_close(
        run(shuffled, 4, backend="triton").out, run(tensors, 4, backend="reference").out, rtol=0, atol=1e-13
    )
