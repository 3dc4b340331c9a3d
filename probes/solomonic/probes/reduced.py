"""A layer with one channel and short registers: its slots, what shifts, holds and decays, and the matrix of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from solomonic.models import HybridConfig, HybridLM

from .gates import state_of, state_space
from .trace_dataset import to_numpy

__all__ = ["Modes", "Reduced", "Register", "modes_of", "reduced_layer", "registers_of", "width_of"]

#: Tokens that the register of a short convolution holds.
CONV = 3


class Register(NamedTuple):
    """A row of slots of one part of the memory.

    Attributes
    ----------
    part : str
        The part of the memory.
    name : str
        What the slots are called.
    length : int
        How many there are.
    source : str
        What enters the first slot at every token: ``"token"``, ``"output"`` (of the state space layer), or ``""``.
    holds : bool
        Whether a slot keeps what it has; else it hands it on to the next.
    """

    part: str
    name: str
    length: int
    source: str
    holds: bool = False


class Modes(NamedTuple):
    """The state of some heads, one entry a mode.

    Attributes
    ----------
    names : list of str
        One a mode.
    value : ndarray [n]
        Eigenvalues: what is left after one token.
    write, read : ndarray [n]
        What a token puts into a mode, and what the output takes from it.
    copies : ndarray [n]
        Numbers of the layer's state that move so.
    feed : float
        What the output takes from the token itself.
    """

    names: list[str]
    value: np.ndarray
    write: np.ndarray
    read: np.ndarray
    copies: np.ndarray
    feed: float


class Reduced(NamedTuple):
    """Slots, their parts and copies, the transition [n, n] and the input map [n]."""

    names: list[str]
    blocks: list[str]
    copies: np.ndarray
    A: np.ndarray
    B: np.ndarray


def width_of(config: HybridConfig, layer: int) -> int | None:
    """W of a layer in tokens; None where it has no window."""
    symbol = config.pattern[layer]
    return config.bmojo_window if symbol in ("BMF", "BMO") else config.swa_window if symbol == "SWA" else None


def registers_of(config: HybridConfig, layer: int, most: int | None = None) -> list[Register]:
    """The registers of a layer, that of the convolution first.

    They have their true lengths (that of attention over all the past, 1), or those that they would have if W and the
    numbers of stored tokens, of fading tokens and of outputs in the innovation test were at most ``most``.
    """

    def least(value: int) -> int:
        return value if most is None else min(value, most)

    symbol, width = config.pattern[layer], width_of(config, layer)
    found = [Register("conv", "conv", CONV, "token")] if state_space(config, layer) else []
    if symbol == "*":
        return [*found, Register("kv", "kv", most or 1, "token")]
    if width is None:
        return found
    # A matrix of W slots stands for a layer of that window, whatever its own.
    small = width if most is None else most
    found.append(Register("window", "window", small, "token"))
    if symbol == "SWA":
        return found
    frozen = config.fading_tokens if symbol == "BMO" and config.fading_tokens != width else None
    if frozen is None:
        found.append(Register("fading_tokens", "fading_tokens", 2 * small, "output"))
    elif frozen:
        found.append(Register("fading_tokens", "fading_tokens", least(frozen), "", holds=True))
    if symbol == "BMO" and config.eidetic_tokens:
        found.append(Register("eidetic", "eidetic", least(config.eidetic_tokens), "", holds=True))
        found.append(Register("eidetic", "waiting", 2 * small - 2, "token"))
        if config.innovation_norm != "random":
            found.append(Register("eidetic", "past", least(config.innovation_span), "output"))
    return [each for each in found if each.length]


def modes_of(
    model: HybridLM, layer: int, decay: np.ndarray, beta: np.ndarray | None, heads: Sequence[int]
) -> Modes | None:
    """The modes of some heads with their decays and, of a delta rule, their strengths; None without a state."""
    kind, module, config = state_space(model.config, layer), state_of(model, layer), model.config
    width, count = config.head_dim, len(heads)
    if kind is None:
        return None
    if kind == "mamba2":
        copies = np.full(count, width * module.state_size)
        feed = float(to_numpy(module.D.detach())[list(heads)].mean())
        ones = np.ones(count)
        return Modes([f"state[{h}]" for h in heads], decay, ones, ones / count, copies, feed)
    rows: list[tuple[str, float, float, float, int]] = []
    for i, h in enumerate(heads):
        a, share = float(decay[i]), 1 / count
        if kind == "gdn":
            assert beta is not None
            b = float(beta[i])
            rows.append((f"state[{h}].kept", a, 0.0, share, (width - 1) * width))
            rows.append((f"state[{h}].key", a * (1 - b), b, share, width))
        else:
            # What reads the content is solved for with the Gram matrix: at a frozen query the latter is not read.
            rows.append((f"state[{h}].content", a, 1.0, share, width * width))
            rows.append((f"state[{h}].gram", a if config.gka_decay_gram else 1.0, 0.0, 0.0, width * width))
    names, value, write, read, copies = zip(*rows, strict=True)
    return Modes(list(names), np.array(value), np.array(write), np.array(read), np.array(copies), 0.0)


def reduced_layer(model: HybridLM, layer: int, window: int, modes: Modes | None, head: int = 0) -> Reduced:
    """The layer with one channel and a small window: ``modes`` behind the taps of the first channel of ``head``."""
    registers = registers_of(model.config, layer, window)
    rows: list[tuple[str, list[str]]] = [(r.part, [f"{r.name}[{i}]" for i in range(r.length)]) for r in registers]
    if modes is not None:
        rows.insert(1, ("state", modes.names))
    starts = np.cumsum([0, *(len(names) for _, names in rows)])
    first = dict(zip([names[0] for _, names in rows], starts.tolist(), strict=False))
    A, B = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    conv, state, weights = slice(0, CONV), slice(CONV, CONV), np.zeros(CONV + 1)
    if modes is not None:
        # x_t = w_0 u_t + w_1 u_(t-1) + ...; the last tap is that of the current token.
        weights, state = _taps(model, layer, head)[::-1], slice(CONV, CONV + modes.value.size)
        A[state, state] = np.diag(modes.value)
        A[state, conv] = np.outer(modes.write, weights[1:])
        B[state] = modes.write * weights[0]
    for register in registers:
        start = first[f"{register.name}[0]"]
        for i in range(register.length):
            if register.holds:
                A[start + i, start + i] = 1.0
            elif i:
                A[start + i, start + i - 1] = 1.0
        if register.source == "token":
            B[start] = 1.0
        elif register.source == "output":
            # f_t = read . h_t + feed x_t, with the state after the token.
            assert modes is not None
            through = float(modes.read @ modes.write) + modes.feed
            A[start, state] = modes.read * modes.value
            A[start, conv] = through * weights[1:]
            B[start] = through * weights[0]
    names = [name for _, each in rows for name in each]
    blocks = [part for part, each in rows for _ in each]
    return Reduced(names, blocks, _copies(model, layer, registers, modes), A, B)


def _copies(model: HybridLM, layer: int, registers: list[Register], modes: Modes | None) -> np.ndarray:
    """Numbers of the layer that each slot stands for."""
    config = model.config
    token = 2 * config.num_key_value_heads * config.head_dim
    each = {"conv": 0, "past": config.hidden_size}
    if modes is not None:
        value = model.empty_memory().get(layer, "conv")
        each["conv"] = value.shape[2]  # type: ignore[union-attr]
    found = [np.full(r.length, each.get(r.name, token)) for r in registers]
    if modes is not None:
        found.insert(1, modes.copies)
    return np.concatenate(found).astype(int)


def _taps(model: HybridLM, layer: int, head: int) -> np.ndarray:
    """Taps [4] of the convolution of the first channel of a head's values, that of the current token last."""
    config, module = model.config, state_of(model, layer)
    channel = head // (config.num_attention_heads // config.num_key_value_heads) * config.head_dim
    conv = module.conv1d if state_space(config, layer) == "mamba2" else module.v_conv1d
    return to_numpy(conv.weight.detach())[channel, 0]
