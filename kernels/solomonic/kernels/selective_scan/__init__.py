"""Selective scan with a decay per channel and state (Mamba-1), states in and out.

- `op`: the public function `selective_scan` and its result
- `naive`: the definition, a loop over tokens in float64
- `cpu`: the fast path, one operation a token, with its own backward pass
- `triton_forward`, `triton_backward`, `triton_op`: kernels for GPUs
"""

from solomonic.kernels.selective_scan.op import SelectiveScanOutput, selective_scan

__all__ = ["SelectiveScanOutput", "selective_scan"]
