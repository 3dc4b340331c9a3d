"""The gates of a layer's state, at the quantiles of a text or from the biases alone, with the proof of the taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.nn.functional import softplus

from solomonic.kernels import RidgeState
from solomonic.models import HybridConfig, HybridLM

from .inputs import as_level
from .run import Trace
from .trace import trace
from .trace_dataset import to_numpy

__all__ = ["Gates", "gates_of", "state_of", "state_space"]

_ALONE = {"M2": "mamba2", "GDN": "gdn", "GKA": "gka"}


@dataclass(frozen=True, eq=False)
class Gates:
    """Gates of the heads of one layer.

    Parameters
    ----------
    at : list of str
        Names of the quantiles, or ["bias"].
    dt : ndarray [at, H]
        Steps, softplus(... + dt_bias).
    rate : ndarray [H]
        -exp(A_log): decays are exp(dt * rate).
    beta : ndarray [at, H] or None
        Strength of the writes of a delta rule, beta |k|^2; None where there is none.
    """

    at: list[str]
    dt: np.ndarray
    rate: np.ndarray
    beta: np.ndarray | None

    @property
    def decay(self) -> np.ndarray:
        """exp(dt A) [at, H]."""
        return np.exp(self.dt * self.rate)


def state_space(config: HybridConfig, layer: int) -> str | None:
    """ "mamba2", "gdn" or "gka"; None where a layer has no state."""
    symbol = config.pattern[layer]
    return config.ssm_mixer if symbol in ("BMF", "BMO") else _ALONE.get(symbol)


def state_of(model: HybridLM, layer: int) -> Any:
    """The module that holds the state of a layer: its mixer, or the one inside it."""
    mixer: Any = model.model.get_submodule(f"layers.{layer}.mixer")
    return mixer.ssm if hasattr(mixer, "ssm") else mixer


def gates_of(model: HybridLM, layer: int, ids: Any, quantiles: Sequence[float], *, progress: bool = False) -> Gates:
    """The gates of a layer with a state; raises where the taps of a text are not what ran."""
    kind, module = state_space(model.config, layer), state_of(model, layer)
    rate = -np.exp(to_numpy(module.A_log.detach().double()))
    if ids is None:
        dt = to_numpy(softplus(module.dt_bias.detach().double()))[None]
        # The strength has no bias: an input of 0 gives sigmoid(0), or twice that.
        beta = np.full_like(dt, 1.0 if model.config.gdn_allow_neg_eigval else 0.5) if kind == "gdn" else None
        return Gates(["bias"], dt, rate, beta)
    levels = [as_level(q, "quantiles") for q in quantiles]
    if not levels:
        raise ValueError("quantiles: expected at least one, got none")
    run = trace(model, ids, layers=layer, progress=progress).require()
    if kind == "gka":
        _require_ridge(model, run, layer)

    def of(value: np.ndarray) -> np.ndarray:
        return np.quantile(value.reshape(-1, value.shape[-1]), levels, axis=0)

    steps = run.dt(layer) if kind == "mamba2" else to_numpy(run.records[layer]["log_decay"]) / rate
    strength = of(run.beta(layer) * np.square(run.key(layer)).sum(-1)) if kind == "gdn" else None
    return Gates([f"q{q:g}" for q in levels], of(steps), rate, strength)


def _require_ridge(model: HybridLM, run: Trace, layer: int) -> None:
    """A trace has no states of Gated KalmaNet: what its taps would make of the state must be what the memory holds."""
    taps = {name: to_numpy(run.records[layer][name]) for name in ("log_decay", "B", "x")}
    total = taps["log_decay"].cumsum(1)
    kept = np.exp(total[:, -1:] - total)
    held = run.memory.get(layer, "state")
    assert isinstance(held, RidgeState)
    forget = kept if model.config.gka_decay_gram else np.ones_like(kept)
    made = (
        np.einsum("bth,bthk,bthj->bhkj", forget, taps["B"], taps["B"], optimize=True),
        np.einsum("bth,bthk,bthv->bhkv", kept, taps["B"], taps["x"], optimize=True),
    )
    for mine, theirs in zip(made, held, strict=True):
        seen = to_numpy(theirs.detach())
        error = float(np.abs(mine - seen).max() / (np.abs(seen).max() or 1.0))
        if not error <= run.tolerance:
            raise ValueError(
                f"model: the state of layer {layer} is not what its gates, keys and values make of it (relative error "
                f"{error:.1e}, tolerance {run.tolerance:.1e}); its taps do not tell what ran"
            )
