"""Canonical forms: one file a form, one line a form in the table."""

from __future__ import annotations

from collections.abc import Callable

from .._systems import Matrices
from ._result import Change
from .balanced import balanced
from .brunovsky import brunovsky
from .controllable import controllable
from .jordan import jordan
from .kalman import kalman
from .modal import modal
from .observable import observable
from .schur import schur_form
from .staircase import staircase_form

__all__ = ["FORMS", "Change"]

#: Name of the form: function from the matrices of a system to the change of states.
FORMS: dict[str, Callable[[Matrices], Change]] = {
    "controllable": controllable,
    "observable": observable,
    "modal": modal,
    "jordan": jordan,
    "brunovsky": brunovsky,
    "schur": schur_form,
    "staircase": staircase_form,
    "balanced": balanced,
    "kalman": kalman,
}
