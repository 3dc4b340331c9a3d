"""Small random models for the tests."""

import torch

from solomonic.models import HybridConfig, HybridLM

VOCAB = 29

#: Patterns and options that together switch everything the format has.
VARIANTS = {
    "attention": {"pattern": "*-*", "num_key_value_heads": 4},
    "window": {"pattern": "SWA-SWA", "swa_window": 5},
    "window-of-one": {"pattern": "SWA-SWA", "swa_window": 1},
    "mamba2": {"pattern": "M2-M2"},
    "mamba2-no-norms": {"pattern": "M2-M2", "use_qk_norm": False},
    "mamba2-rope": {"pattern": "M2-M2", "use_pos_emb": True},
    "bmojo-f": {"pattern": "BMF-BMF", "bmojo_window": 5},
    "bmojo-f-untied": {"pattern": "BMF-BMF", "bmojo_window": 4, "tie_attn_weights": False},
    "gdn": {"pattern": "GDN-GDN"},
    "gdn-negative": {"pattern": "GDN-GDN", "gdn_allow_neg_eigval": True, "gdn_conv_bias": True},
    "gka": {"pattern": "GKA-GKA"},
    "gka-few": {"pattern": "GKA-GKA", "gka_num_iter": 3, "gka_ridge_strength": 0.1, "gka_decay_gram": False},
    "bmojo-f-gdn": {"pattern": "BMF-BMF", "bmojo_window": 5, "ssm_mixer": "gdn"},
    "bmojo-f-gka": {"pattern": "BMF-BMF", "bmojo_window": 4, "ssm_mixer": "gka", "tie_attn_weights": False},
    "bmojo": {"pattern": "BMO-BMO", "bmojo_window": 5, "eidetic_tokens": 4},
    "bmojo-paper": {"pattern": "BMO-BMO", "bmojo_window": 4, "eidetic_tokens": 3, "fading_tokens": 1,
                    "bmojo_positions": "none"},
    "bmojo-frozen-untied": {"pattern": "BMO-BMO", "bmojo_window": 5, "eidetic_tokens": 2, "fading_tokens": 3,
                            "tie_attn_weights": False, "innovation_norm": "relative", "innovation_span": 2},
    "bmojo-untied-gdn": {"pattern": "BMO-BMO", "bmojo_window": 3, "eidetic_tokens": 7, "tie_attn_weights": False,
                         "ssm_mixer": "gdn"},
    "bmojo-random-gka": {"pattern": "BMO-BMO", "bmojo_window": 4, "eidetic_tokens": 2, "innovation_norm": "random",
                         "fading_tokens": 0, "ssm_mixer": "gka"},
    "hybrid": {"pattern": "*-BMF-M2-SWA", "bmojo_window": 6, "swa_window": 3, "tie_word_embeddings": True,
               "partial_rotary_factor": 0.5, "attention_bias": True, "rope_scaling": 2.0},
}  # fmt: skip


def small_config(name: str, **options) -> HybridConfig:
    base = {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    return HybridConfig(**{**base, **VARIANTS[name], **options})


def small_model(name: str, *, dtype=torch.float64, rng=0, **options) -> HybridLM:
    """A random model whose norms, biases and decays are spread out, so that no part is idle."""
    model = HybridLM(small_config(name, **options), rng=rng, decay="default")
    generator = torch.Generator().manual_seed(rng + 1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p += 0.2 * torch.randn(p.shape, generator=generator)
    return model.to(dtype).requires_grad_(False)


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
