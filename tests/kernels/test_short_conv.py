"""short_conv: the fast path against the loop, torch's convolution, and the laws of a shift register."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from solomonic.kernels import short_conv

from .interpreted import guarded

# Largest error relative to the largest value, and beside it the largest one measured over the cases below.
FORWARD = {torch.float64: 1e-12, torch.float32: 1e-6}  # measured 4e-16, 2e-7
BACKWARD = {torch.float64: 1e-12, torch.float32: 5e-6}  # measured 1e-15, 6e-7

CASES = [
    (T, k, resets, activation)
    for T, (k, resets, activation) in itertools.product(
        (0, 1, 2, 63, 65, 257),
        (
            (1, None, None),
            (2, "some", "silu"),
            (4, None, "silu"),
            (4, "some", None),
            (4, "all", "silu"),
            (7, None, None),
        ),
    )
]


def make(T, k, resets=None, dtype=torch.float64, B=2, C=6, seed=0) -> Any:
    g = torch.Generator().manual_seed(seed)
    shapes = {"x": (B, T, C), "weight": (C, k), "bias": (C,), "state": (B, k - 1, C)}
    tensors = {
        name: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    flags = torch.rand(B, T, generator=g) < 0.2
    if resets == "all":
        flags = torch.ones_like(flags)
    elif T and B:
        flags[0, 0] = flags[0, -1] = True
    return tensors, None if resets is None else flags


def run(tensors, reset, activation=None, backend="cpu"):
    return short_conv(**tensors, reset=reset, activation=activation, backend=backend)


def gradients(out, tensors):
    dy = torch.randn(out.y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ds = torch.randn(out.state.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    loss = (out.y.double() * dy).sum() + (out.state.double() * ds).sum()
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(tensors, found, strict=True))


def error(got, want):
    assert got.shape == want.shape
    if not want.numel():
        return 0.0
    scale = want.double().abs().max().clamp(min=1e-30)
    return torch.nan_to_num((got.double() - want.double()).abs().max() / scale, nan=torch.inf).item()


def as_double(tensors) -> Any:
    return {n: t.detach().double().requires_grad_() for n, t in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("T", "k", "resets", "activation"), CASES)
def test_agrees_with_the_reference(T, k, resets, activation, dtype):
    tensors, reset = make(T, k, resets, dtype)
    exact = as_double(tensors)
    want, got = run(exact, reset, activation, "reference"), run(tensors, reset, activation)
    assert got.y.dtype == got.state.dtype == dtype
    assert error(got.y, want.y) < FORWARD[dtype]
    assert torch.equal(got.state.double(), want.state)  # a register only moves values
    expected = gradients(want, exact)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < BACKWARD[dtype], name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("T", "k", "resets", "activation", "B", "C"),
    [
        (0, 4, None, "silu", 2, 6),
        (1, 4, "some", "silu", 2, 6),
        (2, 4, None, None, 1, 70),
        (65, 1, None, "silu", 1, 6),
        (65, 2, "some", "silu", 1, 6),
        (67, 4, "some", None, 1, 6),
        (63, 4, None, "silu", 1, 6),
        (33, 4, "all", "silu", 2, 6),
        (40, 7, None, None, 1, 3),
        (9, 4, None, "silu", 0, 6),
        (9, 4, "some", None, 2, 0),
    ],
)
def test_kernels_agree_with_the_reference(T, k, resets, activation, B, C, dtype):
    tensors, reset = make(T, k, resets, dtype, B=B, C=C)
    exact = {n: t.detach().to(torch.float64, copy=True).requires_grad_() for n, t in tensors.items()}
    want = run(exact, reset, activation, "reference")
    expected = gradients(want, exact)
    with guarded():
        got = run(tensors, reset, activation, "triton")
        found = gradients(got, tensors)
    assert got.y.dtype == got.state.dtype == dtype
    assert error(got.y, want.y) < FORWARD[dtype]
    assert torch.equal(got.state.double(), want.state)
    for name, grad in found.items():
        assert error(grad, expected[name]) < BACKWARD[dtype], name


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("resets", [None, "some"])
def test_decoding_kernel(k, resets):
    tensors, reset = make(1, k, resets, torch.float32, C=300)
    want = run(tensors, reset, "silu", "reference")
    with torch.no_grad(), guarded() as ran:
        got = run(tensors, reset, "silu", "triton")
    assert ran == ["step_kernel"]
    assert error(got.y, want.y) < FORWARD[torch.float32]
    assert torch.equal(got.state.double(), want.state)


def test_kernels_without_bias():
    tensors, _ = make(5, 3)
    tensors.pop("bias")
    want = run(tensors, None, "silu", "reference")
    torch.testing.assert_close(run(tensors, None, "silu", "triton").y, want.y, rtol=0, atol=1e-14)


def test_kernels_take_half_precision_and_say_that_they_have_no_second_derivatives():
    tensors, _ = make(9, 4, dtype=torch.bfloat16, B=1)
    want = run(as_double(tensors), None, "silu", "reference")
    y = run(tensors, None, "silu", "triton").y
    assert error(y, want.y) < torch.finfo(torch.bfloat16).eps
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(y.sum(), tensors["x"], create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_summed_in_float32(dtype):
    tensors, _ = make(65, 4, dtype=dtype)
    exact = as_double(tensors)
    got, want = run(tensors, None, "silu"), run(exact, None, "silu", "reference")
    assert got.y.dtype == got.state.dtype == dtype
    assert error(got.y, want.y) < torch.finfo(dtype).eps
    expected = gradients(want, exact)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 2 * torch.finfo(dtype).eps, name


def test_is_the_convolution_of_torch():
    tensors, _ = make(50, 4)
    x, weight = tensors["x"], tensors["weight"]
    want = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), weight.unsqueeze(1), groups=6).transpose(1, 2)
    torch.testing.assert_close(short_conv(x, weight).y, want)


@pytest.mark.parametrize("resets", [None, "some"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_split_law(k, resets):
    T = 9
    tensors, reset = make(T, k, resets)
    whole = run(tensors, reset, "silu")
    for a in range(T + 1):
        first = run(tensors | {"x": tensors["x"][:, :a]}, None if reset is None else reset[:, :a], "silu")
        rest = tensors | {"x": tensors["x"][:, a:], "state": first.state}
        second = run(rest, None if reset is None else reset[:, a:], "silu")
        torch.testing.assert_close(torch.cat([first.y, second.y], 1), whole.y, rtol=0, atol=1e-13)
        assert torch.equal(second.state, whole.state)


def test_the_register_is_nilpotent():
    tensors, _ = make(3, 4)
    other = tensors | {"state": torch.full_like(tensors["state"], 100.0)}
    assert torch.equal(run(tensors, None).state, run(other, None).state)
    shorter = {n: t[:, :2] if n == "x" else t for n, t in tensors.items()}
    assert torch.equal(run(shorter, None).state[:, 0], tensors["state"][:, 2])


def test_reset_is_a_separate_convolution():
    tensors, _ = make(20, 4)
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[:, 11] = True
    packed = run(tensors, reset)
    alone = short_conv(tensors["x"][:, 11:], tensors["weight"], tensors["bias"])
    torch.testing.assert_close(packed.y[:, 11:], alone.y)
    assert torch.equal(packed.state, alone.state)


def test_a_reset_ends_a_nan():
    tensors, _ = make(20, 4)
    x = tensors["x"].detach().clone()
    x[:, 10] = torch.nan
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[:, 11] = True
    y = run(tensors | {"x": x}, reset).y
    assert y[:, 10].isnan().all()
    assert y[:, 11:].isfinite().all()
    assert run(tensors | {"x": x}, None).y[:, 14:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("cut", [1, 2, 10, 19])
def test_the_past_does_not_see_the_future(cut, dtype):
    tensors, _ = make(20, 4, dtype=dtype)
    x = tensors["x"].detach().clone()
    x[:, cut:] += 1.0
    assert torch.equal(run(tensors | {"x": x}, None).y[:, :cut], run(tensors, None).y[:, :cut])


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("T", "resets"), [(1, None), (4, None), (4, "some")])
def test_gradcheck(T, resets, activation):
    tensors, reset = make(T, 3, resets, B=1, C=2)

    def function(*values):
        out = run(dict(zip(tensors, values, strict=True)), reset, activation)
        return out.y, out.state

    assert torch.autograd.gradcheck(function, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(function, tuple(tensors.values()), fast_mode=True)


def test_function_transforms():
    tensors, _ = make(9, 3)
    values = tuple(t.detach() for t in tensors.values())
    tangents = tuple(torch.randn_like(v) for v in values)

    def function(*arguments):
        return run(dict(zip(tensors, arguments, strict=True)), None, "silu").y

    tangent = torch.func.jvp(function, values, tangents)[1]
    pull = torch.func.vjp(function, *values)[1]
    dy = torch.randn_like(tangent)
    backward = sum((a * b).sum() for a, b in zip(pull(dy), tangents, strict=True))
    torch.testing.assert_close((tangent * dy).sum(), backward)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 0), (0, 0, 0)])
def test_empty_inputs(shape, dtype):
    B, T, C = shape
    tensors, _ = make(T, 4, B=B, C=C, dtype=dtype)
    out = run(tensors, None, "silu")
    assert out.y.shape == shape
    assert out.state.shape == (B, 3, C)
    gradients(out, tensors)


def test_non_contiguous_inputs():
    for dtype in (torch.float64, torch.float32):
        tensors, _ = make(21, 4, dtype=dtype)
        shuffled = {n: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for n, t in tensors.items()}
        assert not shuffled["x"].is_contiguous()
        torch.testing.assert_close(run(shuffled, None).y, run(tensors, None).y)


@settings(max_examples=60)
@given(
    T=st.integers(0, 20),
    k=st.integers(1, 8),
    resets=st.sampled_from([None, "some", "all"]),
    activation=st.sampled_from([None, "silu"]),
    seed=st.integers(0, 3),
)
def test_any_shape_agrees_with_the_reference(T, k, resets, activation, seed):
    tensors, reset = make(T, k, resets, seed=seed)
    want, got = run(tensors, reset, activation, "reference"), run(tensors, reset, activation)
    assert error(got.y, want.y) < 1e-12
    assert torch.equal(got.state, want.state)
    expected = gradients(want, tensors)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 1e-12, name


def test_the_register_owns_its_memory():
    tensors, _ = make(64, 4)
    out = run({n: t.detach() for n, t in tensors.items()}, None)
    assert out.state.untyped_storage().nbytes() == out.state.numel() * 8
    assert repr(out) == "ShortConvOutput(y=(2, 64, 6), state=(2, 3, 6), dtype=torch.float64)"
