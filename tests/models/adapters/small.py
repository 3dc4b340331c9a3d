"""Small random models of transformers, one a family."""

from typing import Any

import torch
import transformers

_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_chunk_size": 8}
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}
_COMMON = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24}

#: Name of a small model -> (prefix of its classes, configuration).
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba2": (
        "Mamba2",
        {"vocab_size": 48, "hidden_size": 16, "state_size": 6, "num_heads": 4, "head_dim": 8, "n_groups": 2,
         "num_hidden_layers": 2, "chunk_size": 8, "time_step_limit": (0.05, 0.5)},
    ),
    "bamba": (
        "Bamba",
        {**_COMMON, **_ATTENTION, **_MAMBA2, "num_hidden_layers": 3, "attn_layer_indices": [1]},
    ),
    "falcon_h1": (
        "FalconH1",
        {**_COMMON, **_ATTENTION, **_MAMBA2, "num_hidden_layers": 2, "mamba_d_ssm": 32, "head_dim": 8,
         "ssm_out_multiplier": 0.7, "attention_in_multiplier": 1.3, "attention_out_multiplier": 0.8,
         "key_multiplier": 0.5},
    ),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        {**_COMMON, **_ATTENTION, **_MAMBA2, "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"],
         "shared_intermediate_size": 24, "num_local_experts": 2, "num_experts_per_tok": 1,
         "attention_multiplier": 0.3, "residual_multiplier": 0.8, "position_embedding_type": "rope"},
    ),
    "zamba2": (
        "Zamba2",
        {**_COMMON, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 4, "attention_head_dim": 8,
         "mamba_d_state": 6, "mamba_expand": 2, "mamba_ngroups": 2, "n_mamba_heads": 4, "mamba_headdim": 8,
         "chunk_size": 8, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_mem_blocks": 1,
         "use_mem_rope": True, "use_shared_attention_adapter": False},
    ),
    "nemotron_h": (
        "NemotronH",
        {**_COMMON, **_ATTENTION, "head_dim": 8, "layers_block_type": ["mamba", "mlp", "attention", "moe"],
         "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 6, "n_groups": 2, "chunk_size": 8,
         "n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24,
         "moe_shared_expert_intermediate_size": 24},
    ),
    "llama": ("Llama", {**_COMMON, **_ATTENTION, "num_hidden_layers": 2}),
    "mistral": ("Mistral", {**_COMMON, **_ATTENTION, "num_hidden_layers": 2, "sliding_window": 5}),
    "mistral-full": ("Mistral", {**_COMMON, **_ATTENTION, "num_hidden_layers": 1, "sliding_window": None}),
    "mamba": (
        "Mamba",
        {"vocab_size": 48, "hidden_size": 16, "state_size": 6, "num_hidden_layers": 2, "expand": 2,
         "time_step_rank": 4},
    ),
    "falcon_mamba": (
        "FalconMamba",
        {"vocab_size": 48, "hidden_size": 16, "state_size": 6, "num_hidden_layers": 2, "expand": 2,
         "time_step_rank": 4},
    ),
    "jamba": (
        "Jamba",
        {**_COMMON, **_ATTENTION, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
         "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1,
         "mamba_d_state": 6, "mamba_expand": 2, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "qwen3_next": (
        "Qwen3Next",
        {**_COMMON, **_ATTENTION, "head_dim": 8, "num_hidden_layers": 2,
         "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
         "linear_key_head_dim": 6, "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1,
         "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24},
    ),
}  # fmt: skip


def small(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Any:
    """A random model whose layers mix and whose parameters have no special values."""
    prefix, config = CONFIGS[name]
    torch.manual_seed(seed)
    made = getattr(transformers, f"{prefix}Config")(**{**config, **changes})
    model = getattr(transformers, f"{prefix}ForCausalLM")(made)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim >= 2 and "A_log" not in key:  # transformers draws them so small that nothing would mix
                value.copy_(noise if "embed" in key else noise / value.shape[-1] ** 0.5)
            else:
                value.add_(0.1 * noise)
    return model.to(dtype).eval().requires_grad_(False)


def tokens(prompts: int, length: int, *, seed: int = 0) -> torch.Tensor:
    """Random token ids [prompts, length]."""
    return torch.randint(48, (prompts, length), generator=torch.Generator().manual_seed(seed))
