"""Attention over a window, over fading tokens and over stored tokens, in one softmax.

- `op`: the public function `memory_attention` and its results
- `naive`: the definition, a loop over queries in float64
- `cpu`, `sources`: the blockwise path, whose memory grows as T W
- `triton_forward`, `triton_backward`, `triton_op`: kernels for GPUs, one pass over all sources
"""

from solomonic.kernels.memory_attention.op import MemoryAttentionLse, MemoryAttentionOutput, memory_attention

__all__ = ["MemoryAttentionLse", "MemoryAttentionOutput", "memory_attention"]
