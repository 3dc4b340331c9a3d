"""Text that is on every machine: the Python standard library's own source, woven with lines that refer back."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: Folders of the standard library that are left out: tests, bundled third parties, and near-duplicate tables that
#: flatter a score.
LEFT_OUT = frozenset(
    ("test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "encodings", "pydoc_data", "_bundled")
)

_CONSONANTS, _VOWELS = "bdfghklmnprstvz", "aeiou"
_DIGITS = 3


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Bytes to train on and to validate with.

    Parameters
    ----------
    train, validation : ndarray of uint8
        The woven text; files are separated by a zero byte.
    validation_plain : ndarray of uint8
        The validation files as they are, without woven lines.
    recall : ndarray of int64, [n, 2]
        For the woven validation text: position of each byte of a value that is referred back to, and its distance
        in bytes from where that value last stood.
    info : dict
        Files, bytes, share of woven lines and the SHA-256 of the training bytes.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from solomonic.models import stdlib_corpus
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abcdefghijklmnop":
    ...     _ = (folder / f"{name}.py").write_text("y = 2\\n" * 400)
    >>> corpus = stdlib_corpus(root=folder, woven=0)
    >>> bytes(corpus.train[:6])
    b'y = 2\\n'
    """

    train: np.ndarray
    validation: np.ndarray
    validation_plain: np.ndarray
    recall: np.ndarray
    info: dict

    def batches(self, batch_size: int, context: int, *, seed: int = 0) -> Callable[[int], Tensor]:
        """Training batches as a function of the step: token ids [``batch_size``, ``context`` + 1], drawn with ``seed``.

        Being a pure function of (seed, step), it gives a resumed run the batches it would have had.
        """
        if len(self.train) <= context + 1:
            raise ValueError(f"context: expected less than the {len(self.train)} bytes of the corpus, got {context}")

        def batch(step: int) -> Tensor:
            starts = np.random.default_rng([seed, step]).integers(len(self.train) - context, size=batch_size)
            rows = self.train[starts[:, None] + np.arange(context + 1)]
            return torch.from_numpy(rows.astype(np.int64))

        return batch

    def __repr__(self) -> str:
        return f"Corpus({len(self.train):,} bytes to train, {len(self.validation_plain):,} to validate)"


def stdlib_corpus(*, woven: float = 0.1, seed: int = 0, root: str | Path | None = None) -> Corpus:
    """The source of the standard library, split by file, with a share of lines that refer back.

    A woven line defines a name (``# kemu = 481``); later ones, 32 to 400 bytes after it, use it (``# kemu -> 481``).
    Plain source rewards little beyond 64 bytes; these lines reward memory of hundreds.

    Parameters
    ----------
    woven : float
        Share of the bytes that are woven lines, in [0, 0.5].
    seed : int
        Of names, values and distances.
    root : path or None
        Folder to read; the running Python's standard library by default. One file in twelve, by the hash of its path,
        is for validation.

    Returns
    -------
    Corpus

    Raises
    ------
    FileNotFoundError
        If the folder holds no source.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abcdefghijklmnop":
    ...     _ = (folder / f"{name}.py").write_text("x = 1\\n" * 400)
    >>> corpus = stdlib_corpus(root=folder, woven=0.2)
    >>> corpus.batches(2, 16)(0).shape
    torch.Size([2, 17])
    """
    if not 0 <= woven <= 0.5:
        raise ValueError(f"woven: expected a share in [0, 0.5], got {woven}")
    split = _split(root)
    # The order of the files must not put neighbours (a package's modules) side by side only.
    order = np.random.default_rng([seed, 0]).permutation(len(split[False]))
    train, _ = weave(b"\0".join(split[False][i] for i in order), woven, np.random.default_rng([seed, 1]))
    plain = b"\0".join(split[True])
    validation, recall = weave(plain, woven, np.random.default_rng([seed, 2]))
    info = {
        "source": "Python standard library, .py files",
        "left_out": sorted(LEFT_OUT),
        "files": {"train": len(split[False]), "validation": len(split[True])},
        "bytes": {"train": len(train), "validation": len(validation), "validation_plain": len(plain)},
        "woven_share": woven,
        "seed": seed,
        "sha256_train": hashlib.sha256(train).hexdigest(),
    }
    return Corpus(_array(train), _array(validation), _array(plain), recall, info)


def stdlib_validation(*, root: str | Path | None = None) -> np.ndarray:
    """The validation files of :func:`stdlib_corpus` as they are, without weaving the rest of the corpus.

    Parameters
    ----------
    root : path or None
        Folder to read; the running Python's standard library by default.

    Returns
    -------
    ndarray of uint8
        The files, separated by a zero byte: ``stdlib_corpus(root=root).validation_plain``.

    Raises
    ------
    FileNotFoundError
        If the folder holds no source.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from solomonic.models import stdlib_validation
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abcdefghijklmnop":
    ...     _ = (folder / f"{name}.py").write_text("x = 1\\n" * 400)
    >>> bytes(stdlib_validation(root=folder)[:6])
    b'x = 1\\n'
    """
    return _array(b"\0".join(_split(root)[True]))


def _split(root: str | Path | None) -> dict[bool, list[bytes]]:
    """The files to train on (False) and those that are held out (True)."""
    root = Path(root or sysconfig.get_paths()["stdlib"])
    files = sorted(
        p.relative_to(root) for p in root.rglob("*.py") if not LEFT_OUT & set(p.relative_to(root).parts[:-1])
    )
    split: dict[bool, list[bytes]] = {False: [], True: []}
    for file in files:
        held_out = int(hashlib.md5(file.as_posix().encode()).hexdigest(), 16) % 12 == 0
        split[held_out].append((root / file).read_bytes())
    if not split[False] or not split[True]:
        raise FileNotFoundError(f"{root}: found {len(files)} .py files, too few to split into training and validation")
    return split


def weave(text: bytes, share: float, rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Put lines that refer back between the lines of a text.

    Each name is defined once and used three times, at distances from 32 to 400 bytes (log-uniform) from the line
    before. Returns the text and an array [n, 2]: position of each byte of a used value, and its distance in bytes
    from where it last stood.
    """
    if share == 0:
        return text, np.zeros((0, 2), dtype=np.int64)
    out: list[bytes] = []
    size = woven = 0
    due: list[tuple[int, bytes, bytes, int, int]] = []  # (when, name, value, position of its last value, uses left)
    recall: list[tuple[int, int]] = []
    for line in text.splitlines(keepends=True):
        out.append(line)
        size += len(line)
        if woven < share * size and len(due) < 6:
            name = "".join(rng.choice(list(part)) for part in (_CONSONANTS, _VOWELS) * 2).encode()
            value = str(rng.integers(10 ** (_DIGITS - 1), 10**_DIGITS)).encode()
            out.append(b"# %s = %s\n" % (name, value))
            written = len(out[-1])
            due.append((size + _distance(rng), name, value, size + written - 1 - _DIGITS, 3))
            size += written
            woven += written
        for item in [d for d in due if d[0] <= size]:
            due.remove(item)
            _, name, value, stood, uses = item
            out.append(b"# %s -> %s\n" % (name, value))
            here = size + len(out[-1]) - 1 - _DIGITS
            recall.extend((here + i, here - stood) for i in range(_DIGITS))
            size += len(out[-1])
            woven += len(out[-1])
            if uses > 1:
                due.append((size + _distance(rng), name, value, here, uses - 1))
    return b"".join(out), np.array(recall, dtype=np.int64).reshape(-1, 2)


def _distance(rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(np.log(32), np.log(400))))


def _array(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8)
