"""The stack: each layer predicts what the layers before it could not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._html import table
from .._results import Result
from .._validate import Array, as_array
from ..identification.model import InnovationModel
from ..identification.whiteness import Whiteness, whiteness
from .changes import Changes, find_changes
from .layers import LinearLayer, SeasonalLayer, TrendLayer

__all__ = ["ResidualStack"]


@dataclass(frozen=True, eq=False)
class ResidualStack(Result):
    r"""A cascade of one-step predictors, each fed the prediction residual of the one before.

    .. math:: r^{(0)} = y,\qquad r^{(k)}_t = r^{(k-1)}_t - \hat r^{(k-1)}_{t|t-1},\qquad
              \hat y_{t|t-1} = \sum_k \hat r^{(k)}_{t|t-1} .

    Parameters
    ----------
    names : tuple of str
        Names of the layers.
    models : tuple of InnovationModel
        Their models.
    skip : int
        Samples at the start during which the layers settle; the tests leave them out.

    Examples
    --------
    >>> y = np.arange(200) / 50 + np.sin(2 * np.pi * np.arange(200) / 12)
    >>> stack = ResidualStack.fit(y + 0.1 * np.random.default_rng(0).standard_normal(200), period=12)
    >>> stack.names
    ('trend', 'seasonal', 'linear')
    """

    names: tuple[str, ...]
    models: tuple[InnovationModel, ...]
    skip: int

    @classmethod
    def fit(
        cls, y: Any, *, period: float | None = None, layers: Sequence[Any] | None = None, progress: bool = False
    ) -> ResidualStack:
        """Fit the layers one after another.

        Parameters
        ----------
        y : array_like [T]
            The series.
        period : float, optional
            Samples a season; without one there is no seasonal layer.
        layers : sequence, optional
            Layers to use instead: objects with ``.name`` and ``.fit(series)`` that returns an InnovationModel. By
            default TrendLayer, SeasonalLayer(period), LinearLayer.
        progress : bool
            Show a progress bar.

        Returns
        -------
        ResidualStack
            The stack.

        Raises
        ------
        ValueError
            A series shorter than 40 samples or two seasons, NaN.

        References
        ----------
        .. [1] L. Zancato, A. Achille, G. Paolini, A. Chiuso, S. Soatto, *Stacked residuals of dynamic layers for time
           series anomaly detection*, arXiv:2202.12457 (2022).
        """
        series = as_array(y, "y", ndim=1, real=True)
        least = max(40, int(2 * period) if period is not None else 0)
        if len(series) < least:
            raise ValueError(f"y: expected at least {least} samples (40, and two seasons), got {len(series)}")
        if layers is None:
            layers = [TrendLayer(), *([SeasonalLayer(period)] if period is not None else []), LinearLayer()]
        settle = min(len(series) // 4, max(20, int(2 * period) if period is not None else 0))
        rest, models = series, []
        for layer in tqdm(layers, desc="fitting layers", disable=not progress):
            # Layers after the first do not see how the first ones settle.
            model = layer.fit(rest if not models else rest[settle:])
            models.append(model)
            rest = rest - model.predict(rest)[:, 0]
        return cls(tuple(layer.name for layer in layers), tuple(models), settle)

    def residuals(self, y: Any) -> Array:
        """Return the input of each layer and the last innovations.

        Parameters
        ----------
        y : array_like [T]
            A series.

        Returns
        -------
        ndarray [layers + 1, T]
            Row 0 is y, row k what k layers leave.
        """
        rest = as_array(y, "y", ndim=1, real=True)
        rows = [rest]
        for model in self.models:
            rest = rest - model.predict(rest)[:, 0]
            rows.append(rest)
        return np.array(rows)

    def predict(self, y: Any) -> Array:
        """Return one-step predictions of a series ``y`` [T], [T]: each from the samples before it."""
        rows = self.residuals(y)
        return rows[0] - rows[-1]

    def innovations(self, y: Any) -> Array:
        """Return the last residual of a series ``y`` [T], in units of its fitted standard deviation."""
        return self.residuals(y)[-1] / np.sqrt(self.models[-1].innovation_covariance.item())

    def whiteness(self, y: Any, *, permutations: int = 199, rng: int | np.random.Generator | None = 0) -> Whiteness:
        """Test the last innovations of a series ``y`` for whiteness with ``permutations`` drawn from ``rng``."""
        return whiteness(self.innovations(y)[self.skip :], permutations=permutations, rng=rng)

    def changes(
        self, y: Any, *, window: int = 20, level: float = 0.05, rng: int | np.random.Generator | None = 0
    ) -> Changes:
        """Find where the last innovations change (see :func:`find_changes`).

        Parameters
        ----------
        y : array_like [T]
            A series.
        window : int
            Samples on each side of a change.
        level : float
            Probability of a false alarm anywhere.
        rng : int or numpy.random.Generator, optional
            Source of the simulated series.

        Returns
        -------
        Changes
            ``.places`` in samples of y.
        """
        found = find_changes(self.innovations(y)[self.skip :], window=window, level=level, rng=rng)
        score = np.concatenate([np.zeros(self.skip), found.score])
        places = tuple(t + self.skip for t in found.places)
        return Changes(score, found.threshold, places, found.p_value, found.window)

    def __repr__(self) -> str:
        orders = ", ".join(f"{name} ({model.order})" for name, model in zip(self.names, self.models, strict=True))
        return f"ResidualStack({orders})"

    def _repr_html_(self) -> str:
        rows = [
            [name, str(m.order), f"{m.innovation_covariance.item():.4g}"]
            for name, m in zip(self.names, self.models, strict=True)
        ]
        return table(["layer", "states", "variance of what it leaves"], rows, caption=repr(self))
