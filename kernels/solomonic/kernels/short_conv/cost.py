"""Cost of `short_conv`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from solomonic.kernels.cost import Cost
from solomonic.kernels.short_conv.configs import config

__all__ = ["backward", "forward"]


def forward(B: int, T: int, C: int, k: int, itemsize: int = 2, *, silu: bool = True) -> Cost:
    """Cost of the forward kernel with a bias.

    Parameters
    ----------
    B, T, C, k : int
        Batch, tokens, channels and taps.
    itemsize : int
        Bytes of an element.
    silu : bool
        Whether SiLU follows.

    Returns
    -------
    Cost
        A tap reads its tokens again, from the cache: that is in `reread`. The register that goes out is not counted.
    """
    compulsory = (2 * B * T * C + B * (k - 1) * C + C * (k + 1)) * itemsize
    reread = (k - 1) * B * T * C * itemsize
    return Cost(2 * k * B * T * C, B * T * C if silu else 0, compulsory, compulsory, reread)


def backward(B: int, T: int, C: int, k: int, itemsize: int = 2, *, silu: bool = True) -> Cost:
    """Cost of the backward kernel with a bias, and of the sum over its parts; arguments as for `forward`.

    Returns
    -------
    Cost
        A program leaves its part of the gradients of weights and bias, which are written and read once more: that is in
        `moved`. With SiLU the sums before it are made again, for each of the k tokens that an input goes to.
    """
    work = 8 if itemsize == 8 else 4
    tokens = B * T * C
    compulsory = (3 * tokens + 2 * B * (k - 1) * C + 2 * C * (k + 1)) * itemsize
    parts = B * -(-(T + k - 1) // config("backward").BT) * (k + 1) * C * work
    again = (2 * (k - 1) + (k * k if silu else 0)) * tokens * itemsize  # dy and x of other tokens, x of the sums
    return Cost(tokens * (4 * k + (2 * k * k if silu else 0)), k * tokens if silu else 0, compulsory,
                compulsory + 2 * parts, again)  # fmt: skip
