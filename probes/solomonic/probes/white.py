"""Is a series of prediction errors white? Tests with and without the assumption of equal variances; gaps allowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from .inputs import as_count, as_rng

__all__ = ["WhitenessTests", "whiteness_tests"]

#: What each test assumes of white errors. The first two do not allow the variance to follow the past.
ASSUMES = {
    "ljung_box": "errors of one variance given the past (homoscedastic), many of them",
    "permutation": "errors within a series that can change places (exchangeable), hence of one distribution",
    "sign": "errors of mean 0 given the past, of any variance given the past; many of them where they are skewed",
    "block": "uncorrelated errors, whose products may depend on each other within a block; many blocks",
    "redraw": "errors that the predicted distributions give: a calibrated model; nothing else",
}
#: Fewer blocks have too few patterns of signs for a p-value of 0.05.
_BLOCKS = 6
#: Numbers that one step may hold at once.
_HELD = 1 << 22
#: Statistics that differ by less than this, relative to the observed one, are ties.
_TIE = 1e-10


@dataclass(frozen=True, eq=False)
class WhitenessTests:
    """What :func:`whiteness_tests` returns.

    Parameters
    ----------
    autocorrelation : ndarray [lags]
        At lags 1 to ``lags``.
    deviation : ndarray [lags]
        Its standard deviation for white errors whose variance may follow the past.
    statistic : mapping of str to float
        By test: Q of Ljung and Box, or the sum of squared ratios of autocorrelation to ``deviation``.
    p_value : mapping of str to float
        By test.
    samples : int
        Errors that are not NaN.
    """

    autocorrelation: np.ndarray
    deviation: np.ndarray
    statistic: dict[str, float]
    p_value: dict[str, float]
    samples: int

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} p={value:.3g}" for name, value in self.p_value.items())
        return f"WhitenessTests({self.samples} samples, {len(self.autocorrelation)} lags: {shown})"


def whiteness_tests(
    errors: Any,
    *,
    lags: int = 10,
    tests: Iterable[str] | str | None = None,
    draws: Any = None,
    centre: bool = True,
    block: int | None = None,
    resamples: int = 999,
    rng: int | np.random.Generator | None = None,
) -> WhitenessTests:
    r"""Test series of errors for autocorrelation at lags 1 to m, together; they may have gaps.

    .. math:: \hat\rho_k = \frac{\sum_t e_t e_{t-k}}{\sum_t e_t^2}, \qquad
              Q = n (n + 2) \sum_{k=1}^m \frac{\hat\rho_k^2}{n_k}, \qquad
              R = \sum_{k=1}^m \frac{\bigl(\sum_b g_{bk}\bigr)^2}{\sum_b g_{bk}^2}, \quad
              g_{bk} = \sum_{t \in b} e_t e_{t-k}

    with n errors, :math:`n_k` pairs that are k apart, and blocks b of one position ("sign") or several ("block"). Q is
    compared with :math:`\chi^2_m` ("ljung_box") and with Q of series in random order ("permutation"); R with what it
    becomes when every block's products change sign at random: :math:`g_b \to s_b g_b`, :math:`s_b = \pm 1`. "redraw" is
    for a model that says from which distribution each error came: the sum over k of
    :math:`(\sum_t e_t e_{t-k})^2 / \sum_t e_{t-k}^2`, compared with what it becomes when :math:`e_t`, and not
    :math:`e_{t-k}`, is drawn anew.

    Parameters
    ----------
    errors : array_like [T] or [series, T]
        Errors, NaN where there is none. Products are taken within a series and summed over series.
    lags : int, default 10
        m, the largest lag.
    tests : iterable of str, optional
        Some of "ljung_box", "permutation", "sign", "block" and "redraw"; by default all that can be made.
    draws : array_like [draws, T] or [draws, series, T], optional
        Errors drawn independently from what was predicted at each position, for "redraw".
    centre : bool, default True
        Whether to take off the mean over all errors. Errors whose mean is known to be 0 need no centring.
    block : int, optional
        Positions of a block; by default the cube root of T, rounded up. With T or more each series is a block.
    resamples : int, default 999
        Random orders, and random signs.
    rng : int, numpy.random.Generator or None
        Source of both.

    Returns
    -------
    WhitenessTests
        ``.autocorrelation``, ``.deviation``, ``.statistic``, ``.p_value`` by test, ``.samples``. Without
        ``tests``, those for which there are too few blocks are NaN.

    Raises
    ------
    ValueError
        If there are more than two axes, infinite or constant errors, or no pair at a lag, if a test is not known, or
        one that is named has products in fewer than 6 blocks, whose signs have too few patterns, or if ``draws`` are
        missing, not finite where errors are, or of another shape.

    Notes
    -----
    What each test assumes stands in ``solomonic.probes.white.ASSUMES``. Prediction errors of a calibrated model have
    mean 0 given the past, and a variance that follows the past: Ljung-Box and permutation reject too often where large
    errors follow large ones. "sign" does not in the limit; where the errors are skewed and few of them are large, it
    needs thousands. "redraw" knows how skewed they are and keeps its level with hundreds; it tests the model's
    distributions along with whiteness. "block" is also for errors that are uncorrelated and no more than that.
    Costs O(n m resamples).

    References
    ----------
    Ljung and Box, "On a measure of lack of fit in time series models" (1978); Lobato, Nankervis and Savin, "Testing
    for autocorrelation using a modified Box-Pierce Q test" (2001), section 2, for R with one position a block; Wu,
    "Jackknife, bootstrap and other resampling methods in regression analysis" (1986), section 7, and Shao, "The
    dependent wild bootstrap" (2010), for the signs.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import whiteness_tests
    >>> noise = np.random.default_rng(0).standard_normal((8, 200))
    >>> whiteness_tests(noise, rng=0).p_value["sign"] > 0.05
    True
    >>> whiteness_tests(noise[:, 1:] + 0.3 * noise[:, :-1], rng=0).p_value["sign"]
    0.001
    """
    value = as_errors(errors)
    lags, resamples = as_count(lags, "lags"), as_count(resamples, "resamples", 19)
    names = as_tests(tests, draws is not None)
    drawn = _as_draws(draws, value) if "redraw" in names else np.empty(0)
    generator, _ = as_rng(rng)
    length = value.shape[1]
    block = int(np.ceil(length ** (1 / 3))) if block is None else as_count(block, "block")
    there = np.isfinite(value)
    e = np.where(there, value - (value[there].mean() if centre else 0.0), 0.0)
    power = float((e**2).sum())
    if power <= 1e-24 * float((value[there] ** 2).sum()) or power == 0:
        raise ValueError("errors: expected errors that vary, got a constant")
    pairs = _pairs(there, lags)
    if not pairs.all():
        raise ValueError(
            f"lags: no two errors are {int(np.argmin(pairs > 0)) + 1} apart in series of {length}, "
            f"{int(there.sum())} of them not NaN; give fewer lags or longer series"
        )
    products = _products(e, lags)
    sums = products.sum((0, 1))
    statistic: dict[str, float] = {}
    p_value: dict[str, float] = {}
    weight = _weights(int(there.sum()), pairs) / power**2
    for name in names:
        if name in ("ljung_box", "permutation"):
            statistic[name] = float(weight @ sums**2)
        if name == "ljung_box":
            p_value[name] = float(chi2.sf(statistic[name], lags))
        elif name == "permutation":
            p_value[name] = _by_order(e, there, lags, weight, statistic[name], resamples, generator)
        elif name == "redraw":
            statistic[name], p_value[name] = _by_draw(e, there, drawn, lags, centre)
        else:
            grouped = _grouped(products, 1 if name == "sign" else block)
            if len(grouped) < _BLOCKS and tests is not None:
                raise ValueError(
                    f"errors: the {name} test needs products in at least {_BLOCKS} blocks, got {len(grouped)}; give "
                    "longer or more series, or smaller blocks"
                )
            statistic[name], p_value[name] = _by_sign(grouped, resamples, generator)
    deviation = np.sqrt((products**2).sum((0, 1))) / power
    return WhitenessTests(sums / power, deviation, statistic, p_value, int(there.sum()))


def mean_test(excess: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    r"""The statistic and p-value of mean 0 for errors of known variances given the past.

    .. math:: \sum_t e_t \Big/ \sqrt{\sum_t v_t} \to N(0, 1)

    Entries that are NaN in either are left out.
    """
    there = np.isfinite(excess) & np.isfinite(variance)
    ratio = float(excess[there].sum() / np.sqrt(variance[there].sum()))
    return ratio, float(2 * norm.sf(abs(ratio)))


def as_tests(tests: Iterable[str] | str | None, draws: bool) -> list[str]:
    """Names of tests; all that can be made for None."""
    if tests is None:
        return [name for name in ASSUMES if draws or name != "redraw"]
    names = [tests] if isinstance(tests, str) else list(tests)
    unknown = [name for name in names if name not in ASSUMES]
    if unknown or not names:
        raise ValueError(f"tests: expected some of {list(ASSUMES)}, got {unknown or names}")
    if "redraw" in names and not draws:
        raise ValueError("draws: 'redraw' needs errors drawn from what was predicted; give draws or leave it out")
    return names


def _as_draws(draws: Any, errors: np.ndarray) -> np.ndarray:
    """Draws [draws, series, T], 0 where there is no error."""
    value = np.asarray(draws)
    value = value[:, None] if value.ndim == 2 and len(errors) == 1 else value
    if value.ndim != 3 or value.shape[1:] != errors.shape or len(value) < 19:
        raise ValueError(f"draws: expected at least 19 of shape {errors.shape} as errors has, got {value.shape}")
    there = np.isfinite(errors)
    if not np.isfinite(value[:, there]).all():
        raise ValueError("draws: expected finite numbers wherever an error is not NaN")
    return np.where(there, value, 0.0)


def as_errors(errors: Any) -> np.ndarray:
    """Errors as float64 [series, T], NaN where there is none."""
    value = np.asarray(errors, dtype=np.float64)
    if value.ndim not in (1, 2) or value.size == 0:
        raise ValueError(f"errors: expected [T] or [series, T], not empty, got shape {value.shape}")
    if np.isinf(value).any():
        raise ValueError("errors: expected numbers, or NaN where there is none; got infinite ones")
    value = value[None] if value.ndim == 1 else value
    if np.isfinite(value).sum() < 3:
        raise ValueError(f"errors: expected at least 3 that are not NaN, got {int(np.isfinite(value).sum())}")
    return value


def _pairs(there: np.ndarray, lags: int) -> np.ndarray:
    """How many pairs of errors are 1 .. lags apart."""
    return np.array([np.count_nonzero(there[:, k:] & there[:, : there.shape[1] - k]) for k in range(1, lags + 1)])


def _weights(samples: int, pairs: np.ndarray) -> np.ndarray:
    """What the squared autocorrelations weigh in Q; of series without gaps n (n + 2) / (n - k)."""
    return samples * (samples + 2) / pairs


def _products(e: np.ndarray, lags: int) -> np.ndarray:
    """e_t e_{t-k} [series, T, lags]; 0 where one of the two is not there."""
    out = np.zeros((*e.shape, lags))
    for k in range(1, lags + 1):
        out[:, k:, k - 1] = e[:, k:] * e[:, : e.shape[1] - k]
    return out


def _grouped(products: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of positions of each series [blocks, lags]; blocks with no product at all are left out."""
    series, length, lags = products.shape
    block = min(block, length)
    padded = np.pad(products, ((0, 0), (0, -length % block), (0, 0)))
    sums = padded.reshape(series, -1, block, lags).sum(2).reshape(-1, lags)
    return sums[(sums != 0).any(1)]


