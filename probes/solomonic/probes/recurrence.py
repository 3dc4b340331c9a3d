"""The recurrence of a state space head, step by step in float64: what a trace is checked against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["Realization", "readout", "states"]


class Realization(NamedTuple):
    """The arrays of a recurrence, float64.

    Attributes
    ----------
    log_decay : ndarray
        [prompts, T, H], or [prompts, T, H, N] with a decay a state.
    write, read : ndarray
        [prompts, T, H, N].
    D : ndarray
        [H].
    u : ndarray
        [prompts, T, H, P].
    h0 : ndarray
        The state before the first token [prompts, H, P, N].
    key : ndarray or None
        [prompts, T, H, N]: what is held under it is taken out before the write.
    """

    log_decay: np.ndarray
    write: np.ndarray
    read: np.ndarray
    D: np.ndarray
    u: np.ndarray
    h0: np.ndarray
    key: np.ndarray | None = None


def steps(
    log_decay: np.ndarray, write: np.ndarray, u: np.ndarray, h0: np.ndarray, key: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The state [B, H, P, N] after each token, in one buffer that the next step overwrites.

    h_t = exp(log_decay_t) (h_{t-1} - h_{t-1} key_t write_t') + u_t write_t', with log_decay [B, T, H] or, a decay a
    state, [B, T, H, N], write and key [B, T, H, N] and u [B, T, H, P]; nothing is taken out without a key.
    """
    h = h0.astype(np.float64, copy=True)
    decay = np.exp(log_decay)
    decay = decay[..., None, None] if decay.ndim == 3 else decay[..., None, :]
    product = np.empty_like(h)
    for t in range(u.shape[1]):
        if key is not None:
            held = np.matmul(h, key[:, t, :, :, None])
            np.multiply(held, write[:, t, :, None, :], out=product)
            h -= product
        h *= decay[:, t]
        np.multiply(u[:, t, :, :, None], write[:, t, :, None, :], out=product)
        h += product
        yield h


def readout(
    log_decay: np.ndarray,
    write: np.ndarray,
    read: np.ndarray,
    D: np.ndarray,
    u: np.ndarray,
    h0: np.ndarray,
    key: np.ndarray | None = None,
) -> np.ndarray:
    """y_t = h_t read_t + D u_t, [B, T, H, P]."""
    y = u * D[:, None]
    for t, h in enumerate(steps(log_decay, write, u, h0, key)):
        y[:, t] += np.matmul(h, read[:, t, :, :, None])[..., 0]
    return y


def states(
    log_decay: np.ndarray,
    write: np.ndarray,
    u: np.ndarray,
    h0: np.ndarray,
    times: np.ndarray,
    key: np.ndarray | None = None,
) -> np.ndarray:
    """The states [B, len(times), H, P, N] after the tokens ``times``."""
    wanted: dict[int, list[int]] = {}
    for place, t in enumerate(times):
        wanted.setdefault(int(t), []).append(place)
    batch, _, heads, channels = u.shape
    out = np.empty((batch, len(times), heads, channels, write.shape[-1]))
    last = max(wanted)
    for t, h in enumerate(steps(log_decay, write, u, h0, key)):
        for place in wanted.get(t, ()):
            out[:, place] = h
        if t == last:
            break
    return out
