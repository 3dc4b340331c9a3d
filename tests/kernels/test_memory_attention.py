"""memory_attention: the fast path against the loop and a dense mask, sources, alignment and memory."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .attention_cases import CASES, Case, as_double, dense, error, gradients, make, outputs, run

# Largest error relative to the largest value, and beside it the largest one measured over the cases below.
FORWARD = {torch.float64: 1e-12, torch.float32: 2e-6}  # measured 2e-15, 4e-7
BACKWARD = {torch.float64: 1e-12, torch.float32: 1e-5}  # measured 3e-15, 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, dtype):
    tensors = make(case, dtype)
    exact = as_double(tensors)
    want, got = run(exact, case.window, backend="reference"), run(tensors, case.window, block=case.block)
    for name, value in outputs(got).items():
        assert value.dtype == dtype
        assert error(value, outputs(want)[name]) < FORWARD[dtype], name
    expected = gradients(want, exact)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < BACKWARD[dtype], name


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("case", [c for c in CASES if c.B and c.T], ids=str)
def test_agrees_with_a_dense_mask(case, backend):
    tensors = make(case)
    want, lses = dense(tensors, case.window, 0.3)
    got = run(tensors, case.window, scale=0.3, backend=backend)
    for value, oracle in zip(outputs(got).values(), (want, *lses), strict=True):
        assert error(value, oracle) < 1e-12


@pytest.mark.parametrize("name", ["out", "window", "fading", "eidetic"])
@pytest.mark.parametrize("T", [1, 32])
def test_gradients_through_one_output(name, T):
    tensors = make(Case(T=T, window=9, past=31, fading="own", stored=12, eidetic="own", H=4, block=4))
    want = gradients(run(tensors, 9, backend="reference"), tensors, (name,))
    got = gradients(run(tensors, 9, block=4), tensors, (name,))
    for argument in got:
        assert error(got[argument], want[argument]) < 1e-12, argument


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_summed_in_float32(dtype):
    tensors = make(Case(T=40, window=9, fading="own", stored=12, H=4), dtype)
    exact = as_double(tensors)
    want, got = run(exact, 9, backend="reference"), run(tensors, 9)
    assert got.out.dtype == dtype
    assert got.lse.window.dtype == torch.float32
    assert error(got.lse.window, want.lse.window) < FORWARD[torch.float32]
    assert error(got.out, want.out) < torch.finfo(dtype).eps
    expected = gradients(want, exact)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 2 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("window", [1, 4, 7])
def test_fading_tokens_equal_to_the_keys_double_the_window(window):
    tensors = make(Case(T=33, window=window, past=3, H=4))
    joint = run(tensors | {"kf": tensors["k"], "vf": tensors["v"]}, window, block=8)
    plain = run(tensors, 2 * window, block=8)
    torch.testing.assert_close(joint.out, plain.out, rtol=0, atol=1e-14)
    assert joint.lse.fading is not None
    both = torch.logaddexp(joint.lse.window, joint.lse.fading)
    torch.testing.assert_close(both, plain.lse.window, rtol=0, atol=1e-14)
    first, second = (gradients(out, tensors, ("out",)) for out in (joint, plain))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("fading", ["no", "yes", "own"])
def test_split_law(fading):
    T, window = 20, 4
    tensors = make(Case(T=T, window=window, fading=fading, H=4))
    whole = run(tensors, window, block=8)
    for a in range(T + 1):
        # What a register holds is all that is read: W - 1 keys and 2 W - 1 fading ones.
        keep = {"q": a, "qf": a, "k": max(a - window + 1, 0), "v": max(a - window + 1, 0)}
        keep |= {n: max(a - 2 * window + 1, 0) for n in ("kf", "vf")}
        first = run({n: t[:, :a] for n, t in tensors.items()}, window)
        second = run({n: t[:, keep[n] :] for n, t in tensors.items()}, window)
        for name, value in outputs(whole).items():
            joined = torch.cat([outputs(first)[name], outputs(second)[name]], 1)
            torch.testing.assert_close(joined, value, rtol=0, atol=1e-13)


@pytest.mark.parametrize("window", [3, 16, None])
@pytest.mark.parametrize("block", [1, 3, 16, 64])
def test_block_size_changes_nothing(block, window):
    case = Case(T=50, window=window, past=3, fading="no" if window is None else "own", stored=20, H=4)
    tensors = make(case)
    want, got = run(tensors, window, block=5), run(tensors, window, block=block)
    expected = gradients(want, tensors)
    for name, value in outputs(got).items():
        assert error(value, outputs(want)[name]) < 1e-13, name
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 1e-12, name


def test_many_groups_of_blocks(monkeypatch):
    import sys

    cpu = sys.modules["solomonic.kernels.memory_attention.cpu"]
    tensors = make(Case(T=100, window=9, past=5, fading="own", stored=30, eidetic="own", H=4))
    want = run(tensors, 9, block=8)
    expected = gradients(want, tensors)
    monkeypatch.setattr(cpu, "_GROUP", 1)
    got = run(tensors, 9, block=8)
    for name, value in outputs(got).items():
        assert error(value, outputs(want)[name]) < 1e-13, name
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 1e-12, name


@pytest.mark.parametrize("cut", [1, 8, 9, 20, 31])
def test_the_past_does_not_see_the_future(cut):
    tensors = make(Case(T=32, window=4, fading="own"))
    want = outputs(run(tensors, 4, block=8))
    for name in tensors:
        changed = tensors[name].detach().clone()
        changed[:, cut:] += 1.0
        got = outputs(run(tensors | {name: changed}, 4, block=8))
        for key in got:
            torch.testing.assert_close(got[key][:, :cut], want[key][:, :cut], rtol=0, atol=1e-14)


def test_each_source_is_read_where_it_should_be():
    window, T = 4, 20
    tensors = make(Case(T=T, window=window, fading="yes"))
    reach = {"v": torch.zeros(T, T), "vf": torch.zeros(T, T)}
    out = run(tensors, window, block=8).out
    for t in range(T):
        for name in reach:
            (grad,) = torch.autograd.grad(out[:, t].sum(), tensors[name], retain_graph=True)
            reach[name][t] = grad.abs().sum((0, 2, 3))
    lag = torch.arange(T)[:, None] - torch.arange(T)
    assert torch.equal(reach["v"] > 0, (lag >= 0) & (lag < window))
    assert torch.equal(reach["vf"] > 0, (lag >= window) & (lag < 2 * window))


@pytest.mark.parametrize("T", [2, 7])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_without_fading_tokens(T, backend):
    tensors = make(Case(T=T, window=5, fading="own"))
    out = run(tensors, 5, backend=backend)
    assert out.lse.fading is not None
    assert (out.lse.fading[:, :5] == -torch.inf).all()
    assert out.lse.fading[:, 5:].isfinite().all()
    share = torch.sigmoid(out.lse.fading - out.lse.window)
    loss = out.out.sum() + share.sum() + torch.logaddexp(out.lse.fading, out.lse.window).sum()
    loss = loss + out.lse.fading.exp().sum()
    for grad in torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True):
        assert grad.isfinite().all()


def test_large_and_far_apart_scores():
    tensors = {n: t.detach() for n, t in make(Case(T=40, window=9, fading="yes"), torch.float32).items()}
    tensors["q"] = tensors["q"] * 1e4
    tensors["kf"] = tensors["kf"] - 1e3
    tensors = {n: t.requires_grad_() for n, t in tensors.items()}
    exact = as_double(tensors)
    got, want = run(tensors, 9), run(exact, 9, backend="reference")
    for name, value in outputs(got).items():
        assert value.isnan().sum() == 0
        assert error(value, outputs(want)[name]) < 1e-5, name
    for name, grad in gradients(got, tensors).items():
        assert grad.isfinite().all(), name


@pytest.mark.parametrize(("T", "past"), [(1, 3), (4, 0), (3, 2)])
@pytest.mark.parametrize("fading", ["no", "yes", "own"])
def test_gradcheck(T, past, fading):
    stored = {"no": 0, "yes": 2, "own": 3}[fading]
    case = Case(T=T, window=2, past=past, fading=fading, stored=stored, eidetic=fading, B=1, H=2, G=1, K=2, V=1)
    tensors = make(case)

    def function(*values):
        out = run(dict(zip(tensors, values, strict=True)), 2, block=2)
        extra = [lse.exp() for lse in (out.lse.fading, out.lse.eidetic) if lse is not None]
        return out.out, out.lse.window, *extra

    assert torch.autograd.gradcheck(function, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(function, tuple(tensors.values()), fast_mode=True)


def test_function_transforms():
    tensors = make(Case(T=12, window=3, fading="own", stored=5, eidetic="own"))
    values = tuple(t.detach() for t in tensors.values())
    tangents = tuple(torch.randn_like(v) for v in values)

    def function(*arguments):
        return run(dict(zip(tensors, arguments, strict=True)), 3).out

    tangent = torch.func.jvp(function, values, tangents)[1]
    pull = torch.func.vjp(function, *values)[1]
    dy = torch.randn_like(tangent)
    backward = sum((a * b).sum() for a, b in zip(pull(dy), tangents, strict=True))
    torch.testing.assert_close((tangent * dy).sum(), backward)


@pytest.mark.parametrize("fading", ["no", "yes"])
def test_memory_grows_as_time_times_window(fading):
    T, window = 4096, 16
    tensors = make(Case(T=T, window=window, fading=fading, B=1, H=1, G=1, K=8, V=8), torch.float32)
    saved, kept = [], {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run(tensors, window)
    saved = sum(kept.values())
    inputs = sum(4 * t.numel() for t in tensors.values())
    assert saved < 3 * inputs + 4 * T * window
    assert saved < 4 * T * T // 8
    assert all(g.isfinite().all() for g in gradients(out, tensors).values())


def test_largest_single_tensor_is_bounded(monkeypatch):
    """No allocation of the forward or the backward pass is as large as T T."""
    largest = 0
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def watch(*args, original=original, **kwargs):
            nonlocal largest
            out = original(*args, **kwargs)
            largest = max(largest, out.numel())
            return out

        monkeypatch.setattr(torch, name, watch)
    original_new = torch.Tensor.new_empty

    def watch_new(self, *args, **kwargs):
        nonlocal largest
        out = original_new(self, *args, **kwargs)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "new_empty", watch_new)
    T = 4096
    tensors = make(Case(T=T, window=16, fading="yes", B=1, H=1, G=1, K=8, V=8), torch.float32)
    gradients(run(tensors, 16), tensors)
    assert 0 < largest < T * T // 32


def test_non_contiguous_inputs():
    tensors = make(Case(T=21, window=4, fading="own"))
    shuffled: Any = {n: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for n, t in tensors.items()}
    assert not shuffled["q"].is_contiguous()
    torch.testing.assert_close(run(shuffled, 4).out, run(tensors, 4).out)


def test_autocast_does_not_round_the_sums():
    tensors = make(Case(T=21, window=4, fading="own"), torch.float32)
    want = run(tensors, 4)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(tensors, 4)
    assert torch.equal(got.out, want.out)


@st.composite
def cases(draw):
    G = draw(st.sampled_from([1, 2, 3]))
    T, past = draw(st.integers(0, 30)), draw(st.integers(0, 12))
    window = draw(st.none() | st.integers(1, 20))
    return Case(
        T=T,
        window=window,
        past=past,
        fading="no" if window is None else draw(st.sampled_from(["no", "yes", "own"])),
        more=draw(st.integers(-min(3, T + past), 3)),
        stored=draw(st.integers(0, 8)),
        eidetic=draw(st.sampled_from(["yes", "own"])),
        H=G * draw(st.integers(1, 3)),
        G=G,
        B=draw(st.integers(1, 2)),
        K=draw(st.integers(1, 4)),
        V=draw(st.integers(1, 4)),
        block=draw(st.none() | st.integers(1, 12)),
    )


@settings(max_examples=80)
@given(case=cases(), seed=st.integers(0, 3))
def test_any_shape_agrees_with_the_reference(case, seed):
    tensors = make(case, seed=seed)
    want, got = run(tensors, case.window, backend="reference"), run(tensors, case.window, block=case.block)
    for name, value in outputs(got).items():
        assert error(value, outputs(want)[name]) < 1e-11, name
    expected = gradients(want, tensors)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 1e-9 or (grad - expected[name]).abs().max() < 1e-11, name


def test_results_are_frozen_and_have_short_reprs():
    out = run(make(Case(T=3, window=2, fading="yes")), 2)
    assert "window=(2, 3, 2), fading=(2, 3, 2), eidetic=None" in repr(out)
    assert run(make(Case(T=3, window=2)), 2).lse.fading is None
    assert run(make(Case(T=3, window=2, fading="yes")), 2).lse.eidetic is None
    with pytest.raises(AttributeError):
        out.lse.window = None  # type: ignore[misc]
