"""ssd: states that are saved and edited inside the scan, and what is measured on the way."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.kernels import ssd
from solomonic.kernels.ssd.pieces import chunk_table
from solomonic.kernels.triton.launch import architecture

from .interpreted import guarded
from .test_ssd import NAMES, Case, as_double, error, make

BASE = Case(T=70, B=2, H=4, P=3, N=5, GB=2, GC=4, chunk=16, resets=(0, 20, 33, 48))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
GRADIENTS = {torch.float64: 1e-12, torch.float32: 1e-4}
ALL = ("log_decay", "controllability", "observability", "row_sums", "innovation")


def scan(tensors, reset, backend="cpu", chunk=16, **options):
    required = [tensors[n] for n in NAMES[:5]]
    return ssd(*required, D=tensors["D"], h0=tensors["h0"], reset=reset, chunk=chunk, backend=backend, **options)


def values(case, dtype, E, seed=3):
    g = torch.Generator().manual_seed(seed)
    full = torch.randn(case.B, E, case.H, case.P, case.N, generator=g, dtype=torch.float64)
    scale = torch.randn(case.B, E, case.H, generator=g, dtype=torch.float64)
    return full.to(dtype).requires_grad_(), scale.to(dtype).requires_grad_()


def edits_of(case, dtype):
    """One edit of every kind: at the first token, inside chunks, at a chunk's edge, on a reset, at the last token."""
    full, scale = values(case, dtype, 4)
    return {
        "set": (((0, 5, 20, 69), "set", full), full),
        "add": (((15, 16, 33, 40), "add", full), full),
        "scale": (((1, 31, 32, 48), "scale", scale), scale),
        "heads": (((50, 3), "set", full[:, :2, :2].detach(), [3, 1]), None),
        "zero": ((40, "set", 0.0), None),
        "flip": (([64], "scale", -1.0), None),
    }


def _in_double(edit):
    """An edit with its value in float64."""
    positions, mode, value, *heads = edit
    return positions, mode, value.double() if isinstance(value, torch.Tensor) else value, *heads


def loss_of(out):
    g = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=torch.float64)
    for part in (out.y, out.state, out.states):
        if part is not None:
            total = total + (part.double() * torch.randn(part.shape, generator=g, dtype=torch.float64)).sum()
    return total


def compare(case, dtype, backend, edit_of, save, value_of=lambda e: e[1]):
    """Outputs and gradients, of the value of the edit too, against the reference."""
    tensors, reset = make(case, dtype)
    exact = as_double(tensors)
    found = []
    for inputs, name in ((exact, "reference"), (tensors, backend)):
        edit = edit_of(case, torch.float64 if name == "reference" else dtype)
        leaves = [t for t in inputs.values() if t is not None]
        if value_of(edit) is not None:
            if name == "reference":
                value_of(edit).data.copy_(value_of(edit_of(case, dtype)).double())
            leaves.append(value_of(edit))
        out = scan(inputs, reset, name, edit=edit[0], save=save)
        found.append((out, torch.autograd.grad(loss_of(out), leaves, allow_unused=True, materialize_grads=True)))
    (want, expected), (got, grads) = found
    for name in ("y", "state", "states"):
        if getattr(want, name) is not None:
            assert error(getattr(got, name), getattr(want, name)) < TOLERANCE[dtype], name
    for one, other in zip(grads, expected, strict=True):
        # Relative to 1 where a gradient is smaller: what an edit cuts off is removed by a difference, not left out.
        floor = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        assert (one.double() - other).abs().max() < GRADIENTS[dtype] * floor


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["set", "add", "scale", "heads", "zero", "flip"])
def test_edits_agree_with_the_reference(kind, dtype):
    compare(BASE, dtype, "cpu", lambda case, dtype: edits_of(case, dtype)[kind], (3, 20, 0, 69, 47))


@pytest.mark.parametrize(("kind", "dtype"), [("set", torch.float32), ("add", torch.float64), ("scale", torch.float32)])
def test_triton_edits_agree_with_the_reference(kind, dtype):
    case = replace(BASE, B=1, H=2, GB=2, GC=2)
    with guarded() as ran:
        compare(case, dtype, "triton", lambda case, dtype: edits_of(case, dtype)[kind], (3, 20, 0, 69, 47))
    assert ran[0] == "forward_kernel"
    assert len(ran) == 4


