"""delta_rule and ridge_readout: the chunked paths against the loops, and the laws of a state."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from solomonic.kernels import delta_rule, ridge_readout

OPS = ("delta_rule", "ridge_readout")

# Largest error relative to the largest value, and the largest one measured over the cases below.
FORWARD = {
    ("delta_rule", torch.float64): 1e-12,  # measured 2e-15
    ("delta_rule", torch.float32): 1e-5,  # 1e-6
    ("ridge_readout", torch.float64): 1e-11,  # 3e-13
    ("ridge_readout", torch.float32): 5e-4,  # 5e-5: the solve multiplies rounding by the condition number, 51
}
BACKWARD = {
    ("delta_rule", torch.float64): 1e-11,  # 2e-14
    ("delta_rule", torch.float32): 5e-5,  # 6e-6
    ("ridge_readout", torch.float64): 1e-10,  # 2e-12
    ("ridge_readout", torch.float32): 5e-3,  # 1e-3
}


@dataclass(frozen=True)
class Case:
    T: int
    B: int = 2
    H: int = 4
    G: int = 2
    K: int = 6
    V: int = 5
    chunk: int = 16
    resets: tuple[int, ...] | None = None
    initial: bool = True
    rate: float = 0.5
    strength: float = 1.0
    iterations: int = 30
    decay_gram: bool = True

    def __str__(self):
        given = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return "-".join(f"{n}{v}" for (n, v), f in zip(given, fields(self), strict=True) if v != f.default)


CASES = [
    Case(T=0),
    Case(T=1),
    Case(T=1, resets=(0,)),
    Case(T=2, G=4),
    Case(T=63, G=1),
    Case(T=65, initial=False),
    Case(T=130, chunk=64, B=1, H=2),
    Case(T=37, chunk=1),
    Case(T=37, chunk=7, K=1, V=1),
    Case(T=40, strength=2.0),
    Case(T=40, rate=100.0),
    Case(T=40, rate=0.0, iterations=3),
    Case(T=40, decay_gram=False),
    Case(T=40, iterations=0),
    Case(T=50, resets=(0,)),
    Case(T=50, resets=(15, 16, 17, 40)),
    Case(T=50, resets=tuple(range(50))),
    Case(T=20, B=0),
    Case(T=20, V=0),
]


def make(case, dtype=torch.float64, seed=0) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Tensors by name (the state is one positive semidefinite matrix and a content), and the resets."""
    g, c = torch.Generator().manual_seed(seed), case

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    root = normal(c.B, c.H, c.K, c.K)
    tensors = {
        "q": normalize(normal(c.B, c.T, c.H, c.K), dim=-1),
        "k": normalize(normal(c.B, c.T, c.G, c.K), dim=-1),
        "v": normal(c.B, c.T, c.G, c.V),
        "g": -c.rate * uniform(c.B, c.T, c.H),
        "gate": c.strength * uniform(c.B, c.T, c.H),
        "gram": root @ root.mT if c.initial else None,
        "content": normal(c.B, c.H, c.K, c.V) if c.initial else None,
    }
    reset = None
    if c.resets is not None:
        reset = torch.zeros(c.B, c.T, dtype=torch.bool)
        reset[0, list(c.resets)] = True
        reset[1:] = uniform(c.B - 1, c.T) < 0.1
    return {n: None if t is None else t.to(dtype).requires_grad_() for n, t in tensors.items()}, reset


def run(op, tensors, reset, case, backend="cpu", **changes):
    """Outputs by name."""
    t = {**tensors, **changes}
    arguments = [t[n] for n in ("q", "k", "v", "g", "gate")]
    options: dict[str, Any] = {"reset": reset, "chunk": case.chunk, "backend": backend}
    if op == "delta_rule":
        out = delta_rule(*arguments, state=t["content"], **options)
        return {"out": out.out, "content": out.state}
    state = None if t["gram"] is None else (t["gram"], t["content"])
    out = ridge_readout(*arguments, state=state, iterations=case.iterations, decay_gram=case.decay_gram, **options)
    return {"out": out.out, "gram": out.state.gram, "content": out.state.content}


