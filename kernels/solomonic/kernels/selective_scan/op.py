"""The public function `selective_scan`: arguments, dispatch and result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose, transformed
from solomonic.kernels.selective_scan.cpu import selective_scan_cpu
from solomonic.kernels.selective_scan.naive import selective_scan_naive

__all__ = ["SelectiveScanOutput", "selective_scan"]

_IMPLEMENTATIONS = {
    "reference": selective_scan_naive,
    "cpu": selective_scan_cpu,
    "triton": "solomonic.kernels.selective_scan.triton_op:selective_scan_triton",
}


@dataclass(frozen=True, eq=False)
class SelectiveScanOutput:
    """What `selective_scan` returns.

    Attributes
    ----------
    y : torch.Tensor
        Output [B, T, E] in the dtype of ``x``.
    state : torch.Tensor
        State after the last token [B, E, N], in float32 (float64 for float64 inputs).
    """

    y: Tensor
    state: Tensor

    def __repr__(self) -> str:
        return f"SelectiveScanOutput(y={tuple(self.y.shape)}, state={tuple(self.state.shape)}, dtype={self.y.dtype})"


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str = "auto",
) -> SelectiveScanOutput:
    r"""Selective state space scan with a decay per channel and state, as in Mamba-1.

    .. math:: h_t = e^{\Delta_t A} \odot h_{t-1} + (\Delta_t \odot x_t) B_t^\top, \qquad y_t = h_t C_t + D \odot x_t

    Parameters
    ----------
    x : torch.Tensor
        Input [B, T, E]: batch, time, channels.
    dt : torch.Tensor
        Step [B, T, E], after softplus, so not negative. In the dtype of `x` or the compute dtype.
    A : torch.Tensor
        Rates [E, N], negative (per unit of `dt`).
    B : torch.Tensor
        Write direction [B, T, N], shared by the channels.
    C : torch.Tensor
        Read direction [B, T, N].
    D : torch.Tensor, optional
        Direct feedthrough [E].
    h0 : torch.Tensor, optional
        State before the first token [B, E, N]; zero if not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: the state is set to zero before these tokens (packed sequences). A reset at the first
        token discards `h0`.
    backend : {"auto", "reference", "cpu", "triton"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    SelectiveScanOutput
        ``.y`` [B, T, E] and the last ``.state`` [B, E, N], which continues the scan as `h0`.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype that does not go with `x`.
    ValueError
        If a shape, a device or `backend` is wrong.

    Notes
    -----
    Costs ``B T E (6 N + 2)`` FLOP and ``B T E N`` exponentials, which is what binds it; `solomonic.kernels.ssd`, whose
    decay is shared by a head, needs only one exponential a head. The fast path does one operation a token on
    [B, E, N], and keeps one state a block of tokens for the backward pass, which computes the others again. Sums are
    taken in float32, or float64 for float64 inputs.

    Every tensor argument has a gradient, through both outputs. Derivatives of second order and forward mode go through
    a slower form. Signs of `dt` and `A` are not checked, as that would read the data. NaN in the state is not
    cleared by a reset: 0 times NaN is NaN.

    References
    ----------
    Gu and Dao, "Mamba" (arXiv:2312.00752), algorithm 2 and section 3.3.

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import selective_scan
    >>> x, step = torch.ones(1, 3, 1), torch.ones(1, 3, 1)
    >>> rate = -torch.log(torch.tensor([[2.0, 4.0]]))
    >>> out = selective_scan(x, step, rate, torch.ones(1, 3, 2), torch.tensor([[[1.0, 0.0]]]).expand(1, 3, 2))
    >>> out.y.flatten().tolist(), out.state.flatten().tolist()
    ([1.0, 1.5, 1.75], [1.75, 1.3125])
    """
    _check(x, dt, A, B, C, D, h0, reset)
    lacking = {"triton": _lacking(x, dt, A, B, C, D, h0)}
    implementation = choose(backend, _IMPLEMENTATIONS, device=x.device, lacking=lacking, operation="selective_scan")
    y, state = implementation(x, dt, A, B, C, D, h0, reset)
    return SelectiveScanOutput(y.to(x.dtype), state.to(validate.compute_dtype(x.dtype)))


def _lacking(*tensors: Tensor | None) -> str | None:
    """Why the Triton kernels cannot serve a call."""
    A = tensors[2]
    assert A is not None
    if A.shape[1] > 256:
        return f"there are {A.shape[1]} states, and kernels are made for up to 256"
    if transformed(*tensors):
        return "it knows no function transforms and no forward mode"
    return None


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
    validate.check_rank("x", x, "B T E")
    batch, time, channels = x.shape
    work = (validate.compute_dtype(x.dtype),)
    validate.check_like("dt", dt, "x", x, dtypes=work)
    validate.check_shape("dt", dt, (batch, time, channels), "B T E")
    validate.check_like("A", A, "x", x, dtypes=work)
    validate.check_rank("A", A, "E N")
    states = A.shape[1]
    validate.check_shape("A", A, (channels, states), "E N")
    for name, value in (("B", B), ("C", C)):
        validate.check_like(name, value, "x", x)
        validate.check_shape(name, value, (batch, time, states), "B T N")
    if D is not None:
        validate.check_like("D", D, "x", x, dtypes=work)
        validate.check_shape("D", D, (channels,), "E")
    if h0 is not None:
        validate.check_like("h0", h0, "x", x, dtypes=work)
        validate.check_shape("h0", h0, (batch, channels, states), "B E N")
    if reset is not None:
        validate.check_reset("reset", reset, x)