def _by_sign(grouped: np.ndarray, resamples: int, generator: np.random.Generator) -> tuple[float, float]:
    """R and its p-value under random signs of the rows of ``grouped`` [blocks, lags]; NaN for too few of them."""
    if len(grouped) < _BLOCKS:
        return np.nan, np.nan
    size = (grouped**2).sum(0)
    ratio = grouped / np.sqrt(np.where(size > 0, size, 1.0))
    observed = float((ratio.sum(0) ** 2).sum())
    above = 0
    for count in _portions(resamples, len(ratio)):
        signs = 2.0 * generator.integers(2, size=(count, len(ratio)), dtype=np.int8) - 1.0
        above += int((((signs @ ratio) ** 2).sum(1) >= observed * (1 - _TIE)).sum())
    return observed, (1 + above) / (1 + resamples)


def _by_draw(e: np.ndarray, there: np.ndarray, drawn: np.ndarray, lags: int, centre: bool) -> tuple[float, float]:
    """Lagged errors against errors, and against those drawn anew [draws, series, T]."""
    if centre:
        drawn = np.where(there, drawn - (drawn.sum((1, 2)) / there.sum())[:, None, None], 0.0)
    observed, found = 0.0, np.zeros(len(drawn))
    for k in range(1, lags + 1):
        before = e[:, : e.shape[1] - k]
        size = float((before**2 * there[:, k:]).sum())
        if size > 0:
            observed += float((e[:, k:] * before).sum()) ** 2 / size
            found += np.einsum("rst,st->r", drawn[:, :, k:], before) ** 2 / size
    return observed, (1 + int((found >= observed * (1 - _TIE)).sum())) / (1 + len(drawn))


def _by_order(
    e: np.ndarray,
    there: np.ndarray,
    lags: int,
    weight: np.ndarray,
    observed: float,
    resamples: int,
    generator: np.random.Generator,
) -> float:
    """The p-value of Q among those of series in random order; gaps stay where they are."""
    length, above = e.shape[1], 0
    for count in _portions(resamples, e.size):
        sums = np.zeros((count, lags))
        for row, here in zip(e, there, strict=True):
            drawn = np.zeros((count, length))
            drawn[:, here] = generator.permuted(np.broadcast_to(row[here], (count, int(here.sum()))), axis=1)
            for k in range(1, min(lags, length - 1) + 1):
                sums[:, k - 1] += np.einsum("rt,rt->r", drawn[:, k:], drawn[:, : length - k])
        above += int((sums**2 @ weight >= observed * (1 - _TIE)).sum())
    return (1 + above) / (1 + resamples)


def _portions(total: int, width: int) -> list[int]:
    step = max(1, _HELD // max(1, width))
    return [min(step, total - i) for i in range(0, total, step)]
