"""Rational series: weighted automata, which are bilinear systems read letter by letter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._html import table
from .._results import Result
from .._validate import Array, as_array, describe, frozen
from ..equivalence import Equivalence
from . import _lyapunov
from .system import BilinearSystem
from .words import Word, as_word

__all__ = ["RationalSeries"]


@dataclass(frozen=True, eq=False)
class RationalSeries(Result):
    r"""A function of strings that a weighted automaton computes, which is also a linear second-order RNN.

    .. math:: f(w_1 \dots w_T) = \alpha^T M_{w_1} M_{w_2} \cdots M_{w_T}\, \omega, \qquad
              f(u_1, \dots, u_T) = \alpha^T \Bigl(\prod_t \sum_j u_{t,j} M_j\Bigr) \omega .

    Parameters
    ----------
    initial : array_like [n]
        :math:`\alpha`, the initial weights.
    transitions : array_like [k, n, n]
        :math:`M_j`, one matrix a letter.
    final : array_like [n]
        :math:`\omega`, the final weights.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        Shapes that do not fit, NaN or infinite.

    Notes
    -----
    A function of strings is computed by some automaton exactly where its Hankel matrix, f(v w) at (v, w), has finite
    rank, and the rank is the least number of states. It is the theorem on bilinear systems: letters in place of A and
    N_j, :math:`\omega` in place of B, :math:`\alpha` in place of C.

    References
    ----------
    .. [1] J. W. Carlyle, A. Paz, *Realizations by stochastic finite automata*, J. Comput. Syst. Sci. 5 (1971) 26.
    .. [2] G. Rabusseau, T. Li, D. Precup, *Connecting weighted automata and recurrent neural networks through spectral
       learning*, AISTATS 2019, arXiv:1807.01406.

    Examples
    --------
    Half of the probability goes to the end after each letter, the rest is shared by the two letters:

    >>> import numpy as np
    >>> coin = RationalSeries([1.0], np.full((2, 1, 1), 0.25), [0.5])
    >>> coin.evaluate([(), (0,), (0, 1)])
    array([0.5    , 0.125  , 0.03125])
    >>> coin.total()
    1.0
    """

    initial: Any
    transitions: Any
    final: Any

    def __post_init__(self) -> None:
        alpha = as_array(self.initial, "initial", ndim=1, real=True, allow_empty=True)
        n = len(alpha)
        letters = as_array(self.transitions, "transitions", shape=("k", n, n), real=True, allow_empty=True)
        if len(letters) == 0:
            raise ValueError(
                f"transitions: expected at least one letter, shape [k, {n}, {n}], got {list(letters.shape)}"
            )
        omega = as_array(self.final, "final", shape=(n,), real=True, allow_empty=True)
        for name, value in (("initial", alpha), ("transitions", letters), ("final", omega)):
            object.__setattr__(self, name, frozen(value))

    def __repr__(self) -> str:
        return f"RationalSeries(order={self.order}, letters={self.alphabet})"

    def _repr_html_(self) -> str:
        rows = [
            (str(j), f"{np.linalg.norm(m):.3g}", f"{np.abs(np.linalg.eigvals(m)).max(initial=0):.3g}")
            for j, m in enumerate(self.transitions[:20])
        ]
        return table(("letter", "Frobenius norm", "spectral radius"), rows, caption=repr(self))

    # ---------------------------------------------------------------- sizes
    @property
    def order(self) -> int:
        """Number of states n."""
        return len(self.initial)

    @property
    def alphabet(self) -> int:
        """Number of letters k."""
        return len(self.transitions)

    @property
    def inputs(self) -> int:
        """Inputs of the bilinear system with these kernels that reads one letter as A: k - 1 in N, 1 in B."""
        return 1

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    # ---------------------------------------------------------------- values
    def evaluate(self, strings: Iterable[Any]) -> Array:
        """Return the values of strings.

        Parameters
        ----------
        strings : iterable of sequences of int
            The ``strings``, of letters 0 .. k - 1; the empty one is allowed.

        Returns
        -------
        ndarray [count]
            f of each string.

        Notes
        -----
        Strings are sorted, and equal beginnings are computed once.
        """
        names = [as_word(word, self.alphabet, "strings") for word in strings]
        out = np.empty(len(names))
        stack: list[Array] = [self.initial]
        before: Word = ()
        for at in sorted(range(len(names)), key=names.__getitem__):
            word = names[at]
            same = 0
            while same < min(len(word), len(before)) and word[same] == before[same]:
                same += 1
            del stack[same + 1 :]
            for letter in word[same:]:
                stack.append(stack[-1] @ self.transitions[letter])
            out[at] = stack[-1] @ self.final
            before = word
        return out

    def kernel(self, word: Any) -> Array:
        """Return f(``word``) as an array [1, 1]: the series as the kernel of a bilinear system."""
        return self.evaluate([word]).reshape(1, 1)

    def of_vectors(self, u: Any) -> Array:
        r"""Return the values of sequences of vectors: the linear second-order RNN.

        .. math:: h_t = h_{t-1} \sum_j u_{t,j} M_j, \qquad f = h_T\, \omega .

        Parameters
        ----------
        u : array_like [T, k] or [runs, T, k]
            The vectors; unit vectors spell a string.

        Returns
        -------
        float or ndarray [runs]
            The values.
        """
        u = as_array(u, "u", ndim=(2, 3), real=True, allow_empty=True)
        if u.shape[-1] != self.alphabet:
            raise ValueError(f"u: expected vectors of {self.alphabet} letters, got shape {list(u.shape)}")
        runs = u[None] if u.ndim == 2 else u
        h = np.repeat(self.initial[None], len(runs), 0)
        for t in range(runs.shape[1]):
            h = np.einsum("rn,rk,knm->rm", h, runs[:, t], self.transitions, optimize=True)
        out = h @ self.final
        return out[0] if u.ndim == 2 else out

    def total(self) -> float:
        r"""Return the sum over all strings, :math:`\alpha^T (I - \sum_j M_j)^{-1} \omega`; 1 for a distribution.

        Raises
        ------
        ValueError
            The sum does not exist: the sum of the letters has spectral radius 1 or more.
        """
        return float(self.initial @ self._ends())

    def prefixes(self) -> RationalSeries:
        r"""Return the series of prefix sums, :math:`g(w) = \sum_v f(w v)`: the weight of all strings that begin so."""
        return RationalSeries(self.initial, self.transitions, self._ends())

    def _ends(self) -> Array:
        whole = self.transitions.sum(0)
        radius = float(np.abs(np.linalg.eigvals(whole)).max(initial=0))
        if radius >= 1:
            raise ValueError(
                f"transitions: expected letters whose sum has a spectral radius below 1 for a sum over all strings, "
                f"got {radius:.6g}"
            )
        return np.linalg.solve(np.eye(self.order) - whole, self.final)

    # ---------------------------------------------------------------- structure
    def to_bilinear(self) -> BilinearSystem:
        r"""Return a bilinear system with the letters as N_j, which reads a string spelled in unit vectors.

        Returns
        -------
        BilinearSystem
            A = 0, :math:`N_j = M_j^T`, B = 0, :math:`C = \omega^T`: from ``x0 = initial``, y_t is f of the letters
            before step t. Its kernels have the string reversed: the letter that acts last stands first.
        """
        n, k = self.order, self.alphabet
        return BilinearSystem(np.zeros((n, n)), self.transitions.transpose(0, 2, 1), np.zeros((n, k)), self.final[None])

    @staticmethod
    def from_bilinear(system: BilinearSystem, *, output: int = 0, input: int = 0) -> RationalSeries:
        r"""Return the kernels of a bilinear system, from one input to one output, as a series.

        Parameters
        ----------
        system : BilinearSystem
            The ``system``.
        output, input : int
            Which ``output`` and ``input``.

        Returns
        -------
        RationalSeries
            On m + 1 letters: :math:`f(w) = C_i M_w B_j`.
        """
        return RationalSeries(system.C[output], system.letters, system.B[:, input])

    def _as_kernels(self) -> BilinearSystem:
        """The bilinear system whose kernels (letter 0 as A) are the values."""
        n, k = self.order, self.alphabet
        b, c = np.zeros((n, max(k - 1, 1))), self.initial[None]
        b[:, 0] = self.final
        n_j = self.transitions[1:] if k > 1 else np.zeros((1, n, n))
        return BilinearSystem(self.transitions[0], n_j, b, c)

    def minimal(self, *, tol: float | None = None) -> RationalSeries:
        """Return a series with the same values and as few states as can be.

        Parameters
        ----------
        tol : float, optional
            Singular values up to ``tol`` times the size of the matrices count as zero; default ``10 n eps``.

        Returns
        -------
        RationalSeries
            By two orthogonal projections.
        """
        small = self._as_kernels().minimal(tol=tol)
        return RationalSeries(small.C[0], small.letters[: self.alphabet], small.B[:, 0])

    def equivalent(self, other: RationalSeries, *, tol: float = 1e-8) -> Equivalence:
        """Decide whether two series have the same values, and recover the change of states between them.

        Parameters
        ----------
        other : RationalSeries
            The ``other`` series.
        tol : float
            Relative residual up to which equations count as satisfied: ``tol``.

        Returns
        -------
        Equivalence
            As for bilinear systems.
        """
        if not isinstance(other, RationalSeries):
            raise TypeError(f"other: expected a RationalSeries, got {describe(other)}")
        if other.alphabet != self.alphabet:
            return Equivalence(False, None, np.inf, np.inf, np.inf, "The alphabets differ.")
        return self._as_kernels().equivalent(other._as_kernels(), tol=tol)

    def norm(self) -> float:
        r"""Return :math:`\|f\|_2 = (\sum_w f(w)^2)^{1/2}`, from the Gramian.

        Raises
        ------
        ValueError
            The sum does not exist.
        """
        ones = np.ones(self.alphabet - 1)
        radius = _lyapunov.radius(self.transitions, ones)
        if radius >= 1:
            raise ValueError(
                f"transitions: expected square-summable values, got a growth of the squares by {radius:.6g}"
            )
        p = _lyapunov.solve(self.transitions, self.final[:, None])
        return float(np.sqrt(max(self.initial @ p @ self.initial, 0.0)))

    def distance(self, other: RationalSeries) -> float:
        r"""Return :math:`(\sum_w (f(w) - g(w))^2)^{1/2}`.

        Parameters
        ----------
        other : RationalSeries
            The ``other`` series, g, on the same letters.

        Returns
        -------
        float
            In the unit of the values.
        """
        return (self - other).norm()

    def __sub__(self, other: RationalSeries) -> RationalSeries:
        if not isinstance(other, RationalSeries) or other.alphabet != self.alphabet:
            raise ValueError(f"other: expected a RationalSeries on {self.alphabet} letters, got {describe(other)}")
        n, size = self.order, self.order + other.order
        letters = np.zeros((self.alphabet, size, size))
        letters[:, :n, :n], letters[:, n:, n:] = self.transitions, other.transitions
        alpha, omega = np.concatenate([self.initial, -other.initial]), np.concatenate([self.final, other.final])
        return RationalSeries(alpha, letters, omega)

    # ---------------------------------------------------------------- as a distribution
    def sample(self, count: int, *, rng: int | np.random.Generator | None = None, longest: int = 10_000) -> list[Word]:
        """Draw strings from the distribution that the series is.

        Parameters
        ----------
        count : int
            How many: ``count``.
        rng : int, numpy.random.Generator or None
            Source of randomness, ``rng``.
        longest : int
            Longer strings are cut at ``longest`` letters.

        Returns
        -------
        list of tuple of int
            The strings.

        Raises
        ------
        ValueError
            A negative weight turns up: the series is no distribution.
        """
        rng = np.random.default_rng(rng)
        ends = self._ends()
        ahead = np.stack([self.final, *(self.transitions @ ends)])  # [1 + k, n]: stop, or go on with a letter
        out = []
        for _ in range(count):
            h, word = self.initial, []
            while len(word) < longest:
                weight = ahead @ h
                if weight.min() < -1e-9 * np.abs(weight).max():
                    raise ValueError(f"a string begins with {tuple(word)[:20]} with a negative weight: no distribution")
                weight = np.cumsum(np.maximum(weight, 0))
                pick = int(np.searchsorted(weight, rng.random() * weight[-1], side="right"))
                if pick == 0:
                    break
                word.append(min(pick, self.alphabet) - 1)
                h = h @ self.transitions[word[-1]]
                h = h / (h @ ends)
            out.append(tuple(word))
        return out

    def perplexity(self, strings: Sequence[Any], weights: Any = None, *, floor: float = 1e-12) -> float:
        r"""Return the perplexity of a set of strings, as the PAutomaC competition scores it.

        .. math:: 2^{-\sum_w p(w) \log_2 q(w)}, \qquad \text{p and q each divided by its sum over the set.}

        Parameters
        ----------
        strings : sequence of sequences of int
            The test ``strings``, each once.
        weights : array_like [count], optional
            Their true probabilities p; equal by default: ``weights``.
        floor : float
            Values below ``floor`` times the largest count as that: an estimate may be negative.

        Returns
        -------
        float
            At least the perplexity of p itself.

        References
        ----------
        .. [1] S. Verwer, R. Eyraud, C. de la Higuera, *PAutomaC: a probabilistic automata and hidden Markov models
           learning competition*, Machine Learning 96 (2014) 129.
        """
        q = self.evaluate(strings)
        p = np.ones(len(q)) if weights is None else as_array(weights, "weights", shape=(len(q),), real=True)
        if len(q) == 0 or q.max() <= 0:
            raise ValueError("strings: expected strings of which at least one has a positive value")
        q = np.maximum(q, floor * q.max())
        return float(2 ** -np.sum(p / p.sum() * np.log2(q / q.sum())))

    @staticmethod
    def from_pautomac(path: str | Path) -> RationalSeries:
        """Read a probabilistic automaton in the PAutomaC format (I, F, S, T) from ``path``.

        A state ends the string with probability F; else it emits a letter (S) and moves (T).
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"path: expected a PAutomaC model, got {path}, which does not exist")
        parts: dict[str, dict[tuple[int, ...], float]] = {}
        here = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line[:2] in ("I:", "F:", "S:", "T:"):
                here = line[0]
                parts[here] = {}
            elif line.strip():
                try:
                    key, value = line.strip().lstrip("(").split(")")
                    parts[here][tuple(int(x) for x in key.split(","))] = float(value)
                except (ValueError, KeyError) as error:
                    raise ValueError(
                        f"path: {path}, line {number}: expected '(indices) number', got {line!r}"
                    ) from error
        if set(parts) != {"I", "F", "S", "T"}:
            raise ValueError(f"path: expected the sections I, F, S and T in {path}, got {sorted(parts)}")
        n = 1 + max(max(key[0], key[-1]) if name == "T" else key[0] for name, part in parts.items() for key in part)
        k = 1 + max(key[1] for key in parts["S"])
        alpha, omega, letters = np.zeros(n), np.zeros(n), np.zeros((k, n, n))
        for (state,), value in parts["I"].items():
            alpha[state] = value
        for (state,), value in parts["F"].items():
            omega[state] = value
        for (state, letter, target), value in parts["T"].items():
            letters[letter, state, target] = (1 - omega[state]) * parts["S"].get((state, letter), 0.0) * value
        return RationalSeries(alpha, letters, omega)
