"""What of a state can be seen in what the model says next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, Memory, generate

from .inputs import as_count, as_model, as_rng, as_tolerance, one_text, state_layers
from .labelled import provenance, units
from .products import StateToLogits
from .state_spectra import SPECTRUM_UNITS, state_spectra

__all__ = ["observability"]

_UNITS = {
    **SPECTRUM_UNITS,
    "singular_value": ("singular value of the map from the state to the next logits", "nat"),
    "residual": ("error of the pair, |J'J v - s^2 v|", "nat^2"),
    "energy": ("sum of the squares of all singular values, estimated", "nat^2"),
    "seen_share": ("share of the norm squared of the state in the directions above the tolerance", "1"),
    "jacobian_bytes": ("size that the Jacobian would have", "B"),
    "product_bytes": ("logits and tangents that are held at a time", "B"),
}


def observability(
    model: HybridLM | AdaptedLM,
    ids: Any,
    *,
    layers: Iterable[int] | int | None = None,
    horizon: int = 64,
    future: str = "text",
    directions: int = 32,
    tol: float = 1e-2,
    iterations: int = 2,
    rows: int = 8,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Which directions of a state the next logits show, and how much.

    .. math:: J = \frac{\partial (\ell_c, \dots, \ell_{c+\tau-1})}{\partial h_{c-1}} = U \Sigma V^\top,
              \qquad W_o = J^\top J,

    with :math:`h_{c-1}` the state of one layer after the tokens before the cut c, and :math:`\ell_t` the logits after
    token t, their mean taken off. It goes through everything that follows: the layer itself, the layers above, and
    all memories. The tokens stay as they are.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; in float64 small singular values are more than rounding.
    ids : array_like of int
        One text [T].
    layers : int or iterable of int, optional
        Layers with a state; by default all.
    horizon : int, default 64
        Number tau of tokens.
    future : {"text", "greedy"}, default "text"
        Whether the tokens after the cut are the last ``horizon`` of the text (teacher forcing), or those that the model
        itself says after the text (feedback).
    directions : int, default 32
        How many singular pairs are computed.
    tol : float, default 1e-2
        Singular values up to ``tol`` times the largest count as unseen.
    iterations : int, default 2
        Steps of the subspace iteration; ``residual`` says whether they were enough.
    rows : int, default 8
        Products computed at a time.
    rng : int, numpy.random.Generator or None
        Source of the start of the iteration.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims layer, direction, head, channel, state.

        - ``singular_value``, ``residual`` (layer, direction), ``vector`` (layer, direction, head, channel, state).
        - ``energy`` (layer): sum of the squares of all singular values by Hutchinson's estimate; ``captured``, the
          share of it that was found (above 1 by the error of the estimate).
        - ``rank``, ``saturated``, ``nominal``, ``seen_share`` (layer).
        - ``jacobian_bytes``, ``product_bytes``: what the Jacobian would take, and what was held of it at a time.
        - ``token`` (time): the tokens after the cut.

        Attributes: ``cut``, ``horizon``, ``tol``, provenance with the seed and checks.

    Raises
    ------
    TypeError, ValueError
        If a layer has no state, the text is not longer than the horizon, or an argument is out of its range.

    Notes
    -----
    J is never formed: a product with it is one run of tau tokens in forward mode, one with its transpose a run and its
    backward pass, ``rows`` at a time; the singular pairs are those of J'J by subspace iteration from
    ``directions`` + 8 random vectors of logits. Time is (iterations + 1) (directions + 8) runs in forward mode, one run
    more than that of passes back.

    In a B'MOJO-F layer nothing of the state is seen for the first W tokens: what is read out of it after the cut
    becomes a fading token, and those are read W tokens later. The singular values are exactly 0 for tau of at most W.

    This is one text, so that there are no prompts to redraw: for an interval call it on several texts, and hand what is
    to be compared to :func:`bootstrap_interval`, a row a text. "How much of a state is used, seen and needed" in the
    documentation has an example.

    References
    ----------
    Halko, Martinsson and Tropp (arXiv:0909.4061), algorithm 4.4; Liu, Soatto et al., "Observability of latent states in
    generative AI models" (arXiv:2405.14061), for the question.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import observability
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0).double()
    >>> seen = observability(model, torch.arange(40) % 16, horizon=4, directions=4)
    >>> seen.singular_value.sizes
    Frozen({'layer': 1, 'direction': 4})
    """
    model = as_model(model)
    text = one_text(model, ids)
    chosen = state_layers(model, layers)
    horizon, directions, rows = (
        as_count(horizon, "horizon"),
        as_count(directions, "directions"),
        as_count(rows, "rows"),
    )
    iterations = as_count(iterations, "iterations", 0)
    tol = as_tolerance(tol)
    generator, seed = as_rng(rng)
    memory, ahead, cut = place(model, text, horizon, future)
    operators = {layer: StateToLogits(model, memory, ahead, layer, rows) for layer in chosen}
    data, coords = state_spectra(
        operators,
        directions,
        tol=tol,
        iterations=iterations,
        generator=generator,
        progress=progress,
        name="observability",
    )
    states = np.stack([each.state.double().numpy() for each in operators.values()])
    inside = np.einsum("ldhpn,lhpn->ld", data["vector"][1], states) ** 2
    seen = np.arange(inside.shape[1]) < data["rank"][1][:, None]
    element = operators[chosen[0]].state.element_size()
    logits = horizon * model.config.vocab_size
    data |= {
        "seen_share": ("layer", (inside * seen).sum(1) / np.maximum((states**2).sum((1, 2, 3)), 1e-300)),
        "jacobian_bytes": ((), operators[chosen[0]].inputs * logits * element),
        "product_bytes": ((), 2 * min(rows, directions + 8) * logits * element),
        "token": ("time", ahead[0].numpy()),
    }
    coords["time"] = np.arange(cut, cut + horizon)
    arguments = {
        "ids": text,
        "layers": chosen,
        "horizon": horizon,
        "future": future,
        "directions": directions,
        "iterations": iterations,
    }
    attrs = {
        **provenance("observability", model=model, arguments=arguments, seed=seed),
        "cut": cut,
        "horizon": horizon,
        "future": future,
        "tol": tol,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def place(model: HybridLM | AdaptedLM, text: Tensor, horizon: int, future: str) -> tuple[Memory, Tensor, int]:
    """Memory before the cut, the tokens [1, horizon] after it, and the cut."""
    if future not in ("text", "greedy"):
        raise ValueError(f"future: expected 'text' or 'greedy', got {future!r}")
    steps = text.shape[1]
    if future == "text":
        if steps <= horizon:
            raise ValueError(
                f"horizon: a text of {steps} tokens leaves none before its last {horizon}; give a longer text, a "
                "shorter horizon, or future='greedy'"
            )
        with torch.no_grad():
            return model(text[:, : steps - horizon]).memory, text[:, steps - horizon :], steps - horizon
    with torch.no_grad():
        out = model(text)
    first = out.logits[:, -1:].argmax(-1)
    return out.memory, torch.cat([first, generate(model, first, horizon - 1, memory=out.memory).ids], 1), steps
