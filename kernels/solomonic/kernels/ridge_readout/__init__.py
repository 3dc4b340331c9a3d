"""Read-out of a fading memory through a ridge regression over all that was written.

- `op`: the public function `ridge_readout` and its result
- `naive`: the definition, a loop over tokens in float64
- `cpu`: the chunked form, where the solves of all tokens run at once
"""

from solomonic.kernels.ridge_readout.op import RidgeReadoutOutput, RidgeState, ridge_readout

__all__ = ["RidgeReadoutOutput", "RidgeState", "ridge_readout"]
