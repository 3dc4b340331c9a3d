"""Run a model with taps, and prove that what they hand out is what ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM, Memory

from . import recurrence, registers
from .inputs import as_ids, as_layers, as_model
from .labelled import provenance
from .run import Trace, mass_share
from .taps import has_attention, layer_window, state_kind, tapped
from .trace_dataset import REGISTERS, to_numpy

__all__ = ["Trace", "trace"]

#: Largest relative reconstruction error of a trace that probes accept, by the dtype of the model.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

#: The taps that a trace holds, besides the registers where they are asked for.
_KEPT = ("x", "dt", "A", "log_decay", "beta", "B", "C", "D", "y", "lse_window", "lse_fading")

#: Entries of the arrays of the heads that are recomputed at a time.
_ENTRIES = 1 << 24


def trace(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    memory: Memory | None = None,
    attention: bool = False,
    layers: Iterable[int] | int | None = None,
    tolerance: float | None = None,
    progress: bool = False,
) -> Trace:
    r"""Run a model once with taps and return what it was: a linear time-varying system in each head.

    .. math:: h_t = a_t h_{t-1} + u_t B_t^\top, \qquad y_t = h_t C_t + D u_t

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model; one of transformers is adapted on the way in (:func:`solomonic.models.adapt`).
    ids : array_like of int
        Token ids [T] or [prompts, T].
    memory : Memory, optional
        What the run goes on from; a fresh start by default.
    attention : bool, default False
        Whether to hold queries, keys and values, for :meth:`Trace.attention` and :meth:`Trace.registers`. They are
        checked either way.
    layers : int or iterable of int, optional
        The layers to trace; all by default.
    tolerance : float, optional
        Largest relative error that probes accept; by default 1e-4 in float32, 1e-9 in float64, 5e-2 in bfloat16.
    progress : bool, default False
        Whether to show a progress bar: a step where a layer has run, and one where its states are recomputed.

    Returns
    -------
    Trace
        ``.error`` and ``.checks`` are its proof; ``.system(layer, head)`` is a TimeVaryingSystem.

    Raises
    ------
    TypeError, ValueError
        If ids or layers are not valid, or a tap never fired. An error over the tolerance raises where a probe uses
        the trace (:meth:`Trace.require`).

    Notes
    -----
    Transitions :math:`a_t` are a number a head (Mamba2), one a state (Mamba, where every channel is a head) or
    :math:`a_t (I - \beta_t k_t k_t^\top)` (Gated DeltaNet): :meth:`Trace.kind` says which. Gated KalmaNet solves a
    ridge problem with its state: it is no such system, and of its layers there are no states in a trace. Of B'MOJO
    layers with stored tokens (BMO) the states are traced, and the read-out of the registers is not.

    The proof: outputs y of state space heads are recomputed from (a, B, C, D, u) by a plain recurrence in float64,
    read-outs of attention from queries, keys and values by a dense softmax in float64. Errors are the largest
    deviation relative to the largest output of the layer. Beyond about 2^31 multiply-adds a layer, evenly spaced
    rows of attention are recomputed instead of all. T = 1024 with 4 layers of 4 heads of 32 x 32 takes about half a
    second; states are never held, as they are T P N numbers a head.

    References
    ----------
    Ali, Zimerman and Wolf (arXiv:2403.01590) for the operator of a selective state space layer at frozen gates; Dao
    and Gu (arXiv:2405.21060), equation 16.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import trace
    >>> model = HybridLM(HybridConfig(pattern="BMF", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, bmojo_window=3), rng=0)
    >>> run = trace(model, torch.arange(12))
    >>> run.states(0, head=0, times=[5, 11]).shape
    (1, 2, 1, 8, 8)
    >>> run.fading_mass(0)[0, :5, 0] > 0
    array([False, False, False,  True,  True])
    """
    model = as_model(model)
    tokens = as_ids(ids, model)
    config = model.config
    chosen = as_layers(layers, len(config.pattern))
    dtype = next(model.parameters()).dtype
    if tolerance is None:
        tolerance = TOLERANCE.get(dtype, 1e-2)
    elif not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    past = 0 if memory is None else memory.position
    kinds = {i: state_kind(config, i) for i in chosen}
    initial = {}
    if memory is not None:
        initial = {i: _state(memory, i, kind) for i, kind in kinds.items() if kind is not None}
    checks: dict[str, Any] = {
        "taps": 0,
        "state_error": {},
        "attention_error": {},
        "fading_mass_error": {},
        "attention_rows": {},
    }
    records: dict[int, dict[str, Tensor]] = {}
    windows = {i: layer_window(config, i) for i in chosen}

    def finish(layer: int, taps: Mapping[str, Tensor]) -> None:
        if has_attention(config.pattern[layer]):
            _check_attention(checks, layer, taps, windows[layer], past)
        kept = (*_KEPT, *REGISTERS) if attention else _KEPT
        records[layer] = {name: taps[name].cpu() for name in kept if name in taps}
        bar.update()

    steps = len(chosen) + sum(kind is not None for kind in kinds.values())
    bar = tqdm(total=steps, disable=not progress, unit="layer", desc="trace")
    with bar:
        out, checks["taps"] = tapped(model, tokens, memory, chosen, finish)
        arguments = {
            "ids": tokens,
            "memory": past,
            "attention": attention,
            "layers": chosen,
            "tolerance": tolerance,
        }
        run = Trace(
            ids=tokens,
            pattern=config.pattern,
            layers=chosen,
            windows=windows,
            records=records,
            memory=out.memory,
            logits=out.logits.cpu(),
            past=past,
            tolerance=float(tolerance),
            checks=checks,
            initial=initial,
            kinds=kinds,
        )
        for layer in run.state_layers:
            checks["state_error"][layer] = _state_error(run, layer)
            bar.update()
    attrs = provenance("trace", model=model, arguments=arguments, checks=checks)
    return dataclasses.replace(run, provenance=attrs)


def _state_error(run: Trace, layer: int) -> float:
    """Relative error of the outputs of a layer's state space heads, recomputed some heads at a time."""
    seen = run.y(layer)
    batch, steps, heads, channels = seen.shape
    width = channels + run.records[layer]["B"].shape[3]
    count = max(1, _ENTRIES // (batch * steps * width))
    worst = 0.0
    for start in range(0, heads, count):
        part = slice(start, start + count)
        r = run.realization(layer, part)
        made = recurrence.readout(r.log_decay, r.write, r.read, r.D, r.u, r.h0, r.key)
        worst = np.maximum(worst, np.abs(made - seen[:, :, part]).max())
    scale = np.abs(seen).max()
    return float(worst / scale) if scale > 0 else float(worst)


def _check_attention(
    checks: dict[str, Any], layer: int, taps: Mapping[str, Tensor], window: int | None, past: int
) -> None:
    arrays = {name: to_numpy(taps[name]) for name in REGISTERS if name in taps}
    read = to_numpy(taps["read"])
    batch, length, heads, width = arrays["q"].shape
    reach = min(past + length, (past + length) if window is None else 2 * window)
    rows = registers.rows_to_check(length, reach, heads, width, batch)
    share = None
    if "lse_fading" in taps:
        share = mass_share(to_numpy(taps["lse_fading"]), to_numpy(taps["lse_window"]))
    worst = worst_mass = 0.0
    for part, out, fading in registers.blocks(arrays, window, past, rows):
        worst = np.maximum(worst, np.abs(out - read[:, part]).max())
        if share is not None:
            worst_mass = np.maximum(worst_mass, np.abs(fading - share[:, part]).max())
    scale = np.abs(read[:, rows]).max()
    checks["attention_error"][layer] = float(worst / scale) if scale > 0 else float(worst)
    checks["attention_rows"][layer] = len(rows)
    if share is not None:
        checks["fading_mass_error"][layer] = float(worst_mass)


def _state(memory: Memory, layer: int, kind: str) -> Tensor:
    """The state [prompts, H, P, N]; that of a delta rule is kept the other way round."""
    value = memory.get(layer, "state")
    assert isinstance(value, Tensor)
    value = value.detach().cpu()
    return value.transpose(2, 3) if kind == "delta" else value