def test_triton_in_the_configurations_of_amd_agrees_with_the_reference():
    case = replace(BASE, B=1, H=2, GB=2, GC=2)
    with architecture("gfx942"), guarded() as ran:
        compare(case, torch.float32, "triton", lambda case, dtype: edits_of(case, dtype)["set"], (3, 20, 0, 69, 47))
    assert len(ran) == 4


@pytest.mark.parametrize("resets", [None, (0, 20)])
@pytest.mark.parametrize("save", ["final", "chunk", 7, [40, 2], range(3), torch.tensor([69, 15, 16])], ids=str)
def test_saved_states_agree_with_the_reference(save, resets):
    compare(replace(BASE, resets=resets), torch.float64, "cpu", lambda case, dtype: (None, None), save)


def test_triton_saves_the_states_of_chunks():
    with guarded():
        compare(replace(BASE, B=1, H=2, GB=2, GC=2), torch.float32, "triton", lambda c, d: (None, None), "chunk")


def test_saved_states_are_those_of_a_shorter_scan():
    tensors, reset = make(BASE)
    states = scan(tensors, reset, save=[10, 63, 64]).states
    for slot, position in enumerate([10, 63, 64]):
        short = {n: t[:, : position + 1] if n in ("x", "dt", "B", "C") else t for n, t in tensors.items()}
        alone = scan(short, reset[:, : position + 1]).state
        torch.testing.assert_close(states[:, slot], alone, rtol=0, atol=1e-12)
    chunks = scan(tensors, reset, save="chunk")
    assert chunks.states.shape == (2, 5, 4, 3, 5)
    assert torch.equal(chunks.states[:, -1], chunks.state)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_packed_sequences_with_states_of_their_own(backend):
    """Segments begin by `edit` with their initial states and end by `save`: the same as separate scans."""
    case = replace(BASE, B=1, resets=None)
    tensors, _ = make(case)
    starts, ends = (0, 9, 32, 41), (8, 31, 40, 69)
    first, _ = values(case, torch.float64, len(starts))
    with guarded():
        packed = scan(tensors, None, backend, edit=(starts, "set", first), save=ends)
        grad = torch.autograd.grad(packed.states.sum() + packed.y.sum(), first)[0]
    for slot, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = {n: t[:, start : end + 1] if n in ("x", "dt", "B", "C") else t for n, t in tensors.items()}
        h0 = first[:, slot].detach().requires_grad_()
        alone = scan(part | {"h0": h0}, None)
        torch.testing.assert_close(packed.y[:, start : end + 1], alone.y, rtol=0, atol=1e-12)
        torch.testing.assert_close(packed.states[:, slot], alone.state, rtol=0, atol=1e-12)
        (want,) = torch.autograd.grad(alone.state.sum() + alone.y.sum(), h0)
        torch.testing.assert_close(grad[:, slot], want, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "edit", [((), "set", 0.0), ((5, 40), "scale", 1.0), ((0, 16, 69), "add", 0.0), ((3,), "set", 9.0, [])]
)
def test_an_edit_of_nothing_keeps_every_bit(edit):
    tensors, reset = make(BASE, torch.float32)
    plain, edited = scan(tensors, reset, save="chunk"), scan(tensors, reset, edit=edit, save="chunk")
    assert torch.equal(plain.y, edited.y)
    assert torch.equal(plain.state, edited.state)
    assert torch.equal(plain.states, edited.states)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_what_an_edit_does_not_reach_keeps_its_bits(backend):
    tensors, reset = make(replace(BASE, B=1), torch.float32)
    with torch.no_grad(), guarded():
        plain = scan(tensors, reset, backend)
        edited = scan(tensors, reset, backend, edit=(37, "set", 3.0, [1]))
    if backend == "cpu":
        assert torch.equal(plain.y[:, :37], edited.y[:, :37])
        assert torch.equal(plain.y[:, :, [0, 2, 3]], edited.y[:, :, [0, 2, 3]])
    # The kernel's chunks are cut at the edit: those before it are as they were.
    assert torch.equal(plain.y[:, :32], edited.y[:, :32])
    assert not torch.equal(plain.y[:, 37:, 1], edited.y[:, 37:, 1])


