"""Numbers and lists as one says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from ..plots._style import power

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count(n: int, thing: str, plural: str | None = None) -> str:
    """A number of things, in words up to twelve.

    >>> count(1, "layer"), count(4, "memory", "memories"), count(48, "window")
    ('one layer', 'four memories', '48 windows')
    """
    word = _WORDS[n] if 0 <= n < len(_WORDS) else f"{n:,}"
    return f"{word} {thing if n == 1 else plural or thing + 's'}"


def listed(items: Sequence[str]) -> str:
    """Items with commas and an "and" before the last.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def small(value: float, unit: str = "") -> str:
    """A number that may be very small, with two digits.

    >>> [v.replace("\u00a0", " ") for v in (small(3.1e-14, "bits"), small(0.0, "bits"), small(0.047))]
    ['3.1 × 10⁻¹⁴ bits', 'exactly 0.0 bits', '0.047']
    """
    unit = f"\u00a0{unit}" if unit else ""
    if value == 0:
        return f"exactly 0.0{unit}"
    if not math.isfinite(value):
        return f"{'no number' if math.isnan(value) else 'infinitely many'}{unit}"
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent <= 3:
        return f"{float(f'{value:.2g}'):,.{max(0, 1 - exponent)}f}{unit}"
    mantissa = f"{value / 10.0**exponent:.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return f"{mantissa}\u00a0×\u00a0{power(exponent)}{unit}"


def times(factor: float) -> str:
    """A factor.

    >>> [times(v) for v in (0.947, 2.128, 47.3, 3101.0)]
    ['0.95', '2.1', '47', '3,100']
    """
    if not math.isfinite(factor):
        return "?"
    if factor < 1:
        return f"{factor:.2f}"
    return f"{factor:.1f}" if factor < 9.95 else f"{float(f'{factor:.2g}'):,.0f}" if factor < 1e5 else small(factor)


def share(value: float) -> str:
    """A share in per cent.

    >>> [share(v).replace("\u00a0", " ") for v in (0.0, 0.004, 0.31, 1.0)]
    ['0 %', '0.4 %', '31 %', '100 %']
    """
    percent = 100 * value
    return f"{percent:.{1 if 0 < percent < 1 or 99 < percent < 100 else 0}f}\u00a0%"


def nbytes(value: float) -> str:
    """Bytes with a prefix.

    >>> [nbytes(v).replace("\u00a0", " ") for v in (65536, 33554432, 12)]
    ['64 KiB', '32 MiB', '12 B']
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.3g}\u00a0{unit}" if value < 1000 else f"{value:,.0f}\u00a0{unit}"


def pattern(symbols: Sequence[str]) -> str:
    """Layers with repetitions counted.

    >>> [pattern(p).replace("\u00a0", " ") for p in (["SWA"] * 4, ["*", "BMF", "BMF", "*"])]
    ['4 × SWA', '* – 2 × BMF – *']
    """
    runs = [(symbol, len(list(group))) for symbol, group in groupby(symbols)]
    return " – ".join(symbol if n == 1 else f"{n}\u00a0×\u00a0{symbol}" for symbol, n in runs)
