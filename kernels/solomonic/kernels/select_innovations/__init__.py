"""Innovation of an output, and the running selection of the tokens worth storing.

- `op`: the public function `select_innovations`, its result and its state
- `naive`: the definition, Algorithm 1 token by token in float64
- `cpu`: the fast path, one small merge per refresh
- `triton_kernels`, `triton_op`: kernels for GPUs
- `cost`: what a call costs
"""

from solomonic.kernels.select_innovations.op import InnovationSelection, InnovationState, select_innovations

__all__ = ["InnovationSelection", "InnovationState", "select_innovations"]
