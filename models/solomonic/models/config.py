"""The configuration of a hybrid model, in the published ``hybrid_qwen3`` format."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger("solomonic")

#: Name of a state space layer in either published code -> our name.
_SSM_MIXERS = {
    "mamba2": "mamba2",
    "gdn": "gdn",
    "gated_deltanet": "gdn",
    "gka": "gka",
    "gated_kalmanet": "gka",
    "parallel_latent_sketch": "gka",
}
_NORMS = ("l2", "relative", "random")
_DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class HybridConfig:
    """Everything needed to build a :class:`~solomonic.models.HybridLM`.

    Symbols follow the published format: d = ``hidden_size``, F = ``intermediate_size``, H = ``num_attention_heads``,
    Hkv = ``num_key_value_heads``, D = ``head_dim``, W = a window in tokens.

    Parameters
    ----------
    pattern : tuple of str
        One symbol a layer: ``"*"`` (attention), ``"SWA"`` (sliding window attention), ``"M2"`` (Mamba2), ``"GDN"``
        (Gated DeltaNet), ``"GKA"`` (Gated KalmaNet), ``"BMF"`` (B'MOJO-F), ``"BMO"`` (B'MOJO with eidetic memory). A
        string such as ``"*-BMF-BMF-*"`` is split at the dashes.
    vocab_size, hidden_size, intermediate_size : int
        Number of tokens, d and F.
    num_attention_heads, num_key_value_heads, head_dim : int
        H, Hkv (divides H) and D; D need not be d / H.
    swa_window : int or None
        W of the ``"SWA"`` layers, tokens; needed if there are any.
    bmojo_window : int
        W of the ``"BMF"`` and ``"BMO"`` layers, tokens.
    tie_attn_weights : bool
        Whether a B'MOJO layer projects inputs and fading tokens with the same weights.
    ssm_mixer : str
        The state space layer inside ``"BMF"`` and ``"BMO"``: ``"mamba2"``, ``"gdn"`` or ``"gka"``.
    eidetic_tokens : int
        BMO: how many tokens m_e are stored; 0 for none.
    fading_tokens : int or None
        BMO: how many fading tokens m_f a query reads, from 0 to W: 1 as in the paper, W (or None) as released.
    innovation_span : int
        BMO: how many past outputs the innovation is measured against.
    innovation_norm : str
        BMO: ``"l2"``, ``"relative"`` (over the norm of the output), or ``"random"``, a control that stores tokens
        whatever they are.
    bmojo_positions : str
        BMO: ``"rope"`` as released, or ``"none"`` as in the paper.
    use_qk_norm, use_pos_emb : bool
        Mamba2: RMS norms, and rotary positions, on B and C before the convolution.
    state_sizes : tuple of int or None, optional
        Mamba2: how many of the D directions of its state each layer keeps (None: all), where the state was reduced by
        :func:`solomonic.probes.compress`; not part of the published format.
    gdn_allow_neg_eigval : bool
        GDN: strengths from 0 to 2, not 1, so that a write can turn what it replaces.
    gdn_conv_bias : bool
        GDN: whether the convolutions have biases.
    gdn_norm_eps, gka_norm_eps : float
        Added to the mean square in the norm of what was read.
    gka_num_iter : int
        GKA: steps of the iteration; 0 leaves linear attention. It may be changed after training.
    gka_ridge_strength : float
        GKA: ridge relative to the norm of the Gram matrix.
    gka_decay_gram : bool
        GKA: whether the Gram matrix decays (``use_forgetting_gate_kk`` in the format).
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
    eidetic_tokens: int = 16
    fading_tokens: int | None = None
    innovation_span: int = 4
    innovation_norm: str = "l2"
    bmojo_positions: str = "rope"
    use_qk_norm: bool = True
    use_pos_emb: bool = False
    state_sizes: tuple[int | None, ...] | None = None
    gdn_allow_neg_eigval: bool = False
    gdn_conv_bias: bool = False
    gdn_norm_eps: float = 1e-5
    gka_num_iter: int = 30
    gka_ridge_strength: float = 0.02
    gka_decay_gram: bool = True
    gka_norm_eps: float = 1e-6
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
            "innovation_span",
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
            raise ValueError(f"ssm_mixer: expected one of {', '.join(_SSM_MIXERS)}, got {self.ssm_mixer!r}")
        object.__setattr__(self, "ssm_mixer", _SSM_MIXERS[self.ssm_mixer])
        for name in ("gka_num_iter", "eidetic_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")
        fading, window = self.fading_tokens, self.bmojo_window
        if fading is not None and (
            isinstance(fading, bool) or not isinstance(fading, int) or not 0 <= fading <= window
        ):
            raise ValueError(f"fading_tokens: expected an integer from 0 to bmojo_window = {window}, got {fading!r}")
        for name, offered in (("innovation_norm", _NORMS), ("bmojo_positions", ("rope", "none"))):
            if getattr(self, name) not in offered:
                raise ValueError(f"{name}: expected one of {', '.join(offered)}, got {getattr(self, name)!r}")
        if self.state_sizes is not None:
            object.__setattr__(self, "state_sizes", tuple(self.state_sizes))
            self._check_state_sizes()
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype: expected one of {_DTYPES}, got {self.dtype!r}")
        rotated = self.head_dim * self.partial_rotary_factor
        if not (0 < self.partial_rotary_factor <= 1) or int(rotated) % 2 or int(rotated) < 2:
            raise ValueError(
                "partial_rotary_factor: expected a share in (0, 1] that rotates an even number of the "
                f"{self.head_dim} channels of a head, got {self.partial_rotary_factor}"
            )
        for name in (
            "rope_theta",
            "rope_scaling",
            "rms_norm_eps",
            "gdn_norm_eps",
            "gka_norm_eps",
            "gka_ridge_strength",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")

    def _check_state_sizes(self) -> None:
        found = self.state_sizes
        assert found is not None
        if len(found) != len(self.pattern):
            raise ValueError(f"state_sizes: expected one entry a layer, {len(self.pattern)}, got {len(found)}")
        for layer, (size, symbol) in enumerate(zip(found, self.pattern, strict=True)):
            if size is None:
                continue
            inside = self.ssm_mixer if symbol in ("BMF", "BMO") else {"M2": "mamba2"}.get(symbol)
            if inside != "mamba2":
                raise ValueError(f"state_sizes: layer {layer} ({symbol}) has no Mamba2 state to reduce, got {size!r}")
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= self.head_dim:
                raise ValueError(
                    f"state_sizes: layer {layer}: expected a whole number from 1 to head_dim = {self.head_dim}, "
                    f"got {size!r}"
                )

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
        2^n - 1 with n >= 5, as older files have it, is read as 2^n. A Qwen3 transformer is read as attention layers.
        """
        if raw.get("model_type") == "qwen3" and isinstance(raw.get("num_hidden_layers"), int):
            raw = {**raw, "hybrid_override_pattern": "-".join(["*"] * raw["num_hidden_layers"])}
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
        for key in (*_SECTIONS, "rope_parameters", "rope_scaling"):
            if raw.get(key) is not None and not isinstance(raw[key], Mapping):
                raise ValueError(f"{source}: {key}: expected an object, got {raw[key]!r}")
        bmojo, mamba2, gdn, gka, swa = (raw.get(section) or {} for section in _SECTIONS)
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
            **{name: bmojo[name] for name in _BMO_KEYS if name in bmojo},
            "use_qk_norm": mamba2.get("use_qk_norm", True),
            "use_pos_emb": mamba2.get("use_pos_emb", False),
            "state_sizes": mamba2.get("state_sizes"),
            "gdn_allow_neg_eigval": gdn.get("allow_neg_eigval", False),
            "gdn_conv_bias": gdn.get("conv_bias", False),
            "gdn_norm_eps": gdn.get("norm_eps", 1e-5),
            "gka_num_iter": gka.get("num_iter", 30),
            "gka_ridge_strength": gka.get("ridge_strength", 0.02),
            "gka_decay_gram": gka.get("use_forgetting_gate_kk", True),
            "gka_norm_eps": gka.get("norm_eps", 1e-6),
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
        _check_fixed(raw, source)
        extra = {k: v for k, v in raw.items() if k not in _WRITTEN_KEYS and k not in _SECTIONS}
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
        bmojo = {"BMF", "BMO"} & set(self.pattern)
        if bmojo or self.bmojo_window != 2048 or not self.tie_attn_weights:
            out["bmojo_config"] = {
                "window_size": self.bmojo_window,
                "tie_attn_weights": self.tie_attn_weights,
                "ssm_mixer": self.ssm_mixer,
            }
        if "BMO" in self.pattern:
            out["bmojo_config"].update({name: getattr(self, name) for name in _BMO_KEYS})
        used = {*self.pattern, _SYMBOLS[self.ssm_mixer] if bmojo else ""}
        if "M2" in used or not self.use_qk_norm or self.use_pos_emb or self.state_sizes is not None:
            mamba2: dict[str, Any] = {"use_qk_norm": self.use_qk_norm, "use_pos_emb": self.use_pos_emb}
            if self.state_sizes is not None:
                mamba2["state_sizes"] = list(self.state_sizes)
            out["mamba2_config"] = mamba2
        if "GDN" in used:
            out["gdn_config"] = {
                "allow_neg_eigval": self.gdn_allow_neg_eigval,
                "conv_bias": self.gdn_conv_bias,
                "norm_eps": self.gdn_norm_eps,
            }
        if "GKA" in used:
            out["gka_config"] = {
                "num_iter": self.gka_num_iter,
                "ridge_strength": self.gka_ridge_strength,
                "use_forgetting_gate_kk": self.gka_decay_gram,
                "norm_eps": self.gka_norm_eps,
            }
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
}

#: Objects in ``config.json`` that configure the mixers; all are written.
_SECTIONS = ("bmojo_config", "mamba2_config", "gdn_config", "gka_config", "swa_config")
_BMO_KEYS = ("eidetic_tokens", "fading_tokens", "innovation_span", "innovation_norm", "bmojo_positions")
_SYMBOLS = {"mamba2": "M2", "gdn": "GDN", "gka": "GKA"}

#: What the format lets one choose and no published checkpoint does: the one value that is built here.
_FIXED = {
    "gdn_config": {"use_gate": True, "use_short_conv": True, "conv_size": 4, "kv_proj_rank": None},
    "gka_config": {
        "use_alpha_connection": True,
        "use_v_conv": True,
        "use_forgetting_gate": True,
        "use_gate": True,
        "use_beta_gate": True,
        "solver_type": "chebyshev",
        "conv_size": 4,
        "kv_proj_rank": None,
        "kv_learnable_residual": False,
    },
}


def _check_fixed(raw: Mapping[str, Any], source: str) -> None:
    for section, fixed in _FIXED.items():
        for key, value in fixed.items():
            given = (raw.get(section) or {}).get(key, value)
            if given != value:
                raise ValueError(f"{source}: {section}: {key}: only {value!r} is built here, got {given!r}")


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
    if any(mark in symbol[1:] for mark in ("*", ">", "DA")):
        raise ValueError(
            f"{where}{symbol!r} is a layer as it is during training (fused with its teacher, or turning into another); "
            f"save the trained model with one of {', '.join(MIXERS)} in its place"
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