def gradients(outputs, tensors):
    g = torch.Generator().manual_seed(7)
    loss = torch.zeros((), dtype=torch.float64)
    for value in outputs.values():
        loss = loss + (value.double() * torch.randn(value.shape, generator=g, dtype=torch.float64)).sum()
    used = {n: t for n, t in tensors.items() if t is not None}
    found = torch.autograd.grad(loss, list(used.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(used, found, strict=True))


def error(got, want):
    """Largest difference relative to the largest value; NaN counts as infinite."""
    assert got.shape == want.shape
    if not want.numel():
        return 0.0
    scale = want.double().abs().max().clamp(min=1e-30)
    return torch.nan_to_num((got.double() - want.double()).abs().max() / scale, nan=torch.inf).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_agrees_with_the_reference(op, case, dtype):
    tensors, reset = make(case, dtype)
    exact: dict[str, Any] = {n: None if t is None else t.detach().double().requires_grad_() for n, t in tensors.items()}
    want, got = run(op, exact, reset, case, "reference"), run(op, tensors, reset, case)
    for name in want:
        assert got[name].dtype == dtype
        assert error(got[name], want[name]) < FORWARD[op, dtype], name
    expected = gradients(want, exact)
    for name, grad in gradients(got, tensors).items():
        assert error(grad, expected[name]) < BACKWARD[op, dtype] or grad.abs().max() < 1e-12, name


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradients_of_the_definition(op, backend):
    case = Case(T=3, B=1, H=2, G=1, K=2, V=2, chunk=2, iterations=4)
    tensors, _ = make(case)
    names = [n for n in tensors if not (op == "delta_rule" and n == "gram")]

    def call(*values):
        return tuple(run(op, dict(zip(names, values, strict=True)) | {"gram": None} if op == "delta_rule" else
                         dict(zip(names, values, strict=True)), None, case, backend).values())  # fmt: skip

    assert torch.autograd.gradcheck(call, [tensors[n] for n in names], atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("op", OPS)
def test_split_law(op, chunk):
    case = Case(T=41, chunk=chunk, resets=(3, 20))
    tensors, reset = make(case)
    assert reset is not None
    whole = run(op, tensors, reset, case)
    for split in (1, 2, 5, 20, 21, 40):
        parts = []
        carried = {n: tensors[n] for n in ("gram", "content")}
        for piece in (slice(0, split), slice(split, 41)):
            cut = {n: tensors[n][:, piece] for n in ("q", "k", "v", "g", "gate")} | carried
            parts.append(run(op, cut, reset[:, piece], case))
            carried |= {n: v for n, v in parts[-1].items() if n != "out"}
        assert error(torch.cat([p["out"] for p in parts], 1), whole["out"]) < 1e-11
        for name in whole.keys() - {"out"}:
            assert error(parts[1][name], whole[name]) < 1e-12


@st.composite
def cases(draw):
    H = draw(st.sampled_from([1, 2, 4, 6]))
    T = draw(st.integers(0, 40))
    return Case(
        T=T,
        B=draw(st.integers(1, 2)),
        H=H,
        G=draw(st.sampled_from([g for g in (1, 2, 3, 6) if H % g == 0])),
        K=draw(st.integers(1, 5)),
        V=draw(st.integers(1, 4)),
        chunk=draw(st.integers(1, 50)),
        resets=draw(st.none() | st.sets(st.integers(0, T - 1)).map(tuple)) if T else None,
        initial=draw(st.booleans()),
        rate=draw(st.sampled_from([0.0, 0.1, 10.0])),
        iterations=draw(st.integers(0, 12)),
        decay_gram=draw(st.booleans()),
    )


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=25)
@given(case=cases(), seed=st.integers(0, 3))
def test_any_shape_agrees_with_the_reference(op, case, seed):
    tensors, reset = make(case, seed=seed)
    want, got = run(op, tensors, reset, case, "reference"), run(op, tensors, reset, case)
    for name in want:
        assert error(got[name], want[name]) < 1e-9, name


def test_the_solve_is_a_ridge_regression():
    """Read out at q with alpha = 1: the prediction at q of all values from all keys, the last token included."""
    case = Case(T=30, B=1, initial=False, rate=0.0, iterations=300)
    tensors, _ = make(case)
    tensors["gate"] = torch.ones_like(tensors["gate"])
    out = run("ridge_readout", tensors, None, case)["out"]
    k, v, q = (tensors[n][0, :, 0] for n in ("k", "v", "q"))
    gram = k.T @ k
    weights = torch.linalg.solve(gram + 0.02 * torch.linalg.matrix_norm(gram) * torch.eye(6).double(), k.T @ v)
    assert error(out[0, -1, 0] * 6**0.5, q[-1] @ weights) < 1e-10


def test_full_strength_replaces_what_a_key_holds():
    k = torch.eye(3, dtype=torch.float64)[[0, 1, 0]].view(1, 3, 1, 3)
    v = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double().view(1, 3, 1, 2)
    state = delta_rule(k, k, v, torch.zeros(1, 3, 1).double(), torch.ones(1, 3, 1).double()).state
    assert torch.equal(state[0, 0], torch.tensor([[5.0, 6.0], [3.0, 4.0], [0.0, 0.0]]).double())


def test_nothing_written_reads_zero():
    zeros = {n: torch.zeros(1, 6, 1, 4) for n in "qkv"}
    zeros["q"] += 1.0
    gates = torch.zeros(1, 6, 1)
    for backend in ("cpu", "reference"):
        out = ridge_readout(*zeros.values(), gates, gates + 1, backend=backend)
        assert torch.equal(out.out, torch.zeros(1, 6, 1, 4))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_are_summed_in_float32(op, dtype):
    case = Case(T=40)
    tensors, _ = make(case, dtype)
    exact: dict[str, Any] = {n: None if t is None else t.detach().double() for n, t in tensors.items()}
    got, want = run(op, tensors, None, case), run(op, exact, None, case, "reference")
    assert got["out"].dtype == dtype
    assert got["content"].dtype == torch.float32
    assert error(got["content"], want["content"]) < FORWARD[op, torch.float32]
    assert error(got["out"], want["out"]) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("delta_rule", {"k": torch.zeros(2, 4, 3, 6).double()}, "divides H = 4, got 3"),
        ("delta_rule", {"v": torch.zeros(2, 5, 2, 5).double()}, "v: expected shape"),
        ("delta_rule", {"g": torch.zeros(2, 4, 3).double()}, "g: expected shape"),
        ("delta_rule", {"content": torch.zeros(2, 4, 5, 6).double()}, "state: expected shape"),
        ("delta_rule", {"q": [1.0]}, "q: expected a torch.Tensor"),
        ("ridge_readout", {"gate": torch.zeros(2, 4, 4).float()}, "alpha: expected dtype"),
        ("ridge_readout", {"gram": torch.zeros(2, 4, 6, 5).double()}, "state gram: expected shape"),
        ("ridge_readout", {"content": None}, "state content: expected a torch.Tensor"),
    ],
)
def test_bad_arguments_are_named(op, change, message):
    tensors, _ = make(Case(T=4))
    with pytest.raises((ValueError, TypeError), match=message):
        run(op, tensors, None, Case(T=4), **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge: expected a positive number, got 0.0"),
        ({"ridge": float("nan")}, "ridge: expected"),
        ({"iterations": -1}, "iterations: expected an int of at least 0, got -1"),
        ({"iterations": 2.5}, "iterations: expected an int of at least 0, got float"),
        ({"chunk": 0}, "chunk: expected an int of at least 1, got 0"),
        ({"scale": float("inf")}, "scale: expected a finite number"),
        ({"state": 3}, r"state: expected \(gram, content\), got int"),
        ({"reset": torch.zeros(2, 4)}, "reset: expected dtype torch.bool"),
    ],
)
def test_bad_options_are_named(options, message):
    tensors, _ = make(Case(T=4))
    with pytest.raises((ValueError, TypeError), match=message):
        ridge_readout(*(tensors[n] for n in ("q", "k", "v", "g", "gate")), **options)
