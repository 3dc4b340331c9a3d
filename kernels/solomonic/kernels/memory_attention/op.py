"""The public function `memory_attention`: arguments, dispatch and results."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose, transformed
from solomonic.kernels.memory_attention.cpu import memory_attention_cpu
from solomonic.kernels.memory_attention.naive import memory_attention_naive

__all__ = ["MemoryAttentionLse", "MemoryAttentionOutput", "memory_attention"]

_IMPLEMENTATIONS = {
    "reference": memory_attention_naive,
    "cpu": memory_attention_cpu,
    "triton": "solomonic.kernels.memory_attention.triton_op:memory_attention_triton",
}


@dataclass(frozen=True, eq=False)
class MemoryAttentionLse:
    """Log-sum-exp of the scaled scores, by source.

    Attributes
    ----------
    window : torch.Tensor
        Of the tokens in context [B, T, H].
    fading : torch.Tensor or None
        Of the fading tokens [B, T, H], minus infinity where none is visible; None without a fading source.
    eidetic : torch.Tensor or None
        Of the stored tokens [B, T, H], minus infinity where none is visible; None without an eidetic source.
    """

    window: Tensor
    fading: Tensor | None
    eidetic: Tensor | None = None

    def __repr__(self) -> str:
        sources = {"window": self.window, "fading": self.fading, "eidetic": self.eidetic}
        shapes = (f"{name}={None if lse is None else tuple(lse.shape)}" for name, lse in sources.items())
        return f"MemoryAttentionLse({', '.join(shapes)})"


@dataclass(frozen=True, eq=False)
class MemoryAttentionOutput:
    """What `memory_attention` returns.

    Attributes
    ----------
    out : torch.Tensor
        Output [B, T, H, V] in the dtype of ``q``.
    lse : MemoryAttentionLse
        Log-sum-exp by source, in float32 (float64 for float64 inputs).
    """

    out: Tensor
    lse: MemoryAttentionLse

    def __repr__(self) -> str:
        return f"MemoryAttentionOutput(out={tuple(self.out.shape)}, lse={self.lse!r}, dtype={self.out.dtype})"


def memory_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None,
    fading: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor] | None = None,
    eidetic: tuple[Tensor, Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None = None,
    position: int | None = None,
    scale: float | None = None,
    block: int | None = None,
    backend: str = "auto",
) -> MemoryAttentionOutput:
    r"""Causal attention over a window, the fading tokens before it and the tokens stored exactly, in one softmax.

    .. math::
        o_t = \frac{\sum_{j=t-W+1}^{t} e^{s\, q_t k_j} v_j + \sum_{j=t-2W+1}^{t-W} e^{s\, q^f_t k^f_j} v^f_j
                    + \sum_{m:\, a_m \le t < b_m} e^{s\, q^e_t k^e_m} v^e_m}
                   {\sum_{j=t-W+1}^{t} e^{s\, q_t k_j} + \sum_{j=t-2W+1}^{t-W} e^{s\, q^f_t k^f_j}
                    + \sum_{m:\, a_m \le t < b_m} e^{s\, q^e_t k^e_m}}

    Parameters
    ----------
    q : torch.Tensor
        Queries [B, T, H, K]: batch, time, heads, channels. They stand at the last T of the S positions.
    k : torch.Tensor
        Keys [B, S, Hkv, K]; S at least T. Hkv divides H and query head a reads key head ``a // (H // Hkv)``.
    v : torch.Tensor
        Values [B, S, Hkv, V].
    window : int or None
        How many tokens W, itself included, a query reads; None for all the past.
    fading : tuple of torch.Tensor, optional
        ``(kf, vf)`` or ``(qf, kf, vf)``: keys [B, Sf, Hkv, K] and values [B, Sf, Hkv, V] of the fading
        tokens, and queries [B, T, H, K] where that path has its own. Their last position is that of the last
        query. Needs a window.
    eidetic : tuple of torch.Tensor, optional
        ``(ke, ve, enter, exit)`` or ``(qe, ke, ve, enter, exit)``: keys [B, M, Hkv, K] and values [B, M, Hkv, V]
        of stored tokens, and the positions ``enter .. exit - 1`` of the queries that read them, int64 [B, M], as
        `solomonic.kernels.select_innovations` gives them; none where `exit` is not greater than `enter`.
    position : int, optional
        Position of the first query, which `enter` and `exit` refer to; S - T if not given, which is right where
        `k` begins with the first token.
    scale : float, optional
        Factor s on the scores; ``K ** -0.5`` if not given.
    block : int, optional
        Queries that the fast path handles in one matrix product. Changes speed and rounding only.
    backend : {"auto", "reference", "cpu", "triton"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    MemoryAttentionOutput
        ``.out`` [B, T, H, V], and ``.lse.window``, ``.lse.fading`` and ``.lse.eidetic`` [B, T, H]. The shares of
        attention that go to the sources are the softmax of these; with two, the share of the fading tokens is
        ``sigmoid(lse.fading - lse.window)``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype other than that of `q`.
    ValueError
        If a shape, a device, `window`, `fading`, `eidetic`, `position`, `scale`, `block` or `backend` is wrong.

    Notes
    -----
    Positions before the first key do not exist. The output of ``a + b`` at ``b`` is the output of ``b`` with
    the keys of ``a`` as register (the last W - 1, and 2W - 1 of the fading ones, are all that is read).

    The fast path costs about ``4 B T H K (W + b)`` FLOP for the window and as much for the fading tokens, with b =
    `block`, and ``4 B T H K m`` for stored tokens of which a block of queries sees m: these are gathered block by
    block, so that M may be as large as T. Its memory grows as T (W + m), in the backward pass too, since scores are
    recomputed from the log-sum-exps.

    Every tensor argument has a gradient, through the output and the log-sum-exps; a log-sum-exp of minus infinity
    passes none on. Derivatives of second order are supported through a form that holds all the scores. Softmax and
    sums are taken in float32, or float64 for float64 inputs. Scores must stay above -5e29. NaN in `k` or `v` spreads
    to all queries of the blocks that can see it, also to earlier ones; a stored token that no query reads may hold
    anything.

    References
    ----------
    Zancato et al., "B'MOJO" (arXiv:2407.06324), section 3; Dao, "FlashAttention-2" (arXiv:2307.08691),
    algorithm 2 for the backward pass.

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import memory_attention
    >>> q = torch.zeros(1, 4, 1, 1)
    >>> v = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
    >>> memory_attention(q, q, v, window=2).out.flatten().tolist()
    [0.0, 0.5, 1.5, 2.5]
    >>> memory_attention(q, q, v, window=2, fading=(q, v)).out.flatten().tolist()
    [0.0, 0.5, 1.0, 1.5]
    >>> stored = (q[:, :1], torch.full((1, 1, 1, 1), 9.0), torch.tensor([[2]]), torch.tensor([[3]]))
    >>> memory_attention(q, q, v, window=2, eidetic=stored).out.flatten().tolist()
    [0.0, 0.5, 4.0, 2.5]
    """
    qf, kf, vf = _unpack("fading", fading, "kf, vf")
    qe, ke, ve, enter, leave = _unpack("eidetic", eidetic, "ke, ve, enter, exit")
    _check(q, k, v, window)
    _check_source("fading", q, k, v, qf, kf, vf)
    if kf is not None and window is None:
        raise ValueError("window: expected an int where there is a fading source, got None")
    _check_source("eidetic", q, k, v, qe, ke, ve)
    first = _position(position, k.shape[1] - q.shape[1])
    intervals = None if ke is None else _intervals(ke, enter, leave, first, q.shape[1])
    if block is not None:
        validate.check_positive_int("block", block)
    factor = validate.check_scale(scale, q.shape[3])
    work = validate.compute_dtype(q.dtype)
    tensors = (q, k, v, qf, kf, vf, qe, ke, ve)
    lacking = {"triton": _lacking(*tensors)}
    implementation = choose(backend, _IMPLEMENTATIONS, device=q.device, lacking=lacking, operation="memory_attention")
    out, near, *others = implementation(*tensors, intervals, window, factor, block)
    far, stored = (None if lse is None else lse.to(work) for lse in others)
    return MemoryAttentionOutput(out.to(q.dtype), MemoryAttentionLse(near.to(work), far, stored))


def _lacking(q: Tensor, k: Tensor, v: Tensor, *others: Tensor | None) -> str | None:
    """Why the Triton kernels cannot serve a call."""
    if not q.shape[3] * v.shape[3]:
        return "heads have no channels"
    if max(q.shape[3], v.shape[3]) > 256:
        return f"heads have {max(q.shape[3], v.shape[3])} channels, and kernels are made for up to 256"
    if transformed(q, k, v, *others):
        return "it knows no function transforms and no forward mode"
    return None


def _unpack(name: str, source: object, names: str) -> list[Tensor | None]:
    """The tensors of a source, its own queries first or None."""
    count = len(names.split())
    if source is None:
        return [None] * (count + 1)
    query = "q" + names[1]
    if not isinstance(source, (tuple, list)):
        raise TypeError(f"{name}: expected ({names}) or ({query}, {names}), got {type(source).__name__}")
    if len(source) not in (count, count + 1):
        raise ValueError(f"{name}: expected ({names}) or ({query}, {names}), got {len(source)} items")
    words = {"q": "queries", "k": "keys", "v": "values"}
    for each, value in zip(names.split(", "), source[-count:], strict=True):
        validate.check_tensor(f"{name} {words.get(each[0], each) if len(each) == 2 else each}", value)
    if len(source) == count:
        return [None, *source]
    validate.check_tensor(f"{name} queries", source[0])
    return list(source)


def _check(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    validate.check_floating("q", q)
    validate.check_rank("q", q, "B T H K")
    batch, time, heads, width = q.shape
    validate.check_like("k", k, "q", q)
    validate.check_rank("k", k, "B S Hkv K")
    length, groups = k.shape[1], k.shape[2]
    if groups < 1 or heads % groups:
        raise ValueError(f"k: expected a number of heads that divides H = {heads}, got {groups}")
    if length < time:
        raise ValueError(f"k: expected at least T = {time} positions, got {length}")
    validate.check_shape("k", k, (batch, length, groups, width), "B S Hkv K")
    validate.check_like("v", v, "q", q)
    validate.check_rank("v", v, "B S Hkv V")
    validate.check_shape("v", v, (batch, length, groups, v.shape[3]), "B S Hkv V")
    if window is not None:
        validate.check_positive_int("window", window)


def _check_source(
    name: str, q: Tensor, k: Tensor, v: Tensor, qs: Tensor | None, ks: Tensor | None, vs: Tensor | None
) -> None:
    if ks is None or vs is None:
        return
    batch, time, heads, width = q.shape
    groups, count = k.shape[2], "Sf" if name == "fading" else "M"
    validate.check_like(f"{name} keys", ks, "q", q)
    validate.check_rank(f"{name} keys", ks, f"B {count} Hkv K")
    validate.check_shape(f"{name} keys", ks, (batch, ks.shape[1], groups, width), f"B {count} Hkv K")
    validate.check_like(f"{name} values", vs, "q", q)
    validate.check_shape(f"{name} values", vs, (batch, ks.shape[1], groups, v.shape[3]), f"B {count} Hkv V")
    if qs is not None:
        validate.check_like(f"{name} queries", qs, "q", q)
        validate.check_shape(f"{name} queries", qs, (batch, time, heads, width), "B T H K")


def _position(position: object, default: int) -> int:
    if position is None:
        return default
    if isinstance(position, bool) or not isinstance(position, int):
        raise TypeError(f"position: expected an int of at least 0, got {type(position).__name__}")
    if position < 0:
        raise ValueError(f"position: expected an int of at least 0, got {position}")
    return position


def _intervals(ke: Tensor, enter: Tensor | None, leave: Tensor | None, first: int, time: int) -> tuple[Tensor, Tensor]:
    """Intervals counted from the first query, cut to the queries that there are."""
    both = []
    for name, value in (("enter", enter), ("exit", leave)):
        assert value is not None
        if value.dtype != torch.int64:
            raise TypeError(f"eidetic {name}: expected dtype torch.int64, got {value.dtype}")
        if value.device != ke.device:
            raise ValueError(f"eidetic {name}: expected device {ke.device}, got {value.device}")
        validate.check_shape(f"eidetic {name}", value, ke.shape[:2], "B M")
        both.append((value - first).clamp(0, time))
    return both[0], both[1]
