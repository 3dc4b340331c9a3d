"""Short causal depthwise convolution: a shift register of the last inputs with a linear read-out.

- `op`: the public function `short_conv` and its result
- `naive`: the definition, a loop over tokens in float64
- `cpu`: the fast path with its own backward pass
- `triton_kernels`, `triton_op`: kernels for GPUs
"""

from solomonic.kernels.short_conv.op import ShortConvOutput, short_conv

__all__ = ["ShortConvOutput", "short_conv"]
