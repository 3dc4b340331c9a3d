"""Associative recall: which value stood behind this key?"""

from __future__ import annotations

import numpy as np

from .rows import TaskRows, blank, positive, rows


def mqar(
    batch: int,
    *,
    length: int = 128,
    pairs: int = 4,
    queries: int = 4,
    keys: int = 32,
    values: int = 32,
    places: str = "random",
    noise: bool = False,
    rng: int | np.random.Generator | None = None,
) -> TaskRows:
    """Multi-query associative recall: pairs of key and value, and later each key again, several times.

    Tokens are 0 (filler), 1 .. keys, and keys + 1 .. keys + values. The value is asked at the repeated key, and is
    not shown there.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    pairs : int
        Pairs of a row, their keys all different.
    queries : int
        How often each key is repeated.
    keys, values : int
        How many keys and values there are.
    places : str
        ``"random"``: pairs lie anywhere in the first half, so that they cannot be told by where they are;
        ``"first"``: they come first, one behind the other.
    noise : bool
        Whether the filler is random keys (of no pair in the row) and values instead of one token, so that rarity tells
        nothing.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows

    Raises
    ------
    ValueError
        If the numbers do not fit into a row, or ``places`` is unknown.

    References
    ----------
    Arora et al., "Zoology" (arXiv 2312.04927), section 3; queries are placed uniformly here.

    Examples
    --------
    >>> from solomonic.models.tasks import mqar
    >>> row = mqar(1, length=12, pairs=2, queries=1, keys=4, values=4, rng=0)
    >>> row.ids[0].tolist(), row.targets[0, -3:].tolist()
    ([3, 6, 0, 0, 1, 5, 0, 0, 0, 1, 3, 0], [5, 6, -100])
    """
    positive(batch=batch, length=length, pairs=pairs, queries=queries, keys=keys, values=values)
    if places not in ("random", "first"):
        raise ValueError(f"places: expected 'random' or 'first', got {places!r}")
    head = 2 * pairs if places == "first" else max(length // 2, 2 * pairs)
    if pairs > keys - noise or head + pairs * queries > length:
        raise ValueError(
            f"pairs, queries: {pairs} pairs and {pairs * queries} queries need {keys - noise} >= pairs keys and "
            f"{head + pairs * queries} tokens, got {keys} keys and length = {length}"
        )
    rng = np.random.default_rng(rng)
    ids = np.zeros((batch, length), dtype=np.int64)
    targets, lags = blank(batch, length)
    for row in range(batch):
        order = rng.permutation(keys) + 1
        chosen, others = order[:pairs], order[pairs:]
        value = rng.integers(values, size=pairs) + keys + 1
        if noise:
            shown = rng.random(length) < 0.5
            ids[row] = np.where(shown, rng.choice(others, length), rng.integers(values, size=length) + keys + 1)
        # Gaps before the pairs: distinct numbers in order, less their rank, are where the free tokens are cut.
        start = 2 * np.arange(pairs)
        if places == "random":
            start = start + np.sort(rng.choice(head - pairs, pairs, replace=False)) - np.arange(pairs)
        ids[row, start], ids[row, start + 1] = chosen, value
        slots = rng.choice(np.arange(head, length), pairs * queries, replace=False)
        which = np.repeat(np.arange(pairs), queries)
        ids[row, slots], targets[row, slots] = chosen[which], value[which]
        lags[row, slots] = slots - (start[which] + 1)
    return rows(ids, targets, lags, keys + values + 1)


def noisy_mqar(batch: int, **options) -> TaskRows:
    """:func:`mqar` between random keys and values instead of a filler.

    Parameters
    ----------
    batch : int
        Rows.
    **options
        As for :func:`mqar`.

    Returns
    -------
    TaskRows

    Examples
    --------
    >>> from solomonic.models.tasks import noisy_mqar
    >>> (noisy_mqar(4, rng=0).ids > 0).all().item()
    True
    """
    return mqar(batch, **{**options, "noise": True})


def fuzzy_recall(
    batch: int,
    *,
    length: int = 128,
    pairs: int = 4,
    queries: int = 1,
    key_length: int = 2,
    value_length: int = 2,
    keys: int = 16,
    values: int = 16,
    rng: int | np.random.Generator | None = None,
) -> TaskRows:
    """Recall with keys and values of several tokens, which share tokens with each other.

    A pair is its key tokens and its value tokens; a query is the key tokens again, and then the value tokens, each
    asked for at the token before it.

    Parameters
    ----------
    batch, length : int
        Rows, and tokens of a row.
    pairs, queries : int
        Pairs of a row, their keys all different as a whole, and how often each is asked for.
    key_length, value_length : int
        Tokens of a key and of a value.
    keys, values : int
        How many tokens there are for keys and for values.
    rng : int, Generator or None
        Seed.

    Returns
    -------
    TaskRows

    Raises
    ------
    ValueError
        If the numbers do not fit into a row.

    References
    ----------
    Poli et al., "Mechanistic design and scaling of hybrid architectures" (arXiv 2403.17844), section 4.

    Examples
    --------
    >>> from solomonic.models.tasks import fuzzy_recall
    >>> row = fuzzy_recall(1, length=16, pairs=2, keys=3, values=3, rng=0)
    >>> row.ids[0].tolist()
    [1, 3, 4, 4, 3, 2, 4, 4, 3, 2, 4, 4, 1, 3, 4, 4]
    """
    positive(batch=batch, length=length, pairs=pairs, queries=queries, key_length=key_length)
    positive(value_length=value_length, keys=keys, values=values)
    unit = key_length + value_length
    units = pairs * (1 + queries)
    if units * unit > length or pairs > keys**key_length:
        raise ValueError(
            f"pairs, queries: {pairs} pairs and {pairs * queries} queries of {unit} tokens need {units * unit} tokens "
            f"and {pairs} different keys, got length = {length} and {keys**key_length} keys"
        )
    rng = np.random.default_rng(rng)
    ids = np.zeros((batch, length), dtype=np.int64)
    targets, lags = blank(batch, length)
    for row in range(batch):
        code = rng.choice(keys**key_length, pairs, replace=False)
        key = code[:, None] // keys ** np.arange(key_length) % keys + 1
        value = rng.integers(values, size=(pairs, value_length)) + keys + 1
        start = unit * np.arange(units) + np.sort(rng.integers(length - units * unit + 1, size=units))
        which = np.concatenate([np.arange(pairs), rng.permutation(np.repeat(np.arange(pairs), queries))])
        seen: dict[int, int] = {}
        for at, pair in zip(start, which, strict=True):
            ids[row, at : at + key_length] = key[pair]
            ids[row, at + key_length : at + unit] = value[pair]
            if pair in seen:
                asked = slice(at + key_length - 1, at + unit - 1)
                targets[row, asked] = value[pair]
                lags[row, asked] = at - 1 - seen[pair]
            seen[pair] = at
    return rows(ids, targets, lags, keys + values + 1)
