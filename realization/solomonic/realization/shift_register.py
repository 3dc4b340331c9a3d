"""The shift register: the plainest eidetic memory."""

from __future__ import annotations

import numpy as np

from ._validate import as_index
from .time_varying import TimeVaryingSystem

__all__ = ["shift_register"]


def shift_register(length: int, steps: int, *, inputs: int = 1) -> TimeVaryingSystem:
    r"""Return a shift register: it holds the last ``length`` inputs exactly and forgets the rest at once.

    .. math:: x_t = (u_t, u_{t-1}, \dots, u_{t-L+1}), \qquad y_t = x_t.

    Parameters
    ----------
    length : int
        Tokens held, L.
    steps : int
        Steps T.
    inputs : int
        Channels m of a token.

    Returns
    -------
    TimeVaryingSystem
        Order ``length * inputs``, nilpotent of index ``length``; all of its state is read out.

    Notes
    -----
    The past that reaches the outputs after a cut is ``length - 1`` tokens: the register shifts once before
    it is read.

    Examples
    --------
    >>> shift_register(3, 5).hankel_rank()
    array([0, 1, 2, 2, 2, 0])
    """
    length, steps = as_index(length, "length", 1, 10**6), as_index(steps, "steps", 1, 10**9)
    inputs = as_index(inputs, "inputs", 1, 10**6)
    n = length * inputs
    a, b = np.eye(n, k=-inputs), np.eye(n, inputs)
    return TimeVaryingSystem(*(np.repeat(x[None], steps, 0) for x in (a, b, np.eye(n))))
