"""Tensors: scans, short convolutions, window attention."""

from solomonic.kernels.backends import available_backends
from solomonic.kernels.short_conv import ShortConvOutput, short_conv
from solomonic.kernels.ssd import SSDOutput, ssd

__all__ = ["SSDOutput", "ShortConvOutput", "available_backends", "short_conv", "ssd"]
