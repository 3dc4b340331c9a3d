"""The public function `memory_attention`: arguments, dispatch and results."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose
from solomonic.kernels.memory_attention.cpu import memory_attention_cpu
from solomonic.kernels.memory_attention.naive import memory_attention_naive

__all__ = ["MemoryAttentionLse", "MemoryAttentionOutput", "memory_attention"]

_IMPLEMENTATIONS = {"reference": memory_attention_naive, "cpu": memory_attention_cpu}


@dataclass(frozen=True, eq=False)
class MemoryAttentionLse:
    """Log-sum-exp of the scaled scores, by source.

    Attributes
    ----------
    window : torch.Tensor
        Of the tokens in context [B, T, H].
    fading : torch.Tensor or None
        Of the fading tokens [B, T, H], minus infinity where none is visible; None without a fading source.
    """

    window: Tensor
    fading: Tensor | None

    def __repr__(self) -> str:
        fading = None if self.fading is None else tuple(self.fading.shape)
        return f"MemoryAttentionLse(window={tuple(self.window.shape)}, fading={fading})"


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
    scale: float | None = None,
    block: int | None = None,
    backend: str = "auto",
) -> MemoryAttentionOutput:
    r"""Causal attention over the last W tokens and over the W fading tokens before them, in one softmax.

    .. math::
        o_t = \frac{\sum_{j=t-W+1}^{t} e^{s\, q_t k_j} v_j + \sum_{j=t-2W+1}^{t-W} e^{s\, q^f_t k^f_j} v^f_j}
                   {\sum_{j=t-W+1}^{t} e^{s\, q_t k_j} + \sum_{j=t-2W+1}^{t-W} e^{s\, q^f_t k^f_j}}

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
    scale : float, optional
        Factor s on the scores; ``K ** -0.5`` if not given.
    block : int, optional
        Queries that the fast path handles in one matrix product. Changes speed and rounding only.
    backend : {"auto", "reference", "cpu"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    MemoryAttentionOutput
        ``.out`` [B, T, H, V], and ``.lse.window`` and ``.lse.fading`` [B, T, H]. The share of attention that
        goes to the fading tokens is ``sigmoid(lse.fading - lse.window)``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype other than that of `q`.
    ValueError
        If a shape, a device, `window`, `fading`, `scale`, `block` or `backend` is wrong.

    Notes
    -----
    Positions before the first key do not exist. The output of ``a + b`` at ``b`` is the output of ``b`` with
    the keys of ``a`` as register (the last W - 1, and 2W - 1 of the fading ones, are all that is read).

    The fast path costs about ``4 B T H K (W + b)`` FLOP per source with b = `block`; its memory grows as T W,
    in the backward pass too, since scores are recomputed from the log-sum-exps. Every tensor argument has a
    gradient, through the output and the log-sum-exps; a log-sum-exp of minus infinity passes none on.
    Derivatives of second order are supported through a form that holds all the scores. Softmax and sums are
    taken in float32, or float64 for float64 inputs. Scores must stay above -5e29. NaN in `k` or `v` spreads
    to all queries of the blocks that can see it, also to earlier ones.

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
    """
    implementation = choose(backend, _IMPLEMENTATIONS)
    qf, kf, vf = _unpack(fading)
    _check(q, k, v, qf, kf, vf, window)
    if block is not None:
        validate.check_positive_int("block", block)
    factor = validate.check_scale(scale, q.shape[3])
    work = validate.compute_dtype(q.dtype)
    tensors = [None if each is None else each.to(work) for each in (q, k, v, qf, kf, vf)]
    out, near, far = implementation(*tensors, window, factor, block)
    far = None if far is None else far.to(work)
    return MemoryAttentionOutput(out.to(q.dtype), MemoryAttentionLse(near.to(work), far))


def _unpack(fading: object) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if fading is None:
        return None, None, None
    if not isinstance(fading, (tuple, list)):
        raise TypeError(f"fading: expected (kf, vf) or (qf, kf, vf), got {type(fading).__name__}")
    if len(fading) not in (2, 3):
        raise ValueError(f"fading: expected (kf, vf) or (qf, kf, vf), got {len(fading)} items")
    kf, vf = (validate.check_tensor(f"fading {n}", t) for n, t in zip(("keys", "values"), fading[-2:], strict=True))
    return (validate.check_tensor("fading queries", fading[0]) if len(fading) == 3 else None), kf, vf


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qf: Tensor | None,
    kf: Tensor | None,
    vf: Tensor | None,
    window: int | None,
) -> None:
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
    values = v.shape[3]
    validate.check_shape("v", v, (batch, length, groups, values), "B S Hkv V")
    if window is not None:
        validate.check_positive_int("window", window)
    if kf is None:
        return
    if window is None:
        raise ValueError("window: expected an int where there is a fading source, got None")
    validate.check_like("fading keys", kf, "q", q)
    validate.check_rank("fading keys", kf, "B Sf Hkv K")
    validate.check_shape("fading keys", kf, (batch, kf.shape[1], groups, width), "B Sf Hkv K")
    assert vf is not None
    validate.check_like("fading values", vf, "q", q)
    validate.check_shape("fading values", vf, (batch, kf.shape[1], groups, values), "B Sf Hkv V")
    if qf is not None:
        validate.check_like("fading queries", qf, "q", q)
        validate.check_shape("fading queries", qf, (batch, time, heads, width), "B T H K")
