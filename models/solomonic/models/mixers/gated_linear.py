"""What Gated DeltaNet and Gated KalmaNet layers share: queries, keys and values before, a gated norm after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from solomonic.kernels import short_conv

from ..config import HybridConfig
from ..memory import Value
from ..norm import RMSNorm
from .attention import sizes

CONV_WIDTH = 4


class GatedLinear(nn.Module):
    """A linear memory of keys and values with a decay a head and token, between short convolutions and a gate.

    A subclass names itself, has the projections of its own gates, and reads its memory.
    """

    name: str

    def __init__(self, config: HybridConfig, *, norm_eps: float, conv_bias: bool = False) -> None:
        super().__init__()
        d, heads, kv_heads, width = sizes(config)
        self.config = config
        self.split = [heads * width, kv_heads * width, kv_heads * width]
        self.q_proj = nn.Linear(d, self.split[0], bias=False)
        self.k_proj = nn.Linear(d, self.split[1], bias=False)
        self.v_proj = nn.Linear(d, self.split[2], bias=False)
        for which, channels in zip("qkv", self.split, strict=True):  # they hold the weights and are never called
            conv = nn.Conv1d(channels, channels, CONV_WIDTH, groups=channels, bias=conv_bias)
            self.add_module(f"{which}_conv1d", conv)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.g_proj = nn.Linear(d, heads * width, bias=False)
        self.o_norm = RMSNorm(width, norm_eps)
        self.o_proj = nn.Linear(heads * width, d, bias=False)

    def empty_register(self, batch_size: int, like: Tensor) -> Tensor:
        """The register of the convolutions before the first token [B, 3, channels of q, k and v]."""
        return like.new_zeros(batch_size, CONV_WIDTH - 1, sum(self.split))

    def empty_matrix(self, batch_size: int, like: Tensor) -> Tensor:
        """A state before the first token [B, H, K, V]."""
        heads, width = self.config.num_attention_heads, self.config.head_dim
        return like.new_zeros(batch_size, heads, width, width, dtype=torch.promote_types(like.dtype, torch.float32))

    def qkv(self, h: Tensor, past: Mapping[str, Value]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q [B, T, H, D], k and v [B, T, Hkv, D] after convolution and silu, and the register of the convolution."""
        register = past["conv"]
        assert isinstance(register, Tensor)
        convs = [getattr(self, f"{which}_conv1d") for which in "qkv"]
        bias = None if convs[0].bias is None else torch.cat([conv.bias for conv in convs])
        conv = short_conv(
            torch.cat([self.q_proj(h), self.k_proj(h), self.v_proj(h)], -1),
            torch.cat([conv.weight.squeeze(1) for conv in convs]),
            bias,
            state=register,
            activation="silu",
        )
        q, k, v = (part.unflatten(-1, (-1, self.config.head_dim)) for part in conv.y.split(self.split, -1))
        return q, k, v, conv.state

    def log_decay(self, step: Tensor, wide: torch.dtype) -> Tensor:
        """-exp(A_log) softplus(step + dt_bias), in float32 at least: a bfloat16 decay near 1 loses the long memory."""
        return -torch.exp(self.A_log.to(wide)) * softplus(step.to(wide) + self.dt_bias.to(wide))

    def gated(self, out: Tensor, h: Tensor) -> Tensor:
        """The output [B, T, d] for what was read [B, T, H, D]: norm first, then the gate."""
        gate = silu(self.g_proj(h)).unflatten(-1, (-1, self.config.head_dim))
        return self.o_proj((self.o_norm(out) * gate).flatten(2))
