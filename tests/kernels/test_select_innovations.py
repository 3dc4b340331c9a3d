"""select_innovations: fast path against loop, selection against a sort, states, splits and hostile input."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.kernels import InnovationState, select_innovations
from solomonic.kernels.select_innovations import cost
from solomonic.kernels.select_innovations.plan import Plan

from .interpreted import guarded

BACKENDS = ["reference", "cpu"]
# Largest error of an innovation relative to the largest one, and beside it what was measured.
ERROR = {torch.float64: 1e-14, torch.float32: 1e-6}  # measured 4e-16, 2e-7


@dataclass(frozen=True)
class Case:
    T: int
    size: int
    window: int
    chunk: int | None = None
    span: int = 4
    norm: str = "l2"
    B: int = 2
    C: int = 5

    def __str__(self):
        return "-".join(f"{f.name}{getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default)

    @property
    def options(self) -> Any:
        return {n: getattr(self, n) for n in ("size", "window", "chunk", "span", "norm")}


CASES = [
    Case(T=0, size=3, window=4),
    Case(T=1, size=3, window=4),
    Case(T=1, size=2, window=1, chunk=1),
    Case(T=40, size=0, window=4),
    Case(T=40, size=1, window=1, chunk=1, span=1),
    Case(T=63, size=3, window=8),
    Case(T=63, size=5, window=8, norm="relative"),
    Case(T=63, size=5, window=3, chunk=8),
    Case(T=63, size=5, window=16, chunk=4, span=7),
    Case(T=63, size=100, window=4, chunk=1),
    Case(T=257, size=4, window=32, C=1),
    Case(T=257, size=16, window=5, chunk=3, B=3),
    Case(T=20, size=4, window=64),
    Case(T=33, size=4, window=4, B=0),
    Case(T=33, size=4, window=4, C=0),
]


# Sorting is slow in the interpreter: few refreshes.
KERNEL_CASES = [
    Case(T=0, size=3, window=4),
    Case(T=1, size=2, window=1, chunk=1, B=3),
    Case(T=30, size=0, window=8, B=1),
    Case(T=23, size=5, window=8, norm="relative"),
    Case(T=17, size=5, window=3, chunk=8, C=1, span=1),
    Case(T=40, size=20, window=5, chunk=13, B=1, C=130),
    Case(T=40, size=3, window=16, chunk=9, span=7, B=1),
    Case(T=20, size=4, window=64),
    Case(T=33, size=4, window=4, B=0),
    Case(T=9, size=4, window=4, B=1, C=0),
]


def outputs(case, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(case.B, case.T, case.C, generator=generator, dtype=torch.float64).to(dtype)


def coarse(case, seed=0, levels=4):
    """Scores of few values, so that most are tied."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (case.B, case.T), generator=generator).double()


def readable(selection, query):
    """Columns that a query reads."""
    return (selection.enter <= query) & (query < selection.exit)


def assert_same(got, want, score=None):
    for name in ("enter", "exit", "kept"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    for name in ("position", "enter"):
        assert torch.equal(getattr(got.state, name), getattr(want.state, name)), name
    assert got.state.seen == want.state.seen
    assert torch.equal(got.state.past, want.state.past)
    assert torch.equal(got.score.isfinite(), want.score.isfinite())
    if score is None:
        assert torch.equal(got.score.nan_to_num(), want.score.nan_to_num())
        assert torch.equal(got.state.score, want.state.score)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_innovations_agree_with_the_reference(case, dtype):
    y = outputs(case, dtype)
    want = select_innovations(y.double(), **case.options, backend="reference").score
    got = select_innovations(y, **case.options, backend="cpu").score
    assert got.dtype == dtype
    assert got.shape == (case.B, case.T)
    assert (got - want).abs().max() <= ERROR[dtype] * want.abs().max() if got.numel() else True


@pytest.mark.parametrize("norm", ["l2", "relative"])
def test_innovations_by_hand(norm):
    y = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0]]).view(1, 4, 2)
    want = torch.tensor([[5.0, (4.0 + 16) ** 0.5, 0.0, (1.5**2 + 1) ** 0.5]])
    if norm == "relative":
        want = torch.tensor([[1.0, 20**0.5, 0.0, (1.5**2 + 1) ** 0.5 * 1e12]])
    for backend in BACKENDS:
        got = select_innovations(y, size=1, window=1, span=2, norm=norm, backend=backend)
        torch.testing.assert_close(got.score, want)


