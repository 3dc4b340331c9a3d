"""Gated KalmaNet layers (``GKA``): a fading memory that is read out through a ridge regression."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from solomonic.kernels import RidgeState, ridge_readout

from ..config import HybridConfig
from ..memory import Value
from ..rope import Rotary
from .gated_linear import CONV_WIDTH, GatedLinear
from .mixer import Record, part_nbytes

_SMALL = 1e-6  # added to lengths and strengths


class GatedKalmaNet(GatedLinear):
    """Decayed ridge regression of values on keys (arXiv 2511.21016), read out at the query by a Chebyshev iteration.

    H_t = exp(g_t) H_{t-1} + k_t k_t', U_t = exp(g_t) U_{t-1} + k_t v_t' and y_t = U_t' q~_t / sqrt(D), where q~ goes
    from q to (H_t + lambda_t I)^-1 q as alpha goes from 0 to 1. Its memory is the state (H, U) (fading) and the
    register of the convolutions (eidetic, 3 tokens).
    """

    name = "gka"

    def __init__(self, config: HybridConfig, symbol: str = "GKA") -> None:
        super().__init__(config, norm_eps=config.gka_norm_eps)
        d, heads = config.hidden_size, config.num_attention_heads
        self.a_proj = nn.Linear(d, heads, bias=False)
        self.b_proj = nn.Linear(d, heads)
        self.alpha_proj = nn.Linear(d, heads)

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        state = RidgeState(self.empty_matrix(batch_size, like), self.empty_matrix(batch_size, like))
        return {"conv": self.empty_register(batch_size, like), "state": state}

    def sizes(self, tokens: int) -> dict[str, int]:
        heads, width = self.config.num_attention_heads, self.config.head_dim
        return {"conv": (CONV_WIDTH - 1) * sum(self.split), "state": 2 * heads * width * width}

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        return part_nbytes(self.sizes(tokens), width)

    def forward(
        self, h: Tensor, past: Mapping[str, Value], tables: Rotary, record: Record | None = None
    ) -> tuple[Tensor, dict[str, Value]]:
        state = past["state"]
        assert isinstance(state, RidgeState)
        wide = state.gram.dtype
        q, k, v, register = self.qkv(h, past)
        q, k = (x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + _SMALL) for x in (q, k))
        strength = self.b_proj(h).sigmoid() + _SMALL
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        k, v = (x.repeat_interleave(groups, 2) * strength.unsqueeze(-1) for x in (k, v))
        alpha = self.alpha_proj(h).to(wide).sigmoid()
        g = self.log_decay(self.a_proj(h), wide)
        read = ridge_readout(
            q,
            k,
            v,
            g,
            alpha,
            state=state,
            ridge=self.config.gka_ridge_strength,
            iterations=self.config.gka_num_iter,
            decay_gram=self.config.gka_decay_gram,
        )
        if record is not None:
            for name, value in (("C", q), ("B", k), ("x", v), ("log_decay", g), ("alpha", alpha), ("y", read.out)):
                record(name, value)
        return self.gated(read.out, h), {"conv": register, "state": read.state}
