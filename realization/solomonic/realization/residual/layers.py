"""Layers of a residual stack: each predicts one step ahead, and is an innovation model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from .._repair import RepairWarning
from .._validate import Array, as_index
from ..identification._noise import innovation_form
from ..identification.identify import identify
from ..identification.model import InnovationModel

__all__ = ["LinearLayer", "SeasonalLayer", "TrendLayer"]


def _fit_ratio(make: Any, series: Array, low: float, high: float, skip: int) -> InnovationModel:
    """The model with the signal to noise ratio (log10) that makes one-step errors smallest."""

    def cost(log_ratio: float) -> float:
        errors = series - make(10**log_ratio).predict(series)[:, 0]
        return float(np.mean(errors[skip:] ** 2))

    found: Any = scipy.optimize.minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 0.05})
    model = make(10 ** float(found.x))
    errors = series - model.predict(series)[:, 0]
    variance = np.array([[max(float(np.mean(errors[skip:] ** 2)), np.finfo(float).tiny)]])
    return InnovationModel(model.A, model.B, model.C, model.D, model.K, variance, y_offset=model.y_offset)


@dataclass(frozen=True)
class TrendLayer:
    r"""A local linear trend: level and slope that wander (the one-sided filter of Hodrick and Prescott).

    .. math:: \ell_{t+1} = \ell_t + b_t,\quad b_{t+1} = b_t + \zeta_t,\quad y_t = \ell_t + \epsilon_t .

    Parameters
    ----------
    ratio : float, optional
        Variance of zeta over that of epsilon (one over Hodrick and Prescott's lambda); by default the one that predicts
        best.
    name : str
        What the stack calls the layer.

    Examples
    --------
    >>> TrendLayer().fit(np.arange(50.0)).order
    2
    """

    ratio: float | None = None
    name: str = "trend"

    def fit(self, series: Array) -> InnovationModel:
        """Fit the layer to a ``series`` [T]; the first value is the starting level."""
        first = np.array([series[: min(5, len(series))].mean()])

        def make(ratio: float) -> InnovationModel:
            a, c = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
            form = innovation_form(a, c, np.diag([0.0, ratio]), np.zeros((2, 1)), np.eye(1))
            return InnovationModel(a, np.zeros((2, 0)), c, np.zeros((1, 0)), form.K, form.covariance, y_offset=first)

        if self.ratio is not None:
            return make(self.ratio)
        return _fit_ratio(make, series, -8, 2, min(10, len(series) // 4))


@dataclass(frozen=True)
class SeasonalLayer:
    r"""Harmonics of a period, with phases and amplitudes that wander.

    .. math:: x_{t+1} = \operatorname{diag}(R_{2\pi k/s})\, x_t + \omega_t,
              \qquad y_t = (1\,0\,1\,0 \dots)\, x_t + \epsilon_t .

    Parameters
    ----------
    period : float
        s, in samples, above 2.
    harmonics : int, optional
        Number of harmonics; by default all below the Nyquist frequency, up to 6.
    ratio : float, optional
        Variance of omega over that of epsilon; by default the one that predicts best.
    name : str
        What the stack calls the layer.

    Examples
    --------
    >>> SeasonalLayer(12, harmonics=2).fit(np.sin(2 * np.pi * np.arange(60) / 12)).order
    4
    """

    period: float
    harmonics: int | None = None
    ratio: float | None = None
    name: str = "seasonal"

    def fit(self, series: Array) -> InnovationModel:
        """Fit the layer to a ``series`` [T]."""
        if self.period <= 2:
            raise ValueError(f"period: expected more than 2 samples, got {self.period!r}")
        most = int(np.ceil(self.period / 2) - 1) or 1
        count = min(most, 6) if self.harmonics is None else as_index(self.harmonics, "harmonics", 1, most)
        a, c = np.zeros((2 * count, 2 * count)), np.zeros((1, 2 * count))
        for k in range(count):
            turn = 2 * np.pi * (k + 1) / self.period
            a[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
            c[0, 2 * k] = 1.0

        def make(ratio: float) -> InnovationModel:
            form = innovation_form(a, c, ratio * np.eye(2 * count), np.zeros((2 * count, 1)), np.eye(1))
            return InnovationModel(a, np.zeros((2 * count, 0)), c, np.zeros((1, 0)), form.K, form.covariance)

        if self.ratio is not None:
            return make(self.ratio)
        return _fit_ratio(make, series, -6, 1, min(int(2 * self.period), len(series) // 2))


@dataclass(frozen=True)
class LinearLayer:
    """What is left and linear: a model by canonical variate analysis.

    Parameters
    ----------
    order : int or str
        State dimension, or a rule of :func:`identify`.
    past : int, optional
        Horizon.
    name : str
        What the stack calls the layer.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(400)
    >>> LinearLayer(order=1).fit(noise + 0.5 * np.roll(noise, 1)).order
    1
    """

    order: int | str = "auto"
    past: int | None = None
    name: str = "linear"

    def fit(self, series: Array) -> InnovationModel:
        """Fit the layer to a ``series`` [T]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RepairWarning)
            return identify(series, order=self.order, past=self.past)
