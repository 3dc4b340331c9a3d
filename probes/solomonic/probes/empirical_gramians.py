"""Gramians of a model as it is, from differences of a stated size: how far the derivative can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .controllability import inputs_to_state
from .inputs import as_count, as_level, as_model, as_rng, finite, one_text, state_layers
from .labelled import provenance, units
from .observability import place
from .products import StateToLogits

__all__ = ["empirical_gramians"]

SIDES = ("observability", "controllability")

_UNITS = {
    "gramian": ("empirical Gramian in the coordinates of the directions", "1"),
    "linear": ("that of the derivative", "1"),
    "eigenvalue": ("eigenvalue of the empirical Gramian", "1"),
    "linear_eigenvalue": ("eigenvalue of that of the derivative", "1"),
    "deviation": ("distance of the two over the norm of that of the derivative", "1"),
    "skew": ("even part of the response over its odd part: what differences of one sign would get wrong", "1"),
    "scale": ("size of a difference over that of the state, or of the embeddings", "1"),
}


def empirical_gramians(
    model: HybridLM | AdaptedLM,
    ids: Any,
    layer: int,
    *,
    horizon: int = 32,
    span: int = 32,
    directions: int = 16,
    scales: Iterable[float] = (1e-3, 1e-2, 1e-1, 0.3, 1.0),
    tol: float = 0.05,
    rows: int = 16,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Empirical Gramians of the whole nonlinear model, at differences of several sizes, beside its derivative's.

    .. math:: Y_i = \frac{y(h + \varepsilon q_i) - y(h - \varepsilon q_i)}{2 \varepsilon}, \qquad
              W^\varepsilon_{ij} = \langle Y_i, Y_j \rangle
              \;\xrightarrow{\ \varepsilon \to 0\ }\; q_i^\top W q_j,

    with y the next logits and h the state of a layer (observability), or y the state and h the embeddings of the last
    tokens (controllability); the :math:`q_i` are random orthonormal directions. The sweep over :math:`\varepsilon`
    shows the plateau on which a Gramian is one number: below it is rounding, above it the model bends.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; float64 makes the plateau long.
    ids : array_like of int
        One text [T].
    layer : int
        A layer with a state.
    horizon : int, default 32
        Tokens after the cut whose logits are compared; the last of the text (see :func:`observability`).
    span : int, default 32
        Last tokens whose embeddings are moved (see :func:`controllability`).
    directions : int, default 16
        How many directions; as many as the state has numbers (or the span's embeddings) give the whole Gramian.
    scales : iterable of float
        Sizes of the differences over the norm of the state, or of the embeddings of the span.
    tol : float, default 0.05
        Largest deviation of the plateau.
    rows : int, default 16
        Runs computed at a time.
    rng : int, numpy.random.Generator or None
        Source of the directions.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims side ("observability", "controllability"), scale, direction, other.

        - ``gramian`` (side, scale, direction, other), ``linear`` (side, direction, other); ``eigenvalue`` (side,
          scale, direction), ``linear_eigenvalue`` (side, direction), the largest first.
        - ``deviation`` and ``skew`` (side, scale).

        Attributes: ``plateau_observability`` and ``plateau_controllability``, the scales within ``tol``, as text;
        provenance.

    Raises
    ------
    TypeError, ValueError
        If the layer has no state, the text is too short, or an argument is out of its range.

    Notes
    -----
    The side of controllability is :math:`J^\top J` for the map J from embeddings to the state: it has the eigenvalues
    of :math:`W_c = J J^\top` but for zeros, and the same trace. Costs 2 runs a direction and scale.

    This is one text, so that there are no prompts to redraw: for an interval call it on several texts, and hand what is
    to be compared to :func:`bootstrap_interval`, a row a text. "How much of a state is used, seen and needed" in the
    documentation has an example.

    References
    ----------
    Lall, Marsden and Glavaski, "Empirical model reduction of controlled nonlinear systems" (1999); Himpe, "emgr: the
    empirical Gramian framework", Algorithms 11 (2018).

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import empirical_gramians
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0).double()
    >>> found = empirical_gramians(model, torch.arange(30) % 16, 0, horizon=8, span=8, directions=4)
    >>> bool((found.deviation.sel(scale=1e-3) < 1e-3).all())
    True
    """
    model = as_model(model)
    text = one_text(model, ids)
    (layer,) = state_layers(model, layer)
    horizon, span = as_count(horizon, "horizon"), as_count(span, "span")
    directions, rows = as_count(directions, "directions"), as_count(rows, "rows")
    tol = as_level(tol, "tol")
    sizes = np.atleast_1d(np.asarray([*scales], dtype=float))
    if sizes.size == 0 or not np.isfinite(sizes).all() or sizes.min() <= 0:
        raise ValueError(f"scales: expected positive numbers, at least one, got {sizes.tolist()}")
    sizes = np.unique(sizes)
    generator, seed = as_rng(rng)
    memory, ahead, _ = place(model, text, horizon, "text")
    sees = StateToLogits(model, memory, ahead, layer, rows)
    moves = inputs_to_state(model, text, layer, span, rows)
    jobs = {
        "observability": (sees.logits, sees.state, sees.forward),
        "controllability": (moves.states, moves.embedded, moves.forward),
    }
    gram, linear, skew = {}, {}, {}
    bar = tqdm(total=2 * sizes.size, disable=not progress, unit="scale", desc="empirical Gramians")
    with bar:
        for side, (function, at, derivative) in jobs.items():
            drawn = torch.from_numpy(generator.standard_normal((at.numel(), min(directions, at.numel()))))
            q = torch.linalg.qr(drawn).Q.T
            if not float(finite(at, "its states or embeddings").norm()) > 0:
                raise ValueError(f"ids: the state of layer {layer} is 0 after this text; give a longer one")
            product = derivative(q.to(at)).double()
            linear[side] = (product @ product.T).numpy()
            gram[side], skew[side] = [], []
            for size in sizes:
                odd, even = _responses(function, at, q, float(size * at.double().norm()), rows)
                gram[side].append((odd @ odd.T).numpy())
                skew[side].append(float(even / odd.norm().clamp(min=1e-300)))
                bar.update()
    count = max(len(each) for each in linear.values())
    padded = {side: np.stack([_padded(each, count) for each in gram[side]]) for side in SIDES}
    plain = {side: _padded(linear[side], count) for side in SIDES}
    deviation = np.array([[_distance(each, plain[side]) for each in padded[side]] for side in SIDES])
    dims = ("direction", "other")
    data = {
        "gramian": (("side", "scale", *dims), np.stack([padded[side] for side in SIDES])),
        "linear": (("side", *dims), np.stack([plain[side] for side in SIDES])),
        "eigenvalue": (("side", "scale", "direction"), np.stack([_spectrum(padded[side]) for side in SIDES])),
        "linear_eigenvalue": (("side", "direction"), np.stack([_spectrum(plain[side]) for side in SIDES])),
        "deviation": (("side", "scale"), deviation),
        "skew": (("side", "scale"), np.array([skew[side] for side in SIDES])),
    }
    coords = {"side": list(SIDES), "scale": sizes, "direction": np.arange(count), "other": np.arange(count)}
    arguments = {"ids": text, "layer": layer, "horizon": horizon, "span": span, "scales": sizes, "tol": tol}
    attrs = {
        **provenance("empirical_gramians", model=model, arguments=arguments, seed=seed),
        "layer": layer,
        "tol": tol,
        **{
            f"plateau_{side}": ", ".join(f"{s:g}" for s in sizes[deviation[i] <= tol]) or "none"
            for i, side in enumerate(SIDES)
        },
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


@torch.no_grad()
def _responses(
    function: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor, size: float, rows: int
) -> tuple[Tensor, Tensor]:
    """Odd responses [k, outputs] to steps of a size along directions, over the size; norm of the even ones."""
    base = function(at[None]).double().flatten()
    odd, even = [], torch.zeros((), dtype=torch.float64)
    for part in directions.split(rows):
        step = (size * part).view(-1, *at.shape)
        there, back = (function((at.double() + sign * step).to(at)).double().flatten(1) for sign in (1, -1))
        odd.append((there - back) / (2 * size))
        even = even + ((there + back) / 2 - base).square().sum() / size**2
    found = torch.cat(odd)
    if not torch.isfinite(found).all():
        raise ValueError("model: a response to a difference is NaN or infinite; give smaller scales")
    return found, even.sqrt()


def _padded(matrix: np.ndarray, count: int) -> np.ndarray:
    return np.pad(matrix, ((0, count - len(matrix)),) * 2, constant_values=np.nan)


def _spectrum(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues [..., n] of symmetric matrices, the largest first; NaN where a matrix is padded."""
    own = ~np.isnan(np.diagonal(matrix, axis1=-2, axis2=-1).reshape(-1, matrix.shape[-1])[0])
    out = np.full(matrix.shape[:-1], np.nan)
    out[..., : own.sum()] = np.linalg.eigvalsh(matrix[..., own, :][..., own])[..., ::-1]
    return out


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frobenius distance relative to the second; 0 where both are 0."""
    size = float(np.sqrt(np.nansum(other**2)))
    gap = float(np.sqrt(np.nansum((one - other) ** 2)))
    return gap / size if size > 0 else (0.0 if gap == 0 else float("inf"))
