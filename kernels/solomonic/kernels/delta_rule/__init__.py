"""The gated delta rule: a fading memory that replaces what it holds under a key.

- `op`: the public function `delta_rule` and its result
- `naive`: the definition, a loop over tokens in float64
- `cpu`: the chunked form, where a chunk is one triangular solve
"""

from solomonic.kernels.delta_rule.op import DeltaRuleOutput, delta_rule

__all__ = ["DeltaRuleOutput", "delta_rule"]
