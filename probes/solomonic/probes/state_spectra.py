"""The spectrum of a Gramian of a state, by products alone: what observability and controllability have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .inputs import finite
from .products import InputsToState, StateToLogits

__all__ = ["SPECTRUM_UNITS", "state_spectra", "top_directions"]

#: Of the variables that :func:`state_spectra` makes, but the singular values.
SPECTRUM_UNITS = {
    "residual": ("error of the pair, |G v - s^2 v| for the Gramian G", "1"),
    "vector": ("direction of the state", "1"),
    "energy": ("sum of the squares of all singular values, estimated", "1"),
    "captured": ("share of the energy in the directions that were computed", "1"),
    "rank": ("directions above the tolerance among those that were computed", "1"),
    "saturated": ("whether all of them are above it: then the rank is a lower bound", "1"),
    "nominal": ("numbers in the state", "1"),
    "direction": ("direction, that of the largest singular value first", "1"),
}


def state_spectra(
    operators: Mapping[int, StateToLogits | InputsToState],
    directions: int,
    *,
    tol: float,
    iterations: int,
    generator: np.random.Generator,
    progress: bool,
    name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables and coordinates over (layer, direction, head, channel, state), from an operator a layer."""
    layers = tqdm(operators.items(), disable=not progress, unit="layer", desc=name)
    found = []
    for _, each in layers:
        found.append(top_directions(each, directions, iterations=iterations, generator=generator))
        each.forget()
    some = next(iter(operators.values()))
    shape = tuple(some.state.shape)
    values = np.stack([each[0].numpy() for each in found])
    energy = np.array([each[3] for each in found])
    above = (values > tol * values[:, :1]) & (values > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        captured = np.where(energy > 0, (values**2).sum(1) / energy, np.nan)
    data = {
        "singular_value": (("layer", "direction"), values),
        "residual": (("layer", "direction"), np.stack([each[2].numpy() for each in found])),
        "vector": (
            ("layer", "direction", "head", "channel", "state"),
            np.stack([each[1].reshape(-1, *shape).numpy() for each in found]),
        ),
        "energy": ("layer", energy),
        "captured": ("layer", captured),
        "rank": ("layer", above.sum(1)),
        "saturated": ("layer", above.all(1) & (values.shape[1] < some.inputs)),
        "nominal": ("layer", np.full(len(found), some.inputs)),
    }
    coords = {
        "layer": list(operators),
        "symbol": ("layer", [each.model.config.pattern[layer] for layer, each in operators.items()]),
        "direction": np.arange(values.shape[1]),
        **{axis: np.arange(size) for axis, size in zip(("head", "channel", "state"), shape, strict=True)},
    }
    return data, coords


def top_directions(
    operator: StateToLogits | InputsToState, count: int, *, iterations: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Singular values [k], singular vectors in the state [k, n], residuals [k], estimated sum of squares of all.

    Subspace iteration with the Rayleigh-Ritz step on the Gramian G of the state (J'J of what reads it, JJ' of what
    writes it), from random outputs (inputs) taken back (forth) to the state; the residual |G v - s^2 v| is that of each
    pair.
    """
    n = operator.inputs
    count = min(count, n)
    block = min(n, count + 8)
    like = operator.state
    finite(like, "its states")
    image = finite(operator.start(block, generator), "its derivatives")
    total = float(image.double().square().sum(1).mean())
    for _ in range(iterations):
        image = operator.gram(_basis(image, generator).to(like))
    basis = _basis(image, generator).to(like)
    image = operator.gram(basis)
    small = (basis.double() @ image.double().T + image.double() @ basis.double().T) / 2
    values, rotation = torch.linalg.eigh(small)
    order = torch.argsort(values, descending=True)[:count]
    values, rotation = values[order].clamp(min=0), rotation[:, order]
    vectors = rotation.T @ basis.double()
    residual = (rotation.T @ image.double() - values[:, None] * vectors).norm(dim=1)
    return values.sqrt(), vectors, residual, total


def _basis(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Orthonormal rows that span those of an image [k, n], filled up with random ones where it has fewer directions."""
    wide = image.double()
    q, r = torch.linalg.qr(wide.T)
    size = r.diagonal().abs()
    weak = size <= 1e-13 * size.max().clamp(min=1e-300)
    if bool(weak.any()):
        drawn = torch.from_numpy(generator.standard_normal(tuple(wide.shape))).T
        q = torch.linalg.qr(torch.cat([q[:, ~weak], drawn[:, weak]], 1)).Q
    return q.T
