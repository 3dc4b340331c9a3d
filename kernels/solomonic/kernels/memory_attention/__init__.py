"""Attention over a window and over fading tokens, in one softmax.

- `op`: the public function `memory_attention` and its results
- `naive`: the definition, a loop over queries in float64
- `cpu`: the blockwise path, whose memory grows as T W
"""

from solomonic.kernels.memory_attention.op import MemoryAttentionLse, MemoryAttentionOutput, memory_attention

__all__ = ["MemoryAttentionLse", "MemoryAttentionOutput", "memory_attention"]
