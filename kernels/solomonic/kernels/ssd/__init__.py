"""State space duality: the scan with one decay per head and token.

- `op`: the public function `ssd` and its result
- `naive`: the definition, a loop over tokens in float64
- `cpu`: the chunked matrix form with its own backward pass
"""

from solomonic.kernels.ssd.op import SSDOutput, ssd

__all__ = ["SSDOutput", "ssd"]
