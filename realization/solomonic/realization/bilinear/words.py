"""Words over the letters 0 .. m: 0 stands for A, j for N_j."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._validate import Array, as_array, as_index, describe

__all__ = ["Kernel", "Word", "as_kernel", "as_word", "as_words", "words"]

Word = tuple[int, ...]
Kernel = Callable[[Word], Array]

_MOST_WORDS = 200_000


def words(letters: int, length: int) -> list[Word]:
    """Return all words of up to ``length`` letters, shortest first and in the order of the letters.

    Parameters
    ----------
    letters : int
        Number of letters; the words are tuples of ints from 0 to ``letters - 1``.
    length : int
        Longest word.

    Returns
    -------
    list of tuple of int
        :math:`1 + k + k^2 + \\dots + k^L` words, the empty one first.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        No letters, a negative length, or more than 200 000 words.

    Examples
    --------
    >>> words(2, 2)
    [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    """
    letters, length = as_index(letters, "letters", 1, 10**6), as_index(length, "length", 0, 10**6)
    count = length + 1 if letters == 1 else (letters ** (length + 1) - 1) // (letters - 1)
    if count > _MOST_WORDS:
        raise ValueError(
            f"length: {letters} letters have {count} words of up to {length} letters, expected at most {_MOST_WORDS}; "
            f"take shorter words, or a selection of words"
        )
    return [word for k in range(length + 1) for word in itertools.product(range(letters), repeat=k)]


def as_word(word: Any, letters: int, name: str = "word") -> Word:
    """Return a word as a tuple of ints after checking that its letters exist."""
    try:
        found = tuple(letter.__index__() for letter in np.asarray(word, dtype=object).ravel().tolist())
    except (AttributeError, TypeError) as error:
        raise TypeError(f"{name}: expected a sequence of letters (integers), got {describe(word)}") from error
    bad = [letter for letter in found if not 0 <= letter < letters]
    if bad:
        raise ValueError(
            f"{name}: expected letters from 0 to {letters - 1}, got {bad[0]} in {found[:20]}; 0 stands for A, j for N_j"
        )
    return found


def as_words(given: Any, letters: int, name: str) -> list[Word]:
    """Return a list of words from a length (all words up to it) or from the words themselves."""
    if hasattr(given, "__index__"):
        return words(letters, as_index(given, name, 0, 10**6))
    found = [as_word(word, letters, name) for word in given]
    if not found:
        raise ValueError(f"{name}: expected at least one word, got none")
    return found


def as_kernel(kernel: Any, inputs: int | None, outputs: int | None) -> tuple[Kernel, int, int]:
    """Return a checked, remembering kernel [p, m] of words, and m and p, from a system, a callable or a mapping."""
    owner = kernel if hasattr(kernel, "kernel") else None
    if owner is not None:
        kernel, inputs, outputs = owner.kernel, owner.inputs, owner.outputs
    if isinstance(kernel, Mapping):
        table = {as_word(word, 10**6, "kernel"): value for word, value in kernel.items()}
        if not table:
            raise ValueError("kernel: expected a mapping from words to arrays [p, m], got an empty one")
        if inputs is None or outputs is None:
            shape = np.atleast_2d(np.asarray(next(iter(table.values())))).shape
            outputs, inputs = (outputs or shape[0]), (inputs or shape[1])

        def look_up(word: Word) -> Any:
            if word not in table:
                raise ValueError(
                    f"kernel: no entry for the word {word}; give the kernels of all words that the words of rows and "
                    f"columns make (up to length 2 L + 1), or a smaller length"
                )
            return table[word]

        source: Callable[[Word], Any] = look_up
    elif callable(kernel):
        source = kernel
    else:
        raise TypeError(
            f"kernel: expected a system, a function of words or a mapping from words to arrays [p, m], got "
            f"{describe(kernel)}"
        )
    if inputs is None or outputs is None:
        raise TypeError("inputs, outputs: expected their numbers beside a kernel that is a function, got None")
    m, p = as_index(inputs, "inputs", 1, 10**6), as_index(outputs, "outputs", 1, 10**6)
    seen: dict[Word, Array] = {}

    def read(word: Word) -> Array:
        if word not in seen:
            value = as_array(source(word), f"kernel({word})", real=True)
            if value.size != p * m or value.ndim > 2 or (value.ndim == 2 and value.shape != (p, m)):
                raise ValueError(f"kernel({word}): expected shape [{p}, {m}], got {list(value.shape)}")
            seen[word] = value.reshape(p, m)
        return seen[word]

    return read, m, p
