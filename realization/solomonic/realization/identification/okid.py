"""Markov parameters from any input: observer/Kalman filter identification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._results import Result
from .._systems import as_matrices, to_statespace
from .._validate import Array, as_index, as_number, frozen
from ._records import Records, as_records, scaled
from ._windows import lagged
from .ho_kalman import HoKalman, ho_kalman

if TYPE_CHECKING:
    import control

__all__ = ["OKID", "okid"]


@dataclass(frozen=True, eq=False)
class OKID(Result):
    r"""Markov parameters of a system and of its observer.

    Parameters
    ----------
    markov : ndarray [L, p, m]
        :math:`D, C B, C A B, \dots`
    gain_markov : ndarray [L - 1, p, p]
        :math:`C K, C A K, \dots` of the observer's (Kalman filter's) gain K.
    observer_markov : ndarray [lags, p, m + p]
        :math:`C (A - K C)^{k} [B - K D,\; K]`, what the least squares problem gives.
    residual_covariance : ndarray [p, p]
        Covariance of the one-step prediction errors.
    realization : HoKalman or None
        ``ho_kalman`` of the two together, where an order was asked for: inputs are (u, e).
    inputs : int
        m.
    """

    markov: Array
    gain_markov: Array
    observer_markov: Array
    residual_covariance: Array
    realization: HoKalman | None
    inputs: int

    @property
    def system(self) -> control.StateSpace:
        """The realization from u to y."""
        both, m = as_matrices(self._realized().system), self.inputs
        return to_statespace(both._replace(B=both.B[:, :m], D=both.D[:, :m]))

    @property
    def gain(self) -> Array:
        """K [n, p] in the coordinates of ``system``."""
        return as_matrices(self._realized().system).B[:, self.inputs :]

    def _realized(self) -> HoKalman:
        if self.realization is None:
            raise ValueError("system: expected okid to be called with order=, got none; call okid(y, u, order=n)")
        return self.realization

    def __repr__(self) -> str:
        order = "not realized" if self.realization is None else f"order={self.realization.order}"
        return f"OKID(markov={len(self.markov)}, lags={len(self.observer_markov)}, {order})"


def okid(
    y: Any,
    u: Any,
    *,
    lags: int | None = None,
    length: int | None = None,
    order: int | str | None = None,
    feedthrough: bool = True,
    missing: str = "error",
    center: bool = False,
    rcond: float | None = None,
    dt: Any = True,
) -> OKID:
    r"""Estimate Markov parameters from inputs and outputs through an observer.

    .. math:: y_t = D u_t + \sum_{k=1}^{q} C \bar A^{k-1} (\bar B u_{t-k} + K y_{t-k}) + e_t, \qquad
              \bar A = A - K C,\; \bar B = B - K D .

    Parameters
    ----------
    y : array_like [T] or [T, p], or list of them
        Outputs; a list holds one array a record.
    u : array_like [T] or [T, m], or list of them
        Inputs.
    lags : int, optional
        q; by default the largest up to 50 that leaves ten equations an unknown.
    length : int, optional
        Markov parameters to return, D included; ``2 lags + 1`` by default.
    order : int or str, optional
        Realize them too: a state dimension or "gap" (see :func:`ho_kalman`).
    feedthrough : bool
        Whether D is estimated; zero otherwise.
    missing : str
        What to do about NaN: "error", "trim" (missing at the ends) or "split".
    center : bool
        Take out the means first.
    rcond : float, optional
        Relative cut-off of the least squares problem.
    dt : float or True
        Sampling period.

    Returns
    -------
    OKID
        ``.markov``, ``.gain_markov``, and with an order ``.system`` and ``.gain``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Records shorter than the lags need, of different lengths, constant or collinear channels, NaN.

    Notes
    -----
    The free choice of K makes the impulse response of the observer short where that of the system is long: with
    noise-free data and ``p q >= n`` the result is exact. Cost: :math:`O(T (q (m + p))^2)`.

    References
    ----------
    .. [1] J.-N. Juang, M. Phan, L. G. Horta, R. W. Longman, *Identification of observer/Kalman filter Markov
       parameters: theory and experiments*, J. Guidance, Control, Dynamics 16 (1993), equations 14 to 21.

    Examples
    --------
    >>> import numpy as np
    >>> u = np.random.default_rng(0).standard_normal(200)
    >>> y = np.zeros(200)
    >>> for t in range(199):
    ...     y[t + 1] = 0.5 * y[t] + u[t]
    >>> okid(y, u, lags=2).markov.ravel().round(6)
    array([0.   , 1.   , 0.5  , 0.25 , 0.125])
    """
    records = as_records(y, u, missing=missing)
    plain, _, y_size, _, u_size = scaled(records, center)
    p, m = records.outputs, records.inputs
    if m == 0:
        raise ValueError("u: expected inputs, got none; identify(y) takes outputs alone")
    q = _lags(records, lags)
    used = 2 * q + 1 if length is None else as_index(length, "length", 2, 10**9)
    if rcond is not None:
        rcond = as_number(rcond, "rcond", "a number from 0 to 1", lambda x: 0 <= x < 1)
    blocks, targets = [], []
    for a, b in zip(plain.y, plain.u, strict=True):
        if len(a) > q:
            past = lagged(np.hstack([b, a]), q)
            blocks.append(np.hstack([b[q:], past]) if feedthrough else past)
            targets.append(a[q:])
    if not blocks:
        raise ValueError(f"lags: expected a record longer than {q} samples, got {[len(a) for a in plain.y]}")
    left, right = np.concatenate(blocks), np.concatenate(targets)
    theta = np.linalg.lstsq(left, right, rcond=rcond)[0]
    errors = right - left @ theta
    d = theta[:m].T if feedthrough else np.zeros((p, m))
    past = theta[m:] if feedthrough else theta
    observer = past.reshape(q, m + p, p).transpose(0, 2, 1)
    d = d * (y_size[:, None] / u_size)
    observer = observer * (y_size[:, None] / np.concatenate([u_size, y_size]))
    markov, gain = _unfold(observer, d, used)
    found = None
    if order is not None:
        joint = np.concatenate([markov, np.concatenate([np.eye(p)[None], gain])], axis=2)
        found = ho_kalman(joint, order, dt=dt)
    covariance = (errors.T @ errors / max(len(errors), 1)) * np.outer(y_size, y_size)
    return OKID(frozen(markov), frozen(gain), frozen(observer), frozen(covariance), found, m)


def _lags(records: Records, lags: int | None) -> int:
    longest = max(len(each) for each in records.y)
    channels = records.inputs + records.outputs
    if lags is None:
        return max(1, min(50, records.samples // (10 * channels), longest // 2))
    q = as_index(lags, "lags", 1, 10**6)
    equations = sum(max(len(each) - q, 0) for each in records.y)
    if equations < q * channels + records.inputs:
        raise ValueError(
            f"lags: expected fewer lags than the records can show: {q} lags of {channels} channels are "
            f"{q * channels + records.inputs} unknowns an output, and {equations} equations are left"
        )
    return q


def _unfold(observer: Array, d: Array, length: int) -> tuple[Array, Array]:
    """From observer Markov parameters to those of the system and of the gain."""
    q, p, _ = observer.shape
    m = d.shape[1]
    markov, gain = np.zeros((length, p, m)), np.zeros((length - 1, p, p))
    markov[0] = d
    for k in range(1, length):
        if k <= q:
            markov[k], gain[k - 1] = observer[k - 1, :, :m], observer[k - 1, :, m:]
        back = min(k, q)
        feeds = observer[:back, :, m:]
        markov[k] += np.einsum("ipr,irm->pm", feeds, markov[k - back : k][::-1])
        if k > 1:
            back = min(k - 1, q)
            gain[k - 1] += np.einsum("ipr,irm->pm", observer[:back, :, m:], gain[k - 1 - back : k - 1][::-1])
    return markov, gain
