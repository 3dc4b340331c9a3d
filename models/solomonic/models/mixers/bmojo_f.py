"""B'MOJO-F layers (``BMF``): a window of inputs and a window of fading tokens in one softmax."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from solomonic.kernels import memory_attention

from ..config import HybridConfig
from ..memory import KeyValue, Value, append, last
from ..norm import RMSNorm
from ..rope import Rotary, rotate
from .attention import empty_register, sizes
from .gdn import GatedDeltaNet
from .gka import GatedKalmaNet
from .mamba2 import Mamba2
from .mixer import Record, part_nbytes

#: Name in a configuration -> the layer whose outputs are the fading tokens.
SSM_MIXERS = {"mamba2": Mamba2, "gdn": GatedDeltaNet, "gka": GatedKalmaNet}


class BMojoF(nn.Module):
    """B'MOJO-F as released (Zancato et al., arXiv 2407.06324, section 3; window of fading tokens as in the release).

    The fading tokens f are the complete output of a Mamba2, GDN or GKA layer. Query t reads the inputs t-W+1 .. t and
    the fading tokens t-2W+1 .. t-W in one softmax, so that the fading tokens stand for what has left the window. Its
    memory is that of this layer, a register of W inputs and one of 2W fading tokens.
    """

    name = "bmojo_f"

    def __init__(self, config: HybridConfig, symbol: str = "BMF") -> None:
        super().__init__()
        self.config = config
        self.window = config.bmojo_window
        ssm = SSM_MIXERS[config.ssm_mixer](config)
        self.ssm_name = ssm.name
        self.add_module(ssm.name, ssm)
        self.bmojo_attn = Projections(config)

    @property
    def ssm(self) -> Mamba2 | GatedDeltaNet | GatedKalmaNet:
        """The layer whose outputs are the fading tokens, whatever its published name is."""
        return getattr(self, self.ssm_name)

    def empty(self, batch_size: int, like: Tensor) -> dict[str, Value]:
        register = empty_register(self.config, batch_size, like)
        return {**self.ssm.empty(batch_size, like), "window": register, "fading_tokens": register}

    def sizes(self, tokens: int) -> dict[str, int]:
        token = 2 * self.config.num_key_value_heads * self.config.head_dim
        return {
            **self.ssm.sizes(tokens),
            "window": token * min(tokens, self.window),
            "fading_tokens": token * min(tokens, 2 * self.window),
        }

    def nbytes(self, tokens: int, width: int) -> dict[str, int]:
        return part_nbytes(self.sizes(tokens), width)

    def forward(
        self,
        h: Tensor,
        past: Mapping[str, Value],
        tables: Rotary,
        record: Record | None = None,
    ) -> tuple[Tensor, dict[str, Value]]:
        f, ssm_parts = self.ssm(h, past, tables, record)
        q, q_fading, inputs, fading = self.bmojo_attn.project(h, f, tables)
        window, fading_tokens = past["window"], past["fading_tokens"]
        assert isinstance(window, KeyValue)
        assert isinstance(fading_tokens, KeyValue)
        window = append(window, *inputs)
        fading_tokens = append(fading_tokens, *fading)
        key, value = fading_tokens
        path = (key, value) if q_fading is None else (q_fading, key, value)
        read = memory_attention(q, window.key, window.value, window=self.window, fading=path)
        if record is not None:
            record("ssm_out", f)
            record("q", q)
            record("k", window.key)
            record("v", window.value)
            if q_fading is not None:
                record("q_fading", q_fading)
            record("k_fading", fading_tokens.key)
            record("v_fading", fading_tokens.value)
            record("read", read.out)
            record("lse_window", read.lse.window)
            assert read.lse.fading is not None
            record("lse_fading", read.lse.fading)
        out = self.bmojo_attn.o_proj(read.out.flatten(2))
        parts = {
            **ssm_parts,
            "window": last(window, self.window),
            "fading_tokens": last(fading_tokens, 2 * self.window),
        }
        return out, parts


class Projections(nn.Module):
    """The projections of inputs and fading tokens: the same ones (tied), or two sets with a shared output."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d, heads, kv_heads, width = sizes(config)
        self.width = width
        self.tied = config.tie_attn_weights
        bias = config.attention_bias
        self.q_proj = nn.Linear(d, heads * width, bias=bias)
        self.k_proj = nn.Linear(d, kv_heads * width, bias=bias)
        self.v_proj = nn.Linear(d, kv_heads * width, bias=bias)
        self.o_proj = nn.Linear(heads * width, d, bias=bias)
        self.q_norm = RMSNorm(width, config.rms_norm_eps)
        self.k_norm = RMSNorm(width, config.rms_norm_eps)
        if not self.tied:
            self.q_proj_ = nn.Linear(d, heads * width, bias=bias)
            self.k_proj_ = nn.Linear(d, kv_heads * width, bias=bias)
            self.v_proj_ = nn.Linear(d, kv_heads * width, bias=bias)
            self.q_norm_ = RMSNorm(width, config.rms_norm_eps)
            self.k_norm_ = RMSNorm(width, config.rms_norm_eps)

    def project(self, h: Tensor, f: Tensor, tables: Rotary) -> tuple[Tensor, Tensor | None, KeyValue, KeyValue]:
        """Queries, queries of the fading path (None where they are the same), and both sets of keys and values."""
        heads = (-1, self.width)
        q = rotate(self.q_norm(self.q_proj(h).unflatten(-1, heads)), tables)
        k = rotate(self.k_norm(self.k_proj(h).unflatten(-1, heads)), tables)
        v = self.v_proj(h).unflatten(-1, heads).to(k.dtype)  # autocast may have made it narrower
        if self.tied:
            q_fading, k_proj, v_proj, k_norm = None, self.k_proj, self.v_proj, self.k_norm
        else:
            q_fading = rotate(self.q_norm_(self.q_proj_(h).unflatten(-1, heads)), tables)
            k_proj, v_proj, k_norm = self.k_proj_, self.v_proj_, self.k_norm_
        k_fading = rotate(k_norm(k_proj(f).unflatten(-1, heads)), tables)
        v_fading = v_proj(f).unflatten(-1, heads).to(k.dtype)
        return q, q_fading, KeyValue(k, v), KeyValue(k_fading, v_fading)