def test_a_reset_is_an_edit():
    case = replace(BASE, resets=None)
    tensors, _ = make(case)
    reset = torch.zeros(case.B, case.T, dtype=torch.bool)
    reset[:, [4, 32]] = True
    by_reset, by_edit = scan(tensors, reset), scan(tensors, None, edit=((4, 32), "set", 0.0))
    torch.testing.assert_close(by_reset.y, by_edit.y, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_reset.state, by_edit.state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_interventions_in_one_scan_are_those_of_separate_scans(dtype):
    tensors, reset = make(BASE, dtype)
    several = [None, *(edit for edit, _ in edits_of(BASE, dtype).values())]
    together = scan(tensors, reset, edit=several, save=(2, 40, 69))
    assert together.y.shape == (7, 2, 70, 4, 3)
    assert together.states.shape == (7, 2, 3, 4, 3, 5)
    plain = scan(tensors, reset)
    assert torch.equal(together.y[0], plain.y)
    with torch.no_grad():  # where outputs are written in place
        again = scan(tensors, reset, edit=several, save=(2, 40, 69))
    for name in ("y", "state", "states"):
        assert error(getattr(again, name), getattr(together, name)) < TOLERANCE[dtype]
    for k, edit in enumerate(several):
        if edit is not None:
            alone = scan(tensors, reset, "reference", edit=edit, save=(2, 40, 69))
            for name in ("y", "state", "states"):
                assert error(getattr(together, name)[k], getattr(alone, name)) < TOLERANCE[dtype], (k, name)
    leaves = [t for t in tensors.values() if t is not None]
    exact = as_double(tensors)
    raised = [None, *(_in_double(edit) for edit in several[1:])]
    want = scan(exact, reset, "reference", edit=raised, save=(2, 40, 69))
    expected = torch.autograd.grad(loss_of(want), list(exact.values()))
    for one, other in zip(torch.autograd.grad(loss_of(together), leaves), expected, strict=True):
        assert error(one, other) < GRADIENTS[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        BASE,
        replace(BASE, resets=None, GB=1, GC=1, direct=False),
        replace(BASE, T=5, resets=(2,)),
        replace(BASE, rate=200.0, resets=None),
        replace(BASE, T=0, resets=None),
        replace(BASE, T=1, resets=None),
        replace(BASE, B=0, resets=None),
        replace(BASE, P=0, resets=None),
    ],
    ids=str,
)
def test_statistics_agree_with_the_reference(case, dtype):
    tensors, reset = make(case, dtype)
    want = scan(as_double(tensors), reset, "reference", want=ALL).statistics
    got = scan(tensors, reset, want=ALL).statistics
    assert list(got) == list(ALL)
    for name in ALL:
        assert got[name].dtype == dtype
        assert not got[name].requires_grad
        finite = torch.isfinite(want[name])
        assert torch.equal(finite, torch.isfinite(got[name]))
        tolerance = TOLERANCE[dtype] * max(1.0, case.rate)
        assert error(got[name].where(finite, 0.0), want[name].where(finite, 0.0)) < tolerance, name


