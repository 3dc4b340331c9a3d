"""The realization of one run: what a layer was as a linear time-varying system, with proof."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from solomonic.models import Memory
from solomonic.realization import TimeVaryingSystem

from . import recurrence, registers
from .labelled import save_dataset
from .taps import KINDS, has_attention, has_fading_tokens
from .trace_dataset import REGISTERS, to_dataset, to_numpy

__all__ = ["Trace"]


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    r"""The realization of one run of a model, with its reconstruction error as proof.

    Every state space head is the linear time-varying system

    .. math:: h_t = a_t h_{t-1} + u_t B_t^\top, \qquad y_t = h_t C_t + D u_t, \qquad a_t = e^{\Delta_t A},

    where :math:`h_t` is [P, N], :math:`u_t` [P] is the value stream x after the short convolution, and
    :math:`B_t = \Delta_t \tilde B_t` [N] already holds the step (``dt`` is given beside it). Made by
    :func:`trace`.

    That is the kind ``"scalar"`` (Mamba2). In a layer of the kind ``"diagonal"`` (Mamba) every channel is a head,
    P = 1, and :math:`a_t` is a vector [N]. In one of the kind ``"delta"`` (Gated DeltaNet)

    .. math:: h_t = e^{g_t} h_{t-1} (I - \beta_t k_t k_t^\top) + u_t (\beta_t k_t)^\top, \qquad y_t = h_t C_t,

    with the keys k, the strengths :math:`\beta`, :math:`B_t = \beta_t k_t`, :math:`C_t = q_t / \sqrt{N}` and no
    feed-through; h is the state S of the layer the other way round.

    Parameters
    ----------
    ids : Tensor
        Token ids [prompts, T].
    pattern : tuple of str
        Symbol of each layer of the model.
    layers : tuple of int
        The layers that were traced.
    windows : mapping of int to int or None
        W of each traced layer, tokens.
    records : mapping of int to mapping of str to Tensor
        What each layer handed out, by the names of the taps.
    memory : Memory
        The memory after the last token.
    logits : Tensor
        [prompts, T, vocabulary].
    past : int
        Number of tokens that the memory before the run had seen.
    tolerance : float
        Largest relative error that probes accept.
    checks : mapping
        ``taps`` (how many fired), ``state_error`` and ``attention_error`` (layer -> relative error of the
        recomputed output), ``fading_mass_error`` (layer -> absolute error), ``attention_rows`` (layer -> how many
        rows were recomputed).
    initial : mapping of int to Tensor
        States before the first token [prompts, H, P, N], where the run went on from a memory.
    kinds : mapping of int to str or None
        The kind of each layer's transitions; by default that of its symbol.
    provenance : mapping
        Attributes of every Dataset made from this.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM
    >>> from solomonic.probes import trace
    >>> model = HybridLM(HybridConfig(pattern="M2-SWA", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=1, head_dim=8, swa_window=4), rng=0)
    >>> run = trace(model, torch.arange(12), attention=True)
    >>> run.error < 1e-5
    True
    >>> run.system(0, head=1)
    TimeVaryingSystem(steps=12, order=8, inputs=1, outputs=1, diagonal)
    >>> run.attention(1, head=0).weight.sizes
    Frozen({'prompt': 1, 'time': 1, 'lag': 4})
    """

    ids: Tensor
    pattern: tuple[str, ...]
    layers: tuple[int, ...]
    windows: Mapping[int, int | None]
    records: Mapping[int, Mapping[str, Tensor]]
    memory: Memory
    logits: Tensor
    past: int
    tolerance: float
    checks: Mapping[str, Any]
    initial: Mapping[int, Tensor] = field(default_factory=dict)
    kinds: Mapping[int, str | None] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    # ---------------------------------------------------------------- proof
    @property
    def error(self) -> float:
        """The largest relative error of an output that was recomputed from this trace; NaN where one was NaN."""
        found = [*self.checks["state_error"].values(), *self.checks["attention_error"].values()]
        found += self.checks["fading_mass_error"].values()
        return float(np.max(found)) if found else 0.0

    def require(self) -> Trace:
        """Return the trace itself, or raise ValueError where its error is over the tolerance."""
        if not self.error <= self.tolerance:
            parts = [
                f"layer {layer}: {error:.1e}"
                for kind in ("state_error", "attention_error", "fading_mass_error")
                for layer, error in self.checks[kind].items()
                if not error <= self.tolerance
            ]
            raise ValueError(
                f"trace: expected a reconstruction error of at most {self.tolerance:g}, got {self.error:.1e} "
                f"({'; '.join(parts)}): the taps are not the system that ran"
            )
        return self

    # ---------------------------------------------------------------- what was traced
    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return self.ids.shape[0]

    @property
    def steps(self) -> int:
        """Number of tokens T of each prompt."""
        return self.ids.shape[1]

    @property
    def state_layers(self) -> tuple[int, ...]:
        """The traced layers that have state space heads."""
        return tuple(i for i in self.layers if self.kinds.get(i, KINDS.get(self.pattern[i])) is not None)

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The traced layers that read registers by a softmax."""
        return tuple(i for i in self.layers if has_attention(self.pattern[i]))

    @property
    def fading_layers(self) -> tuple[int, ...]:
        """The traced layers that read fading tokens."""
        return tuple(i for i in self.layers if has_fading_tokens(self.pattern[i]))

    def _of(self, layer: int, wanted: tuple[int, ...], what: str) -> Mapping[str, Tensor]:
        if layer not in wanted:
            raise ValueError(f"layer: expected a traced layer with {what}, one of {list(wanted)}, got {layer!r}")
        return self.records[layer]

    def _state(self, layer: int) -> Mapping[str, Tensor]:
        return self._of(layer, self.state_layers, "state space heads")

    def kind(self, layer: int) -> str:
        """How the state of a ``layer`` moves: ``"scalar"``, ``"diagonal"`` or ``"delta"``."""
        self._state(layer)
        return str(self.kinds.get(layer, KINDS.get(self.pattern[layer])))

    def heads(self, layer: int) -> int:
        """Number of state space heads of a ``layer``; where every channel has decays of its own, of channels."""
        taps = self._state(layer)
        return taps["beta" if self.kind(layer) == "delta" else "dt"].shape[2]

    def log_decay(self, layer: int) -> np.ndarray:
        """Logarithm of the decays a_t of a ``layer`` in nat per token, [prompts, T, H]; diagonal [prompts, T, H, N]."""
        return self._log_decay(layer, slice(None))

    def dt(self, layer: int) -> np.ndarray:
        """Steps of a ``layer``, [prompts, T, H]; a delta rule has none."""
        return to_numpy(self._tap(layer, "dt", "steps dt"))

    def beta(self, layer: int) -> np.ndarray:
        """Strengths of the delta rule of a ``layer``, [prompts, T, H]."""
        return to_numpy(self._tap(layer, "beta", "a delta rule"))

    def key(self, layer: int) -> np.ndarray:
        """Keys of the delta rule of a ``layer``, [prompts, T, H, N]: what is held under them is taken out."""
        self._tap(layer, "beta", "a delta rule")
        return self._repeated(layer, "B", slice(None))

    def B(self, layer: int) -> np.ndarray:
        """Input maps of a ``layer``, [prompts, T, H, N]: dt_t B_t, which already holds the step; beta_t k_t of a delta
        rule."""
        return self._write(layer, slice(None))

    def C(self, layer: int) -> np.ndarray:
        """Read-out maps of a ``layer``, [prompts, T, H, N]."""
        return self._read(layer, slice(None))

    def D(self, layer: int) -> np.ndarray:
        """Feed-through of a ``layer``, [H]."""
        taps = self._state(layer)
        return to_numpy(taps["D"]) if "D" in taps else np.zeros(self.heads(layer))

    def u(self, layer: int) -> np.ndarray:
        """Inputs of a ``layer``: the value stream x after the short convolution, [prompts, T, H, P]."""
        return self._repeated(layer, "x", slice(None))

    def y(self, layer: int) -> np.ndarray:
        """Outputs of the state space heads of a ``layer`` as the model computed them, [prompts, T, H, P]."""
        return to_numpy(self._state(layer)["y"])

    def initial_state(self, layer: int) -> np.ndarray:
        """States of a ``layer`` before the first token, [prompts, H, P, N]."""
        taps = self._state(layer)
        if layer in self.initial:
            return to_numpy(self.initial[layer])
        return np.zeros((self.prompts, self.heads(layer), taps["x"].shape[3], taps["B"].shape[3]))

    def realization(self, layer: int, heads: slice = slice(None)) -> recurrence.Realization:
        """The arrays of the recurrence of some ``heads`` of a ``layer``, in float64.

        A named tuple: log_decay, write, read, D, u, h0, and key, which is None but in a delta rule.
        """
        return recurrence.Realization(
            log_decay=self._log_decay(layer, heads),
            write=self._write(layer, heads),
            read=self._read(layer, heads),
            D=self.D(layer)[heads],
            u=self._repeated(layer, "x", heads),
            h0=self.initial_state(layer)[:, heads],
            key=self._repeated(layer, "B", heads) if self.kind(layer) == "delta" else None,
        )

    def _tap(self, layer: int, name: str, what: str) -> Tensor:
        taps = self._state(layer)
        if name not in taps:
            raise ValueError(
                f"layer: expected a layer with {what}, got layer {layer} ({self.pattern[layer]}, {self.kind(layer)})"
            )
        return taps[name]

    def _repeated(self, layer: int, name: str, heads: slice) -> np.ndarray:
        """A tap [prompts, T, G, .] for some heads: head h uses group h // (H / G)."""
        value, count = self._state(layer)[name], self.heads(layer)
        if value.shape[2] == count:
            return to_numpy(value[:, :, heads])
        groups = np.arange(count)[heads] // (count // value.shape[2])
        return to_numpy(value)[:, :, groups]

    def _log_decay(self, layer: int, heads: slice) -> np.ndarray:
        taps = self._state(layer)
        if self.kind(layer) != "diagonal":
            return to_numpy(taps["log_decay"][:, :, heads])
        return to_numpy(taps["dt"][:, :, heads])[..., None] * to_numpy(taps["A"][heads])

    def _write(self, layer: int, heads: slice) -> np.ndarray:
        step = self._state(layer)["beta" if self.kind(layer) == "delta" else "dt"]
        return self._repeated(layer, "B", heads) * to_numpy(step[:, :, heads])[..., None]

    def _read(self, layer: int, heads: slice) -> np.ndarray:
        read = self._repeated(layer, "C", heads)
        return read / np.sqrt(read.shape[3]) if self.kind(layer) == "delta" else read

    def states(self, layer: int, head: int | None = None, times: Any = None) -> np.ndarray:
        r"""States :math:`h_t` after the tokens asked for, recomputed in float64.

        Parameters
        ----------
        layer : int
            A traced layer with state space heads.
        head : int, optional
            One head; all of them by default.
        times : int or sequence of int, optional
            Tokens of the run, from 0 to T - 1; the last one by default.

        Returns
        -------
        ndarray [prompts, len(times), H, P, N]
            H is 1 where one head was asked for.
        """
        r = self.realization(layer, self._heads(layer, head))
        return recurrence.states(r.log_decay, r.write, r.u, r.h0, self._times(times), r.key)

    def system(self, layer: int, head: int, *, prompt: int = 0) -> TimeVaryingSystem:
        r"""The system with one input, one output and N states that every channel of a head runs.

        All P channels of a head share :math:`a_t`, :math:`B_t`, :math:`C_t` and D: channel p has the state
        :math:`h_t[p, :]`, the input :math:`u_t[p]` and the output :math:`y_t[p]`.

        Parameters
        ----------
        layer : int
            A traced layer with state space heads.
        head : int
            The head; in a layer of the kind ``"diagonal"``, the channel.
        prompt : int, default 0
            The prompt.

        Returns
        -------
        solomonic.realization.TimeVaryingSystem
            T steps, order N. Diagonal, its transitions given as ``log_decay``; dense for a delta rule.
        """
        r = self.realization(layer, self._heads(layer, head))
        if not 0 <= prompt < self.prompts:
            raise ValueError(f"prompt: expected a number from 0 to {self.prompts - 1}, got {prompt!r}")
        decay, write, read = (each[prompt, :, 0] for each in (r.log_decay, r.write, r.read))
        maps = write[:, :, None], read[:, None, :], np.full((self.steps, 1, 1), r.D[0])
        if r.key is not None:
            kept = np.eye(write.shape[1]) - write[:, :, None] * r.key[prompt, :, 0, None, :]
            return TimeVaryingSystem(np.exp(decay)[:, None, None] * kept, *maps)
        decay = np.repeat(decay[:, None], write.shape[1], 1) if decay.ndim == 1 else decay
        return TimeVaryingSystem(None, *maps, log_decay=decay)

    # ---------------------------------------------------------------- attention
    def fading_mass(self, layer: int) -> np.ndarray:
        r"""Share of the attention mass on fading tokens, :math:`\sigma(\ell^f - \ell^w)`.

        ``layer`` reads fading tokens; returns [prompts, T, H], 0 before there is a fading token to read.
        """
        taps = self._of(layer, self.fading_layers, "fading tokens")
        return mass_share(to_numpy(taps["lse_fading"]), to_numpy(taps["lse_window"]))

    def registers(self, layer: int) -> dict[str, np.ndarray]:
        """Queries, keys and values of a ``layer`` by name: q, k, v, and k_fading, v_fading, q_fading if any.

        Keys and values are [prompts, S, Hkv, .] with S at least T: what the memory before the run held stands first.
        """
        taps = self._of(layer, self.attention_layers, "attention")
        if "q" not in taps:
            raise ValueError("attention: this trace holds no registers; make it with trace(..., attention=True)")
        return {name: to_numpy(taps[name]) for name in REGISTERS if name in taps}

    def attention(self, layer: int, head: int, times: Any = None) -> xr.Dataset:
        """Attention weights of a head over lags, for the rows asked for.

        Parameters
        ----------
        layer : int
            A traced layer with attention.
        head : int
            The head.
        times : int or sequence of int, optional
            Tokens of the run whose row is wanted; the last one by default.

        Returns
        -------
        xarray.Dataset
            ``weight`` (prompt, time, lag), summing to 1 over lag: lags 0 .. W-1 are tokens of the window, lags
            W .. 2W-1 fading tokens where the layer has them, as the coordinate ``source`` (lag) says. Weights of
            tokens that do not exist are 0.
        """
        taps = self.registers(layer)
        times = self._times(times)
        if not 0 <= head < taps["q"].shape[2]:
            raise ValueError(f"head: expected a number from 0 to {taps['q'].shape[2] - 1}, got {head!r}")
        weight, fading = registers.weights_by_lag(taps, self.windows[layer], self.past, times, head)
        dataset = xr.Dataset(
            {"weight": (("prompt", "time", "lag"), weight, {"long_name": "attention weight", "units": "1"})},
            coords={
                "prompt": np.arange(self.prompts),
                "time": times,
                "lag": (
                    "lag",
                    np.arange(weight.shape[2]),
                    {"long_name": "lag behind the query", "units": "token"},
                ),
                "source": ("lag", np.where(fading, "fading", "window")),
            },
            attrs={**self.provenance, "layer": layer, "head": head},
        )
        return dataset

    # ---------------------------------------------------------------- as a Dataset
    def to_dataset(self) -> xr.Dataset:
        """All sequences as a Dataset.

        Returns
        -------
        xarray.Dataset
            Dims prompt, layer, time, head, state, channel. Variables ids (prompt, time); log_decay, dt and beta
            (prompt, layer, time, head), log_decay over state too where a layer is diagonal; B, C and key (...,
            state); D (layer, head); u and y (..., channel); initial_state where the run went on from a memory;
            fading_mass, lse_window and lse_fading (prompt, layer, time, head). Entries of layers that have no such
            thing are NaN, and variables that no layer has are left out. Where registers are held: q, k, v, q_fading,
            k_fading, v_fading over (prompt, layer, position, ..., channel). Heads and channels of the attention have
            dims of their own (attention_head, attention_channel) where they are not as many as those of the states.
            Coordinates symbol, kind and window (layer).
        """
        return to_dataset(self)

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dataset` as netCDF to ``path``, whole or not at all; return the path."""
        return save_dataset(self.to_dataset(), path)

    # ---------------------------------------------------------------- helpers
    def _heads(self, layer: int, head: int | None) -> slice:
        heads = self.heads(layer)
        if head is None:
            return slice(None)
        if isinstance(head, bool) or not isinstance(head, int | np.integer) or not 0 <= head < heads:
            raise ValueError(f"head: expected a number from 0 to {heads - 1}, got {head!r}")
        return slice(int(head), int(head) + 1)

    def _times(self, times: Any) -> np.ndarray:
        value = np.atleast_1d(np.asarray(self.steps - 1 if times is None else times))
        if not np.issubdtype(value.dtype, np.integer) or value.ndim != 1 or not value.size:
            raise ValueError(f"times: expected whole numbers, at least one, got {times!r}")
        if value.min() < 0 or value.max() >= self.steps:
            raise ValueError(f"times: expected tokens from 0 to {self.steps - 1}, got {times!r}")
        return value.astype(np.int64)

    def __repr__(self) -> str:
        symbols = "-".join(self.pattern[i] for i in self.layers)
        return f"Trace({symbols}, {self.prompts} x {self.steps} tokens, error {self.error:.1e})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{i}</td><td>{html.escape(self.pattern[i])}</td>"
            f"<td>{_cell(self.checks['state_error'].get(i))}</td>"
            f"<td>{_cell(self.checks['attention_error'].get(i))}</td></tr>"
            for i in self.layers
        )
        head = "<tr><th>layer</th><th>mixer</th><th>error of the state</th><th>error of the attention</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"


def as_trace(trace: Any) -> Trace:
    """The trace itself, or a TypeError that says how to make one."""
    if not isinstance(trace, Trace):
        raise TypeError(f"trace: expected a Trace, got {type(trace).__name__}; make one with trace(model, ids)")
    return trace


def mass_share(lse_fading: np.ndarray, lse_window: np.ndarray) -> np.ndarray:
    """sigmoid(lse_fading - lse_window), exactly 0 where there are no fading tokens."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(lse_window - lse_fading))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
