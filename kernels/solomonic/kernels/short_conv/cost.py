"""Cost of `short_conv`: arithmetic, exponentials and bytes as functions of the sizes."""

from __future__ import annotations

from solomonic.kernels.cost import Cost

__all__ = ["forward"]


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
