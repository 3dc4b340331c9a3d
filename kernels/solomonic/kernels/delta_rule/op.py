"""The public function `delta_rule`: arguments, dispatch and result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose
from solomonic.kernels.delta_rule.cpu import delta_rule_cpu
from solomonic.kernels.delta_rule.naive import delta_rule_naive

__all__ = ["DeltaRuleOutput", "delta_rule"]

_IMPLEMENTATIONS = {"reference": delta_rule_naive, "cpu": delta_rule_cpu}


@dataclass(frozen=True, eq=False)
class DeltaRuleOutput:
    """What `delta_rule` returns.

    Attributes
    ----------
    out : torch.Tensor
        Output [B, T, H, V] in the dtype of ``q``.
    state : torch.Tensor
        State after the last token [B, H, K, V], in float32 (float64 for float64 inputs).
    """

    out: Tensor
    state: Tensor

    def __repr__(self) -> str:
        return f"DeltaRuleOutput(out={tuple(self.out.shape)}, state={tuple(self.state.shape)}, dtype={self.out.dtype})"


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    state: Tensor | None = None,
    reset: Tensor | None = None,
    scale: float | None = None,
    chunk: int = 32,
    backend: str = "auto",
) -> DeltaRuleOutput:
    r"""Gated delta rule: decay, forget what is held under the key, write the value in its place.

    .. math:: S_t = e^{g_t} (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad o_t = s\, S_t^\top q_t

    Parameters
    ----------
    q : torch.Tensor
        Queries [B, T, H, K]: batch, time, heads, channels of a key.
    k : torch.Tensor
        Keys [B, T, G, K]; G divides H and head h uses group ``h // (H // G)``. With keys of length 1 and `beta`
        from 0 to 2 the state cannot grow by itself.
    v : torch.Tensor
        Values [B, T, G, V].
    g : torch.Tensor
        Log decay [B, T, H], not positive. In the dtype of `q` or the compute dtype.
    beta : torch.Tensor
        Strength [B, T, H] with which the old value is taken out and the new one written; 1 replaces it.
    state : torch.Tensor, optional
        State before the first token [B, H, K, V]; zero if not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: the state is set to zero before these tokens.
    scale : float, optional
        Factor s on the output; ``K ** -0.5`` if not given.
    chunk : int, default 32
        Tokens that the fast path handles in one matrix product. Changes speed and rounding only.
    backend : {"auto", "reference", "cpu"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    DeltaRuleOutput
        ``.out`` [B, T, H, V] and the last ``.state`` [B, H, K, V], which continues the recurrence as `state`.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype that does not go with `q`.
    ValueError
        If a shape, a device, `scale`, `chunk` or `backend` is wrong.

    Notes
    -----
    The fast path costs about ``2 B T H (2 Q (K + V) + 3 K V)`` FLOP with Q = `chunk`. Every tensor argument has a
    gradient of any order, through both outputs. Sums are taken in float32, or float64 for float64 inputs. Signs and
    norms are not checked, as that would read the data; with ``beta |k|^2 > 2`` the state grows, and rounding with it.
    NaN in an input spreads to the outputs of its whole chunk and to all that follow.

    References
    ----------
    Yang, Kautz and Hatamizadeh, "Gated Delta Networks" (arXiv:2412.06464), equation 10 and section 3.3; Yang et al.,
    "Parallelizing linear transformers with the delta rule" (arXiv:2406.06484), section 3.2.

    Examples
    --------
    A second value under the same key takes the place of the first:

    >>> import torch
    >>> from solomonic.kernels import delta_rule
    >>> k = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2)
    >>> v = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    >>> delta_rule(k, k, v, torch.zeros(1, 2, 1), torch.ones(1, 2, 1), scale=1.0).out.flatten().tolist()
    [3.0, 5.0]
    """
    implementation = choose(backend, _IMPLEMENTATIONS)
    validate.check_gates(q, k, v, {"g": g, "beta": beta}, reset)
    batch, _, heads, width = q.shape
    work = validate.compute_dtype(q.dtype)
    if state is not None:
        validate.check_like("state", state, "q", q, dtypes=(work,))
        validate.check_shape("state", state, (batch, heads, width, v.shape[3]), "B H K V")
    validate.check_positive_int("chunk", chunk)
    factor = validate.check_scale(scale, width)
    tensors = [None if each is None else each.to(work) for each in (q, k, v, g, beta, state)]
    out, last = implementation(*tensors, reset, factor, chunk)
    return DeltaRuleOutput(out.to(q.dtype), last.to(work))
