"""How many states does a layer use? The smallest bilinear system that reproduces its inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .._html import table
from .._results import Result, held
from .._validate import Array, as_index, as_number
from .fit import BilinearFit, FitWarning, fit_bilinear
from .from_data import as_runs

__all__ = ["LayerFit", "OrderRow", "fit_layer"]


@held
class OrderRow(NamedTuple):
    """What a number of states achieves.

    Parameters
    ----------
    order : int
        States.
    error : float
        Error in free run on the records that were fitted, relative to the outputs' standard deviation.
    held_out : float
        The same on what was held out.
    parameters : int
        Free parameters: entries of the matrices, less those that a change of states takes away.
    """

    order: int
    error: float
    held_out: float
    parameters: int


@dataclass(frozen=True, eq=False)
class LayerFit(Result):
    """The smallest bilinear system that reproduces a layer, with the evidence.

    Parameters
    ----------
    fit : BilinearFit
        The model: the first within the tolerance, or the best one where none is.
    order : int or None
        Its number of states; None where no order tried is within the tolerance.
    tolerance : float
        Error in free run on held-out data, relative to the outputs' standard deviation, that was asked for.
    table : tuple of OrderRow
        The orders that were tried.

    Examples
    --------
    >>> import numpy as np
    >>> u = np.random.default_rng(0).standard_normal(200)
    >>> found = fit_layer(np.convolve(u, [0, 1, 0.5])[:200], u, orders=(2,), restarts=1, rng=0)
    >>> found.order, len(found.table)
    (2, 1)
    """

    fit: BilinearFit
    order: int | None
    tolerance: float
    table: tuple[OrderRow, ...]

    def __repr__(self) -> str:
        best = min(row.held_out for row in self.table)
        return f"LayerFit(order={self.order}, tolerance={self.tolerance:.2g}, best held-out error={best:.2g})"

    def _repr_html_(self) -> str:
        rows = [(str(r.order), f"{r.error:.3g}", f"{r.held_out:.3g}", str(r.parameters)) for r in self.table]
        return table(("states", "error", "held-out error", "parameters"), rows, caption=repr(self))


def fit_layer(
    y: Any,
    u: Any,
    *,
    tolerance: float = 0.01,
    orders: Iterable[int] = range(1, 9),
    held_out: float = 0.25,
    restarts: int = 2,
    iterations: int = 80,
    constant: bool = True,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> LayerFit:
    r"""Find the smallest bilinear system that reproduces a layer from its inputs and outputs.

    .. math:: \min n \quad \text{such that} \quad \|y - \hat y_n\| \le \epsilon\, \|y - \bar y\|

    on held-out data.

    Parameters
    ----------
    y : array_like [T], [T, p] or [runs, T, p]
        Outputs of the layer.
    u : array_like [T], [T, m] or [runs, T, m]
        Its inputs; they need not be white.
    tolerance : float
        Error in free run that counts as reproduced, relative to the standard deviation of the outputs.
    orders : iterable of int
        Numbers of states to try, in that order; the first within the tolerance ends the search.
    held_out : float
        Share of the steps at the end of each run that is not fitted.
    restarts, iterations : int
        As in :func:`fit_bilinear`.
    constant : bool
        Let a constant enter: a layer need not be at rest at input 0.
    rng : int, numpy.random.Generator or None
        Source of randomness.
    progress : bool
        Show a bar of the orders.

    Returns
    -------
    LayerFit
        ``.order``, ``.fit`` and the ``.table`` of errors by order.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        As :func:`fit_bilinear`; a tolerance or share out of range.

    Notes
    -----
    The order is evidence about the inputs that were given, not about all inputs: a state that they do not excite is not
    counted. A layer that is not bilinear (a softmax, an exponential) needs more states the smaller the tolerance: the
    table shows how many it takes for which error.

    References
    ----------
    .. [1] A. J. Krener, *Bilinear and nonlinear realizations of input-output maps*, SIAM J. Control 13 (1975) 827.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.realization import gallery
    >>> layer = gallery.random_bilinear(2, radius=0.5, rng=0)
    >>> u = np.random.default_rng(0).standard_normal((500, 1))
    >>> fit_layer(layer.simulate(u), u, tolerance=1e-4, orders=(1, 2, 3), rng=0).order
    2
    """
    y, u = as_runs(y, u)
    tolerance = as_number(tolerance, "tolerance", "a number above 0", lambda x: x > 0)
    share = as_number(held_out, "held_out", "a share from 0.05 to 0.9", lambda x: 0.05 <= x <= 0.9)
    names = [as_index(n, "orders", 1, 1000) for n in orders]
    if not names:
        raise ValueError("orders: expected at least one number of states, got none")
    generator = np.random.default_rng(rng)
    cut = round(y.shape[1] * (1 - share))
    p, m = y.shape[2], u.shape[2]
    table: list[OrderRow] = []
    fits: list[BilinearFit] = []
    size = y.std((0, 1))
    for n in tqdm(names, desc="orders", disable=not progress):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            fit = fit_bilinear(
                y[:, :cut], u[:, :cut], n, noise="output", constant=constant, restarts=restarts, iterations=iterations,
                rng=generator,
            )  # fmt: skip
        errors = _free_run(fit, y, u) / size
        parameters = n * n * (1 + m) + n * (m + p) + p * m - n * n + (n + p) * constant
        inside, outside = (float(np.sqrt(np.mean(part**2))) for part in (errors[:, :cut], errors[:, cut:]))
        table.append(OrderRow(n, inside, outside, parameters))
        fits.append(fit)
        if outside <= tolerance:
            return LayerFit(fit, n, tolerance, tuple(table))
    best = int(np.argmin([row.held_out for row in table]))
    return LayerFit(fits[best], None, tolerance, tuple(table))


def _free_run(fit: BilinearFit, y: Array, u: Array) -> Array:
    """Errors of the model in free run; infinite where it leaves the range of numbers."""
    try:
        return y - fit.simulate(u, fit.x0)
    except ValueError:
        return np.full(y.shape, np.inf)
