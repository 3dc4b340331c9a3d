"""Test films made here: smoke that drifts, waves that travel, a flame-like field."""

from __future__ import annotations

import numpy as np

from .._validate import Array, as_index

__all__ = ["FILMS", "film"]


def _grid(size: int) -> tuple[Array, Array]:
    return np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")


def _smooth_noise(count: int, size: int, width: float, rng: np.random.Generator) -> Array:
    """Periodic Gaussian fields [count, size, size] of unit variance with a Gaussian spectrum."""
    k = np.fft.fftfreq(size) * size
    envelope = np.exp(-(k[:, None] ** 2 + k[None, : size // 2 + 1] ** 2) / (2 * width**2))
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((count, size, size))) * envelope, s=(size, size))
    return fields / fields.std()


def _drifting(frames: int, size: int, rng: np.random.Generator, drift: float, width: float, memory: float) -> Array:
    """Noise carried upwards by ``drift`` rows a frame, renewed at the rate 1 - memory."""
    k = np.fft.fftfreq(size)[:, None]
    carry = np.exp(2j * np.pi * k * drift)
    fresh = np.fft.rfft2(_smooth_noise(frames, size, width, rng))
    state, out = fresh[0], np.empty((frames, size, size))
    for t in range(frames):
        state = memory * carry * state + np.sqrt(1 - memory**2) * fresh[t]
        out[t] = np.fft.irfft2(state, s=(size, size))
    return out


def _smoke(frames: int, size: int, rng: np.random.Generator) -> Array:
    return 0.5 + 0.15 * _drifting(frames, size, rng, 1.0, 2.0, 0.97)


def _waves(frames: int, size: int, rng: np.random.Generator) -> Array:
    """Plane waves that travel to the right, with amplitudes that wander."""
    _, x = _grid(size)
    y, _ = _grid(size)
    out = np.zeros((frames, size, size))
    for number, speed in ((1, 0.11), (2, 0.17), (3, 0.23)):
        wander = np.empty(frames, complex)
        a = (rng.standard_normal() + 1j * rng.standard_normal()) / np.sqrt(2)
        for t in range(frames):
            wander[t] = a
            a = 0.985 * np.exp(-1j * speed) * a + np.sqrt(1 - 0.985**2) * (
                rng.standard_normal() + 1j * rng.standard_normal()
            ) / np.sqrt(2)
        phase = np.exp(2j * np.pi * number * (x + 0.3 * y))
        out += np.real(wander[:, None, None] * phase) / number
    return 0.5 + 0.2 * out


def _flame(frames: int, size: int, rng: np.random.Generator) -> Array:
    """Noise that rises fast, under an envelope that narrows upwards."""
    rows, columns = _grid(size)
    height = 1 - rows
    envelope = np.exp(-(((columns - 0.5) / (0.12 + 0.25 * rows)) ** 2)) * np.exp(-1.5 * height)
    return envelope * (1 + 0.45 * _drifting(frames, size, rng, 2.0, 3.0, 0.93))


#: The films there are.
FILMS = {"smoke": _smoke, "waves": _waves, "flame": _flame}


def film(kind: str, *, frames: int = 200, size: int = 32, rng: int | np.random.Generator | None = 0) -> Array:
    """Make a test film.

    Parameters
    ----------
    kind : str
        "smoke" (noise that drifts upwards and renews itself), "waves" (plane waves that travel to the right) or "flame"
        (noise that rises fast under an envelope).
    frames : int
        Number of frames T.
    size : int
        Pixels a side.
    rng : int or numpy.random.Generator, optional
        Source of randomness.

    Returns
    -------
    ndarray [T, size, size]
        Brightness, about 0 to 1; row 0 is the top.

    Raises
    ------
    ValueError
        An unknown kind.

    Notes
    -----
    Each has a direction in time: run backwards, smoke falls and waves travel to the left.

    Examples
    --------
    >>> film("smoke", frames=3, size=8).shape
    (3, 8, 8)
    """
    if kind not in FILMS:
        raise ValueError(f"kind: expected one of {', '.join(FILMS)}, got {kind!r}")
    count, pixels = as_index(frames, "frames", 1, 10**6), as_index(size, "size", 4, 4096)
    return FILMS[kind](count, pixels, np.random.default_rng(rng))
