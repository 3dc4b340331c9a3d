"""The cases of memory_attention, its inputs, and an oracle: shared by the tests of all its backends."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from solomonic.kernels import memory_attention


@dataclass(frozen=True)
class Case:
    T: int
    window: int | None
    past: int = 0
    fading: str = "no"  # "yes", or "own" where the fading path has its own queries
    more: int = 0  # fading tokens beyond the number of keys
    stored: int = 0  # eidetic tokens
    eidetic: str = "yes"  # "own" where their path has its own queries
    H: int = 2
    G: int = 2
    B: int = 2
    K: int = 4
    V: int = 3
    block: int | None = None

    def __str__(self):
        return "-".join(f"{f.name}{getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default)


CASES = [
    Case(T=0, window=4, fading="yes"),
    Case(T=0, window=4, past=3, fading="own"),
    Case(T=1, window=1),
    Case(T=1, window=4, past=11, fading="yes"),
    Case(T=1, window=4, past=11, fading="own", H=4),
    Case(T=1, window=None, past=7),
    Case(T=2, window=1, fading="yes"),
    Case(T=40, window=1, fading="own"),
    Case(T=9, window=30, fading="yes"),
    Case(T=9, window=9, fading="yes"),
    Case(T=13, window=9, fading="own", H=4),
    Case(T=18, window=9, fading="yes"),
    Case(T=32, window=9, fading="yes", block=4),
    Case(T=32, window=9, fading="own", H=6, block=5),
    Case(T=32, window=9, past=5, fading="yes", block=4),
    Case(T=32, window=9, past=50, fading="yes", block=7),
    Case(T=32, window=9, past=5, fading="yes", more=-4),
    Case(T=32, window=9, past=5, fading="own", more=6, block=4),
    Case(T=32, window=9, fading="yes", more=-32),
    Case(T=63, window=16, H=4),
    Case(T=64, window=16, fading="yes"),
    Case(T=65, window=16, fading="own", H=4, G=1),
    Case(T=257, window=64, fading="yes"),
    Case(T=257, window=40, fading="own", H=4, block=128),
    Case(T=257, window=None, H=4),
    Case(T=65, window=None, past=31, block=16),
    Case(T=0, window=4, stored=3),
    Case(T=1, window=4, past=11, stored=5),
    Case(T=1, window=4, past=11, fading="own", stored=5, eidetic="own", H=4),
    Case(T=9, window=30, stored=1),
    Case(T=32, window=9, stored=20, block=4),
    Case(T=32, window=9, past=5, fading="yes", stored=40, eidetic="own", H=6, block=5),
    Case(T=65, window=16, past=7, fading="own", stored=30, H=4, G=1),
    Case(T=63, window=None, stored=9, block=16),
    Case(T=257, window=40, fading="yes", stored=257, H=4, block=64),
    Case(T=32, window=9, fading="yes", more=-32, stored=4),
    Case(T=5, window=2, fading="yes", B=0),
    Case(T=5, window=2, stored=3, B=0),
    Case(T=5, window=2, fading="yes", V=0),
    Case(T=5, window=2, fading="yes", K=0),
]


def make(case, dtype=torch.float64, seed=0) -> Any:
    g = torch.Generator().manual_seed(seed)
    c = case
    shapes = {
        "q": (c.B, c.T, c.H, c.K),
        "k": (c.B, c.T + c.past, c.G, c.K),
        "v": (c.B, c.T + c.past, c.G, c.V),
    }
    if c.fading == "own":
        shapes["qf"] = (c.B, c.T, c.H, c.K)
    if c.fading != "no":
        shapes["kf"] = (c.B, c.T + c.past + c.more, c.G, c.K)
        shapes["vf"] = (c.B, c.T + c.past + c.more, c.G, c.V)
    if c.stored and c.eidetic == "own":
        shapes["qe"] = (c.B, c.T, c.H, c.K)
    if c.stored:
        shapes["ke"] = (c.B, c.stored, c.G, c.K)
        shapes["ve"] = (c.B, c.stored, c.G, c.V)
    return {n: torch.randn(*s, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for n, s in shapes.items()}


def intervals(tensors, position=None):
    """Intervals for the stored tokens: short ones, long ones, from before the first query, without end, and none."""
    B, M = tensors["ke"].shape[:2]
    first = tensors["k"].shape[1] - tensors["q"].shape[1] if position is None else position
    T = tensors["q"].shape[1]
    g = torch.Generator().manual_seed(M)
    enter = first + torch.randint(-4, T + 1, (B, M), generator=g)
    length = torch.randint(0, 6, (B, M), generator=g) * torch.randint(1, 2 + T // 4, (B, M), generator=g)
    endless = torch.rand(B, M, generator=g) < 0.2
    return enter, torch.where(endless, 1 << 62, enter + length)


def run(tensors, window, *, position=None, spans=None, **options):
    fading = tuple(tensors[n] for n in ("qf", "kf", "vf") if n in tensors) or None
    eidetic = tuple(tensors[n] for n in ("qe", "ke", "ve") if n in tensors) or None
    if eidetic:
        eidetic = (*eidetic, *(intervals(tensors, position) if spans is None else spans))
    options.setdefault("backend", "cpu")
    q, k, v = (tensors[n] for n in ("q", "k", "v"))
    return memory_attention(q, k, v, window=window, fading=fading, eidetic=eidetic, position=position, **options)


def outputs(out):
    """The results by name; a log-sum-exp of minus infinity must be one in both of two compared results."""
    named = {"out": out.out, "window": out.lse.window, "fading": out.lse.fading, "eidetic": out.lse.eidetic}
    return {name: value for name, value in named.items() if value is not None}


def gradients(out, tensors, names=("out", "window", "fading", "eidetic")):
    loss = torch.zeros((), dtype=torch.float64)
    for name, value in outputs(out).items():
        if name in names and value.requires_grad:
            weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
            loss = loss + (value.double() * weights).masked_fill(value.isinf(), 0.0).sum()
    if not loss.requires_grad:
        return {n: torch.zeros_like(t) for n, t in tensors.items()}
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(tensors, found, strict=True))


def error(got, want):
    assert got.shape == want.shape
    assert torch.equal(got.isinf(), want.isinf())
    got, want = (t.double().masked_fill(t.isinf(), 0.0) for t in (got, want))
    if not want.numel():
        return 0.0
    scale = want.abs().max().clamp(min=1e-30)
    return torch.nan_to_num((got - want).abs().max() / scale, nan=torch.inf).item()


def as_double(tensors) -> Any:
    return {n: t.detach().double().requires_grad_() for n, t in tensors.items()}


def dense(tensors, window, scale):
    """The oracle: all scores of all sources side by side, and a mask over them."""
    q, k, v = (tensors[n] for n in ("q", "k", "v"))
    T, H = q.shape[1:3]
    scores, values, sees = [], [], []
    for query, key, value, low in (
        (q, k, v, 0),
        *(((tensors.get("qf", q), tensors["kf"], tensors["vf"], window),) if "kf" in tensors else ()),
    ):
        repeat = H // key.shape[2]
        key, value = (t.repeat_interleave(repeat, 2) for t in (key, value))
        behind = (torch.arange(T)[:, None] + key.shape[1] - T) - torch.arange(key.shape[1])[None, :]
        sees.append((behind >= low) & (behind < (low + window if window else behind.max() + 1)))
        scores.append(torch.einsum("bthk,bshk->bhts", query, key) * scale)
        values.append(value)
    sees = [see.expand(q.shape[0], 1, *see.shape) for see in sees]
    if "ke" in tensors:
        key, value = (tensors[n].repeat_interleave(H // tensors["ke"].shape[2], 2) for n in ("ke", "ve"))
        enter, leave = intervals(tensors)
        t = (torch.arange(T) + k.shape[1] - T).view(1, T, 1)
        sees.append(((enter[:, None] <= t) & (t < leave[:, None])).unsqueeze(1))
        scores.append(torch.einsum("bthk,bshk->bhts", tensors.get("qe", q), key) * scale)
        values.append(value)
    mask = torch.cat(sees, -1)
    weights = torch.softmax(torch.cat(scores, -1).masked_fill(~mask, -torch.inf), -1)
    out = torch.einsum("bhts,bshv->bthv", weights, torch.cat(values, 1))
    lses = [
        torch.logsumexp(s.masked_fill(~m, -torch.inf), -1).transpose(1, 2) for s, m in zip(scores, sees, strict=True)
    ]
    return out, lses
