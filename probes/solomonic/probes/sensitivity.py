"""How the state and the logits depend on each token: the whole derivative beside that at frozen gates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import HybridLM

from .inputs import as_count, as_ids, as_lags, as_level, as_rng, state_layers
from .labelled import provenance, units
from .over_prompts import root_mean_interval, root_ratio_interval
from .products import embedding_table, replaced_embeddings

__all__ = ["sensitivity"]

#: Taps through which a token steers what a layer does with its inputs: steps, strengths, input and read-out maps,
#: queries and keys.
GATES = ("dt", "log_decay", "beta", "alpha", "B", "C", "q", "k", "q_fading", "k_fading")

_UNITS = {
    "norm": ("Frobenius norm of the derivative by the embedding at that lag", "1"),
    "norm_mean": ("the same, root mean square over prompts", "1"),
    "norm_mean_interval": ("confidence interval of norm_mean over prompts", "1"),
    "ratio": ("norm with the gates differentiated over that with frozen gates", "1"),
    "ratio_interval": ("confidence interval of ratio over prompts", "1"),
    "lag": ("lag behind the last token", "token"),
}


def sensitivity(
    model: HybridLM,
    ids: Any,
    *,
    layers: Iterable[int] | int | None = None,
    lags: Iterable[int] | None = None,
    projections: int = 8,
    confidence: float = 0.95,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Norm of the derivative of states and logits by each earlier embedding, full and at frozen gates.

    .. math:: J(\tau) = \Bigl\| \frac{\partial h_T}{\partial e_{T-\tau}} \Bigr\|_F \quad\text{and}\quad
              \Bigl\| \frac{\partial \ell_T}{\partial e_{T-\tau}} \Bigr\|_F, \qquad
              \mathbb E_v \bigl\| v^\top \partial \bigr\|^2 = J(\tau)^2, \quad v \sim N(0, I)

    "full" goes through everything: values and gates of all layers. "frozen" holds the gates of all layers at the
    values of the run: the steps and the maps B and C of state space layers, the weights of every softmax. What is left
    is how inputs travel when nothing selects them; the gap between the two is what selecting adds.

    Parameters
    ----------
    model : HybridLM
        The model. (In one of transformers the taps are not on the way of the derivative.)
    ids : array_like of int
        Texts [prompts, T] or [T].
    layers : int or iterable of int, optional
        Layers whose states are differentiated; by default all that have one. The logits after the last token are
        always there.
    lags : iterable of int, optional
        Lags in tokens, from 1 to T - 1; all of them by default, and lag 0 as well.
    projections : int, default 8
        Random directions v; the relative standard error of J is about 1 / sqrt(2 projections) or less.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the directions.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims jacobian ("full", "frozen"), target ("layer 0", ..., "logits"), prompt, lag, bound.

        - ``norm`` (jacobian, target, prompt, lag); ``norm_mean`` (jacobian, target, lag), root mean square over
          prompts; ``ratio`` (target, lag), full over frozen. ``norm_mean_interval`` and ``ratio_interval`` are
          Student's of the logarithm, over prompts; NaN for one.

        Attributes: provenance with the seed and checks: ``gates``, how many tensors were held fixed.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens of the model, a layer has no state, a lag is not shorter than the texts, or no gate was
        found to hold fixed.

    Notes
    -----
    Logits count up to a constant, so their mean is taken off. Norms, convolutions, gates of outputs and the
    layers between are differentiated in both. One run with ``projections`` rows a prompt, and two passes back for
    each target.

    References
    ----------
    Ali, Zimerman and Wolf (arXiv:2403.01590) for the derivative at frozen gates; Hutchinson, Commun. Stat. Simul.
    Comput. 19 (1990), for the norm from random projections.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import sensitivity
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> found = sensitivity(model, torch.arange(20) % 16)
    >>> found.target.values.tolist(), found.norm.sizes["lag"]
    (['layer 0', 'logits'], 20)
    """
    if not isinstance(model, HybridLM):
        raise TypeError(
            f"model: expected a HybridLM, whose gates can be held fixed, got {type(model).__name__}; for other models "
            "there are hidden_attention (frozen gates) and controllability (all of the derivative)"
        )
    tokens = as_ids(ids, model, least=2)
    steps = tokens.shape[1]
    chosen = np.arange(steps) if lags is None else as_lags(lags, steps)
    projections = as_count(projections, "projections")
    confidence = as_level(confidence, "confidence")
    generator, seed = as_rng(rng)
    has_some = any(isinstance(layer.get("state"), Tensor) for layer in model.empty_memory().layers)
    stateful = state_layers(model, layers) if layers is not None or has_some else ()
    targets = [*(f"layer {i}" for i in stateful), "logits"]
    squares = np.empty((2, len(targets), len(tokens), steps))
    gates = 0
    for row, text in enumerate(tqdm(tokens, disable=not progress, unit="prompt", desc="sensitivity")):
        found, gates = _squares(model, text, stateful, projections, generator)
        squares[:, :, row] = found
    squares = squares[..., steps - 1 - chosen]
    by_prompt = np.moveaxis(squares, 2, 0)
    full, frozen = by_prompt[:, 0], by_prompt[:, 1]
    mean = by_prompt.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(mean[1] > 0, np.sqrt(mean[0] / mean[1]), np.nan)
    arguments = {"ids": tokens, "layers": stateful, "lags": chosen, "projections": projections}
    arguments |= {"confidence": confidence}
    dataset = xr.Dataset(
        {
            "norm": (("jacobian", "target", "prompt", "lag"), np.sqrt(squares)),
            "norm_mean": (("jacobian", "target", "lag"), np.sqrt(mean)),
            "norm_mean_interval": (
                ("bound", "jacobian", "target", "lag"),
                root_mean_interval(by_prompt, confidence),
            ),
            "ratio": (("target", "lag"), ratio),
            "ratio_interval": (
                ("bound", "target", "lag"),
                root_ratio_interval(full, frozen, confidence),
            ),
        },
        {
            "jacobian": ["full", "frozen"],
            "target": targets,
            "prompt": np.arange(len(tokens)),
            "lag": chosen,
            "bound": ["lower", "upper"],
        },
        {
            **provenance("sensitivity", model=model, arguments=arguments, seed=seed, checks={"gates": gates}),
            "confidence": confidence,
        },
    )
    return units(dataset, _UNITS)


