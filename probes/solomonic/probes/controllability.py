"""What of a state the last inputs can reach, and the least input that steers it somewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_count, as_model, as_rng, as_tolerance, finite, one_text, state_layers
from .labelled import provenance, units
from .products import InputsToState
from .state_spectra import SPECTRUM_UNITS, state_spectra

__all__ = ["controllability", "steer"]

_UNITS = {
    **SPECTRUM_UNITS,
    "singular_value": ("singular value of the map from the last embeddings to the state", "1"),
    "residual": ("error of the pair, |JJ'v - s^2 v|", "1"),
    "move": ("change of the embedding of each token", "1"),
    "energy_bound": ("energy of the least move of the linearised model", "1"),
    "move_energy": ("energy of the move, the sum of its squares", "1"),
    "gap": ("distance from the target over that before", "1"),
    "gap_tokens": ("the same with the nearest tokens in place", "1"),
    "token": ("token whose embedding is nearest to the moved one", "1"),
}


def controllability(
    model: HybridLM | AdaptedLM,
    ids: Any,
    *,
    layers: Iterable[int] | int | None = None,
    span: int = 32,
    directions: int = 32,
    tol: float = 1e-2,
    iterations: int = 2,
    rows: int = 8,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Which directions of a state the last inputs can move, and how far for their size.

    .. math:: J = \frac{\partial h_T}{\partial (e_{T-L+1}, \dots, e_T)} = U \Sigma V^\top, \qquad W_c = J J^\top,

    with :math:`h_T` the state of one layer after the text and :math:`e_t` the embeddings of its last L tokens. It goes
    through all that stands between: the layers below, their memories and the gates. A move of energy
    :math:`\lVert \delta e \rVert^2 = 1` reaches the ellipsoid with the half axes :math:`\sigma_k u_k`.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; in float64 small singular values are more than rounding.
    ids : array_like of int
        One text [T].
    layers : int or iterable of int, optional
        Layers with a state; by default all.
    span : int, default 32
        Number L of tokens whose embeddings may move.
    directions : int, default 32
        How many singular pairs are computed.
    tol : float, default 1e-2
        Singular values up to ``tol`` times the largest count as out of reach.
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
        Dims layer, direction, head, channel, state: ``singular_value``, ``residual``, ``vector``, ``energy``,
        ``captured``, ``rank``, ``saturated`` and ``nominal`` as :func:`observability` has them, for :math:`W_c`.

    Raises
    ------
    TypeError, ValueError
        If a layer has no state, the text is shorter than the span, or an argument is out of its range.

    Notes
    -----
    Embeddings move freely here, tokens do not: what tokens can reach is a finite set of points. See :func:`steer` for
    the gap between the two.

    This is one text, so that there are no prompts to redraw: for an interval call it on several texts, and hand what is
    to be compared to :func:`bootstrap_interval`, a row a text. "How much of a state is used, seen and needed" in the
    documentation has an example.

    References
    ----------
    Halko, Martinsson and Tropp (arXiv:0909.4061), algorithm 4.4; Soatto et al., "Taming AI bots" (arXiv:2305.18449),
    for the question.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import controllability
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0).double()
    >>> reached = controllability(model, torch.arange(20) % 16, span=1, directions=20)
    >>> bool(reached["rank"] <= 16)  # one token moves at most d = 16 directions of the 128
    True
    """
    model = as_model(model)
    text = one_text(model, ids)
    chosen = state_layers(model, layers)
    span, directions, rows = as_count(span, "span"), as_count(directions, "directions"), as_count(rows, "rows")
    iterations = as_count(iterations, "iterations", 0)
    tol = as_tolerance(tol)
    generator, seed = as_rng(rng)
    operators = {layer: inputs_to_state(model, text, layer, span, rows) for layer in chosen}
    data, coords = state_spectra(
        operators,
        directions,
        tol=tol,
        iterations=iterations,
        generator=generator,
        progress=progress,
        name="controllability",
    )
    arguments = {"ids": text, "layers": chosen, "span": span, "directions": directions, "iterations": iterations}
    attrs = {
        **provenance("controllability", model=model, arguments=arguments, seed=seed),
        "span": span,
        "tol": tol,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def steer(
    model: HybridLM | AdaptedLM,
    ids: Any,
    target: Any,
    layer: int,
    *,
    span: int = 16,
    steps: int = 4,
    iterations: int = 30,
    tol: float = 1e-6,
    progress: bool = False,
) -> xr.Dataset:
    r"""The least change of the last embeddings that brings a state to a target, and what tokens make of it.

    .. math:: \min \lVert \delta e \rVert^2 \quad \text{such that} \quad h_T(e + \delta e) = h^*; \qquad
              E_{\text{linear}} = (h^* - h_T)^\top W_c^{+} (h^* - h_T)

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model, best in float64.
    ids : array_like of int
        One text [T].
    target : array_like [H, P, N]
        The state wanted after the text.
    layer : int
        A layer with a state.
    span : int, default 16
        Number L of tokens at the end whose embeddings may move.
    steps : int, default 4
        Gauss-Newton steps at most; a step that does not come nearer is halved, and the last one found stays.
    iterations : int, default 30
        Iterations of LSMR for each step. More of them fit the linearised model better with a larger move, which is not
        nearer where the model bends.
    tol : float, default 1e-6
        Relative gap at which to stop.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims time, feature, step.

        - ``move`` (time, feature): the change of the embeddings, and ``move_energy``, its sum of squares.
        - ``energy_bound``: :math:`E_{\text{linear}}` for the part of the target that the linearised model reaches.
          It bounds the energy from below where the model is linear in this range; ``gap`` says how far that is true.
        - ``gap`` (step): distance from the target over that at the start, the first entry 1.
        - ``token`` (time): tokens nearest to the moved embeddings, ``original`` (time); ``gap_tokens``: the gap with
          those tokens in place.

    Raises
    ------
    TypeError, ValueError
        If the layer has no state, the target has another shape or holds NaN, the text is shorter than the span, or the
        state is at the target already.

    Notes
    -----
    Each step solves a least squares problem by products with J and its transpose. A state of n numbers can be reached
    only where L d is at least n and the inputs move it; else the gap stays, and says by how much.

    This is one text and one target: for an interval steer several texts, and hand their gaps to
    :func:`bootstrap_interval`.

    References
    ----------
    Fong and Saunders, "LSMR" (arXiv:1006.0758), for the solver; Soatto et al. (arXiv:2305.18449), for the question.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import steer
    >>> model = HybridLM(HybridConfig(pattern="M2", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8), rng=0).double()
    >>> ids = torch.arange(30) % 16
    >>> state = model(ids[None]).memory.get(0, "state")[0]
    >>> steered = steer(model, ids, 1.02 * state, 0, span=20)
    >>> float(steered.gap[-1]) < 0.1
    True
    """
    model = as_model(model)
    text = one_text(model, ids)
    (layer,) = state_layers(model, layer)
    span, steps, iterations = as_count(span, "span"), as_count(steps, "steps"), as_count(iterations, "iterations")
    operator = inputs_to_state(model, text, layer, span, 1)
    like = finite(operator.state, "its states")
    wanted = torch.as_tensor(np.asarray(target.detach().cpu() if isinstance(target, Tensor) else target)).to(like)
    if wanted.shape != like.shape:
        raise ValueError(f"target: expected the shape {tuple(like.shape)} of the state, got {tuple(wanted.shape)}")
    if not bool(torch.isfinite(wanted).all()):
        raise ValueError("target: expected finite numbers, got NaN or infinity")
    start = float((wanted - like).norm())
    if start == 0:
        raise ValueError("target: the state is there already")
    base = operator.embedded
    move = torch.zeros_like(base)
    gaps, bound = [1.0], 0.0
    for step in tqdm(range(steps), disable=not progress, unit="step", desc="steer"):
        # From the start each time: the least whole move whose linearisation here meets the target.
        here = _moved(operator, base + move)
        rest = (wanted - here.state).flatten() + here.forward(move.reshape(1, -1))[0]
        solution = _least(here, rest, iterations)
        if step == 0:
            bound = float(solution.square().sum())
        nearer = _nearer(operator, base, move, solution.view_as(move), wanted, gaps[-1] * start)
        if nearer is None:
            break
        move, gap = nearer[0], nearer[1] / start
        gaps.append(gap)
        if gap < tol:
            break
    table = operator.table.weight.detach()
    nearest = torch.cdist((base + move)[None].double(), table[None].double())[0].argmin(-1)
    said = operator.states(table[nearest][None])[0].detach()
    data = {
        "move": (("time", "feature"), move.double().numpy()),
        "move_energy": ((), float(move.double().square().sum())),
        "energy_bound": ((), bound),
        "gap": ("step", np.array(gaps)),
        "token": ("time", nearest.numpy()),
        "original": ("time", operator.ids[0].numpy()),
        "gap_tokens": ((), float((said - wanted).norm()) / start),
    }
    coords = {"time": np.arange(text.shape[1] - span, text.shape[1])}
    arguments = {"ids": text, "target": wanted, "layer": layer, "span": span, "steps": steps}
    attrs = {**provenance("steer", model=model, arguments=arguments), "layer": layer, "span": span}
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def inputs_to_state(model: HybridLM | AdaptedLM, text: Tensor, layer: int, span: int, rows: int) -> InputsToState:
    """The map from the embeddings of the last ``span`` tokens of a text [1, T] to the state of a layer."""
    steps = text.shape[1]
    if steps < span:
        raise ValueError(f"span: expected at most the {steps} tokens of the text, got {span}")
    with torch.no_grad():
        memory = model(text[:, : steps - span]).memory if steps > span else model.empty_memory(1)
    return InputsToState(model, memory, text[:, steps - span :], layer, rows)


def _moved(operator: InputsToState, embedded: Tensor) -> InputsToState:
    """The same at other embeddings."""
    made = InputsToState(operator.model, operator.memory, operator.ids, operator.layer, operator.rows)
    made.__dict__["embedded"] = embedded
    return made


def _nearer(
    operator: InputsToState, base: Tensor, move: Tensor, goal: Tensor, wanted: Tensor, distance: float
) -> tuple[Tensor, float] | None:
    """The longest step from a move towards a goal, halved until it ends nearer than ``distance``; None if none does."""
    size = 1.0
    while size > 1e-3:
        trial = move + size * (goal - move)
        gap = float((operator.states((base + trial)[None])[0].detach() - wanted).norm())
        if gap < distance:
            return trial, gap
        size /= 2
    return None


#: Side up to which a Jacobian is formed, so that the solver's products cost nothing.
_DENSE = 512


def _least(operator: InputsToState, rest: Tensor, iterations: int) -> Tensor:
    """The least squares solution of least norm of J x = rest."""
    dtype = rest.dtype
    shape = (operator.inputs, operator.embedded.numel())

    def product(x: np.ndarray) -> np.ndarray:
        return operator.forward(torch.from_numpy(x).to(dtype).reshape(1, -1))[0].double().numpy()

    def adjoint(x: np.ndarray) -> np.ndarray:
        return operator.reverse(torch.from_numpy(x).to(dtype).reshape(1, -1))[0].double().numpy()

    linear: Any
    if min(shape) <= _DENSE:
        many = dataclasses.replace(operator, rows=64, _kept={})
        many.__dict__["embedded"] = operator.embedded
        columns = shape[1] <= shape[0]
        eye = torch.eye(min(shape), dtype=dtype)
        linear = (many.forward(eye).T if columns else many.reverse(eye)).double().numpy()
    else:
        linear = LinearOperator(shape, matvec=product, rmatvec=adjoint, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    found = lsmr(linear, rest.double().numpy(), atol=1e-8, btol=1e-8, maxiter=iterations)[0]
    return torch.from_numpy(found).to(rest)
