"""The public function `short_conv`: arguments, dispatch and result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose, transformed
from solomonic.kernels.short_conv.cpu import short_conv_cpu
from solomonic.kernels.short_conv.naive import short_conv_naive

__all__ = ["ShortConvOutput", "short_conv"]

_IMPLEMENTATIONS = {
    "reference": short_conv_naive,
    "cpu": short_conv_cpu,
    "triton": "solomonic.kernels.short_conv.triton_op:short_conv_triton",
}


@dataclass(frozen=True, eq=False)
class ShortConvOutput:
    """What `short_conv` returns.

    Attributes
    ----------
    y : torch.Tensor
        Output [B, T, C] in the dtype of ``x``.
    state : torch.Tensor
        Shift register [B, k - 1, C] in the dtype of ``x``: the last inputs, oldest first.
    """

    y: Tensor
    state: Tensor

    def __repr__(self) -> str:
        return f"ShortConvOutput(y={tuple(self.y.shape)}, state={tuple(self.state.shape)}, dtype={self.y.dtype})"


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    state: Tensor | None = None,
    reset: Tensor | None = None,
    activation: str | None = None,
    backend: str = "auto",
) -> ShortConvOutput:
    r"""Causal depthwise convolution over the last k inputs.

    .. math:: y_t = \sigma\Bigl(\sum_{j=1}^{k} w_j \, x_{t-k+j} + b\Bigr)

    Parameters
    ----------
    x : torch.Tensor
        Input [B, T, C]: batch, time, channels.
    weight : torch.Tensor
        Taps [C, k], k at least 1. ``weight[:, -1]`` multiplies the current token.
    bias : torch.Tensor, optional
        Offset [C].
    state : torch.Tensor, optional
        Register [B, k - 1, C]: the inputs before the first token, oldest first; zero if not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: inputs before these tokens are invisible from there on (packed sequences).
    activation : {None, "silu"}, default None
        What is applied to the sum.
    backend : {"auto", "reference", "cpu", "triton"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    ShortConvOutput
        ``.y`` [B, T, C] and the new ``.state`` [B, k - 1, C], which continues the convolution. Where T is
        less than k - 1, what is left of the old register stays in it; inputs before the last reset are zero.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype other than that of `x`.
    ValueError
        If a shape, a device, `activation` or `backend` is wrong.

    Notes
    -----
    The register is nilpotent: k - 1 inputs later nothing is left of what it held. Costs ``2 B T C k`` FLOP
    and is bound by memory. Every tensor argument has a gradient, through both outputs; derivatives of second
    order and forward mode are supported. Sums are taken in float32, or float64 for float64 inputs. NaN in an
    input reaches the k outputs that see it; it is not seen past a reset.

    References
    ----------
    Gu and Dao, "Mamba" (arXiv:2312.00752), section 3.4 (the convolution in front of the scan).

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import short_conv
    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> out = short_conv(x, torch.tensor([[10.0, 1.0]]))
    >>> out.y.flatten().tolist(), out.state.flatten().tolist()
    ([1.0, 12.0, 23.0], [3.0])
    """
    _check(x, weight, bias, state, reset, activation)
    start = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if state is None else state
    transforms = transformed(x, weight, bias, state)
    lacking = {"triton": "it knows no function transforms and no forward mode" if transforms else None}
    implementation = choose(backend, _IMPLEMENTATIONS, device=x.device, lacking=lacking, operation="short_conv")
    y, register = implementation(x, weight, bias, start, reset, activation)
    return ShortConvOutput(y.to(x.dtype), register.to(x.dtype))


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor | None,
    reset: Tensor | None,
    activation: str | None,
) -> None:
    validate.check_floating("x", x)
    validate.check_rank("x", x, "B T C")
    batch, _, channels = x.shape
    work = (validate.compute_dtype(x.dtype),)
    validate.check_like("weight", weight, "x", x, dtypes=work)
    validate.check_rank("weight", weight, "C k")
    if weight.shape[0] != channels or weight.shape[1] < 1:
        raise ValueError(f"weight: expected shape [C, k] with C = {channels}, k >= 1, got {tuple(weight.shape)}")
    if bias is not None:
        validate.check_like("bias", bias, "x", x, dtypes=work)
        validate.check_shape("bias", bias, (channels,), "C")
    if state is not None:
        validate.check_like("state", state, "x", x)
        validate.check_shape("state", state, (batch, weight.shape[1] - 1, channels), "B k-1 C")
    if reset is not None:
        validate.check_reset("reset", reset, x)
    if activation not in (None, "silu"):
        raise ValueError(f"activation: expected None or 'silu', got {activation!r}")
