"""Does the model hold what an observer who knows the source believes? Read-outs of exact posteriors, with controls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_count, as_ids, as_layers, as_level, as_model, as_rng
from .labelled import fingerprint, provenance, units
from .linear_read import explained, explained_interval, gained_interval, held_out_errors
from .random_weights import random_model
from .significance import paired_test
from .snapshots import snapshots, sources

__all__ = ["belief_states"]

_CONTROLS = ("model", "random weights", "shuffled beliefs")
_UNITS = {
    "r2": ("share of the variance of the beliefs that an affine read-out tells, held out", "1"),
    "r2_interval": ("confidence interval of r2 over prompts", "1"),
    "above_random": ("r2 of the model less that of random weights", "1"),
    "above_random_interval": ("confidence interval of above_random over prompts", "1"),
    "above_random_p_value": ("p-value of equal errors of the model and of random weights, prompt by prompt", "1"),
    "r2_token": ("r2 of a read-out of the last token alone", "1"),
    "r2_token_interval": ("confidence interval of r2_token over prompts", "1"),
    "dimension": ("numbers of the source", "1"),
}


def belief_states(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    beliefs: Any,
    *,
    layers: Iterable[int] | int | None = None,
    control: HybridLM | AdaptedLM | torch.nn.Module | None = None,
    samples: int = 16,
    folds: int = 5,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""How much of exact beliefs about hidden states an affine read-out of the model's memory tells.

    .. math:: \hat\eta_t = W m_t + b, \qquad
              R^2 = 1 - \frac{\sum_t \lVert \eta_t - \hat\eta_t \rVert^2}{\sum_t \lVert \eta_t - \bar\eta \rVert^2}

    with :math:`\eta_t` the posterior of the hidden states given the tokens so far, and :math:`m_t` a part of the memory
    of a layer, or its residual stream. :math:`R^2` is measured on prompts that were not used for W and b. The best
    predictor of a hidden Markov model must be able to tell beliefs apart wherever they lead to other futures; whether
    they lie there affinely is a question to the model.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model, trained on the source.
    ids : array_like of int
        Texts of the source [prompts, T], at least two for every fold.
    beliefs : array_like
        The belief after each token [prompts, T, S], such as ``solomonic.models.tasks.HiddenMarkov`` gives.
    layers : int or iterable of int, optional
        The layers; all by default.
    control : model, optional
        The same architecture with random weights; one is made by default.
    samples : int, default 16
        Places in the second half of each text.
    folds : int, default 5
        Groups of prompts; each is held out once.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the test.
    rng : int, numpy.random.Generator or None
        Source of the random weights, shuffles, folds and resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, source (parts of the memory, and "residual" of a HybridLM), control, bound; NaN where a layer has no
        such part.

        - ``r2`` (layer, source, control), with its interval: of the "model", of "random weights", and of the model
          against "shuffled beliefs", those of another prompt at the same place.
        - ``above_random`` (layer, source) with its interval and p-value; take :func:`discoveries` over all of them.
        - ``r2_token``, with its interval: what the last token alone tells. ``dimension`` (layer, source).

        Attributes: provenance, and ``left_out``, parts that grow with the text.

    Raises
    ------
    TypeError, ValueError
        If the beliefs do not belong to the ids, are not finite or do not vary, there are too few prompts, the control
        is of another architecture, or the logits are NaN.

    Notes
    -----
    Recurrent memories with random weights hold much of a belief already, since it fades like they do: R^2 alone
    says little. Large parts are read out with fewer samples than numbers; the ridge, chosen inside each fit, sees
    to that, and the controls have the same. Intervals are over prompts for the fits that were made
    (:func:`ratio_interval`). Costs 2 singular value decompositions for each fold, source,
    layer and control.

    References
    ----------
    Shai et al., "Transformers represent belief state geometry in their residual stream" (arXiv:2405.15943), section 3;
    Hewitt and Liang, "Designing and interpreting probes with control tasks" (arXiv:1909.03368), for the shuffled one.

    Examples
    --------
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.models.tasks import mess3
    >>> from solomonic.probes import belief_states
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=3, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0)
    >>> rows = mess3().sample(20, length=32, rng=0)
    >>> found = belief_states(model, rows.ids, rows.beliefs, samples=4, resamples=99)
    >>> found.source.values.tolist()
    ['conv', 'state', 'residual']
    """
    model = as_model(model)
    samples, folds = as_count(samples, "samples"), as_count(folds, "folds", 2)
    resamples, confidence = as_count(resamples, "resamples"), as_level(confidence, "confidence")
    texts = as_ids(ids, model, least=2)
    prompts, length = texts.shape
    if prompts < 2 * folds:
        raise ValueError(f"ids: {folds} folds need at least {2 * folds} prompts, got {prompts}; fold less")
    eta = _as_beliefs(beliefs, prompts, length)
    chosen = as_layers(layers, len(model.config.pattern))
    generator, seed = as_rng(rng)
    other = _control(model, control, generator)
    times = np.unique(np.linspace(length // 2, length - 1, samples).round().astype(np.int64))
    wanted = sources(model, chosen)
    own, _ = snapshots(model, texts, times, wanted)
    random = snapshots(other, texts, times, wanted)[0]
    names = list(dict.fromkeys(part for _, part in own))
    shift = 1 + int(generator.integers(prompts - 1))
    true, shuffled = (v[:, times].reshape(-1, eta.shape[2]) for v in (eta, np.roll(eta, shift, 0)))
    if not true.var(0).any():
        raise ValueError("beliefs: expected beliefs that vary between texts and places, got one and the same")
    prompt, split = np.repeat(np.arange(prompts), len(times)), int(generator.integers(2**32))

    def read(features: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Sums of squares [prompts, 2] with the same folds for everything."""
        flat = features.reshape(len(prompt), -1)
        source = np.random.default_rng(split)
        return np.stack(held_out_errors([flat], goal, prompt, folds=folds, generator=source), 1)

    sums = np.full((prompts, 2, len(chosen), len(names), len(_CONTROLS)), np.nan)
    dimension = np.full((len(chosen), len(names)), np.nan)
    for (layer, part), features in tqdm(own.items(), disable=not progress, unit="source", desc="belief states"):
        at = (chosen.index(layer), names.index(part))
        dimension[at] = features.shape[2]
        sums[(..., *at, 0)] = read(features, true)
        sums[(..., *at, 2)] = read(features, shuffled)
        if (layer, part) in random:
            sums[(..., *at, 1)] = read(random[layer, part], true)
    last = np.eye(model.config.vocab_size)[texts[:, times].numpy()]
    alone = read(last, true)
    of_gain = gained_interval(sums[..., 1], sums[..., 0], confidence)
    gap = sums[:, 0, ..., 1] - sums[:, 0, ..., 0]
    p_value = np.full(gap.shape[1:], np.nan)
    tested = np.isfinite(gap).all(0)
    if tested.any():
        p_value[tested] = paired_test(gap[:, tested], resamples=resamples, rng=generator)
    per_source = ("layer", "source")
    data = {
        "r2": ((*per_source, "control"), explained(sums, 0)),
        "r2_interval": (("bound", *per_source, "control"), explained_interval(sums, confidence)),
        "above_random": (per_source, _above(sums, 0)),
        "above_random_interval": (("bound", *per_source), of_gain),
        "above_random_p_value": (per_source, p_value),
        "r2_token": float(explained(alone, 0)),
        "r2_token_interval": ("bound", explained_interval(alone, confidence)),
        "dimension": (per_source, dimension),
    }
    coords = {"layer": list(chosen), "source": names, "control": list(_CONTROLS), "bound": ["lower", "upper"]}
    arguments = {"ids": texts, "beliefs": eta, "layers": chosen, "samples": samples, "folds": folds}
    arguments |= {"confidence": confidence, "resamples": resamples}
    arguments |= {"control": fingerprint(other)}
    attrs = {
        **provenance("belief_states", model=model, arguments=arguments, seed=seed),
        "left_out": " ".join(sorted({part for _, part in wanted} - set(names))),
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _above(sums: np.ndarray, axis: int) -> np.ndarray:
    share = explained(sums, axis)
    return share[..., 0] - share[..., 1]


def _as_beliefs(beliefs: Any, prompts: int, length: int) -> np.ndarray:
    value = np.asarray(beliefs, dtype=np.float64)
    if value.ndim != 3 or value.shape[:2] != (prompts, length):
        raise ValueError(f"beliefs: expected [{prompts}, {length}, states] as ids has prompts and tokens, got shape "
                         f"{value.shape}")  # fmt: skip
    if not np.isfinite(value).all():
        raise ValueError("beliefs: expected finite numbers, got NaN or infinity")
    return value


def _control(model: HybridLM | AdaptedLM, control: Any, generator: np.random.Generator) -> HybridLM | AdaptedLM:
    """The control that was given, or a model with random weights."""
    if control is None:
        return random_model(model, generator)
    other = as_model(control, name="control")
    shapes = [{name: tuple(v.shape) for name, v in each.named_parameters()} for each in (model, other)]
    if shapes[0] != shapes[1]:
        raise ValueError("control: expected a model of the same architecture and sizes as model")
    return other
