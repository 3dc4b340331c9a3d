"""How many states the data show: criteria, a gap, and the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._html import table
from .._linalg import triangle
from .._results import Result
from .._validate import Array, frozen
from ._horizons import log_det
from ._subspace import Subspace

__all__ = ["CRITERIA", "OrderEvidence", "order_evidence"]

CRITERIA = ("aic", "bic", "svc", "gap")


@dataclass(frozen=True, eq=False)
class OrderEvidence(Result):
    r"""What each rule says of the order.

    Parameters
    ----------
    orders : ndarray of int [N + 1]
        Orders 0 .. N.
    singular_values : ndarray
        Of the weighted projection, largest first; canonical correlations for CVA.
    criteria : dict of str to ndarray [N + 1]
        "aic" and "bic": :math:`T \log\det \Sigma_e(n)` and a penalty of 2 or log T for each of the
        :math:`d(n) = n (2 p + m) + \dots` parameters. "svc": :math:`\sigma_{n+1}^2 + d(n) \log(T) / T`. "gap":
        :math:`\sigma_{n+1} / \sigma_n`. The smallest wins.
    choices : dict of str to int
        The order that each of them takes.
    chosen : int
        The order of the model.
    rule : str
        The rule that chose it; "given" for an order that the caller gave.
    """

    orders: Array
    singular_values: Array
    criteria: Mapping[str, Array]
    choices: Mapping[str, int]
    chosen: int
    rule: str

    def __repr__(self) -> str:
        says = ", ".join(f"{name} {order}" for name, order in self.choices.items())
        return f"OrderEvidence(chosen={self.chosen} ({self.rule}); {says})"

    def _repr_html_(self) -> str:
        head = ["order", *self.criteria]
        rows = [[str(n), *(f"{self.criteria[k][i]:.5g}" for k in self.criteria)] for i, n in enumerate(self.orders)]
        return table(head, rows, caption=repr(self))


def order_evidence(found: Subspace, largest: int, rule: str | int, feedthrough: bool) -> OrderEvidence:
    """Score the orders 0 .. largest, and choose by the rule or take the order given."""
    m, p, samples = found.inputs, found.outputs, found.samples
    largest = min(largest, len(found.readout))
    data = found.regression(largest)
    known = data.u if feedthrough else np.zeros((len(data.y), 0))
    r = triangle(np.hstack([known, data.x, data.y]))
    first, last = known.shape[1], known.shape[1] + largest
    orders = np.arange(largest + 1)
    explained = r[first:last, last:]
    left_over = r[last:, last:].T @ r[last:, last:]
    gains = np.concatenate([np.zeros((1, p, p)), np.cumsum((explained[:, :, None] * explained[:, None, :])[::-1], 0)])
    spread = log_det((left_over + gains[::-1]) / samples)
    values = np.append(found.singular_values, 0.0)
    count = orders * (2 * p + m)
    top = max(values[0], np.finfo(float).tiny)
    tail = values[: largest + 1] / top if values[0] > 1 else values[: largest + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(values[:largest] > 0, values[1 : largest + 1] / values[:largest], 1.0)
    criteria = {
        "aic": samples * spread + 2 * count,
        "bic": samples * spread + np.log(samples) * count,
        "svc": tail**2 + count * np.log(samples) / samples,
        "gap": np.append(1.0, ratio),
    }
    choices = {name: int(np.argmin(score)) for name, score in criteria.items()}
    chosen = choices[rule] if isinstance(rule, str) else rule
    return OrderEvidence(
        frozen(orders),
        frozen(found.singular_values),
        {name: frozen(score) for name, score in criteria.items()},
        choices,
        chosen,
        rule if isinstance(rule, str) else "given",
    )
