"""Mamba2 layers (``M2``), shaped like attention: x, B and C take the places of values, keys and queries."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from solomonic.kernels import short_conv, ssd

from ..config import HybridConfig
from ..memory import Value
from ..norm import RMSNorm, unit_rms
from ..rope import Rotary, rotate
from .attention import sizes
from .mixer import Record, part_nbytes

CONV_WIDTH = 4
NORM_EPS = 1e-5  # of the gated norm; B and C norms have 1e-6
BC_NORM_EPS = 1e-6


class Mamba2(nn.Module):
    """A selective state space layer with one decay a head (Dao and Gu, arXiv 2405.21060).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t' and y_t = S_t C_t + D x_t, after a short causal convolution of x, B and C.
    Its memory is the state S (fading) and the register of the convolution (eidetic, 3 tokens).

    Where :meth:`reduce_state` was called, the state holds r directions of the N: B and C are replaced by V' B and W' C
    with ``state_write`` V and ``state_read`` W [H, N, r]. The decay being one number a head, that is exact for the
    projection W V': no other reduction of the state has dynamics of the same form.
    """

    name = "mamba"
    state_write: Tensor
    state_read: Tensor

    def __init__(self, config: HybridConfig, symbol: str = "M2") -> None:
        super().__init__()
        d, heads, kv_heads, width = sizes(config)
        self.config = config
        self.split = [heads * width, kv_heads * width, kv_heads * width, heads * width, heads]
        channels = sum(self.split[1:4])
        self.in_proj = nn.Linear(d, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(channels, channels, CONV_WIDTH, groups=channels)  # holds the weights; never called
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(heads * width, NORM_EPS)
        self.out_proj = nn.Linear(heads * width, d, bias=False)
        if config.use_qk_norm:
            self.B_norm = RMSNorm(width, BC_NORM_EPS)
            self.C_norm = RMSNorm(width, BC_NORM_EPS)
        self.state_size = width

    def reduce_state(self, size: int) -> None:
        """Keep ``size`` directions of the state: the first ones, until ``state_write`` and ``state_read`` are set."""
        heads, width = self.config.num_attention_heads, self.config.head_dim
        first = torch.eye(width, size).expand(heads, width, size)
        for name in ("state_write", "state_read"):
            self.register_buffer(name, first.to(self.D).clone())
        self.state_size = size

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        heads, width = self.config.num_attention_heads, self.config.head_dim
        state_dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            "conv": like.new_zeros(batch_size, CONV_WIDTH - 1, sum(self.split[1:4])),
            "state": like.new_zeros(batch_size, heads, width, self.state_size, dtype=state_dtype),
        }

    def sizes(self, tokens: int) -> dict[str, int]:
        heads, width = self.config.num_attention_heads, self.config.head_dim
        return {"conv": (CONV_WIDTH - 1) * sum(self.split[1:4]), "state": heads * width * self.state_size}

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        return part_nbytes(self.sizes(tokens), width)

    def forward(
        self,
        h: Tensor,
        past: Mapping[str, Value],
        tables: Rotary,
        record: Record | None = None,
    ) -> tuple[Tensor, dict[str, Value]]:
        width = self.config.head_dim
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        register, state = past["conv"], past["state"]
        assert isinstance(register, Tensor)
        assert isinstance(state, Tensor)
        z, x, B, C, dt = self.in_proj(h).split(self.split, -1)
        if self.config.use_qk_norm:
            B = self.B_norm(B.unflatten(-1, (-1, width))).flatten(2)
            C = self.C_norm(C.unflatten(-1, (-1, width))).flatten(2)
        if self.config.use_pos_emb:
            B = rotate(B.unflatten(-1, (-1, width)), tables).flatten(2)
            C = rotate(C.unflatten(-1, (-1, width)), tables).flatten(2)
        conv = short_conv(
            torch.cat([x, B, C], -1),
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            state=register,
            activation="silu",
        )
        x, B, C = (part.unflatten(-1, (-1, width)) for part in conv.y.split(self.split[1:4], -1))
        if groups > 1:
            x = x.repeat_interleave(groups, 2)
        if self.state_size < width:
            B, C = reduced(B, self.state_write), reduced(C, self.state_read)
        wide = state.dtype  # float32 at least: a bfloat16 decay near 1 would lose the long memory
        dt = softplus(dt.to(wide) + self.dt_bias.to(wide))
        A = -torch.exp(self.A_log.to(wide))
        scan = ssd(x, dt.to(wide), A, B, C, D=self.D, h0=state)
        if record is not None:
            record("x", x)
            record("dt", dt)
            record("log_decay", dt * A)
            record("B", B)
            record("C", C)
            record("D", self.D)
            record("y", scan.y)
        y = unit_rms(scan.y * silu(z).unflatten(-1, (-1, width)), NORM_EPS).flatten(2)
        return self.out_proj(self.norm.weight * y), {"conv": conv.state, "state": scan.state}


def reduced(value: Tensor, basis: Tensor) -> Tensor:
    """V' b for every head: b [B, T, G, N] and V [H, N, r] give [B, T, H, r]."""
    groups = value.shape[2]
    basis = basis.to(value).unflatten(0, (groups, -1))
    return torch.einsum("btgn,gknr->btgkr", value, basis).flatten(2, 3)
