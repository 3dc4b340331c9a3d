"""What a model would go on to say with somebody else's memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory, generate

from .divergence import kl_bits
from .inputs import as_count, as_ids, as_layers, as_level, as_model, as_rng
from .labelled import provenance, units
from .statistics import bootstrap_interval

__all__ = ["Transplant", "transplant"]

_UNITS = {
    "kl_own": ("divergence of the prediction from the receiver's own", "bit"),
    "kl_donor": ("divergence of the prediction from the donor's", "bit"),
    "taken": ("how far the prediction goes over to the donor's: 0 the receiver's, 1 the donor's", "1"),
    "taken_mean": ("the same, by means over prompts", "1"),
    "taken_mean_interval": ("confidence interval of taken_mean, prompts redrawn", "1"),
    "position": ("token of the text that both read afterwards", "token"),
}

#: Parts that hold nothing of where their tokens stood.
_WITHOUT_POSITION = ("state", "conv")


@dataclass(frozen=True, eq=False)
class Transplant:
    """What :func:`transplant` returns.

    Parameters
    ----------
    memory : Memory
        The receiver's, with the donor's parts in it: models and :func:`~solomonic.models.generate` go on from it.
    logits : Tensor
        Of ``following`` [prompts, K, vocab] read from that memory.
    own, donor : Tensor
        The same from the receiver's memory and from the donor's.
    effects : xarray.Dataset
        Dims prompt, position: ``kl_own``, ``kl_donor``, ``taken``, and its mean with an interval.
    chimera : tuple of (int, str, str)
        For each layer that was taken in part: the layer, what came, and what stayed.
    """

    memory: Memory
    logits: Tensor
    own: Tensor
    donor: Tensor
    effects: xr.Dataset
    chimera: tuple[tuple[int, str, str], ...]

    def __repr__(self) -> str:
        taken = self.effects.taken_mean.values[0]
        kind = f"chimera in {len(self.chimera)} layers" if self.chimera else "whole layers"
        return f"Transplant({kind}, takes over {taken:.2f} of the first prediction)"

    def generate(self, model: HybridLM | AdaptedLM, following: Any, tokens: int, **options: Any) -> Tensor:
        """Go on from ``following`` with the transplanted memory: new tokens [prompts, ``tokens``]."""
        model = as_model(model)
        ids = as_ids(following, model, name="following").expand(self.memory.batch_size, -1)
        with torch.no_grad():
            return generate(model, ids, tokens, memory=self.memory, **options).ids


@torch.no_grad()
def transplant(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    receiver: Any,
    donor: Any,
    following: Any,
    *,
    parts: Iterable[str] | str,
    layers: Iterable[int] | int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> Transplant:
    r"""Read on from the memory of one text with parts of another text's in it.

    .. math:: p(\cdot \mid m[S := m^{\ast}], w_{1:k}), \qquad
              \text{taken} = 1 - \frac{\mathrm{KL}(p^{\ast} \| p)}{\mathrm{KL}(p^{\ast} \| p_0)},

    with m the memory after ``receiver``, m* after ``donor``, S the named parts, w the text that ``following`` gives,
    and p_0 and p* the predictions from m and from m*.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    receiver, donor : array_like of int
        Texts [T] or [prompts, T]; as many of each.
    following : array_like of int
        What is read afterwards [K] or [prompts, K], the same for all three.
    parts : str or iterable of str
        The memories that travel: names of parts, or ``"all"``.
    layers : int or iterable of int, optional
        In these layers; all by default.
    confidence, resamples : float, int
        Of the bootstrap over prompts.
    rng : int, numpy.random.Generator or None
        Source of the resamples.

    Returns
    -------
    Transplant
        Memory, logits and effects.

    Raises
    ------
    TypeError, ValueError
        If a part or layer does not exist; if texts have different lengths and registers travel, whose keys hold the
        positions of their tokens; if there are not as many donors as receivers.

    Warns
    -----
    UserWarning
        Where a layer is taken in part: a state without its convolution and window is a chimera, which no text leads to.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import transplant
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> receiver, donor = torch.randint(16, (2, 3, 12), generator=torch.Generator().manual_seed(0))
    >>> whole = transplant(model, receiver, donor, [1, 2], parts="all")
    >>> bool((whole.effects.kl_donor == 0).all()), whole.chimera
    (True, ())
    >>> whole.generate(model, [1, 2], 5).shape
    torch.Size([3, 5])
    """
    model = as_model(model)
    mine, theirs = as_ids(receiver, model, name="receiver"), as_ids(donor, model, name="donor")
    if len(mine) != len(theirs):
        raise ValueError(f"donor: expected {len(mine)} texts, one for each receiver, got {len(theirs)}")
    after = as_ids(following, model, name="following")
    if len(after) not in (1, len(mine)):
        raise ValueError(f"following: expected one text, or {len(mine)}, got {len(after)}")
    after = after.expand(len(mine), -1)
    confidence, resamples = as_level(confidence, "confidence"), as_count(resamples, "resamples")
    generator, seed = as_rng(rng)
    chosen = as_layers(layers, len(model.config.pattern))
    there = model.empty_memory().parts()
    names = None if parts == "all" else {parts} if isinstance(parts, str) else set(parts)
    travels = {(p.layer, p.part) for p in there if p.layer in chosen and (names is None or p.part in names)}
    if names is not None and (unknown := names - {p.part for p in there}):
        raise ValueError(
            f"parts: this model has {', '.join(sorted({p.part for p in there}))}, got {sorted(unknown)[0]!r}"
        )
    if not travels:
        raise ValueError(f"parts, layers: no layer of {list(chosen)} has any of {sorted(names or ())}: nothing travels")
    _same_places(model, mine, theirs, {part for _, part in travels})
    chimera = _chimera(there, travels)
    if chimera:
        layer, came, stayed = chimera[0]
        warnings.warn(
            f"chimera: layer {layer} gets {came} of the donor and keeps its own {stayed}; no text leads to such a "
            f"memory{f' (and {len(chimera) - 1} more layers)' if len(chimera) > 1 else ''}",
            stacklevel=3,
        )
    own, other = model(mine).memory, model(theirs).memory
    mixed = own
    for layer, part in sorted(travels):
        mixed = mixed.set(layer, part, other.get(layer, part))
    logits, plain, goal = (model(after, memory=memory).logits for memory in (mixed, own, other))
    effects = _effects(logits, plain, goal)
    gap = np.stack([effects["kl_donor"][1], kl_bits(goal, plain).numpy()], -1)

    def ratio(values: np.ndarray, axis: int) -> np.ndarray:
        mean = values.mean(axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(mean[..., 1] == 0, np.nan, 1 - mean[..., 0] / mean[..., 1])

    effects["taken_mean"] = ("position", ratio(gap, 0))
    bounds = bootstrap_interval(gap, ratio, confidence=confidence, resamples=resamples, rng=generator)
    effects["taken_mean_interval"] = (("bound", "position"), bounds)
    arguments = {
        "receiver": mine,
        "donor": theirs,
        "following": after,
        "parts": sorted({part for _, part in travels}),
        "layers": list(chosen),
    }
    attrs = {
        **provenance("transplant", model=model, arguments=arguments, seed=seed),
        "confidence": confidence,
        "chimera": "; ".join(f"layer {layer}: {came} without {stayed}" for layer, came, stayed in chimera) or "none",
    }
    coords = {"prompt": np.arange(len(mine)), "position": np.arange(after.shape[1]), "bound": ["lower", "upper"]}
    return Transplant(mixed, logits, plain, goal, units(xr.Dataset(effects, coords, attrs), _UNITS), chimera)


def _same_places(model: HybridLM | AdaptedLM, mine: Tensor, theirs: Tensor, parts: set[str]) -> None:
    """Refuse registers from a text of another length."""
    if mine.shape[1] == theirs.shape[1]:
        return
    placed = sorted(parts - set(_WITHOUT_POSITION))
    rotated = getattr(model.config, "use_pos_emb", False)
    if placed or rotated:
        what = placed[0] if placed else f"{min(parts)} (B and C are rotated)"
        raise ValueError(
            f"donor: expected texts of {mine.shape[1]} tokens, got {theirs.shape[1]}: {what} holds the positions of "
            "its tokens; give prompts of one length, or let only state and conv travel"
        )


def _chimera(there: Iterable[Any], travels: set[tuple[int, str]]) -> tuple[tuple[int, str, str], ...]:
    """Layers that are taken in part: which, what came, what stayed."""
    found = []
    for layer in sorted({layer for layer, _ in travels}):
        names = [p.part for p in there if p.layer == layer]
        stayed = [name for name in names if (layer, name) not in travels]
        if stayed:
            came = [name for name in names if (layer, name) in travels]
            found.append((layer, "+".join(came), "+".join(stayed)))
    return tuple(found)


def _effects(logits: Tensor, plain: Tensor, goal: Tensor) -> dict[str, Any]:
    dims = ("prompt", "position")
    to_donor, whole = kl_bits(goal, logits).numpy(), kl_bits(goal, plain).numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        taken = np.where(whole == 0, np.nan, 1 - to_donor / whole)
    return {"kl_own": (dims, kl_bits(plain, logits).numpy()), "kl_donor": (dims, to_donor), "taken": (dims, taken)}
