"""Gated DeltaNet layers (``GDN``): a fading memory that replaces what it holds under a key."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from solomonic.kernels import delta_rule

from ..config import HybridConfig
from ..memory import Value
from ..rope import Rotary
from .gated_linear import CONV_WIDTH, GatedLinear
from .mixer import Record, part_nbytes

_LENGTH_EPS = 1e-6


class GatedDeltaNet(GatedLinear):
    """Gated delta rule (Yang, Kautz and Hatamizadeh, arXiv 2412.06464) between short convolutions and a gate.

    S_t = exp(g_t) (I - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t' and y_t = S_t' q_t / sqrt(D), with q and k of
    length 1. Its memory is the state S (fading) and the register of the convolutions (eidetic, 3 tokens).
    """

    name = "gdn"

    def __init__(self, config: HybridConfig, symbol: str = "GDN") -> None:
        super().__init__(config, norm_eps=config.gdn_norm_eps, conv_bias=config.gdn_conv_bias)
        d, heads = config.hidden_size, config.num_attention_heads
        self.b_proj = nn.Linear(d, heads, bias=False)
        self.gk_proj = nn.Linear(d, heads, bias=False)

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        return {"conv": self.empty_register(batch_size, like), "state": self.empty_matrix(batch_size, like)}

    def sizes(self, tokens: int) -> dict[str, int]:
        heads, width = self.config.num_attention_heads, self.config.head_dim
        return {"conv": (CONV_WIDTH - 1) * sum(self.split), "state": heads * width * width}

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        return part_nbytes(self.sizes(tokens), width)

    def forward(
        self, h: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        state = past["state"]
        assert isinstance(state, Tensor)
        q, k, v, register = self.qkv(h, past)
        q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _LENGTH_EPS) for x in (q, k))
        beta = self.b_proj(h).to(state.dtype).sigmoid()
        if self.config.gdn_allow_neg_eigval:
            beta = 2 * beta
        g = self.log_decay(self.gk_proj(h), state.dtype)
        read = delta_rule(q, k, v, g, beta, state=state)
        if record is not None:
            for name, value in (("C", q), ("B", k), ("x", v), ("log_decay", g), ("beta", beta), ("y", read.out)):
                record(name, value)
        return self.gated(read.out, h), {"conv": register, "state": read.state}
