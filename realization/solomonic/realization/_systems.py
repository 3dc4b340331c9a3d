"""Systems in and out: control.StateSpace or plain arrays, checked once."""

from __future__ import annotations

import sys as _sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.linalg

from ._linalg import norm2
from ._validate import Array, as_array, as_square, describe

if TYPE_CHECKING:
    import control

__all__ = ["Matrices", "as_matrices", "require_stable", "scale_states", "to_statespace"]


class Matrices(NamedTuple):
    """The matrices of a real linear system and its time base (0 continuous; True or a period discrete)."""

    A: Array
    B: Array
    C: Array
    D: Array
    dt: Any

    @property
    def order(self) -> int:
        """State dimension."""
        return len(self.A)

    @property
    def discrete(self) -> bool:
        """Whether time is discrete."""
        return self.dt is None or self.dt is True or self.dt > 0

    def changed(self, transform: Array, inverse: Array) -> Matrices:
        """The same system in the states z with x = T z."""
        return self._replace(A=inverse @ self.A @ transform, B=inverse @ self.B, C=self.C @ transform)

    def dual(self) -> Matrices:
        """The transposed system."""
        return self._replace(A=self.A.T, B=self.C.T, C=self.B.T, D=self.D.T)


def as_matrices(sys: Any, name: str = "sys") -> Matrices:
    """Check a system: control.StateSpace, or a tuple (A, B, C) or (A, B, C, D), discrete unless it says otherwise."""
    control = _sys.modules.get("control")  # it takes a second to import: where it is not, nobody holds its objects
    if control is not None and isinstance(sys, control.StateSpace):
        parts: tuple[Any, ...] = (sys.A, sys.B, sys.C, sys.D)
        dt = True if sys.dt is None else sys.dt
    elif isinstance(sys, (tuple, list)) and len(sys) in (3, 4, 5):
        parts, dt = tuple(sys[:4]), (sys[4] if len(sys) == 5 else True)
    elif control is not None and isinstance(sys, control.TransferFunction):
        raise TypeError(
            f"{name}: expected a control.StateSpace or (A, B, C, D), got a TransferFunction; convert it first with "
            f"control.ss"
        )
    else:
        raise TypeError(f"{name}: expected a control.StateSpace or (A, B, C) or (A, B, C, D), got {describe(sys)}")
    if not (dt is None or (isinstance(dt, (bool, int, float, np.number)) and 0 <= dt < np.inf)):
        raise ValueError(
            f"{name}.dt: expected 0 (continuous time), True or a sampling period (discrete), got {describe(dt)}"
        )
    a = as_square(parts[0], f"{name}.A", real=True)
    n = len(a)
    b = as_array(parts[1], f"{name}.B", shape=(n, "m"), real=True)
    c = as_array(parts[2], f"{name}.C", shape=("p", n), real=True)
    shape = (c.shape[0], b.shape[1])
    given = parts[3] if len(parts) > 3 and parts[3] is not None else np.zeros(shape)
    return Matrices(a, b, c, as_array(given, f"{name}.D", shape=shape, real=True), dt)


def to_statespace(m: Matrices) -> control.StateSpace:
    """Return a control.StateSpace that keeps every state."""
    import control

    return control.StateSpace(m.A, m.B, m.C, m.D, m.dt, remove_useless_states=False)


def require_stable(m: Matrices, name: str, what: str) -> None:
    """Raise unless the spectrum lies inside the unit disc (discrete) or left half-plane (continuous), by more than
    the rounding n eps |A| of its eigenvalues."""
    balanced: Any = scipy.linalg.matrix_balance(m.A)[0]
    values = np.linalg.eigvals(balanced)
    worst = float(np.abs(values).max() if m.discrete else np.real(values).max())
    if worst >= (1 if m.discrete else 0) - m.order * np.finfo(float).eps * norm2(balanced):
        kind = "spectral radius below 1" if m.discrete else "eigenvalues with real parts below 0"
        got = f"spectral radius {worst:.6g}" if m.discrete else f"largest real part {worst:.6g}"
        raise ValueError(
            f"{name}: expected a stable system ({kind}) for {what}, got {got}; split off the unstable modes first "
            f"(canonical_form(sys, 'modal')), or use a form that needs no Gramian"
        )


def scale_states(m: Matrices) -> tuple[Matrices, Array]:
    """Scale states by powers of two until rows and columns of [A B; C 0] balance; return the scales d, x = d z."""
    n = m.order
    scale = np.ones(n)
    a, b, c = m.A.copy(), m.B.copy(), m.C.copy()
    for _ in range(20):
        changed = False
        for i in range(n):
            row = np.abs(a[i]).sum() - abs(a[i, i]) + np.abs(b[i]).sum()
            column = np.abs(a[:, i]).sum() - abs(a[i, i]) + np.abs(c[:, i]).sum()
            if row == 0 or column == 0:
                continue
            factor = 2.0 ** np.round(np.log2(row / column) / 2)
            if factor == 1:
                continue
            scale[i] *= factor
            a[i] /= factor
            b[i] /= factor
            a[:, i] *= factor
            c[:, i] *= factor
            changed = True
        if not changed:
            break
    return m._replace(A=a, B=b, C=c), scale


def size_of(m: Matrices) -> float:
    """Norm against which ranks are decided."""
    return max(norm2(m.A), norm2(m.B), np.finfo(float).tiny)
