"""States that differ and say the same: directions that the next tokens do not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory, generate

from .divergence import kl_bits
from .inputs import as_count, as_model, as_rng, as_tolerance, one_text, state_layers
from .labelled import provenance, units
from .observability import place
from .products import StateToLogits
from .state_spectra import top_directions

__all__ = ["unsaid"]

KINDS = ("unsaid", "random", "said")

_UNITS = {
    "state": ("state of the layer after the text", "1"),
    "change": ("what is added to it", "1"),
    "token": ("token that the model says, greedily", "1"),
    "kl": ("divergence of the prediction from that with the state as it is", "bit"),
    "agreeing": ("tokens said before the first that differs", "token"),
    "amount": ("norm of the change over the norm of the state", "1"),
    "unsaid_share": ("share of the norm squared of the state outside the visible directions", "1"),
    "singular_value": ("singular value of the map from the state to the next logits", "nat"),
}


def unsaid(
    model: HybridLM | AdaptedLM,
    ids: Any,
    layer: int,
    *,
    horizon: int = 32,
    amount: float = 1.0,
    directions: int = 64,
    tol: float = 1e-3,
    iterations: int = 2,
    rows: int = 8,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Two states that differ by a stated amount and make the model say the same tokens.

    .. math:: h' = h + \alpha \lVert h \rVert\, d, \qquad d \propto (1 - V V^\top) h,

    with V the directions of the state that the next logits show (:func:`observability`): h' differs in what the model
    holds and does not say. The largest :math:`\alpha \le` ``amount`` is sought for which the next ``horizon`` greedy
    tokens, each fed back, stay the same. The same change along a random direction and along the most visible one stands
    beside it.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; float64 is best.
    ids : array_like of int
        One text [T].
    layer : int
        A layer with a state.
    horizon : int, default 32
        How many tokens must agree.
    amount : float, default 1.0
        Largest change, relative to the norm of the state.
    directions : int, default 64
        Largest number of visible directions that are kept out.
    tol : float, default 1e-3
        Directions with singular values up to ``tol`` times the largest are not counted as visible.
    iterations, rows : int
        See :func:`observability`.
    rng : int, numpy.random.Generator or None
        Source of the random direction and of the start of the iteration.
    progress : bool, default False
        Whether to show a progress bar: the directions, and every continuation that is tried.

    Returns
    -------
    xarray.Dataset
        Dims kind ("unsaid", "random", "said"), time, head, channel, state, direction.

        - ``state`` (head, channel, state) and ``change`` (kind, head, channel, state): add the two.
        - ``token`` (time) with the state as it is, ``token_changed`` (kind, time); ``agreeing`` (kind), at most
          ``horizon``; ``kl`` (kind, time), with the tokens of the state as it is.
        - ``amount``: the relative size of all three changes, 0 where no size of the unsaid one keeps the tokens.
        - ``unsaid_share``, and ``singular_value`` (direction).

    Raises
    ------
    TypeError, ValueError
        If the layer has no state, or an argument is out of its range.

    Notes
    -----
    The pair is a proof by example and needs no tolerance: whatever the directions are worth, the tokens were said and
    compared. Alpha is found by trying ``amount`` and then halving the interval ten times.

    This is one text, so that there are no prompts to redraw: for an interval call it on several texts, and hand what is
    to be compared to :func:`bootstrap_interval`, a row a text. "How much of a state is used, seen and needed" in the
    documentation has an example.

    References
    ----------
    Liu, Soatto et al., "Observability of latent states in generative AI models" (arXiv:2405.14061): indistinguishable
    trajectories.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import unsaid
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=6), rng=0).double()
    >>> pair = unsaid(model, torch.arange(30) % 16, 0, horizon=5)  # within W tokens the state is not read at all
    >>> float(pair.amount), float(pair.kl.max())
    (1.0, 0.0)
    """
    model = as_model(model)
    text = one_text(model, ids)
    (layer,) = state_layers(model, layer)
    horizon, directions, rows = (
        as_count(horizon, "horizon"),
        as_count(directions, "directions"),
        as_count(rows, "rows"),
    )
    iterations = as_count(iterations, "iterations", 0)
    tol = as_tolerance(tol)
    if isinstance(amount, bool) or not isinstance(amount, int | float | np.number) or not 0 < amount < np.inf:
        raise ValueError(f"amount: expected a positive number, got {amount!r}")
    generator, seed = as_rng(rng)
    memory, ahead, _ = place(model, text, horizon, "greedy")
    operator = StateToLogits(model, memory, ahead, layer, rows)
    # The directions, at most eleven sizes, and the three kinds.
    with tqdm(total=1 + 11 + len(KINDS), disable=not progress, unit="run", desc="unsaid") as bar:
        values, vectors, _, _ = top_directions(operator, directions, iterations=iterations, generator=generator)
        bar.update()
        visible = vectors[(values > tol * values[0]) & (values > 0)]
        h = operator.state.double().flatten()
        size = float(h.norm())
        if size == 0:
            raise ValueError(f"ids: the state of layer {layer} is 0 after this text, so that no part of it is unsaid")
        hidden = h - visible.T @ (visible @ h)
        hidden -= visible.T @ (visible @ hidden)  # once more: rounding of the first time
        chance = torch.from_numpy(generator.standard_normal(h.numel()))
        units_ = [each / each.norm().clamp(min=1e-300) for each in (hidden, chance, vectors[0])]
        first = ahead[:, :1]
        baseline = generate(model, first, horizon, memory=memory).ids

        def said(scale: float, direction: Tensor) -> Tensor:
            changed = _changed(memory, layer, operator.state, scale * size * direction)
            went_on = generate(model, first, horizon, memory=changed).ids
            bar.update()
            return went_on

        found = _largest(lambda scale: bool(torch.equal(said(scale, units_[0]), baseline)), float(amount))
        tokens, kl = [], []
        for direction in units_:
            tokens.append(said(found, direction)[0].numpy())
            changed = _changed(memory, layer, operator.state, found * size * direction)
            with torch.no_grad():
                logits = model(ahead, memory=changed).logits
                kept = model(ahead, memory=memory).logits
            kl.append(kl_bits(kept[0], logits[0]).numpy())
    own = baseline[0].numpy()
    differs = np.array(tokens) != own
    shape = tuple(operator.state.shape)
    data = {
        "state": (("head", "channel", "state"), h.view(shape).numpy()),
        "change": (
            ("kind", "head", "channel", "state"),
            np.stack([(found * size * d).view(shape).numpy() for d in units_]),
        ),
        "token": ("time", own),
        "token_changed": (("kind", "time"), np.array(tokens)),
        "agreeing": ("kind", np.where(differs.any(1), differs.argmax(1), horizon)),
        "kl": (("kind", "time"), np.array(kl)),
        "amount": ((), found),
        "unsaid_share": ((), float((hidden**2).sum()) / size**2),
        "singular_value": ("direction", values.numpy()),
    }
    coords = {"kind": list(KINDS), "time": text.shape[1] + np.arange(horizon), "direction": np.arange(len(values))}
    arguments = {"ids": text, "layer": layer, "horizon": horizon, "amount": amount, "directions": directions}
    attrs = {
        **provenance("unsaid", model=model, arguments=arguments, seed=seed, checks={"visible": len(visible)}),
        "layer": layer,
        "horizon": horizon,
        "tol": tol,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _changed(memory: Memory, layer: int, state: Tensor, change: Tensor) -> Memory:
    return memory.set(layer, "state", (state.double() + change.view(state.shape)).to(state)[None])


def _largest(agrees: Any, most: float) -> float:
    """The largest scale up to ``most`` for which ``agrees``, to a part in 1024; 0 where none does."""
    if agrees(most):
        return most
    low, high = 0.0, most
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if agrees(middle) else (low, middle)
    return low
