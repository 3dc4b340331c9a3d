"""Records of inputs and outputs: checked once, in a form that every method reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._validate import Array, as_index, describe, to_numpy

__all__ = ["Records", "as_delay", "as_record", "as_records", "scaled"]

MISSING = ("error", "trim", "split")
# Relative size below which a channel counts as constant, and a correlation matrix as singular.
CONSTANT, COLLINEAR = 1e-12, 1e-12


@dataclass(frozen=True, eq=False)
class Records:
    """Records in the user's units; the inputs are aligned with the outputs, delays taken out.

    Parameters
    ----------
    y : tuple of ndarray [T_i, p]
        Outputs.
    u : tuple of ndarray [T_i, m]
        Inputs; m = 0 without any.
    """

    y: tuple[Array, ...]
    u: tuple[Array, ...]

    @property
    def outputs(self) -> int:
        return self.y[0].shape[1]

    @property
    def inputs(self) -> int:
        return self.u[0].shape[1]

    @property
    def samples(self) -> int:
        return sum(len(y) for y in self.y)

    def means(self) -> tuple[Array, Array]:
        """Means of outputs and inputs over all records."""
        return np.concatenate(self.y).mean(0), np.concatenate(self.u).mean(0)


def _several(value: Any) -> bool:
    """A list or tuple of arrays stands for several records; anything else for one."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(getattr(each, "ndim", 0) in (1, 2) and hasattr(each, "shape") for each in value)
    )


def as_record(value: Any, name: str) -> Array:
    """Return one record as a float64 array [T, channels]; NaN is let through, infinity is not."""
    array = to_numpy(value, name)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype} ({describe(value)})")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: expected shape [T] or [T, channels], got {list(array.shape)}")
    array = (array[:, None] if array.ndim == 1 else array).astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one sample and one channel, got shape {list(array.shape)}")
    if np.isinf(array).any():
        t, channel = np.argwhere(np.isinf(array))[0]
        raise ValueError(f"{name}: expected finite numbers, got infinity at sample {t}, channel {channel}")
    return array


def _parts(y: Array, u: Array, missing: str, where: str) -> list[tuple[Array, Array]]:
    """Cut a record at its missing samples, or say where they are."""
    lost = ~np.isfinite(np.hstack([y, u]).sum(axis=1, keepdims=True))[:, 0]
    if not lost.any():
        return [(y, u)]
    name, array = ("y", y) if np.isnan(y).any() else ("u", u)
    t, channel = np.argwhere(np.isnan(array))[0]
    place = f"{name}: got NaN at sample {t}, channel {channel}{where} ({int(lost.sum())} samples with NaN in all)"
    if missing == "error":
        raise ValueError(
            f"{place}; expected finite numbers. Mark missing samples by NaN and say missing='trim' (leaves them out at "
            f"both ends of a record) or missing='split' (also cuts a record in two where samples are missing inside)"
        )
    kept = np.flatnonzero(~lost)
    if kept.size == 0:
        raise ValueError(f"{place}; expected a record with samples in it")
    inside = lost[kept[0] : kept[-1] + 1]
    if missing == "trim" and inside.any():
        t = kept[0] + np.flatnonzero(inside)[0]
        raise ValueError(
            f"y, u: expected samples to be missing only at the ends of a record (missing='trim'), got a gap at sample "
            f"{t}{where}; missing='split' cuts the record there"
        )
    cuts = np.flatnonzero(np.diff(kept) > 1) + 1
    return [(y[run], u[run]) for run in np.split(kept, cuts)]


def as_delay(delay: Any, inputs: int) -> tuple[int, ...]:
    """Return the delays of the inputs as a tuple; one number stands for all."""
    if isinstance(delay, (list, tuple, np.ndarray)):
        if len(delay) != inputs:
            raise ValueError(f"delay: expected one integer, or one for each of {inputs} inputs, got {len(delay)}")
        return tuple(as_index(each, "delay", 0, 10**9) for each in delay)
    return (as_index(delay, "delay", 0, 10**9),) * inputs


