"""The public function `ssd`: arguments, dispatch and result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose
from solomonic.kernels.ssd.cpu import ssd_cpu
from solomonic.kernels.ssd.naive import ssd_naive

__all__ = ["SSDOutput", "ssd"]

_IMPLEMENTATIONS = {"reference": ssd_naive, "cpu": ssd_cpu}


@dataclass(frozen=True, eq=False)
class SSDOutput:
    """What `ssd` returns.

    Attributes
    ----------
    y : torch.Tensor
        Output [B, T, H, P] in the dtype of ``x``.
    state : torch.Tensor
        State after the last token [B, H, P, N], in float32 (float64 for float64 inputs).
    """

    y: Tensor
    state: Tensor

    def __repr__(self) -> str:
        return f"SSDOutput(y={tuple(self.y.shape)}, state={tuple(self.state.shape)}, dtype={self.y.dtype})"


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int = 64,
    backend: str = "auto",
) -> SSDOutput:
    r"""Selective state space scan with a scalar decay per head and token.

    .. math:: h_t = e^{\Delta_t A} h_{t-1} + \Delta_t x_t B_t^\top, \qquad y_t = h_t C_t + D x_t

    Parameters
    ----------
    x : torch.Tensor
        Input [B, T, H, P]: batch, time, heads, channels of a head.
    dt : torch.Tensor
        Step [B, T, H], after softplus, so not negative. In the dtype of `x` or the compute dtype.
    A : torch.Tensor
        Rate [H], negative (per unit of `dt`): a token decays the state by ``exp(dt * A)``.
    B : torch.Tensor
        Write direction [B, T, GB, N]; GB divides H and head h uses group ``h // (H // GB)``.
    C : torch.Tensor
        Read direction [B, T, GC, N]; GC divides H and may differ from GB.
    D : torch.Tensor, optional
        Direct feedthrough [H].
    h0 : torch.Tensor, optional
        State before the first token [B, H, P, N]; zero if not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: the state is set to zero before these tokens (packed sequences). A reset at the first
        token discards `h0`.
    chunk : int, default 64
        Tokens that the fast path handles in one matrix product. Changes speed and rounding only.
    backend : {"auto", "reference", "cpu"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    SSDOutput
        ``.y`` [B, T, H, P] and the last ``.state`` [B, H, P, N], which continues the scan as `h0`:
        the scan of ``a + b`` is the scan of ``b`` from the state after ``a``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype that does not go with `x`.
    ValueError
        If a shape, a device, `chunk` or `backend` is wrong.

    Notes
    -----
    The fast path costs about ``B T H (2 Q P + 4 N P)`` FLOP with Q = `chunk`, and keeps ``4 N P / Q`` bytes
    of states per token and head for the backward pass (float32). Sums are taken in float32, or float64 for
    float64 inputs. Decays inside a chunk are exponentials of differences of running sums, clamped at 0 before
    the exponential: they never overflow, and their relative error is about ``eps * chunk * max|dt A|``. The
    gradient of `dt` and `A` is a running sum of differences too, and has an absolute error of the same kind.

    Every tensor argument has a gradient, through both outputs. Derivatives of second order and forward mode
    go through a slower form of the same path. Signs of `dt` and `A` are not checked, as that would read the
    data. NaN in an input spreads to the outputs of its whole chunk, earlier tokens included, and to all that
    follow, also past a reset: 0 times NaN is NaN.

    On processors whose arithmetic is slow on subnormal numbers, ``torch.set_flush_denormal(True)`` helps
    where states decay to nothing.

    References
    ----------
    Dao and Gu, "Transformers are SSMs" (arXiv:2405.21060), equation 16 and section 6 (block decomposition).

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import ssd
    >>> x = torch.ones(1, 3, 1, 1)
    >>> step, rate = torch.ones(1, 3, 1), -torch.log(torch.tensor([2.0]))
    >>> one = torch.ones(1, 3, 1, 1)
    >>> ssd(x, step, rate, one, one).y.flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    implementation = choose(backend, _IMPLEMENTATIONS)
    _check(x, dt, A, B, C, D, h0, reset)
    validate.check_positive_int("chunk", chunk)
    work = validate.compute_dtype(x.dtype)
    y, state = implementation(
        x.to(work),
        dt.to(work),
        A.to(work),
        B.to(work),
        C.to(work),
        None if D is None else D.to(work),
        None if h0 is None else h0.to(work),
        reset,
        chunk,
    )
    return SSDOutput(y.to(x.dtype), state.to(work))


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
) -> None:
    validate.check_floating("x", x)
    validate.check_rank("x", x, "B T H P")
    batch, time, heads, channels = x.shape
    work = (validate.compute_dtype(x.dtype),)
    validate.check_like("dt", dt, "x", x, dtypes=work)
    validate.check_shape("dt", dt, (batch, time, heads), "B T H")
    validate.check_like("A", A, "x", x, dtypes=work)
    validate.check_shape("A", A, (heads,), "H")
    for name, value in (("B", B), ("C", C)):
        validate.check_like(name, value, "x", x)
        validate.check_rank(name, value, "B T G N")
        groups = value.shape[2]
        if value.shape[:2] != x.shape[:2]:
            raise ValueError(f"{name}: expected [B, T] = {(batch, time)} as x has, got {tuple(value.shape[:2])}")
        if groups < 1 or heads % groups:
            raise ValueError(f"{name}: expected a number of groups that divides H = {heads}, got {groups}")
    if B.shape[3] != C.shape[3]:
        raise ValueError(f"C: expected N = {B.shape[3]} as B has, got {C.shape[3]}")
    if D is not None:
        validate.check_like("D", D, "x", x, dtypes=work)
        validate.check_shape("D", D, (heads,), "H")
    if h0 is not None:
        validate.check_like("h0", h0, "x", x, dtypes=work)
        validate.check_shape("h0", h0, (batch, heads, channels, B.shape[3]), "B H P N")
    if reset is not None:
        validate.check_reset("reset", reset, x)
