"""The Muon optimizer, in the precision of the gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

#: Of a quintic that pushes singular values in (0, 1] to about 1 (0.68 to 1.14) in five steps.
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """W <- (1 - lr * decay) W - 0.2 lr sqrt(max(n, m)) polar(momentum): steps with all singular values near 1.

    The factor gives a step the size that AdamW's would have, so learning rates carry over. ``torch.optim.Muon`` is
    the same but orthogonalises in bfloat16; processors without bfloat16 units emulate that, and a step of the models
    of the zoo takes three times as long.

    Parameters
    ----------
    params : iterable of Tensor
        Matrices [n, m].
    lr : float
        Learning rate.
    momentum, weight_decay : float
        Of the averaged gradient (Nesterov's form), and the decoupled decay.

    References
    ----------
    Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024); Liu et al., Muon is scalable for LLM
    training (arXiv:2502.16982), equation 4, for the factor.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("momentum", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - momentum)
                update = orthogonalised(p.grad.lerp(average, momentum))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * math.sqrt(max(p.shape)))


def orthogonalised(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """U V' of the singular value decomposition U S V', nearly: its singular values are near 1, where S is not tiny."""
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-12)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
