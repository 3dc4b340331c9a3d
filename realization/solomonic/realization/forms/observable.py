"""Observable companion form: the transpose of the controllable form of the transposed system."""

from __future__ import annotations

import numpy as np

from .._systems import Matrices
from ._reach import require_controllable
from ._result import Change
from .controllable import controllable

__all__ = ["observable"]


def observable(m: Matrices) -> Change:
    """Luenberger's observable form; ``indices`` are the observability indices by output."""
    require_controllable(m.dual(), "observable", "sys (transposed)")
    dual = controllable(m.dual())
    return Change(dual.system.dual(), np.linalg.inv(dual.transform).T, dual.indices)
