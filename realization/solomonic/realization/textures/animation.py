"""A film in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .._npz import replace_whole
from .._validate import as_array, as_number

__all__ = ["save_animation"]


def save_animation(
    film: Any, path: str | os.PathLike[str], *, fps: float = 15.0, cmap: str = "gray", scale: int = 4
) -> Path:
    """Write a film as an animated GIF.

    Parameters
    ----------
    film : array_like [T, H, W] or [T, H, W, 3]
        Frames; grey values are mapped from their 1st to their 99th percentile, colours are clipped to 0 .. 1.
    path : str or path
        The file, with suffix .gif; written whole or not at all.
    fps : float
        Frames a second, rounded, at least 1.
    cmap : str
        Colour map of grey films (matplotlib).
    scale : int
        Each pixel becomes a square of this many pixels.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        Another shape, another suffix, NaN.

    Notes
    -----
    matplotlib writes the file.

    Examples
    --------
    >>> save_animation(np.zeros((3, 8, 8)), "film.gif")  # doctest: +SKIP
    """
    from matplotlib import animation, colormaps
    from matplotlib.figure import Figure

    array = as_array(film, "film", ndim=(3, 4), real=True)
    if array.ndim == 4 and array.shape[3] != 3:
        raise ValueError(f"film: expected shape [T, H, W] or [T, H, W, 3], got {list(array.shape)}")
    target = Path(path)
    if target.suffix != ".gif":
        raise ValueError(f"path: expected a file name that ends in .gif, got {str(path)!r}")
    rate = as_number(fps, "fps", "a number of frames a second of at least 1", lambda x: x >= 1)
    if array.ndim == 3:
        low, high = np.percentile(array, [1, 99])
        array = colormaps[cmap]((array - low) / max(high - low, 1e-12))[..., :3]
    pixels = np.clip(array, 0, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    figure = Figure(figsize=(pixels.shape[2] / 100, pixels.shape[1] / 100), dpi=100)
    picture = figure.figimage(pixels[0])
    writer = animation.PillowWriter(fps=round(rate))
    with replace_whole(target) as beside, writer.saving(figure, str(beside), dpi=100):
        for frame in pixels:
            picture.set_data(frame)
            writer.grab_frame()
    return target
