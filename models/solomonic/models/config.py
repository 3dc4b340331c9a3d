"""The configuration of a hybrid model, in the published ``hybrid_qwen3`` format."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger("solomonic")

#: Symbols of the format that belong to other versions or to training only, and what they are.
_KNOWN_ELSEWHERE = {
    "GDN": "a Gated DeltaNet layer",
    "GKA": "a Gated KalmaNet layer",
    "BMO": "a full B'MOJO layer",
}

_SSM_MIXERS = {"mamba2": "mamba2"}
_DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class HybridConfig:
    """Everything needed to build a :class:`~solomonic.models.HybridLM`.

    Symbols follow the published format: d = ``hidden_size``, F = ``intermediate_size``, H = ``num_attention_heads``,
    Hkv = ``num_key_value_heads``, D = ``head_dim``, W = a window in tokens.

    Parameters
    ----------
    pattern : tuple of str
        One symbol a layer: ``"*"`` (attention), ``"SWA"`` (sliding window attention), ``"M2"`` (Mamba2), ``"BMF"``
        (B'MOJO-F). A string such as ``"*-BMF-BMF-*"`` is split at the dashes.
    vocab_size, hidden_size, intermediate_size : int
        Number of tokens, d and F.
    num_attention_heads, num_key_value_heads, head_dim : int
        H, Hkv (divides H) and D; D need not be d / H.
    swa_window : int or None
        W of the ``"SWA"`` layers, tokens; needed if there are any.
    bmojo_window : int
        W of the ``"BMF"`` layers, tokens.
    tie_attn_weights : bool
        Whether a ``"BMF"`` layer projects inputs and fading tokens with the same weights.
    ssm_mixer : str
        The state space layer inside ``"BMF"``: ``"mamba2"``.
    use_qk_norm, use_pos_emb : bool
        Mamba2: RMS norms, and rotary positions, on B and C before the convolution.
    rope_theta : float
        Base of the rotary positions.
    rope_scaling : float
        Positions are divided by this factor (rope type ``"linear"``); 1 for rope type ``"default"``.
    partial_rotary_factor : float
        Share of the D channels that are rotated.
    rms_norm_eps : float
        Added to the mean square in the norms of the residual stream and of queries and keys.
    tie_word_embeddings, attention_bias : bool
        Whether the head is the embedding, and whether attention projections have biases.
    dtype : str
        Dtype of the stored weights.
    max_position_embeddings : int
        The longest sequence the model was made for, tokens (information only).
    extra : mapping
        Further keys of ``config.json``, kept for a round trip.

    Examples
    --------
    >>> config = HybridConfig(pattern="M2-SWA", vocab_size=256, hidden_size=64, intermediate_size=96,
    ...                       num_attention_heads=4, num_key_value_heads=2, head_dim=16, swa_window=8)
    >>> config.pattern
    ('M2', 'SWA')
    >>> HybridConfig.from_dict(config.to_dict()) == config
    True
    """

    pattern: tuple[str, ...]
    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    swa_window: int | None = None
    bmojo_window: int = 2048
    tie_attn_weights: bool = True
    ssm_mixer: str = "mamba2"
    use_qk_norm: bool = True
    use_pos_emb: bool = False
    rope_theta: float = 10000.0
    rope_scaling: float = 1.0
    partial_rotary_factor: float = 1.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    dtype: str = "float32"
    max_position_embeddings: int = 32768
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.pattern, str):
            object.__setattr__(self, "pattern", parse_pattern(self.pattern))
        object.__setattr__(self, "pattern", tuple(self.pattern))
        if not self.pattern:
            raise ValueError("pattern: expected at least one layer symbol, got none")
        for i, symbol in enumerate(self.pattern):
            _check_symbol(symbol, i)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "bmojo_window",
            "max_position_embeddings",
        ):
            _check_positive_int(name, getattr(self, name))
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads: expected a divisor of num_attention_heads = {self.num_attention_heads}, "
                f"got {self.num_key_value_heads}"
            )
        if "SWA" in self.pattern and self.swa_window is None:
            raise ValueError("swa_window: the pattern has SWA layers, so a window is needed, got None")
        if self.swa_window is not None:
            _check_positive_int("swa_window", self.swa_window)
        if self.ssm_mixer not in _SSM_MIXERS:
            raise ValueError(f"ssm_mixer: expected one of {sorted(_SSM_MIXERS)}, got {self.ssm_mixer!r}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype: expected one of {_DTYPES}, got {self.dtype!r}")
        rotated = self.head_dim * self.partial_rotary_factor
        if not (0 < self.partial_rotary_factor <= 1) or int(rotated) % 2 or int(rotated) < 2:
            raise ValueError(
                "partial_rotary_factor: expected a share in (0, 1] that rotates an even number of the "
                f"{self.head_dim} channels of a head, got {self.partial_rotary_factor}"
            )
        for name in ("rope_theta", "rope_scaling", "rms_norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return len(self.pattern)

    @property
    def rotary_dim(self) -> int:
        """Number of rotated channels of a head."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "config") -> HybridConfig:
        """Read ``raw``, the keys of a published ``config.json``; ``source`` names them in errors.

        Both rope formats are read (``rope_parameters``, or ``rope_theta`` with ``rope_scaling``). A B'MOJO window of
        2^n - 1 with n >= 5, as older files have it, is read as 2^n.
        """
        if raw.get("hybrid_override_pattern") is None:
            raise ValueError(
                f"{source}: expected the key 'hybrid_override_pattern' (one symbol a layer, such as '*-BMF-BMF-*'), "
                f"found keys {sorted(raw)[:12]}; is this a hybrid_qwen3 checkpoint?"
            )
        pattern = parse_pattern(raw["hybrid_override_pattern"], source=source)
        layers = raw.get("num_hidden_layers", len(pattern))
        if layers != len(pattern):
            raise ValueError(
                f"{source}: hybrid_override_pattern {raw['hybrid_override_pattern']!r} has {len(pattern)} layers, "
                f"but num_hidden_layers is {layers}"
            )
        for key in ("bmojo_config", "mamba2_config", "swa_config", "rope_parameters", "rope_scaling"):
            if raw.get(key) is not None and not isinstance(raw[key], Mapping):
                raise ValueError(f"{source}: {key}: expected an object, got {raw[key]!r}")
        bmojo = raw.get("bmojo_config") or {}
        mamba2 = raw.get("mamba2_config") or {}
        swa = raw.get("swa_config") or {}
        heads = raw.get("num_attention_heads", 32)
        theta, scaling, factor = _read_rope(raw, source)
        known = {
            "vocab_size": raw.get("vocab_size", 151936),
            "hidden_size": raw.get("hidden_size", 4096),
            "intermediate_size": raw.get("intermediate_size", 22016),
            "num_attention_heads": heads,
            "num_key_value_heads": raw.get("num_key_value_heads", heads),
            "head_dim": raw.get("head_dim", 128),
            "swa_window": swa.get("window_size"),
            "bmojo_window": _bmojo_window(bmojo.get("window_size", 2048)),
            "tie_attn_weights": bmojo.get("tie_attn_weights", True),
            "ssm_mixer": str(bmojo.get("ssm_mixer", "mamba2")).lower(),
            "use_qk_norm": mamba2.get("use_qk_norm", True),
            "use_pos_emb": mamba2.get("use_pos_emb", False),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "partial_rotary_factor": factor,
            "rms_norm_eps": raw.get("rms_norm_eps", 1e-6),
            "tie_word_embeddings": raw.get("tie_word_embeddings", False),
            "attention_bias": raw.get("attention_bias", False),
            "dtype": str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch."),
            "max_position_embeddings": raw.get("max_position_embeddings", 32768),
        }
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(f"{source}: hidden_act: expected 'silu', got {raw['hidden_act']!r}")
        extra = {k: v for k, v in raw.items() if k not in _WRITTEN_KEYS}
        try:
            return cls(pattern=pattern, **known, extra=extra)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The keys of ``config.json`` in the published format."""
        out: dict[str, Any] = {
            "architectures": ["HybridQwen3ForCausalLM"],
            "model_type": "hybrid_qwen3",
            "hybrid_override_pattern": "-".join(self.pattern),
            "layer_types": list(self.pattern),
            "num_hidden_layers": len(self.pattern),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "max_position_embeddings": self.max_position_embeddings,
            "dtype": self.dtype,
            "rope_parameters": {
                "rope_type": "default" if self.rope_scaling == 1 else "linear",
                "rope_theta": self.rope_theta,
            },
        }
        if self.rope_scaling != 1:
            out["rope_parameters"]["factor"] = self.rope_scaling
        if self.partial_rotary_factor != 1:
            out["rope_parameters"]["partial_rotary_factor"] = self.partial_rotary_factor
        if "BMF" in self.pattern or self.bmojo_window != 2048 or not self.tie_attn_weights:
            out["bmojo_config"] = {
                "window_size": self.bmojo_window,
                "tie_attn_weights": self.tie_attn_weights,
                "ssm_mixer": self.ssm_mixer,
            }
        if {"M2", "BMF"} & set(self.pattern) or not self.use_qk_norm or self.use_pos_emb:
            out["mamba2_config"] = {"use_qk_norm": self.use_qk_norm, "use_pos_emb": self.use_pos_emb}
        if self.swa_window is not None:
            out["swa_config"] = {"window_size": self.swa_window}
        return {**out, **{k: v for k, v in self.extra.items() if k not in out}}

    @classmethod
    def from_file(cls, path: str | Path) -> HybridConfig:
        """Read the ``config.json`` at ``path``, a file or the folder that holds it."""
        path = Path(path)
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a checkpoint folder has a config.json")
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: expected JSON, got something that does not parse: {error}") from None
        if not isinstance(raw, dict):
            raise ValueError(f"{file}: expected a JSON object, got {type(raw).__name__}")
        return cls.from_dict(raw, source=str(file))


_WRITTEN_KEYS = {
    *("architectures", "model_type", "hybrid_override_pattern", "layer_types", "num_hidden_layers", "vocab_size"),
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act"),
    *("rms_norm_eps", "tie_word_embeddings", "attention_bias", "max_position_embeddings", "dtype", "torch_dtype"),
    *("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor"),
    *("bmojo_config", "mamba2_config", "swa_config"),
}


def parse_pattern(pattern: str, *, source: str = "pattern") -> tuple[str, ...]:
    """Split a ``hybrid_override_pattern`` at its dashes; an empty tail is ignored, as published defaults have one."""
    if not isinstance(pattern, str):
        raise ValueError(f"{source}: hybrid_override_pattern: expected a string such as '*-M2', got {pattern!r}")
    symbols = pattern.split("-")
    while symbols and not symbols[-1]:
        symbols.pop()
    if not symbols:
        raise ValueError(f"{source}: hybrid_override_pattern: expected at least one symbol, got {pattern!r}")
    for i, symbol in enumerate(symbols):
        _check_symbol(symbol, i, source=f"{source}: ")
    return tuple(symbols)


def _check_symbol(symbol: str, layer: int, source: str = "") -> None:
    from .mixers import MIXERS  # here, since mixers are built from this configuration

    if symbol in MIXERS:
        return
    where = f"{source}pattern, layer {layer}: "
    if symbol in _KNOWN_ELSEWHERE:
        raise ValueError(
            f"{where}{symbol!r} is {_KNOWN_ELSEWHERE[symbol]}, which this version does not have; "
            f"it builds {', '.join(MIXERS)}"
        )
    raise ValueError(f"{where}expected one of {', '.join(MIXERS)}, got {symbol!r}")


def _check_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def _bmojo_window(window: object) -> Any:
    """Older files stored a window of 2^n as 2^n - 1 (n >= 5)."""
    if isinstance(window, int) and window >= 31 and (window & (window + 1)) == 0:
        logger.info("B'MOJO window %d is read as %d: older files stored 2^n as 2^n - 1", window, window + 1)
        return window + 1
    return window


def _read_rope(raw: Mapping[str, Any], source: str) -> tuple[float, float, float]:
    """(theta, scaling, partial rotary factor) from either rope format; the newer one wins where both are given."""
    legacy = raw.get("rope_scaling") or {}
    rope = {**legacy, **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000.0))
    factor = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if kind == "default":
        return float(theta), 1.0, float(factor)
    if kind == "linear":
        return float(theta), float(rope.get("factor", 1.0)), float(factor)
    raise ValueError(f"{source}: rope_type: expected 'default' or 'linear', got {kind!r}")