@pytest.mark.parametrize("scores", ["random", "tied"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_selection_agrees_with_the_reference(case, scores):
    score = coarse(case) if scores == "tied" else outputs(case).square().sum(-1)
    options = case.options | {"span": 4, "norm": "l2"}
    want = select_innovations(None, score=score, **options, backend="reference")
    assert_same(select_innovations(None, score=score, **options, backend="cpu"), want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", KERNEL_CASES, ids=str)
def test_kernels_agree_with_the_reference(case, dtype):
    y = outputs(case, dtype)
    want = select_innovations(y.double(), **case.options, backend="reference")
    with guarded() as ran:
        got = select_innovations(y, **case.options, backend="triton")
    assert set(ran) <= {"innovation_kernel", "select_kernel"}
    assert len(ran) == 2 or not y.shape[:2].numel()
    assert got.score.dtype == dtype
    assert (got.score - want.score).abs().max() <= ERROR[dtype] * want.score.abs().max() if got.score.numel() else True
    # the choice is exact for the scores at hand
    same = select_innovations(None, score=got.score, **case.options, backend="reference")
    for name in ("enter", "exit", "kept"):
        assert torch.equal(getattr(got, name), getattr(same, name)), name


@pytest.mark.parametrize("scores", ["tied", "hostile"])
@pytest.mark.parametrize("case", [c for c in KERNEL_CASES if c.T > 1 and c.C], ids=str)
def test_merge_kernel_settles_ties_and_passes_over_what_is_no_number(case, scores):
    score = coarse(case) * -1.0  # has negative zeros
    if scores == "hostile" and case.B:
        score[:, ::3] = torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(case.T)[: len(score[0, ::3])]
    want = select_innovations(None, score=score, **case.options, backend="reference")
    with guarded():
        got = select_innovations(None, score=score, **case.options, backend="triton")
    for name in ("enter", "exit", "kept"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    torch.testing.assert_close(got.state, want.state, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("cuts", [(0, 7, 8, 9, 30), (0, 1, 21, 30)], ids=str)
def test_kernels_obey_the_split_law_bit_for_bit(cuts):
    y = outputs(Case(T=30, size=3, window=5), torch.float32)
    options: Any = {"size": 3, "window": 5, "chunk": 7, "span": 4, "backend": "triton"}
    whole, state, scores = select_innovations(y, **options), None, []
    with guarded():
        for a, b in pairwise(cuts):
            part = select_innovations(y[:, a:b], **options, state=state)
            state = part.state
            scores.append(part.score)
    assert torch.equal(torch.cat(scores, 1), whole.score)
    assert state is not None
    for name in ("past", "position", "score", "enter"):
        assert torch.equal(getattr(state, name), getattr(whole.state, name)), name


def test_kernels_take_half_precision_and_refuse_too_large_a_memory():
    y = outputs(Case(T=20, size=2, window=3, C=130), torch.bfloat16)
    want = select_innovations(y.double(), size=2, window=3, backend="reference").score
    with guarded():
        got = select_innovations(y, size=2, window=3, backend="triton").score
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 1e-6 * want.max()
    with pytest.raises(ValueError, match="sorts at most 4096 tokens, and size \\+ chunk is 5003"):
        select_innovations(y, size=5000, window=3, backend="triton")


def test_cost_counts_the_bytes_of_the_tensors():
    y, past = torch.ones(2, 30, 6, dtype=torch.bfloat16), torch.ones(2, 4, 6, dtype=torch.bfloat16)
    out = select_innovations(None, score=torch.ones(2, 30), size=3, window=4, chunk=5)
    found = cost.innovation(2, 30, 6, 4, known=4)
    assert found.compulsory == found.moved == y.nbytes + past.nbytes + out.score.nbytes
    assert found.flops == 8 * y.numel()
    plan = Plan(seen=0, length=30, size=3, window=4, chunk=5)
    listed = out.kept[:, : plan.held_after]
    found = cost.selection(2, plan)
    assert found.compulsory == sum(t.nbytes for t in (out.score, out.enter, out.exit, listed))
    assert cost.comparisons(1, plan) == 7 * 80  # seven sorts of 16 numbers, ten stages of eight comparisons each


@settings(max_examples=200)
@given(
    T=st.integers(0, 60),
    size=st.integers(0, 9),
    window=st.integers(1, 12),
    chunk=st.integers(1, 12),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 5),
    backend=st.sampled_from(BACKENDS),
)
def test_every_query_reads_the_top_of_what_has_left_the_window(T, size, window, chunk, levels, seed, backend):
    score = coarse(Case(T=T, size=size, window=window), seed, levels)
    out = select_innovations(None, score=score, size=size, window=window, chunk=chunk, backend=backend)
    assert not out.exit[out.enter >= out.exit].any()
    for query in range(T):
        boundary = query // chunk * chunk
        for b in range(2):
            candidates = range(max(0, boundary - window + 1))
            best = sorted(candidates, key=lambda j, b=b: (-float(score[b, j]), j))[:size]
            assert readable(out, query)[b].nonzero().flatten().tolist() == sorted(best)
    held = out.state.position[:, : out.state.position.shape[1] - (T - max(0, T // chunk * chunk - window + 1))]
    for b in range(2):
        best = sorted(range(max(0, T // chunk * chunk - window + 1)), key=lambda j, b=b: (-float(score[b, j]), j))
        assert held[b].tolist() == best[:size]


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(0, 11), min_size=1, max_size=8),
    size=st.integers(0, 6),
    window=st.integers(1, 9),
    chunk=st.none() | st.integers(1, 9),
    span=st.integers(1, 5),
    tied=st.booleans(),
    backend=st.sampled_from(BACKENDS),
)
def test_any_split_gives_the_same_bits(lengths, size, window, chunk, span, tied, backend):
    case = Case(T=sum(lengths), size=size, window=window, chunk=chunk, span=span, C=7)
    y = outputs(case, torch.float32)
    y = y.round() if tied else y
    whole = select_innovations(y, **case.options, backend=backend)
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    state, scores, intervals = None, [], [{} for _ in range(case.B)]
    for a, b in pairwise([0, *ends]):
        part = select_innovations(y[:, a:b], **case.options, state=state, backend=backend)
        before = torch.empty(case.B, 0, dtype=torch.int64) if state is None else state.position
        position = torch.cat([before, torch.arange(a, b).expand(case.B, -1)], 1)
        for row, *columns in zip(intervals, position.tolist(), part.enter.tolist(), part.exit.tolist(), strict=True):
            row.update({p: (first, last) for p, first, last in zip(*columns, strict=True) if last and p >= 0})
        assert torch.equal(part.state.position, position.gather(1, part.kept))
        scores.append(part.score)
        state = part.state
    assert torch.equal(torch.cat(scores, 1), whole.score)
    for b in range(case.B):
        want = enumerate(zip(whole.enter[b].tolist(), whole.exit[b].tolist(), strict=True))
        assert intervals[b] == {p: interval for p, interval in want if interval[1]}
    assert state is not None
    for name, value in whole.state._asdict().items():
        other = getattr(state, name)
        assert other == value if name == "seen" else torch.equal(other, value), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("C", [1, 3, 64, 100, 40000])
def test_the_bits_of_a_score_do_not_depend_on_the_cut(C, threads):
    y = outputs(Case(T=9, size=1, window=2, C=C), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        whole = select_innovations(y, size=1, window=2).score
        transposed = select_innovations(y.transpose(1, 2).contiguous().transpose(1, 2), size=1, window=2).score
        state, parts = None, []
        for t in range(9):
            out = select_innovations(y[:, t : t + 1], size=1, window=2, state=state)
            state = out.state
            parts.append(out.score)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(transposed, whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_never_stored_and_infinity_first(backend):
    score = torch.tensor([[1.0, torch.nan, torch.inf, 0.5, -torch.inf, 2.0, 0.0]])
    out = select_innovations(None, score=score, size=3, window=1, chunk=1, backend=backend)
    assert out.exit[0].bool().tolist() == [True, False, True, True, False, True, False]
    assert out.state.position.tolist() == [[2, 5, 0]]
    assert out.exit[0, 3] == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_slots_of_the_state_can_be_emptied_and_filled(backend):
    case = Case(T=24, size=3, window=4, B=1)
    score = outputs(case).square().sum(-1)
    state = select_innovations(None, score=score[:, :12], size=3, window=4, backend=backend).state
    assert state.position.shape == (1, 3 + 3)
    # Emptied: the next refresh takes three tokens whatever their score.
    emptied = state._replace(position=state.position.clone(), score=state.score.clone())
    emptied.position[:, :3], emptied.score[:, :3] = -1, -torch.inf
    out = select_innovations(None, score=score[:, 12:14], size=3, window=4, state=emptied, backend=backend)
    assert not readable(out, 13).any()
    assert out.state.position[0, :3].tolist() == [-1, -1, -1]
    out = select_innovations(None, score=score[:, 12:17], size=3, window=4, state=emptied, backend=backend)
    best = sorted(range(9, 13), key=lambda j: -float(score[0, j]))[:3]
    assert out.state.position[0, :3].tolist() == best
    # Filled: a token with a great score stays, at whatever position.
    filled = state._replace(position=state.position.clone(), score=state.score.clone(), enter=state.enter.clone())
    filled.position[:, 2], filled.score[:, 2], filled.enter[:, 2] = 77, 1e9, 12
    out = select_innovations(None, score=score[:, 12:], size=3, window=4, state=filled, backend=backend)
    assert readable(out, 12)[0, 2]
    assert readable(out, 23)[0, 2]
    assert out.state.position[0, 0] == 77
    assert out.kept[0, 0] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_future_changes_nothing(backend):
    case = Case(T=40, size=3, window=4)
    y = outputs(case)
    changed = y.clone()
    changed[:, 20:] += 5
    a, b = (select_innovations(each, **case.options, backend=backend) for each in (y, changed))
    assert torch.equal(a.score[:, :20], b.score[:, :20])
    for query in range(24):
        assert torch.equal(readable(a, query), readable(b, query))


def test_nothing_has_a_gradient():
    y = outputs(Case(T=9, size=2, window=2)).requires_grad_()
    out = select_innovations(y, size=2, window=2)
    assert not out.score.requires_grad
    assert not out.state.past.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    y = outputs(Case(T=30, size=2, window=3, C=50), dtype)
    got = select_innovations(y, size=2, window=3)
    want = select_innovations(y.double(), size=2, window=3, backend="reference")
    assert got.score.dtype == torch.float32
    assert got.state.past.dtype == dtype
    torch.testing.assert_close(got.score.double(), want.score, rtol=1e-6, atol=0)


def test_results_have_short_reprs():
    out = select_innovations(torch.ones(1, 3, 2), size=1, window=2)
    assert repr(out) == "InnovationSelection(score=(1, 3), enter=(1, 3), kept=(1, 3), seen=3)"
    assert isinstance(out.state, InnovationState)


Y = torch.ones(2, 6, 3)
STATE = select_innovations(Y, size=2, window=2, span=2).state
BAD = [
    ({"y": None}, TypeError, ("y", "None")),
    ({"y": [1.0]}, TypeError, ("y", "Tensor", "list")),
    ({"y": Y.long()}, TypeError, ("y", "int64")),
    ({"y": Y[0]}, ValueError, ("y", "[B, T, C]", "(6, 3)")),
    ({"score": Y[..., 0]}, ValueError, ("score", "both")),
    ({"y": None, "score": Y}, ValueError, ("score", "[B, T]", "(2, 6, 3)")),
    ({"size": -1}, ValueError, ("size", "at least 0", "-1")),
    ({"size": 1.0}, TypeError, ("size", "int", "float")),
    ({"size": True}, TypeError, ("size", "int", "bool")),
    ({"window": 0}, ValueError, ("window", "at least 1", "0")),
    ({"chunk": 0}, ValueError, ("chunk", "at least 1", "0")),
    ({"span": 0}, ValueError, ("span", "at least 1", "0")),
    ({"norm": "l1"}, ValueError, ("norm", "'l2'", "'l1'")),
    ({"backend": "gpu"}, ValueError, ("backend", "'gpu'")),
    ({"state": 3}, TypeError, ("state", "InnovationState", "int")),
    ({"state": STATE._replace(seen=-1)}, ValueError, ("state.seen", "at least 0", "-1")),
    ({"state": STATE._replace(seen=1.5)}, TypeError, ("state.seen", "int", "float")),
    ({"state": STATE, "window": 3}, ValueError, ("state.position", "(2, 4)", "(2, 3)", "same options")),
    ({"state": STATE, "span": 3}, ValueError, ("state.past", "(2, 3, 3)", "(2, 2, 3)")),
    ({"state": STATE._replace(past=STATE.past.double())}, TypeError, ("state.past", "float32", "float64")),
    ({"state": STATE._replace(score=STATE.score.double())}, TypeError, ("state.score", "float32", "float64")),
    ({"state": STATE._replace(position=STATE.position.int())}, TypeError, ("state.position", "int64", "int32")),
    ({"state": STATE._replace(enter=STATE.enter.to("meta"))}, ValueError, ("state.enter", "cpu", "meta")),
    ({"state": STATE._replace(score=STATE.score[:, 1:])}, ValueError, ("state.score", "(2, 3)", "(2, 2)")),
]


@pytest.mark.parametrize(("changed", "kind", "parts"), BAD, ids=str)
def test_message_names_the_argument(changed, kind, parts):
    arguments: dict[str, Any] = {"y": Y, "size": 2, "window": 2, "span": 2} | changed
    with pytest.raises(kind) as caught:
        select_innovations(arguments.pop("y"), **arguments)
    for part in parts:
        assert part in str(caught.value)
