"""Small random models for the tests of the probes."""

from typing import Any

import torch

from solomonic.models import HybridConfig, HybridLM

#: In the place of every figure of a report, where its numbers are what counts.
BLANK = '<svg viewBox="0 0 9 9"></svg>'
PATTERNS = ["M2", "SWA-SWA", "*-M2", "BMF-M2-SWA-*"]


def small_model(
    pattern: str = "BMF-M2-SWA-*", *, dtype: torch.dtype = torch.float32, rng: int = 0, **changes: Any
) -> HybridLM:
    """A random model with a vocabulary of 64, d = 32 and 4 heads of 8."""
    config: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "swa_window": 5,
        "bmojo_window": 6,
        **changes,
    }
    return HybridLM(HybridConfig(pattern=pattern, **config), rng=rng).to(dtype).requires_grad_(False)  # type: ignore[arg-type]


def tokens(prompts: int, length: int, *, seed: int = 0, vocabulary: int = 64) -> torch.Tensor:
    """Random token ids [prompts, length]."""
    return torch.randint(vocabulary, (prompts, length), generator=torch.Generator().manual_seed(seed))


class Tampered(HybridLM):
    """A model whose taps do not tell what ran: ``change(layer, name, value)`` is what they hand out instead.

    A change that returns None keeps the tap silent.
    """

    change: Any = None

    def forward(self, ids, memory=None, *, record=None):
        def altered(layer, name, value):
            value = self.change(layer, name, value)
            if value is not None and record is not None:
                record(layer, name, value)

        return super().forward(ids, memory, record=None if record is None else altered)


def tampered(model: HybridLM, change: Any) -> HybridLM:
    """The same model with its taps changed."""
    other = Tampered(model.config)
    other.load_state_dict(model.state_dict())
    other.to(next(model.parameters()).dtype).requires_grad_(False)
    other.change = change
    return other