def _squares(
    model: HybridLM, text: Tensor, layers: tuple[int, ...], projections: int, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Mean squares over the directions [2, targets, T] of the gradients of one text, and how many gates were held."""
    held = False
    gates = 0

    def hold(gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if held else gradient

    def record(layer: int, name: str, value: Tensor) -> None:
        nonlocal gates
        if name in GATES and value.requires_grad:
            value.register_hook(hold)
            gates += 1

    embedded = embedding_table(model).weight.detach()[text].expand(projections, -1, -1).clone().requires_grad_(True)
    with torch.enable_grad(), replaced_embeddings(model, embedded):
        out = model(text.expand(projections, -1), record=record)
    if not gates:
        raise ValueError("model: no gate of any layer was seen, so that none can be frozen; see trace")
    values = [out.memory.get(i, "state") for i in layers]
    last = out.logits[:, -1]
    found = np.zeros((2, len(layers) + 1, text.shape[0]))
    for place, value in enumerate([*values, last - last.mean(-1, keepdim=True)]):
        assert isinstance(value, Tensor)
        if not torch.isfinite(value).all():
            raise ValueError("model: the run gave a state or logits that are NaN or infinite; there is no derivative")
        drawn = torch.from_numpy(generator.standard_normal(tuple(value.shape))).to(value)
        for which in (0, 1):
            held = bool(which)
            (gradient,) = torch.autograd.grad((value * drawn).sum(), embedded, retain_graph=True, allow_unused=True)
            if gradient is not None:
                found[which, place] = gradient.double().square().sum((0, 2)).cpu().numpy() / projections
    return found, gates
