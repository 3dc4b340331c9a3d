"""selective_scan: fast path and interpreted kernels against the loop, an oracle, states, resets, hostile input."""

from contextlib import nullcontext
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import pytest
import torch

from solomonic.kernels import selective_scan, ssd

from .interpreted import guarded

BACKENDS = ["cpu", "triton"]
# Larger cases take the interpreter too long.
INTERPRETED = 1000
# Largest error relative to the largest value, and beside it the largest one measured over the cases below.
FORWARD = {torch.float64: 1e-12, torch.float32: 1e-5}
BACKWARD = {torch.float64: 1e-12, torch.float32: 1e-4}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The interpreter walks through a scan number by number: small tiles, so that little of them is padding."""
    from solomonic.kernels.selective_scan import triton_op
    from solomonic.kernels.selective_scan.configs import Config

    monkeypatch.setattr(triton_op, "config", lambda kernel, states: Config(16, 4, 1))


@dataclass(frozen=True)
class Case:
    T: int
    E: int = 5
    N: int = 3
    B: int = 2
    D: bool = True
    h0: bool = True
    reset: str = "no"  # "some", "first", "all"
    decay: float = 1.0

    def __str__(self):
        return "-".join(f"{f.name}{getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default)


CASES = [
    Case(T=0),
    Case(T=1),
    Case(T=1, D=False, h0=False, reset="all"),
    Case(T=1, reset="first"),
    Case(T=2, D=False),
    Case(T=17, h0=False, reset="some"),
    Case(T=33, E=5, N=4, B=1, reset="some"),
    Case(T=63, E=9, N=4, reset="some"),
    Case(T=33, N=8, E=3, B=1, reset="first"),
    Case(T=40, E=20, N=17, D=False),
    Case(T=20, N=1, E=1, reset="all"),
    Case(T=20, N=5, B=1, E=3, D=False),
    Case(T=33, decay=1e4, B=1, E=3, reset="some"),
    Case(T=17, decay=1e-6, B=1, E=3),
    Case(T=257, E=8, N=16, reset="some"),
    Case(T=9, B=0),
    Case(T=9, E=0),
    Case(T=9, N=0),
]


def make(case, dtype=torch.float64, seed=0) -> Any:
    g = torch.Generator().manual_seed(seed)
    c = case

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    tensors = {
        "x": normal(c.B, c.T, c.E),
        "dt": torch.nn.functional.softplus(normal(c.B, c.T, c.E)),
        "A": -c.decay * (0.1 + torch.rand(c.E, c.N, generator=g, dtype=torch.float64)),
        "B": normal(c.B, c.T, c.N),
        "C": normal(c.B, c.T, c.N),
    }
    if c.D:
        tensors["D"] = normal(c.E)
    if c.h0:
        tensors["h0"] = normal(c.B, c.E, c.N)
    tensors = {n: t.to(dtype).requires_grad_() for n, t in tensors.items()}
    reset = None
    if c.reset != "no":
        reset = torch.rand(c.B, c.T, generator=g) < {"some": 0.1, "first": 0.0, "all": 2.0}[c.reset]
        if c.reset == "first":
            reset[:, :1] = True
    return tensors, reset


def run(tensors, reset=None, backend="cpu"):
    named = {n: t for n, t in tensors.items() if n not in ("x", "dt", "A", "B", "C")}
    return selective_scan(*(tensors[n] for n in ("x", "dt", "A", "B", "C")), reset=reset, backend=backend, **named)


def gradients(out, tensors, names=("y", "state")):
    loss = torch.zeros((), dtype=torch.float64)
    for name in names:
        value = getattr(out, name)
        weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        loss = loss + (value.double() * weights).sum()
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(tensors, found, strict=True))


def error(got, want):
    assert got.shape == want.shape
    if not want.numel():
        return 0.0
    scale = want.double().abs().max().clamp(min=1e-30)
    return torch.nan_to_num((got.double() - want.double()).abs().max() / scale, nan=torch.inf).item()


def copies(tensors, dtype=torch.float64) -> Any:
    return {n: t.detach().to(dtype, copy=True).requires_grad_() for n, t in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("case", "backend"),
    [(c, b) for c in CASES for b in BACKENDS if b == "cpu" or c.B * c.T * c.E * c.N < INTERPRETED],
    ids=str,
)
def test_agrees_with_the_reference(case, backend, dtype):
    tensors, reset = make(case, dtype)
    exact = copies(tensors)
    want = run(exact, reset, "reference")
    expected = gradients(want, exact)
    with guarded() if backend == "triton" else nullcontext():
        got = run(tensors, reset, backend)
        found = gradients(got, tensors)
    assert got.y.dtype == dtype
    assert error(got.y, want.y) < FORWARD[dtype]
    assert error(got.state, want.state) < FORWARD[dtype]
    for name, grad in found.items():
        assert error(grad, expected[name]) < BACKWARD[dtype], name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset", ["no", "some", "first"])
def test_decoding_without_gradients(backend, reset):
    tensors, cuts = make(Case(T=1, E=70, reset=reset), torch.float32)
    want = run(copies(tensors), cuts, "reference")
    with torch.no_grad(), guarded() if backend == "triton" else nullcontext():
        got = run(tensors, cuts, backend)
    assert error(got.y, want.y) < 1e-6
    assert error(got.state, want.state) < 1e-6


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_one_rate_for_all_channels_and_states_is_ssd(backend):
    tensors, reset = make(Case(T=17, E=3, N=4, B=1, reset="some"))
    x, B, C = (tensors[n].detach() for n in "xBC")
    dt, h0 = tensors["dt"].detach()[..., :1], tensors["h0"].detach()
    rate = torch.tensor([-0.7], dtype=torch.float64)
    want = ssd(x[:, :, None], dt, rate, B[:, :, None], C[:, :, None], h0=h0[:, None], reset=reset)
    got = selective_scan(x, dt.expand_as(x), rate.expand(3, 4), B, C, h0=h0, reset=reset, backend=backend)
    assert error(got.y, want.y[:, :, 0]) < 1e-12
    assert error(got.state, want.state[:, 0]) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_split_law(backend):
    tensors, reset = make(Case(T=40, E=2, N=2, B=1, reset="some"))
    tensors = {n: t.detach() for n, t in tensors.items()}
    whole = run(tensors, reset, backend)
    state, parts = tensors["h0"], []
    for a, b in pairwise([0, 0, 1, 17, 33, 40]):
        part = {n: t[:, a:b] if n in ("x", "dt", "B", "C") else t for n, t in tensors.items()}
        out = run(part | {"h0": state}, reset[:, a:b], backend)
        state = out.state
        parts.append(out.y)
    torch.testing.assert_close(torch.cat(parts, 1), whole.y, rtol=0, atol=1e-13)
    torch.testing.assert_close(state, whole.state, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_is_two_scans(backend):
    tensors, _ = make(Case(T=40, E=2, N=2, h0=False, B=1))
    tensors = {n: t.detach() for n, t in tensors.items()}
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[:, 23] = True
    whole = run(tensors, reset, backend)
    for part in (slice(0, 23), slice(23, 40)):
        piece = run({n: t[:, part] if n in ("x", "dt", "B", "C") else t for n, t in tensors.items()}, None, backend)
        torch.testing.assert_close(whole.y[:, part], piece.y, rtol=0, atol=1e-13)
    torch.testing.assert_close(whole.state, piece.state, rtol=0, atol=1e-13)


@pytest.mark.parametrize("tiles", [(4, 2), (32, 8)])
def test_tiles_change_nothing(tiles, monkeypatch):
    from solomonic.kernels.selective_scan import triton_op
    from solomonic.kernels.selective_scan.configs import Config

    tensors, reset = make(Case(T=17, E=3, B=1, reset="some"))
    want = run(tensors, reset, "triton")
    expected = gradients(want, tensors)
    monkeypatch.setattr(triton_op, "config", lambda kernel, states: Config(*tiles, 1))
    got = run(tensors, reset, "triton")
    assert error(got.y, want.y) < 1e-14
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < 1e-13, name


def test_gradcheck():
    tensors, reset = make(Case(T=4, E=2, N=2, reset="some"))

    def function(backend):
        def call(*values):
            out = run(dict(zip(tensors, values, strict=True)), reset, backend)
            return out.y, out.state

        return call

    values = tuple(tensors.values())
    assert torch.autograd.gradcheck(function("reference"), values)
    assert torch.autograd.gradcheck(function("cpu"), values)
    assert torch.autograd.gradgradcheck(function("cpu"), values, fast_mode=True)


def test_function_transforms():
    tensors, reset = make(Case(T=6, reset="some"))
    values = tuple(t.detach() for t in tensors.values())
    tangents = tuple(torch.randn_like(v) for v in values)

    def function(*arguments):
        return run(dict(zip(tensors, arguments, strict=True)), reset).y

    tangent = torch.func.jvp(function, values, tangents)[1]
    pull = torch.func.vjp(function, *values)[1]
    dy = torch.randn_like(tangent)
    backward = sum((a * b).sum() for a, b in zip(pull(dy), tangents, strict=True))
    torch.testing.assert_close((tangent * dy).sum(), backward)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_summed_in_float32(backend, dtype):
    tensors, _ = make(Case(T=17, E=2, B=1), dtype)
    want = run(copies(tensors), None, "reference")
    with torch.no_grad():
        got = run(tensors, None, backend)
    assert got.y.dtype == dtype
    assert got.state.dtype == torch.float32
    assert error(got.state, want.state) < 1e-5
    assert error(got.y, want.y) < torch.finfo(dtype).eps


def test_triton_says_that_it_has_no_second_derivatives():
    tensors, _ = make(Case(T=3))
    y = run(tensors, None, "triton").y
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(y.sum(), tensors["x"], create_graph=True)


def test_non_contiguous_inputs():
    tensors, _ = make(Case(T=9, B=1))
    shuffled: Any = {n: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for n, t in tensors.items()}
    for backend in BACKENDS:
        torch.testing.assert_close(run(shuffled, None, backend).y, run(tensors, None, "reference").y)


X = torch.ones(2, 6, 4)
GOOD: Any = {"x": X, "dt": X, "A": -torch.ones(4, 3), "B": torch.ones(2, 6, 3), "C": torch.ones(2, 6, 3)}
BAD = [
    ({"x": [1.0]}, TypeError, ("x", "Tensor", "list")),
    ({"x": X[0]}, ValueError, ("x", "[B, T, E]", "(6, 4)")),
    ({"dt": X[:, 1:]}, ValueError, ("dt", "(2, 6, 4)", "(2, 5, 4)")),
    ({"dt": X.double()}, TypeError, ("dt", "float32", "float64")),
    ({"A": -torch.ones(3, 3)}, ValueError, ("A", "(4, 3)", "(3, 3)")),
    ({"A": -torch.ones(4)}, ValueError, ("A", "[E, N]", "(4,)")),
    ({"B": torch.ones(2, 6, 2)}, ValueError, ("B", "(2, 6, 3)", "(2, 6, 2)")),
    ({"C": torch.ones(2, 6, 3).half()}, TypeError, ("C", "float32", "float16")),
    ({"C": torch.ones(2, 6, 3, device="meta")}, ValueError, ("C", "cpu", "meta")),
    ({"D": torch.ones(3)}, ValueError, ("D", "(4,)", "(3,)")),
    ({"h0": torch.ones(2, 3, 4)}, ValueError, ("h0", "(2, 4, 3)", "(2, 3, 4)")),
    ({"reset": torch.zeros(2, 6)}, TypeError, ("reset", "bool", "float32")),
    ({"backend": "gpu"}, ValueError, ("backend", "'gpu'")),
]


@pytest.mark.parametrize(("changed", "kind", "parts"), BAD, ids=str)
def test_message_names_the_argument(changed, kind, parts):
    with pytest.raises(kind) as caught:
        selective_scan(**GOOD | changed)
    for part in parts:
        assert part in str(caught.value)


def test_results_have_short_reprs():
    out = selective_scan(*GOOD.values())
    assert repr(out) == "SelectiveScanOutput(y=(2, 6, 4), state=(2, 4, 3), dtype=torch.float32)"