def test_statistics_say_what_they_claim():
    """Against the dense system: the hidden attention matrix, Gramians by their sums, decays by their products."""
    tensors, _ = make(replace(BASE, B=1, resets=None, direct=False, initial=False))
    x, dt, A, B, C = (tensors[n].detach() for n in NAMES[:5])
    out = scan({n: None if t is None else t.detach() for n, t in tensors.items()}, None, want=ALL)
    head, T = 1, 70
    log = (dt[0, :, head] * A[head]).cumsum(0)
    phi = (log[:, None] - log[None, :]).tril().exp().tril()
    keys, queries = B[0, :, head // 2] * dt[0, :, head, None], C[0, :, head]
    attention = (queries @ keys.T) * phi
    torch.testing.assert_close(attention @ x[0, :, head], out.y[0, :, head])
    torch.testing.assert_close(attention.sum(1), out.statistics["row_sums"][0, :, head])
    at_end, from_start = phi[-1, :, None] * keys, log.exp()[:, None] * queries
    torch.testing.assert_close(at_end.T @ at_end, out.statistics["controllability"][0, head])
    torch.testing.assert_close(from_start.T @ from_start, out.statistics["observability"][0, head])
    torch.testing.assert_close(out.statistics["log_decay"][0, :, head].sum(), log[T - 1])
    energy = (attention.diagonal()[:, None] * x[0, :, head]).square().sum()
    torch.testing.assert_close(out.statistics["innovation"][0, :, head, 0].sum(), energy)
    torch.testing.assert_close(out.statistics["innovation"][0, :, head, 1].sum(), out.y[0, :, head].square().sum())


def test_measuring_changes_no_bit():
    tensors, reset = make(BASE, torch.float32)
    plain, measured = scan(tensors, reset), scan(tensors, reset, want=ALL, save="chunk")
    assert torch.equal(plain.y, measured.y)
    assert torch.equal(plain.state, measured.state)
    loss = loss_of(replace(measured, states=None)), loss_of(plain)
    grads = [torch.autograd.grad(each, list(tensors.values())) for each in loss]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@settings(max_examples=40)
@given(
    T=st.integers(1, 40),
    Q=st.integers(1, 20),
    edits=st.sets(st.integers(0, 39)),
    saves=st.sets(st.integers(0, 39)),
)
def test_a_table_of_chunks_covers_every_token_once(T, Q, edits, saves):
    edits, saves = sorted(p for p in edits if p < T), sorted(p for p in saves if p < T)
    rows = chunk_table(T, Q, edits, saves)
    assert [row[0] for row in rows] == [0, *(row[1] for row in rows[:-1])]
    assert rows[-1][1] == T
    assert all(0 < stop - start <= Q for start, stop, *_ in rows)
    assert [start for start, _, edit, _ in rows if edit >= 0] == edits
    assert [stop - 1 for _, stop, _, save in rows if save >= 0] == saves
    assert set(range(0, T, Q)) <= {start for start, *_ in rows}


def test_edited_scans_have_second_derivatives():
    case = Case(T=5, B=1, H=2, P=2, N=2, GB=1, GC=2, chunk=2, resets=(3,))
    tensors, reset = make(case)
    full, scale = values(case, torch.float64, 1)

    def function(x, dt, B, h0, full, scale):
        inputs = tensors | {"x": x, "dt": dt, "B": B, "h0": h0}
        one = scan(inputs, reset, chunk=2, edit=[((3,), "set", full), ((1,), "scale", scale)], save=[1, 4])
        return one.y, one.states

    inputs = tuple(tensors[n] for n in ("x", "dt", "B", "h0"))
    assert torch.autograd.gradcheck(function, (*inputs, full, scale), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (*inputs, full, scale), fast_mode=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"save": "all"}, ValueError, r"^save: expected 'final', 'chunk' or positions, got 'all'"),
        ({"save": [70]}, ValueError, r"^save: expected positions from 0 to T - 1 = 69, got 70"),
        ({"save": -1}, ValueError, r"^save: expected positions from 0 .* got -1"),
        ({"save": [3, 3]}, ValueError, r"^save: expected each position once"),
        ({"save": 2.5}, TypeError, r"^save: expected token positions"),
        ({"save": [True]}, TypeError, r"^save: expected token positions"),
        ({"want": "gramian"}, ValueError, r"^want: expected names out of 'log_decay'.* got 'gramian'"),
        ({"want": 3}, TypeError, r"^want: expected names"),
        ({"edit": 3}, TypeError, r"^edit: expected \(positions, mode, value\)"),
        ({"edit": []}, ValueError, r"^edit: expected at least one"),
        ({"edit": (70, "set", 0.0)}, ValueError, r"^edit positions: .* got 70"),
        ({"edit": [None, (1, "zero", 0.0)]}, ValueError, r"^edit\[1\] mode: expected 'set'"),
        ({"edit": (1, "set", "0")}, TypeError, r"^edit value: expected a torch.Tensor, got str"),
        ({"edit": (1, "set", torch.zeros(7, 5))}, ValueError, r"^edit value: .* \(2, 1, 4, 3, 5\), got \(7, 5\)"),
        ({"edit": (1, "scale", torch.zeros(3))}, ValueError, r"^edit value: .* \(2, 1, 4\), got \(3,\)"),
        ({"edit": (1, "set", torch.zeros(5).double())}, TypeError, r"^edit value: expected dtype"),
        ({"edit": (1, "set", 0.0, [4])}, ValueError, r"^edit heads: expected heads from 0 to H - 1 = 3, got 4"),
        ({"edit": (1, "set", 0.0, [1, 1])}, ValueError, r"^edit heads: expected each head once"),
        ({"want": "row_sums", "backend": "triton"}, ValueError, r"^backend: 'triton' .* no statistics"),
        ({"edit": [None, None], "backend": "triton"}, ValueError, r"^backend: 'triton' .* one intervention"),
    ],
)
def test_bad_requests_are_named(options, kind, message):
    tensors, reset = make(BASE, torch.float32)
    with pytest.raises(kind, match=message):
        scan(tensors, reset, **options)
