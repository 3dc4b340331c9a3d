"""Is the memory a sufficient statistic of the past? Futures after a transplant of all of it, and of parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_count, as_ids, as_layers, as_level, as_model, as_rng, finite
from .labelled import provenance, units
from .ratios import ratio_interval
from .statistics import bootstrap_interval

__all__ = ["sufficiency"]

_UNITS = {
    "kl": ("divergence of the prediction from the donor's own", "bit"),
    "kl_mean": ("divergence from the donor's own prediction, mean over time and prompts", "bit"),
    "kl_mean_interval": ("confidence interval of kl_mean, prompts redrawn", "bit"),
    "share": ("share of the difference between the two pasts that what travels brings along", "1"),
    "share_interval": ("confidence interval of share, prompts redrawn", "1"),
    "time": ("position of the token that was read", "token"),
}


def sufficiency(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    receiver_ids: Any,
    donor_ids: Any,
    *,
    horizon: int = 16,
    travels: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    layers: Iterable[int] | int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""How far futures are from the donor's own when its memory, or parts of it, takes the place of the receiver's.

    .. math:: K_S(t) = \mathrm{KL}\bigl(p(\cdot \mid m', x_{\le t}) \,\big\|\, p(\cdot \mid m_S, x_{\le t})\bigr),
              \qquad m_S = m \text{ with the parts } S \text{ of } m', \qquad
              \text{share}_S = 1 - \frac{\sum_t K_S(t)}{\sum_t K_\varnothing(t)}

    with m the memory after the receiver's past, m' that after the donor's, and x the tokens with which the donor goes
    on. If the memory is a state, two pasts with one memory have one future: with all parts K is exactly 0, which is
    checked. What is left of K when one part stays behind is what that part alone holds.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    receiver_ids : array_like of int
        Texts [T] or [prompts, T]; the last ``horizon`` tokens are not used.
    donor_ids : array_like of int
        Texts of the same shape; their last ``horizon`` tokens are read after the transplant.
    horizon : int, default 16
        Tokens of the future.
    travels : iterable of str or mapping of str to iterable of str, optional
        What travels, each a run of its own: names of parts, or names given to sets of parts. By default each part that
        the model has, and ``"all but"`` each.
    layers : int or iterable of int, optional
        Layers from which these sets travel; all by default. The sets "nothing" and "everything", which are always
        there, are of all layers.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the prompts.
    rng : int, numpy.random.Generator or None
        Source of the resamples.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims travels ("nothing", "everything", and the sets), prompt, time, bound.

        - ``kl`` (travels, prompt, time); ``kl_mean`` (travels) with its interval.
        - ``share`` (travels) with its interval: 0 for nothing, 1 for everything; negative where a memory of two texts
          is further from the donor than the receiver is. NaN where the two pasts make no difference.

        Intervals are NaN for one prompt. Attributes: provenance, with the check ``everything`` (the largest divergence
        with all parts, which is 0).

    Raises
    ------
    TypeError, ValueError
        If the texts differ in shape or leave no past, a part is not the model's or not in these layers, the logits are
        NaN, or with the complete memory the future is not the donor's to the last bit: then the model carries something
        that its memory does not hold.

    Notes
    -----
    A part alone makes a memory that no text leads to; see :class:`ChimeraWarning`, which is not given here since every
    set but two makes one. Parts may hold the same thing: then none is missed alone, and shares do not add up to 1.
    Intervals of ``share`` are percentiles; where divergences spread like gamma variables of shape 2, nominal 95 % ones
    cover 93, 94 and 95 % for 12, 24 and 48 prompts.
    Costs two runs of the past and one of the future for each set.

    References
    ----------
    Akaike, "Markovian representation of stochastic processes by canonical variables" (1975), for the state as what the
    past tells of the future; Shalizi and Crutchfield, "Computational mechanics" (arXiv:cond-mat/9907176), section 4,
    for sufficiency of states.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import load
    >>> from solomonic.probes import sufficiency
    >>> one, other = list(b"import os, sys, re, ast "), list(b"class A: size = [1, 22] ")
    >>> found = sufficiency(load("bmojo-f"), one, other, horizon=6)
    >>> float(found.kl.sel(travels="everything").max())
    0.0
    >>> [str(name) for name in found.travels.values][:4]
    ['nothing', 'everything', 'conv', 'state']
    """
    model = as_model(model)
    horizon, resamples = as_count(horizon, "horizon"), as_count(resamples, "resamples")
    confidence = as_level(confidence, "confidence")
    device = next(model.parameters()).device
    receiver = as_ids(receiver_ids, model, name="receiver_ids", least=horizon + 1).to(device)
    donor = as_ids(donor_ids, model, name="donor_ids", least=horizon + 1).to(device)
    if receiver.shape != donor.shape:
        raise ValueError(
            f"donor_ids: expected shape {tuple(receiver.shape)} as receiver_ids has, got {tuple(donor.shape)}; "
            "registers of tokens travel between texts of one length only"
        )
    held = model.empty_memory().layers
    chosen = as_layers(layers, len(held))
    sets = _sets(travels, [list(held[i]) for i in chosen])
    generator, seed = as_rng(rng)
    past = receiver.shape[1] - horizon
    with torch.no_grad():
        own, other = model(receiver[:, :past]).memory, model(donor[:, :past]).memory
        follow = donor[:, past:]
        goal = _log_p(model(follow, other).logits)
        mixed = {"nothing": own, "everything": own.transplant(other)}
        kl = np.empty((2 + len(sets), *follow.shape))
        names = [*mixed, *sets]
        for row, name in enumerate(tqdm(names, disable=not progress, unit="set", desc="sufficiency")):
            memory = mixed.get(name)
            if memory is None:
                memory = own
                for layer in chosen:
                    for part in sets[name]:
                        if part in held[layer]:
                            memory = memory.set(layer, part, other.get(layer, part))
            kl[row] = divergence(goal, _log_p(model(follow, memory).logits))
    largest = float(np.abs(kl[1]).max())
    if largest != 0:
        raise ValueError(
            f"model: with the complete memory of the donor its future differs from the donor's by {largest:.2g} bit; "
            "it carries something that its memory does not hold. split_law(model, ids) says where"
        )
    by_prompt = kl.mean(2).T  # [prompts, sets]
    intervals = bootstrap_interval(
        by_prompt, confidence=confidence, resamples=resamples, within=(0, np.inf), rng=generator
    )
    first = np.broadcast_to(by_prompt[:, :1], by_prompt.shape)
    of_share = 1 - ratio_interval(by_prompt, first, confidence=confidence, within=(0.0, np.inf))[::-1]
    data = {
        "kl": (("travels", "prompt", "time"), kl),
        "kl_mean": ("travels", by_prompt.mean(0)),
        "kl_mean_interval": (("bound", "travels"), intervals),
        "share": ("travels", _share(by_prompt, 0)),
        "share_interval": (("bound", "travels"), of_share),
    }
    coords = {
        "travels": names,
        "prompt": np.arange(len(receiver)),
        "time": past + np.arange(horizon),
        "bound": ["lower", "upper"],
    }
    arguments = {"receiver_ids": receiver, "donor_ids": donor, "horizon": horizon, "travels": sets, "layers": chosen}
    arguments |= {"confidence": confidence, "resamples": resamples}
    checks = {"everything": largest}
    attrs = {
        **provenance("sufficiency", model=model, arguments=arguments, seed=seed, checks=checks),
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def divergence(goal: Tensor, other: Tensor) -> np.ndarray:
    """KL in bits between predictions given as logarithms [..., vocabulary]; exactly 0 where they are the same."""
    log_ratio = torch.where(goal > -torch.inf, goal - other, 0.0)
    return (goal.exp() * log_ratio).sum(-1).cpu().numpy() / np.log(2.0)


def _log_p(logits: Tensor) -> Tensor:
    return finite(logits, "the logits").double().log_softmax(-1)


def _share(by_prompt: np.ndarray, axis: int) -> np.ndarray:
    """1 less the divergence over that of the first set, [..., prompts, sets] summed over prompts."""
    total = by_prompt.sum(axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total[..., :1] > 0, 1 - total / total[..., :1], np.nan)


def _sets(travels: Any, held: list[list[str]]) -> dict[str, list[str]]:
    """Name -> parts that travel; every part is one of the layers'."""
    known = list(dict.fromkeys(part for parts in held for part in parts))
    if not known:
        raise ValueError("layers: none of them has a memory; nothing would travel")
    if travels is None:
        alone = {part: [part] for part in known}
        if len(known) < 3:  # of two, each is all but the other
            return alone
        return alone | {f"all but {part}": [other for other in known if other != part] for part in known}
    if isinstance(travels, str):
        travels = [travels]
    if isinstance(travels, Mapping):
        sets = {str(name): [parts] if isinstance(parts, str) else list(parts) for name, parts in travels.items()}
    else:
        sets = {str(part): [part] for part in travels}
    bad = [name for name, parts in sets.items() if not parts or any(part not in known for part in parts)]
    if bad or not sets:
        raise ValueError(f"travels: expected parts among {known}, got {({n: sets[n] for n in bad}) or sets}")
    taken = sorted({"nothing", "everything"} & set(sets))
    if taken:
        raise ValueError(f"travels: {taken[0]!r} is the name of a set that is always there; give another name")
    return sets
