"""memory_attention over stored tokens: who reads them, positions, selection by innovation, tokens that nobody reads."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from solomonic.kernels import memory_attention, select_innovations

from .attention_cases import Case, error, gradients, intervals, make, outputs, run

BACKENDS = ["reference", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_stored_tokens_are_read_in_their_interval(backend):
    tensors = make(Case(T=20, window=4, past=3, stored=15, B=1))
    enter, leave = intervals(tensors)
    out = run(tensors, 4, backend=backend, **({"block": 8} if backend == "cpu" else {})).out
    for t in range(20):
        (grad,) = torch.autograd.grad(out[:, t].sum(), tensors["ve"], retain_graph=True)
        assert torch.equal(grad.abs().sum((0, 2, 3)) > 0, ((enter <= t + 3) & (t + 3 < leave))[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 12])
def test_position_moves_the_queries(backend, T):
    tensors = make(Case(T=T, window=4, past=3, fading="yes", stored=9))
    enter, leave = intervals(tensors)
    want = outputs(run(tensors, 4, backend=backend, spans=(enter, leave)))
    moved = (enter + 97, torch.where(leave > 1000, leave, leave + 97))
    got = outputs(run(tensors, 4, backend=backend, spans=moved, position=100))
    for name in want:
        assert torch.equal(got[name], want[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 12])
def test_what_nobody_reads_may_hold_anything(backend, T):
    tensors = make(Case(T=T, window=4, past=30, stored=5))
    enter, leave = (torch.full((2, 5), bound, dtype=torch.int64) for bound in (0, 1 << 62))
    enter[:, 2] = 7
    leave[:, 2] = 7
    without = {n: t[:, [0, 1, 3, 4]] if n in ("ke", "ve") else t for n, t in tensors.items()}
    spans = enter[:, [0, 1, 3, 4]], leave[:, [0, 1, 3, 4]]
    want = run(without, 4, backend=backend, spans=spans)
    dirty = {n: t.detach().clone() for n, t in tensors.items()}
    for name in ("ke", "ve"):
        dirty[name][:, 2] = torch.nan
    dirty = {n: t.requires_grad_() for n, t in dirty.items()}
    got = run(dirty, 4, backend=backend, spans=(enter, leave))
    for name, value in outputs(got).items():
        torch.testing.assert_close(value, outputs(want)[name], rtol=0, atol=1e-14)
    found = gradients(got, dirty)
    for name, grad in found.items():
        assert grad.isfinite().all(), name
    assert not found["ve"][:, 2].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 9])
def test_rows_without_stored_tokens(backend, T):
    tensors = make(Case(T=T, window=4, stored=3))
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    out, plain = run(tensors, 4, backend=backend, spans=(nothing, nothing)), run(tensors, 4, backend=backend)
    assert plain.lse.eidetic is not None
    assert out.lse.eidetic is not None
    assert (out.lse.eidetic == -torch.inf).all()
    bare = {n: t for n, t in tensors.items() if n not in ("ke", "ve")}
    torch.testing.assert_close(out.out, run(bare, 4, backend=backend).out, rtol=0, atol=1e-14)
    share = torch.softmax(torch.stack([out.lse.window, out.lse.eidetic]), 0)[1]
    loss = out.out.sum() + share.sum() + out.lse.eidetic.exp().sum()
    for grad in torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True):
        assert grad.isfinite().all()


def test_all_tokens_stored_after_their_window_is_attention_to_all_the_past():
    T, window = 50, 6
    tensors = make(Case(T=T, window=window, H=4))
    tensors |= {"ke": tensors["k"], "ve": tensors["v"]}
    enter = torch.arange(T).expand(2, T) + window
    got = run(tensors, window, spans=(enter, torch.full_like(enter, 1 << 62)), block=8)
    want = run({n: tensors[n] for n in "qkv"}, None)
    assert error(got.out, want.out) < 1e-13
    first, second = (gradients(out, tensors, ("out",)) for out in (got, want))
    for name in "qkv":
        assert error(first[name], second[name]) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ends", [[40], [13, 40], [1, 2, 3, 17, 18, 40], list(range(1, 41))], ids=str)
def test_selection_and_attention_obey_the_split_law(ends, backend):
    """A layer with window, fading and innovation-selected tokens, whose memory is carried by hand."""
    window, chunk, size = 5, 4, 3
    case = Case(T=40, window=window, fading="yes", H=4, K=4, V=3)
    tensors = make(case)
    y = tensors["vf"].flatten(2)
    options: Any = {"size": size, "window": window, "chunk": chunk, "span": 2}

    def layer(a, b, memory):
        state, old = memory
        new = {n: t[:, a:b] for n, t in tensors.items()}
        chosen = select_innovations(y[:, a:b], state=state, **options)
        joined = {n: torch.cat([old[n], new[n]], 1) if n != "q" else new[n] for n in new}
        stored = {n: torch.cat([old["e" + n], new[n]], 1) for n in ("k", "v")}
        out = memory_attention(
            joined["q"],
            joined["k"],
            joined["v"],
            window=window,
            fading=(joined["kf"], joined["vf"]),
            eidetic=(stored["k"], stored["v"], chosen.enter, chosen.exit),
            position=a,
            backend=backend,
        )
        keep = {n: t[:, max(t.shape[1] - (window if n in "kv" else 2 * window), 0) :] for n, t in joined.items()}
        index = chosen.kept[..., None, None]
        taken = {"e" + n: t.gather(1, index.expand(-1, -1, *t.shape[2:])) for n, t in stored.items()}
        return out, (chosen.state, keep | taken)

    empty = {n: t[:, :0] for n, t in tensors.items()}
    start = (None, empty | {"ek": empty["k"], "ev": empty["v"]})
    whole, _ = layer(0, 40, start)
    assert whole.lse.eidetic is not None
    assert whole.lse.eidetic[:, 8:].isfinite().all()
    memory, parts = start, []
    for a, b in pairwise([0, *ends]):
        part, memory = layer(a, b, memory)
        parts.append(outputs(part))
    for name, value in outputs(whole).items():
        torch.testing.assert_close(torch.cat([p[name] for p in parts], 1), value, rtol=0, atol=1e-13)


def test_memory_grows_as_what_is_seen_not_as_what_is_there():
    T, window = 2048, 16
    tensors = make(Case(T=T, window=window, stored=T, B=1, H=1, G=1, K=8, V=8), torch.float32)
    enter = torch.arange(T).expand(1, T) + window
    largest = 0
    original = torch.Tensor.new_empty

    def watch(self, *args, **kwargs):
        nonlocal largest
        out = original(self, *args, **kwargs)
        largest = max(largest, out.numel())
        return out

    torch.Tensor.new_empty = watch
    try:
        out = run(tensors, window, spans=(enter, enter + 8))
        gradients(out, tensors)
    finally:
        torch.Tensor.new_empty = original
    assert 0 < largest < T * T // 16


Q = torch.ones(2, 6, 4, 3)
KEYS, VALUES = torch.ones(2, 5, 2, 3), torch.ones(2, 5, 2, 2)
SPAN = torch.zeros(2, 5, dtype=torch.int64)
BAD = [
    ({"eidetic": 3}, TypeError, ("eidetic", "(ke, ve, enter, exit)", "int")),
    ({"eidetic": (KEYS, VALUES)}, ValueError, ("eidetic", "(qe, ke, ve, enter, exit)", "2 items")),
    ({"eidetic": (KEYS, VALUES, [0], SPAN)}, TypeError, ("eidetic enter", "Tensor", "list")),
    ({"eidetic": (KEYS, VALUES, SPAN.int(), SPAN)}, TypeError, ("eidetic enter", "int64", "int32")),
    ({"eidetic": (KEYS, VALUES, SPAN, SPAN[:, 1:])}, ValueError, ("eidetic exit", "(2, 5)", "(2, 4)")),
    ({"eidetic": (KEYS, VALUES, SPAN.to("meta"), SPAN)}, ValueError, ("eidetic enter", "cpu", "meta")),
    ({"eidetic": (KEYS[..., 1:], VALUES, SPAN, SPAN)}, ValueError, ("eidetic keys", "(2, 5, 2, 3)", "(2, 5, 2, 2)")),
    ({"eidetic": (KEYS, VALUES[:, 1:], SPAN, SPAN)}, ValueError, ("eidetic values", "(2, 5, 2, 2)", "(2, 4, 2, 2)")),
    ({"eidetic": (KEYS.half(), VALUES, SPAN, SPAN)}, TypeError, ("eidetic keys", "float32", "float16")),
    ({"eidetic": (Q[:, 1:], KEYS, VALUES, SPAN, SPAN)}, ValueError, ("eidetic queries", "(2, 6, 4, 3)")),
    ({"position": -1}, ValueError, ("position", "at least 0", "-1")),
    ({"position": 1.0}, TypeError, ("position", "int", "float")),
    ({"position": True}, TypeError, ("position", "int", "bool")),
]


@pytest.mark.parametrize(("changed", "kind", "parts"), BAD, ids=str)
def test_message_names_the_argument(changed, kind, parts):
    arguments: dict[str, Any] = {"q": Q, "k": torch.ones(2, 6, 2, 3), "v": torch.ones(2, 6, 2, 2), "window": 3}
    with pytest.raises(kind) as caught:
        memory_attention(**arguments | changed)
    for part in parts:
        assert part in str(caught.value)
