"""Carleman bilinearization of polynomial systems."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._validate import Array, as_array, as_index, describe
from .system import BilinearSystem

__all__ = ["Bilinearization", "carleman"]

Powers = tuple[int, ...]


class Polynomial:
    """A polynomial in the states and inputs, cut at a degree in the states and one in the inputs.

    What is cut never comes back: a product's degrees are the sums of its factors'.
    """

    __slots__ = ("limits", "states", "terms")

    def __init__(self, terms: dict[Powers, float], states: int, limits: tuple[int, int]) -> None:
        self.terms, self.states, self.limits = terms, states, limits

    def _lift(self, other: Any) -> Polynomial | None:
        if isinstance(other, Polynomial):
            return other
        if isinstance(other, (int, float, np.integer, np.floating)):
            size = len(next(iter(self.terms), ())) or self.states
            return Polynomial({(0,) * size: float(other)}, self.states, self.limits)
        return None

    def __add__(self, other: Any) -> Polynomial:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        terms = dict(self.terms)
        for powers, value in right.terms.items():
            terms[powers] = terms.get(powers, 0.0) + value
        return Polynomial(terms, self.states, self.limits)

    def __mul__(self, other: Any) -> Polynomial:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        terms: dict[Powers, float] = {}
        for (p, a), (q, b) in itertools.product(self.terms.items(), right.terms.items()):
            powers = tuple(i + j for i, j in zip(p, q, strict=True))
            if sum(powers[: self.states]) <= self.limits[0] and sum(powers[self.states :]) <= self.limits[1]:
                terms[powers] = terms.get(powers, 0.0) + a * b
        return Polynomial(terms, self.states, self.limits)

    def __pow__(self, power: Any) -> Polynomial:
        if not isinstance(power, (int, np.integer)) or power < 0:
            raise TypeError(f"f: expected powers that are whole numbers of at least 0, got {describe(power)}")
        one = next(iter(self.terms), None)
        out = Polynomial({(0,) * len(one or (0,) * self.states): 1.0}, self.states, self.limits)
        for _ in range(int(power)):
            out = out * self
        return out

    def __neg__(self) -> Polynomial:
        return self * -1.0

    def __sub__(self, other: Any) -> Polynomial:
        return self + (-1.0 * other)

    def __rsub__(self, other: Any) -> Polynomial:
        return -self + other

    def __truediv__(self, other: Any) -> Polynomial:
        if isinstance(other, Polynomial):
            raise TypeError("f: expected a polynomial, got a division by one of its arguments")
        return self * (1.0 / other)

    __radd__ = __add__
    __rmul__ = __mul__
    __array_ufunc__ = None


@dataclass(frozen=True, eq=False)
class Bilinearization:
    """A polynomial system as a bilinear one in monomials of its states, driven by monomials of its inputs.

    Parameters
    ----------
    system : BilinearSystem
        Its states are the monomials, its inputs the lifted ones, its outputs y.
    monomials : tuple of tuple of int
        Powers of the states, one tuple a state of ``system``.
    input_monomials : tuple of tuple of int
        Powers of the inputs, one tuple an input of ``system``; all 0 stands for the constant 1.
    f, output : callable
        The functions it was made from.

    Examples
    --------
    >>> import numpy as np
    >>> logistic = carleman(lambda x, u: [0.5 * x[0] - 0.1 * x[0] ** 2 + u[0]], 4, states=1, inputs=1)
    >>> bool(logistic.error(0.1 * np.ones((30, 1))) < 1e-4)
    True
    """

    system: BilinearSystem
    monomials: tuple[Powers, ...]
    input_monomials: tuple[Powers, ...]
    f: Callable[[Any, Any], Sequence[Any]]
    output: Callable[[Any, Any], Sequence[Any]] | None

    def __repr__(self) -> str:
        n, m = len(self.monomials[0]), len(self.input_monomials[0])
        return (
            f"Bilinearization({n} states as {len(self.monomials)} monomials, {m} inputs as {len(self.input_monomials)})"
        )

    def _repr_html_(self) -> str:
        names = [("state", self.monomials), ("input", self.input_monomials)]
        rows = [(kind, str(k + 1), str(powers)) for kind, group in names for k, powers in enumerate(group[:20])]
        return table(("", "", "powers"), rows, caption=repr(self))

    def lift_input(self, u: Any) -> Array:
        """Return the monomials of inputs ``u`` [T, m] or [runs, T, m], one a column."""
        u = as_array(u, "u", ndim=(2, 3), real=True)
        if u.shape[-1] != len(self.input_monomials[0]):
            raise ValueError(f"u: expected {len(self.input_monomials[0])} inputs, got shape {list(u.shape)}")
        return np.prod(u[..., None, :] ** np.array(self.input_monomials), -1)

    def lift_state(self, x: Any) -> Array:
        """Return the monomials of states ``x`` [..., n]."""
        x = as_array(x, "x", real=True)
        return np.prod(x[..., None, :] ** np.array(self.monomials), -1)

    def simulate(self, u: Any, x0: Any = None) -> Array:
        """Return the outputs of the bilinear system for inputs ``u`` [T, m] and a state ``x0`` [n] (zero by
        default)."""
        return self.system.simulate(self.lift_input(u), None if x0 is None else self.lift_state(x0))

    def original(self, u: Any, x0: Any = None) -> Array:
        """Return the outputs of the polynomial system itself, step by step, for ``u`` [T, m] and ``x0`` [n]."""
        u = as_array(u, "u", ndim=2, real=True)
        n = len(self.monomials[0])
        x = np.zeros(n) if x0 is None else as_array(x0, "x0", shape=(n,), real=True)
        y = []
        for row in u:
            y.append(x if self.output is None else np.array(self.output(x, row), float))
            x = np.array(self.f(x, row), float)
        return np.array(y)

    def error(self, u: Any, x0: Any = None) -> float:
        """Return the root mean square of the difference to the polynomial system, relative to its outputs.

        ``u`` [T, m] is the input and ``x0`` [n] the state before it.
        """
        want = self.original(u, x0)
        size = float(np.sqrt(np.mean(want**2)))
        gap = float(np.sqrt(np.mean((self.simulate(u, x0) - want) ** 2)))
        return gap / size if size > 0 else gap


def carleman(
    f: Callable[[Any, Any], Sequence[Any]],
    order: int,
    *,
    states: int,
    inputs: int,
    output: Callable[[Any, Any], Sequence[Any]] | None = None,
    input_order: int | None = None,
) -> Bilinearization:
    r"""Write a polynomial system as a bilinear one, up to a degree.

    .. math:: x_{t+1} = f(x_t, u_t) \;\Longrightarrow\; (x^\alpha)_{t+1} = f(x_t, u_t)^\alpha
              = \sum_{\beta, \gamma} c_{\alpha \beta \gamma}\, x_t^\beta\, u_t^\gamma, \qquad 1 \le |\alpha| \le N .

    Parameters
    ----------
    f : callable
        ``f(x, u)`` returns the n next states from sequences x and u, by +, -, * and whole powers.
    order : int
        N: monomials of the states of up to that degree are kept.
    states, inputs : int
        n and m of the polynomial system.
    output : callable, optional
        ``output(x, u)`` returns the outputs, polynomials too. By default, the states. Products of states and inputs
        cannot be read by a bilinear system.
    input_order : int, optional
        Monomials of the inputs of up to that degree are kept; N by default.

    Returns
    -------
    Bilinearization
        ``.system``, ``.lift_input``, ``.simulate``, and the measured ``.error``.

    Raises
    ------
    TypeError
        f is no polynomial.
    ValueError
        f returns the wrong number of states, outputs with products of states and inputs, or more than 4000 monomials.

    Notes
    -----
    In discrete time powers of the next state hold powers of the inputs: those are inputs of the bilinear system, which
    is exact in u up to ``input_order``. What is lost are monomials of the states of higher degree: the error falls as
    the
    (N + 1)-th power of the size of the states, over finite times, and over all times where the linear part is stable.
    A step of a differential equation by a Runge-Kutta method is a polynomial, so it may be given as f.

    References
    ----------
    .. [1] T. Carleman, *Application de la theorie des equations integrales lineaires aux systemes d'equations
       differentielles non lineaires*, Acta Math. 59 (1932) 63.
    .. [2] A. J. Krener, *Bilinear and nonlinear realizations of input-output maps*, SIAM J. Control 13 (1975) 827.

    Examples
    --------
    >>> import numpy as np
    >>> found = carleman(lambda x, u: [0.5 * x[0] + 0.2 * x[0] * u[0] + u[0]], 1, states=1, inputs=1)
    >>> found.system.A, found.system.N, found.system.B
    (array([[0.5]]), array([[[0.2]]]), array([[1.]]))
    """
    n, m = as_index(states, "states", 1, 100), as_index(inputs, "inputs", 1, 100)
    order = as_index(order, "order", 1, 50)
    most = order if input_order is None else as_index(input_order, "input_order", 0, 50)
    monomials = [p for p in _powers(n, order) if sum(p)]
    if len(monomials) > 4000:
        raise ValueError(
            f"order: {n} states have {len(monomials)} monomials of up to degree {order}, expected at most 4000"
        )
    limits = (order, most)

    def variable(i: int) -> Polynomial:
        return Polynomial({tuple(int(i == j) for j in range(n + m)): 1.0}, n, limits)

    x, u = [variable(i) for i in range(n)], [variable(n + j) for j in range(m)]
    step = _call(f, x, u, n + m, limits, "f")
    if len(step) != n:
        raise ValueError(f"f: expected {n} next states, got {len(step)}")
    powers: dict[Powers, Polynomial] = {}
    for alpha in monomials:  # from low degrees to high ones: x^alpha = x_i x^(alpha - e_i)
        i = next(k for k, a in enumerate(alpha) if a)
        lower = tuple(a - (k == i) for k, a in enumerate(alpha))
        powers[alpha] = step[i] * powers[lower] if sum(lower) else step[i]
    read = [Polynomial({(*p, *(0,) * m): 1.0}, n, limits) for p in monomials[:n]]
    if output is not None:
        read = _call(output, x, u, n + m, limits, "output")
    used = {p[n:] for poly in [*powers.values(), *read] for p, c in poly.terms.items() if c}
    constant = (0,) * m
    starts_at_zero = not any(
        p[:n] == (0,) * n and p[n:] == constant and c for q in powers.values() for p, c in q.terms.items()
    )
    offset = any(p == (0,) * (n + m) and c for poly in read for p, c in poly.terms.items())
    names = sorted((used - {constant}), key=lambda p: (sum(p), tuple(-x for x in p))) or [_unit(m)]
    if not starts_at_zero or offset:
        names.append(constant)
    place, column = {p: i for i, p in enumerate(monomials)}, {p: j for j, p in enumerate(names)}
    size = len(monomials)
    a, n_j, b = np.zeros((size, size)), np.zeros((len(names), size, size)), np.zeros((size, len(names)))
    for alpha, poly in powers.items():
        for p, value in poly.terms.items():
            state, driven = p[:n], p[n:]
            if not any(state):
                b[place[alpha], column[driven]] += value if value else 0.0
            elif driven == constant:
                a[place[alpha], place[state]] += value
            elif value:
                n_j[column[driven], place[alpha], place[state]] += value
    c, d = np.zeros((len(read), size)), np.zeros((len(read), len(names)))
    for i, poly in enumerate(read):
        for p, value in poly.terms.items():
            state, driven = p[:n], p[n:]
            if any(state) and any(driven) and value:
                raise ValueError(
                    "output: expected no products of states and inputs, which a bilinear system cannot read"
                )
            if any(state):
                c[i, place[state]] += value
            elif value:
                d[i, column[driven]] += value
    return Bilinearization(BilinearSystem(a, n_j, b, c, d), tuple(monomials), tuple(names), f, output)


def _unit(m: int) -> Powers:
    return tuple(int(j == 0) for j in range(m))


def _powers(variables: int, degree: int) -> list[Powers]:
    """Powers of all monomials, by degree."""
    found = []
    for total in range(degree + 1):
        for choice in itertools.combinations_with_replacement(range(variables), total):
            found.append(tuple(choice.count(i) for i in range(variables)))
    return found


def _call(f: Any, x: list, u: list, size: int, limits: tuple[int, int], name: str) -> list[Polynomial]:
    if not callable(f):
        raise TypeError(f"{name}: expected a function of (x, u), got {describe(f)}")
    try:
        value: Any = f(x, u)
        found = list(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected sums, products and whole powers of its arguments only ({error})") from error
    zero = Polynomial({(0,) * size: 0.0}, len(x), limits)
    return [each if isinstance(each, Polynomial) else zero + each for each in found]
