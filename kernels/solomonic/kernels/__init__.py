"""Tensors: scans, short convolutions, window attention.

Layout letters: B batch, T time, H heads, P head channels, N state, K key, V value, W window, S positions of
keys.

- `ssd`: selective state space scan (fading memory), returns its state
- `selective_scan`: the scan of Mamba-1, a decay per channel and state (fading memory), returns its state
- `short_conv`: causal depthwise convolution (eidetic memory), returns its shift register
- `delta_rule`: gated delta rule (fading memory that replaces what it holds under a key)
- `ridge_readout`: fading memory that is read out through a ridge regression
- `memory_attention`: attention over a window, over fading tokens and over stored tokens in one softmax
- `select_innovations`: which tokens are worth storing, by the innovation of an output
- `available_backends`: what ``backend=`` accepts here
- `default_backend`: turns the choice of a backend off
"""

from solomonic.kernels.backends import available_backends, default_backend
from solomonic.kernels.delta_rule import DeltaRuleOutput, delta_rule
from solomonic.kernels.memory_attention import MemoryAttentionOutput, memory_attention
from solomonic.kernels.ridge_readout import RidgeReadoutOutput, RidgeState, ridge_readout
from solomonic.kernels.select_innovations import InnovationSelection, InnovationState, select_innovations
from solomonic.kernels.selective_scan import SelectiveScanOutput, selective_scan
from solomonic.kernels.short_conv import ShortConvOutput, short_conv
from solomonic.kernels.ssd import SSDOutput, ssd

__all__ = [
    "DeltaRuleOutput",
    "InnovationSelection",
    "InnovationState",
    "MemoryAttentionOutput",
    "RidgeReadoutOutput",
    "RidgeState",
    "SSDOutput",
    "SelectiveScanOutput",
    "ShortConvOutput",
    "available_backends",
    "default_backend",
    "delta_rule",
    "memory_attention",
    "ridge_readout",
    "select_innovations",
    "selective_scan",
    "short_conv",
    "ssd",
]
