"""How strongly the output of one layer depends on its input a lag ago, without the rest of the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import HybridLM
from solomonic.models.rope import rotary_tables

from .inputs import as_count, as_ids, as_lags, as_layers, as_level, as_rng, finite
from .labelled import provenance, units
from .over_prompts import root_mean_interval
from .taps import has_fading_tokens, layer_window

__all__ = ["layer_influence"]

_UNITS = {
    "influence": ("Frobenius norm of the Jacobian d mixer output(T) / d mixer input(T - lag)", "1"),
    "influence_mean": ("the same, root mean square over prompts", "1"),
    "influence_mean_interval": ("confidence interval of influence_mean, prompts redrawn", "1"),
    "lag": ("lag behind the last token", "token"),
}


def layer_influence(
    model: HybridLM,
    layer: int,
    ids: Any,
    *,
    lags: Iterable[int] | None = None,
    projections: int = 16,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Norm of the Jacobian of one mixer, from its input a lag ago to its output at the last token.

    .. math:: J(\tau) = \Bigl\| \frac{\partial\, mixer(h)_T}{\partial h_{T-\tau}} \Bigr\|_F,
              \qquad \mathbb E_v \|v^\top \partial\|^2 = J(\tau)^2, \quad v \sim N(0, I)

    In a whole model, depth mixes the reaches of the layers and the kinks of a fading curve are soft. One layer shows
    them sharply: W for a window, W and 2W for B'MOJO-F, whose paths are separated.

    Parameters
    ----------
    model : HybridLM
        The model.
    layer : int
        The layer.
    ids : array_like of int
        Texts [prompts, T] or [T]; the mixer sees what the model gives it there.
    lags : iterable of int, optional
        Lags in tokens, from 1 to T - 1; all of them by default, and lag 0 as well.
    projections : int, default 16
        Random directions v; the relative standard error of J is about 1 / sqrt(2 projections) or less. With 0 the
        Jacobian is computed whole, by one backward pass for each of the d outputs.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the directions and of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, path, lag, bound. ``influence`` (prompt, path, lag) and ``influence_mean`` (path, lag), the root
        mean square over prompts, with its interval (NaN for one prompt; the root of the studentized
        one of the mean square, with no upper end for fewer than four). ``path`` is "all"; for layers with fading tokens
        also "window" (the fading tokens held fixed) and "fading" (the window and the query held fixed): all is
        the sum of the two, as matrices.
        Attributes: ``window`` (W, 0 if none), ``layer``, ``symbol``, provenance with the seed.

    Raises
    ------
    TypeError, ValueError
        If ids are no tokens of the model, there is no such layer, or a lag is not shorter than the texts.

    Notes
    -----
    Gates and softmax weights are differentiated too: this is the full Jacobian of the mixer, not that at frozen
    gates. Outside a window it is exactly 0. Costs about three passes of the mixer for each projection and path.

    References
    ----------
    Hutchinson, Commun. Stat. Simul. Comput. 19 (1990), for the norm from random projections.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import layer_influence
    >>> model = HybridLM(HybridConfig(pattern="SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> reached = layer_influence(model, 0, torch.arange(9), rng=0).influence_mean.sel(path="all") > 0
    >>> reached.values
    array([ True,  True,  True,  True, False, False, False, False, False])
    """
    if not isinstance(model, HybridLM):
        raise TypeError(
            f"layer_influence: expected a HybridLM, whose mixers can be run alone, got {type(model).__name__}; for "
            "other models there are fading and Trace.system"
        )
    config = model.config
    tokens = as_ids(ids, model, least=2)
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise ValueError(f"layer: expected a layer from 0 to {len(config.pattern) - 1}, got {layer!r}")
    (layer,) = as_layers(layer, len(config.pattern), name="layer")
    projections = as_count(projections, "projections", 0)
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    steps = tokens.shape[1]
    chosen = np.arange(steps) if lags is None else as_lags(lags, steps)
    inputs = _mixer_inputs(model, tokens, layer)
    paths = ["all", "window", "fading"] if has_fading_tokens(config.pattern[layer]) else ["all"]
    width = inputs.shape[2]
    squares = np.empty((len(tokens), len(paths), steps))
    for i, h in enumerate(tqdm(inputs, disable=not progress, unit="prompt", desc="layer influence")):
        if projections:
            drawn = generator.standard_normal((projections, width))
            directions, weight = torch.from_numpy(drawn).to(h), 1 / projections
        else:
            directions, weight = torch.eye(width).to(h), 1.0
        for j, gradient in enumerate(_gradients(model, layer, h, directions, paths)):
            squares[i, j] = weight * gradient.double().square().sum((0, 2)).cpu().numpy()
    squares = squares[:, :, steps - 1 - chosen]
    dataset = xr.Dataset(
        {
            "influence": (("prompt", "path", "lag"), np.sqrt(squares)),
            "influence_mean": (("path", "lag"), np.sqrt(squares.mean(0))),
            "influence_mean_interval": (
                ("bound", "path", "lag"),
                root_mean_interval(squares, confidence=confidence, resamples=resamples, rng=generator),
            ),
        },
        coords={"prompt": np.arange(len(tokens)), "path": paths, "lag": chosen, "bound": ["lower", "upper"]},
        attrs={
            **provenance(
                "layer_influence",
                model=model,
                arguments={
                    "layer": layer,
                    "ids": tokens,
                    "lags": chosen,
                    "projections": projections,
                    "confidence": confidence,
                    "resamples": resamples,
                },
                seed=seed,
            ),
            "layer": layer,
            "symbol": config.pattern[layer],
            "window": layer_window(config, layer) or 0,
            "confidence": confidence,
        },
    )
    return units(dataset, _UNITS)


def _mixer_inputs(model: HybridLM, tokens: Tensor, layer: int) -> Tensor:
    """What the mixer of a layer reads, [prompts, T, d]."""
    held: dict[str, Tensor] = {}

    def record(at: int, name: str, value: Tensor) -> None:
        if at == layer and name == "mixer_in":
            held["h"] = value.detach()

    with torch.no_grad():
        model(tokens.to(next(model.parameters()).device), record=record)
    if "h" not in held:
        raise ValueError(f"model: the tap 'mixer_in' of layer {layer} never fired")
    return finite(held["h"], "the inputs of the mixer")


def _gradients(model: HybridLM, layer: int, h: Tensor, directions: Tensor, paths: list[str]) -> list[Tensor]:
    """Gradients [directions, T, d] of each direction of the last output, by path."""
    mixer: Any = model.model.layers[layer].mixer  # type: ignore[union-attr]
    count = directions.shape[0]
    tables = rotary_tables(model.config, 0, h.shape[0], h)
    found = []
    with torch.enable_grad():
        x = h.expand(count, -1, -1).clone().requires_grad_(True)
        taps: dict[str, Tensor] = {}
        out, _ = mixer(x, mixer.empty(count, h), tables, taps.__setitem__)
        loss = (out[:, -1] * directions).sum()
        found.append(torch.autograd.grad(loss, x, retain_graph=len(paths) > 1)[0])
        if len(paths) > 1:
            tokens = taps["ssm_out"]
            (into,) = torch.autograd.grad(loss, tokens, retain_graph=True)
            (fading,) = torch.autograd.grad(tokens, x, into, retain_graph=True)
            blocked = tokens.register_hook(torch.zeros_like)
            (window,) = torch.autograd.grad(loss, x)
            blocked.remove()
            found += [window, fading]
    return found
