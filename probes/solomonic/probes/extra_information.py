"""What lagged tokens tell of the model's own prediction that a linear read-out of the memory does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_count, as_ids, as_layers, as_level, as_model, as_rng
from .labelled import provenance, units
from .linear_read import explained, explained_interval, gained_interval, held_out_errors
from .snapshots import snapshots

__all__ = ["extra_information"]

_FEATURES = ("part", "tokens", "both")
_UNITS = {
    "explained": ("share of the variance of later predictions that a linear read-out tells, held out", "1"),
    "explained_interval": ("confidence interval of explained, prompts redrawn", "1"),
    "extra": ("what the tokens add to the part: explained of both less that of the part", "1"),
    "extra_interval": ("confidence interval of extra, prompts redrawn", "1"),
    "dimension": ("numbers of the part", "1"),
}


def extra_information(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    part: str = "state",
    layers: Iterable[int] | int | None = None,
    lags: int = 4,
    ahead: int = 1,
    samples: int = 8,
    folds: int = 5,
    confidence: float = 0.95,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""How much better a linear read-out predicts the model's future with the last tokens beside a part of its memory.

    .. math:: R^2(m_t, x_{t-k+1}, \dots, x_t) - R^2(m_t), \qquad
              \text{target } \log p(\cdot \mid x_{\le t + a - 1})

    with :math:`m_t` the part of the memory of one layer after token t, and :math:`R^2` on prompts that were held out.
    If the part holds all that the prediction needs of the last tokens, in a form that a linear read-out finds, they
    add nothing.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Texts [prompts, T], at least two for every fold.
    part : str, default "state"
        A part of the memory ("state", "conv", "window", ...), or "residual" for the residual stream behind the layer.
    layers : int or iterable of int, optional
        The layers; all that have the part by default.
    lags : int, default 4
        k, how many of the last tokens are given, each by an indicator of its value.
    ahead : int, default 1
        a: 1 is the prediction made right after token t, more are later ones.
    samples : int, default 8
        Places in the second half of each text.
    folds : int, default 5
        Groups of prompts; each is held out once.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the folds.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, features ("part", "tokens", "both"), bound.

        - ``explained`` (layer, features), with its interval; ``extra`` (layer), with its interval; ``dimension``
          (layer).

        Attributes: provenance.

    Raises
    ------
    TypeError, ValueError
        If the logits are NaN, there are too few prompts or tokens, no layer has the part, or it grows with the text.

    Notes
    -----
    That tokens add something does not say that the part lacks it: a ridge read-out from a few hundred samples may
    not find it. That they add nothing says no more than that a linear read-out of them finds nothing. The weight of
    the tokens against the part, and the ridge, are chosen inside each fit; a weight of 0 is among them, so that
    useless tokens cost little. Intervals redraw prompts for the fits that were made; given those, nominal 95 %
    cover 92 to 94 % for 12 to 48 prompts. For the question without a read-out see :func:`sufficiency`. Costs 9
    singular value decompositions for each fold and layer, of matrices of at most as many rows and columns as there
    are samples (``prompts * samples``).

    References
    ----------
    Xu et al., "A theory of usable information under computational constraints" (arXiv:2002.10689), for information
    that a family of read-outs can use; Hewitt et al., "Conditional probing" (arXiv:2109.09234), section 3, for the
    difference of two read-outs.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import extra_information
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> ids = torch.randint(16, (20, 24), generator=torch.Generator().manual_seed(0))
    >>> found = extra_information(model, ids, samples=4)
    >>> found.layer.values.tolist(), found.features.values.tolist()
    ([0], ['part', 'tokens', 'both'])
    """
    model = as_model(model)
    lags, ahead, samples = (as_count(v, n) for v, n in ((lags, "lags"), (ahead, "ahead"), (samples, "samples")))
    folds = as_count(folds, "folds", 2)
    confidence = as_level(confidence, "confidence")
    texts = as_ids(ids, model, least=2 * max(lags, ahead))
    if len(texts) < 2 * folds:
        raise ValueError(
            f"ids: {folds} folds need at least {2 * folds} prompts, got {len(texts)}; give more or fold less"
        )
    wanted = _wanted(model, part, layers)
    generator, seed = as_rng(rng)
    prompts, length = texts.shape
    times = np.unique(np.linspace(length // 2, length - ahead, samples).round().astype(np.int64))
    later = np.union1d(times, times + ahead - 1)
    features, log_p = snapshots(model, texts, later, wanted)
    if len(features) < len(wanted):
        raise ValueError(f"part: {part!r} grows with the text and has no fixed coordinates; take 'residual' instead")
    own, future = np.searchsorted(later, times), np.searchsorted(later, times + ahead - 1)
    target = log_p[:, future].reshape(prompts * len(times), -1)
    target = target - target.mean(1, keepdims=True)
    prompt = np.repeat(np.arange(prompts), len(times))
    tokens = _indicators(texts.numpy(), times, lags, model.config.vocab_size)
    sums = np.empty((prompts, 2, len(wanted), len(_FEATURES)))
    for row, key in enumerate(tqdm(wanted, disable=not progress, unit="layer", desc="extra information")):
        part_of = features[key][:, own].reshape(len(prompt), -1)
        split = int(generator.integers(2**32))  # the same folds for the three
        for column, blocks in enumerate(([part_of], [tokens], [part_of, tokens])):
            sums[:, :, row, column] = np.stack(
                held_out_errors(blocks, target, prompt, folds=folds, generator=np.random.default_rng(split)), 1
            )
    of_extra = gained_interval(sums[..., 0], sums[..., 2], confidence)
    data = {
        "explained": (("layer", "features"), explained(sums, 0)),
        "explained_interval": (("bound", "layer", "features"), explained_interval(sums, confidence)),
        "extra": ("layer", _extra(sums, 0)),
        "extra_interval": (("bound", "layer"), of_extra),
        "dimension": ("layer", [features[key].shape[2] for key in wanted]),
    }
    coords = {"layer": [layer for layer, _ in wanted], "features": list(_FEATURES), "bound": ["lower", "upper"]}
    arguments = {"ids": texts, "part": part, "lags": lags, "ahead": ahead, "samples": samples, "folds": folds}
    attrs = {
        **provenance("extra_information", model=model, arguments=arguments, seed=seed),
        "part": part,
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _extra(sums: np.ndarray, axis: int) -> np.ndarray:
    share = explained(sums, axis)
    return share[..., 2] - share[..., 0]


def _wanted(model: HybridLM | AdaptedLM, part: str, layers: Any) -> list[tuple[int, str]]:
    """The layers asked for that have the part; all that have it by default."""
    held = model.empty_memory().layers
    chosen = as_layers(layers, len(held))
    having = [i for i in chosen if part in held[i] or (part == "residual" and isinstance(model, HybridLM))]
    lacking = [i for i in chosen if i not in having]
    if not having or (layers is not None and lacking):
        raise ValueError(
            f"part: expected a part of the layers {list(chosen)}, got {part!r}; "
            + "; ".join(f"layer {i} has {list(held[i])}" for i in lacking[:4])
        )
    return [(i, part) for i in having]


def _indicators(ids: np.ndarray, times: np.ndarray, lags: int, size: int) -> np.ndarray:
    """Indicators [prompts * times, lags * size] of the last tokens."""
    shown = np.stack([ids[:, times - k] for k in range(lags)], -1).reshape(-1, lags)
    out = np.zeros((*shown.shape, size))
    np.put_along_axis(out, shown[..., None], 1.0, -1)
    return out.reshape(len(shown), -1)
