"""The public function `ridge_readout`: arguments, dispatch and result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose
from solomonic.kernels.ridge_readout.cpu import ridge_readout_cpu
from solomonic.kernels.ridge_readout.naive import ridge_readout_naive

__all__ = ["RidgeReadoutOutput", "RidgeState", "ridge_readout"]

_IMPLEMENTATIONS = {"reference": ridge_readout_naive, "cpu": ridge_readout_cpu}


class RidgeState(NamedTuple):
    """What `ridge_readout` carries.

    Attributes
    ----------
    gram : torch.Tensor
        Sum of k k' [B, H, K, K], decayed.
    content : torch.Tensor
        Sum of k v' [B, H, K, V], decayed.
    """

    gram: Tensor
    content: Tensor


@dataclass(frozen=True, eq=False)
class RidgeReadoutOutput:
    """What `ridge_readout` returns.

    Attributes
    ----------
    out : torch.Tensor
        Output [B, T, H, V] in the dtype of ``q``.
    state : RidgeState
        After the last token, in float32 (float64 for float64 inputs).
    """

    out: Tensor
    state: RidgeState

    def __repr__(self) -> str:
        return (
            f"RidgeReadoutOutput(out={tuple(self.out.shape)}, gram={tuple(self.state.gram.shape)}, "
            f"content={tuple(self.state.content.shape)}, dtype={self.out.dtype})"
        )


def ridge_readout(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    alpha: Tensor,
    *,
    state: tuple[Tensor, Tensor] | None = None,
    reset: Tensor | None = None,
    ridge: float = 0.02,
    iterations: int = 30,
    decay_gram: bool = True,
    scale: float | None = None,
    chunk: int = 32,
    backend: str = "auto",
) -> RidgeReadoutOutput:
    r"""Linear attention whose query is solved for against the Gram matrix of the keys.

    .. math::
        H_t = e^{g_t} H_{t-1} + k_t k_t^\top, \qquad U_t = e^{g_t} U_{t-1} + k_t v_t^\top, \qquad
        o_t = s\, U_t^\top \big( q_t + \alpha_t ((H_t + \lambda_t I)^{-1} q_t - q_t) \big)

    with :math:`\lambda_t = \texttt{ridge} \, \|H_t\|_F`, and the inverse replaced by so many steps of the Chebyshev
    iteration. With :math:`\alpha = 1` this is the prediction at q of the ridge regression of all values on all keys.

    Parameters
    ----------
    q : torch.Tensor
        Queries [B, T, H, K]: batch, time, heads, channels of a key.
    k : torch.Tensor
        Keys [B, T, G, K]; G divides H and head h uses group ``h // (H // G)``.
    v : torch.Tensor
        Values [B, T, G, V].
    g : torch.Tensor
        Log decay [B, T, H], not positive. In the dtype of `q` or the compute dtype.
    alpha : torch.Tensor
        Share of the solved query [B, T, H], from 0 (linear attention) to 1.
    state : (torch.Tensor, torch.Tensor), optional
        Gram matrix [B, H, K, K], symmetric and not negative, and content [B, H, K, V] before the first token; zero if
        not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: the state is set to zero before these tokens.
    ridge : float, default 0.02
        Ridge relative to the Frobenius norm of the Gram matrix; positive.
    iterations : int, default 30
        Steps of the Chebyshev iteration after its first guess; 0 leaves the query as it is, whatever `alpha`.
    decay_gram : bool, default True
        Whether the Gram matrix decays with the content.
    scale : float, optional
        Factor s on the output; ``K ** -0.5`` if not given.
    chunk : int, default 32
        Tokens that the fast path handles in one matrix product. Changes speed and rounding only.
    backend : {"auto", "reference", "cpu"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    RidgeReadoutOutput
        ``.out`` [B, T, H, V] and the last ``.state``, which continues the recurrence as `state`.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype that does not go with `q`, or `iterations` is no
        integer.
    ValueError
        If a shape, a device, `ridge`, `iterations`, `scale`, `chunk` or `backend` is wrong.

    Notes
    -----
    The fast path costs about ``2 B T H iterations (K K + 2 Q K)`` FLOP with Q = `chunk`; for the backward pass it keeps
    ``iterations`` times about ``4 K + 2 Q`` numbers a token and head. Every tensor argument has a gradient of any
    order, through the output and the state: that of the iteration as it ran, not of the exact inverse.

    The condition number is at most ``1 + 1 / ridge``: rounding is amplified that much, and each iteration takes away a
    share of about ``2 sqrt(ridge)`` of the error. Two float32 routes differ by 1e-4 of the output's scale. Sums are
    taken in float32, or float64 for float64 inputs. Where nothing has been written the output is 0. NaN in an input
    spreads to the outputs of its whole chunk and to all that follow.

    References
    ----------
    "Gated KalmaNet" (arXiv:2511.21016): a decayed ridge regression with an adaptive ridge, solved by Chebyshev
    iteration; Golub and Van Loan, Matrix Computations, 4th ed., section 11.2.8 for the iteration.

    Examples
    --------
    Two keys at an angle interfere in linear attention, and hardly do in a ridge regression:

    >>> import torch
    >>> from solomonic.kernels import ridge_readout
    >>> k = torch.tensor([[1.0, 0.0], [0.8, 0.6]]).view(1, 2, 1, 2)
    >>> v = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    >>> g, alpha = torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
    >>> linear = ridge_readout(k, k, v, g, 0 * alpha, scale=1.0).out[0, 1].item()
    >>> solved = ridge_readout(k, k, v, g, alpha, scale=1.0, ridge=1e-3, iterations=200).out[0, 1].item()
    >>> round(linear, 3), round(solved, 3)
    (0.8, 0.004)
    """
    implementation = choose(backend, _IMPLEMENTATIONS)
    validate.check_gates(q, k, v, {"g": g, "alpha": alpha}, reset)
    batch, _, heads, width = q.shape
    work = validate.compute_dtype(q.dtype)
    gram, content = _unpack(state)
    for name, part, last in (("state gram", gram, width), ("state content", content, v.shape[3])):
        if part is not None:
            validate.check_like(name, part, "q", q, dtypes=(work,))
            validate.check_shape(name, part, (batch, heads, width, last), "B H K " + name[6].upper())
    if isinstance(ridge, bool) or not isinstance(ridge, (int, float)) or not (ridge > 0 and math.isfinite(ridge)):
        raise ValueError(f"ridge: expected a positive number, got {ridge!r}")
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise TypeError(f"iterations: expected an int of at least 0, got {type(iterations).__name__}")
    if iterations < 0:
        raise ValueError(f"iterations: expected an int of at least 0, got {iterations}")
    validate.check_positive_int("chunk", chunk)
    factor = validate.check_scale(scale, width)
    tensors = [None if each is None else each.to(work) for each in (q, k, v, g, alpha, gram, content)]
    out, gram, content = implementation(*tensors, reset, float(ridge), iterations, bool(decay_gram), factor, chunk)
    return RidgeReadoutOutput(out.to(q.dtype), RidgeState(gram.to(work), content.to(work)))


def _unpack(state: object) -> tuple[Tensor | None, Tensor | None]:
    if state is None:
        return None, None
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"state: expected (gram, content), got {type(state).__name__}")
    return validate.check_tensor("state gram", state[0]), validate.check_tensor("state content", state[1])
