"""The control of every probe that learns: the same architecture with random weights."""

from __future__ import annotations

import numpy as np
import torch

from solomonic.models import AdaptedLM, HybridLM, adapt

__all__ = ["random_model"]


def random_model(model: HybridLM | AdaptedLM, rng: np.random.Generator) -> HybridLM | AdaptedLM:
    """A model of the same configuration, dtype and device with initial weights; the global seed stays untouched.

    Parameters
    ----------
    model : HybridLM or AdaptedLM
        The model.
    rng : numpy.random.Generator
        Source of the seed.

    Returns
    -------
    HybridLM or AdaptedLM
        In evaluation mode, its parameters without gradients.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.models import load
    >>> from solomonic.probes.random_weights import random_model
    >>> random_model(load("fading"), np.random.default_rng(0)).config == load("fading").config
    True
    """
    like = next(model.parameters())
    seed = int(rng.integers(2**31))
    with torch.random.fork_rng(devices=[]):  # modules draw initial weights of their own before they get others
        torch.manual_seed(seed)
        if isinstance(model, HybridLM):
            made: HybridLM | AdaptedLM = HybridLM(model.config, rng=seed)
        else:
            made = adapt(type(model.hf)(model.hf.config).eval())
    return made.to(device=like.device, dtype=like.dtype).requires_grad_(False).eval()