def as_records(y: Any, u: Any = None, *, missing: str = "error", delay: Any = 0) -> Records:
    """Check outputs and inputs, cut at missing samples, and take the delays out.

    ``y`` and ``u`` are arrays, or lists of arrays, one a record.
    """
    if missing not in MISSING:
        raise ValueError(f"missing: expected one of {', '.join(MISSING)}, got {missing!r}")
    many = _several(y)
    ys = [as_record(each, f"y[{i}]" if many else "y") for i, each in enumerate(y if many else [y])]
    if u is None:
        us = [np.empty((len(each), 0)) for each in ys]
    else:
        if many != _several(u):
            raise TypeError(
                f"u: expected {'a list with one array a record, like y' if many else 'one array, like y'}, "
                f"got {describe(u)}"
            )
        if many and len(u) != len(ys):
            raise ValueError(f"u: expected {len(ys)} records, as many as y has, got {len(u)}")
        us = [as_record(each, f"u[{i}]" if many else "u") for i, each in enumerate(u if many else [u])]
    for name, arrays in (("y", ys), ("u", us)):
        widths = sorted({each.shape[1] for each in arrays})
        if len(widths) > 1:
            raise ValueError(f"{name}: expected the same channels in every record, got {widths}")
    delays = as_delay(delay, us[0].shape[1])
    first = max(delays, default=0)
    parts: list[tuple[Array, Array]] = []
    for i, (a, b) in enumerate(zip(ys, us, strict=True)):
        where = f" of record {i}" if many else ""
        if len(a) != len(b):
            raise ValueError(f"u: expected {len(a)} samples{where}, as many as y has, got {len(b)}")
        if len(a) <= first:
            raise ValueError(f"delay: expected delays shorter than the record ({len(a)} samples{where}), got {first}")
        if first:
            b = np.stack([b[first - d : len(b) - d, j] for j, d in enumerate(delays)], 1)
            a = a[first:]
        parts += _parts(a, b, missing, where)
    return Records(tuple(a for a, _ in parts), tuple(b for _, b in parts))


def scaled(records: Records, center: bool) -> tuple[Records, Array, Array, Array, Array]:
    """Take out means (where asked) and bring channels to unit size; refuse constant and collinear channels.

    Returns the records and (mean, size) of the outputs and of the inputs.
    """
    out: list[tuple[tuple[Array, ...], Array, Array]] = []
    for name, arrays in (("y", records.y), ("u", records.u)):
        joined = np.concatenate(arrays)
        if len(joined) < 2:
            raise ValueError(f"{name}: expected at least 2 samples, got {len(joined)}")
        mean = joined.mean(0) if center else np.zeros(joined.shape[1])
        spread = joined.std(0)
        size = spread if center else np.sqrt((joined**2).mean(0))
        flat = spread <= CONSTANT * np.abs(joined).max(0, initial=0.0)
        if flat.any():
            raise ValueError(
                f"{name}: expected channels that vary, got constant channel(s) {np.flatnonzero(flat).tolist()}; leave "
                f"them out (an offset is estimated by center=True)"
            )
        normal = (joined - mean) / size
        if normal.shape[1] > 1:
            values, vectors = np.linalg.eigh(normal.T @ normal / len(normal))
            rank = int(np.sum(values > COLLINEAR * values[-1]))
            if rank < len(values):
                involved = np.flatnonzero(np.abs(vectors[:, :-rank]).max(1) > 1e-6).tolist()
                raise ValueError(
                    f"{name}: expected linearly independent channels, got {len(values)} channels of rank {rank}; "
                    f"channels {involved} are linear combinations of each other: leave {len(values) - rank} out"
                )
        out.append((tuple((each - mean) / size for each in arrays), mean, size))
    (ys, y_mean, y_size), (us, u_mean, u_size) = out
    return Records(ys, us), y_mean, y_size, u_mean, u_size
