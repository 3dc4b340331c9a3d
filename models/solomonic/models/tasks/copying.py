"""Copying what was marked, and what followed last time."""

from __future__ import annotations

import numpy as np

from .rows import TaskRows, blank, positive, rows


def selective_copying(
    batch: int,
    *,
    length: int = 128,
    marked: int = 8,
    symbols: int = 16,
    rng: int | np.random.Generator | None = None,
) -> TaskRows:
    """Symbols at random places among blanks, and then as many prompts: say the symbols in their order.

    Tokens are 0 (blank), 1 (prompt) and 2 .. symbols + 1.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    marked : int
        Symbols of a row, and prompts at its end.
    symbols : int
        How many symbols there are.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows

    Raises
    ------
    ValueError
        If the symbols do not fit into a row.

    References
    ----------
    Gu and Dao, "Mamba" (arXiv 2312.00752), section 3.1.

    Examples
    --------
    >>> from solomonic.models.tasks import selective_copying
    >>> row = selective_copying(1, length=9, marked=2, symbols=4, rng=0)
    >>> row.ids[0].tolist(), row.targets[0, -2:].tolist()
    ([0, 0, 0, 0, 3, 3, 0, 1, 1], [3, 3])
    """
    positive(batch=batch, length=length, marked=marked, symbols=symbols)
    if 2 * marked > length:
        raise ValueError(
            f"marked: {marked} symbols and as many prompts need {2 * marked} tokens, got length = {length}"
        )
    rng = np.random.default_rng(rng)
    ids = np.zeros((batch, length), dtype=np.int64)
    targets, lags = blank(batch, length)
    where = np.sort(np.stack([rng.choice(length - marked, marked, replace=False) for _ in range(batch)]), 1)
    symbol = rng.integers(symbols, size=(batch, marked)) + 2
    np.put_along_axis(ids, where, symbol, 1)
    ids[:, -marked:], targets[:, -marked:] = 1, symbol
    lags[:, -marked:] = np.arange(length - marked, length) - where
    return rows(ids, targets, lags, symbols + 2)


def induction_heads(
    batch: int,
    *,
    length: int = 128,
    symbols: int = 16,
    rng: int | np.random.Generator | None = None,
) -> TaskRows:
    """Random symbols with one marker at a random place; at the end the marker again: what followed it?

    Tokens are 0 .. symbols - 1, and the marker.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    symbols : int
        How many symbols there are.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows

    Raises
    ------
    ValueError
        If a row has fewer than 3 tokens.

    References
    ----------
    Olsson et al., "In-context learning and induction heads" (2022); Gu and Dao, "Mamba" (arXiv 2312.00752),
    section 4.1.2.

    Examples
    --------
    >>> from solomonic.models.tasks import induction_heads
    >>> row = induction_heads(1, length=8, symbols=4, rng=0)
    >>> row.ids[0].tolist(), row.targets[0, -1].item()
    ([3, 4, 2, 1, 1, 0, 0, 4], 2)
    """
    positive(batch=batch, length=length, symbols=symbols)
    if length < 3:
        raise ValueError(f"length: expected at least 3 tokens, got {length}")
    rng = np.random.default_rng(rng)
    ids = rng.integers(symbols, size=(batch, length))
    targets, lags = blank(batch, length)
    where, row = rng.integers(length - 2, size=batch), np.arange(batch)
    ids[row, where] = ids[:, -1] = symbols
    targets[:, -1], lags[:, -1] = ids[row, where + 1], length - 1 - (where + 1)
    return rows(ids, targets, lags, symbols + 1)
