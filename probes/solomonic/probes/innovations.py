"""The prediction errors of a language model as innovations: are they white, and is the model calibrated?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from solomonic.models import AdaptedLM, HybridLM

from .inputs import NothingToMeasure, as_count, as_ids, as_level, as_model, as_rng, finite
from .labelled import provenance, units
from .ratios import ratio_interval
from .reliability import reliability
from .statistics import bootstrap_interval
from .white import ASSUMES, WhitenessTests, mean_test, whiteness_tests

__all__ = ["innovations"]

_LOG2 = float(np.log(2.0))
#: Probabilities that one step may hold at once.
_HELD = 1 << 22
_UNITS = {
    "surprise": ("surprise -log2 p of the token that came", "bit"),
    "entropy": ("entropy of the prediction: the surprise it expects", "bit"),
    "varentropy": ("variance of the surprise that the prediction expects", "bit^2"),
    "excess": ("surprise less entropy", "bit"),
    "z": ("excess over the square root of varentropy; NaN where the prediction leaves no room for surprise", "1"),
    "excess_mean": ("mean excess, 0 for a calibrated model and positive for one that is too sure", "bit"),
    "excess_mean_interval": ("confidence interval of excess_mean, prompts redrawn", "bit"),
    "z_mean": ("mean of z, 0 for a calibrated model", "1"),
    "z_mean_interval": ("confidence interval of z_mean, prompts redrawn", "1"),
    "z_variance": ("mean square of z, 1 for a calibrated model", "1"),
    "z_variance_interval": ("confidence interval of z_variance, prompts redrawn", "1"),
    "mean_statistic": ("sum of the excess over the root of the summed varentropy, N(0, 1) if calibrated", "1"),
    "mean_p_value": ("p-value of mean 0, of the excess drawn anew", "1"),
    "autocorrelation": ("autocorrelation of the errors of all prompts", "1"),
    "autocorrelation_deviation": ("its standard deviation for white errors of any variance given the past", "1"),
    "autocorrelation_prompt": ("autocorrelation of the errors of a prompt", "1"),
    "statistic": ("statistic of the test over all prompts", "1"),
    "p_value": ("p-value of whiteness over all prompts", "1"),
    "p_value_prompt": ("p-value of whiteness of a prompt; NaN where it has too few errors", "1"),
    "count": ("predictions of the bin", "1"),
    "confidence": ("mean probability of the top prediction", "1"),
    "accuracy": ("share of the top predictions that came", "1"),
    "accuracy_interval": ("confidence interval of accuracy, prompts redrawn", "1"),
    "ece": ("expected calibration error of the top prediction", "1"),
    "ece_interval": ("confidence interval of the ece that more data would have", "1"),
    "ece_calibrated": ("mean ece of a calibrated model with these confidences", "1"),
    "ece_p_value": ("share of calibrated models with an ece as large", "1"),
    "time": ("position of the token that is predicted", "token"),
    "lag": ("lag", "token"),
    "bin_low": ("lower edge of the bin of confidence", "1"),
    "bin_high": ("upper edge of the bin of confidence", "1"),
}


class Scores(NamedTuple):
    """Of each prediction; arrays of one shape but for ``drawn``, which has the draws first. Bits.

    Attributes
    ----------
    surprise, entropy, varentropy : ndarray
        Of the token that came, and what the prediction expects of it: mean and variance.
    confidence, correct : ndarray
        Probability of the most probable token, and whether it came.
    drawn : ndarray
        Surprises of tokens drawn from the prediction, float32.
    """

    surprise: np.ndarray
    entropy: np.ndarray
    varentropy: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    drawn: np.ndarray


def innovations(
    model: HybridLM | AdaptedLM | torch.nn.Module,
    ids: Any,
    *,
    lags: int = 10,
    errors: str = "z",
    floor: float = 1e-6,
    block: int | None = None,
    bins: int = 15,
    confidence: float = 0.95,
    resamples: int = 499,
    rng: int | np.random.Generator | None = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Prediction errors on a text, tests of their whiteness, and the calibration of the model.

    .. math:: s_t = -\log_2 p(x_t \mid x_{<t}), \quad H_t = \mathrm E_{p_t}[s_t], \quad
              V_t = \mathrm{var}_{p_t}[s_t], \quad z_t = (s_t - H_t) / \sqrt{V_t}

    If each token really comes from what the model predicts, the excess :math:`s_t - H_t` has mean 0 given the past, so
    it is not correlated with any earlier one, and z has variance 1 given the past. If the excess can be told from
    earlier ones, the state of the model does not hold all of the past that matters.

    Parameters
    ----------
    model : HybridLM, AdaptedLM or a model of transformers
        The model.
    ids : array_like of int
        Texts [T] or [prompts, T], independent of each other; every token but the first is predicted.
    lags : int, default 10
        m: autocorrelations at lags 1 to m are tested together, within prompts.
    errors : {"z", "excess"}, default "z"
        Which errors are tested: of variance 1 given the past if the model is calibrated, or in bits, where sure
        predictions count little.
    floor : float, default 1e-6
        Bits squared: predictions with a varentropy of at most this are left out (z is NaN). That depends on the
        prediction alone, so that what is left still has mean 0 given the past.
    block : int, optional
        Positions of a block of the block test, see :func:`whiteness_tests`.
    bins : int, default 15
        Bins of confidence, of equal width.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 499
        Draws from the predictions, and resamples of every test and interval.
    rng : int, numpy.random.Generator or None
        Source of all of them.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Dims prompt, time (1 to T - 1), lag, test, bin, bound.

        - ``surprise``, ``entropy``, ``varentropy``, ``excess``, ``z`` (prompt, time).
        - ``p_value``, ``statistic`` (test) over all prompts, and ``p_value_prompt`` (prompt, test), for the tests of
          :func:`whiteness_tests`; the coordinate ``assumes`` (test) says what each assumes. ``autocorrelation`` and
          ``autocorrelation_deviation`` (lag), ``autocorrelation_prompt`` (prompt, lag).
        - ``excess_mean``, ``z_mean``, ``z_variance`` with intervals, ``mean_statistic``, ``mean_p_value``: calibration
          of the spread.
        - ``count``, ``confidence``, ``accuracy`` with its interval (bin), ``ece`` with its interval,
          ``ece_calibrated``, ``ece_p_value``: calibration of the top prediction. A bin's interval is NaN where some
          resample leaves it empty.

        Intervals are NaN for one prompt. Attributes: ``masked``, the predictions left out; provenance.

    Raises
    ------
    TypeError, ValueError
        If the logits are NaN, a prompt has less than 3 tokens, the lags do not fit, or an argument is out of its range.
    NothingToMeasure
        If all predictions are left out, or so many that no two are as far apart as a lag.

    Notes
    -----
    Read the test "redraw" first: it takes the distributions that the model predicted as they are, keeps its level
    however much the variance follows the past, and rejects where the errors are correlated. Ljung-Box and permutation
    assume errors of one variance or distribution, which those of a language model are not; "sign" and "block" are right
    in the limit. Errors of different prompts may differ in mean: that is correlation, too, in ``p_value`` and not in
    ``p_value_prompt``, which centres each prompt.

    ``ece`` is biased away from 0: compare it with ``ece_calibrated``, and take ``ece_p_value`` for a test. Its interval
    is of the error that more data would have, and mostly below ``ece`` where that is small. The law of the ECE of a
    calibrated model is drawn with hits that are independent given the confidences. Costs one run of each prompt,
    ``resamples`` draws a prediction and O(resamples T lags) for each test and prompt.

    References
    ----------
    Ljung and Box (1978); Lobato, Nankervis and Savin (2001), section 2; Guo et al., "On calibration of modern neural
    networks" (arXiv:1706.04599), equation 3 (ECE); Bröcker and Smith, "Increasing the reliability of reliability
    diagrams" (2007), section 3 (its law by redrawing); Braverman et al., "Calibration, entropy rates, and memory in
    language models" (arXiv:1906.05664) for the excess of language models.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import load
    >>> from solomonic.probes import innovations
    >>> text = torch.tensor(list(b"def area(width, height):\n    return width * height\n"))
    >>> found = innovations(load("fading"), text, lags=4, resamples=99)
    >>> found.sizes["time"], found.sizes["lag"]
    (50, 4)
    >>> [str(name) for name in found.test.values]
    ['ljung_box', 'permutation', 'sign', 'block', 'redraw']
    """
    model = as_model(model)
    texts = as_ids(ids, model, least=3)
    lags, bins = as_count(lags, "lags"), as_count(bins, "bins")
    resamples, confidence = as_count(resamples, "resamples", 19), as_level(confidence, "confidence")
    if errors not in ("z", "excess"):
        raise ValueError(f"errors: expected 'z' or 'excess', got {errors!r}")
    if isinstance(floor, bool) or not isinstance(floor, int | float | np.number) or not 0 <= floor < np.inf:
        raise ValueError(f"floor: expected a varentropy of at least 0 bits squared, got {floor!r}")
    if lags > texts.shape[1] - 2:
        raise ValueError(
            f"lags: {texts.shape[1]} tokens have {texts.shape[1] - 1} errors and lags up to {texts.shape[1] - 2}, "
            f"got {lags}; give longer prompts or fewer lags"
        )
    generator, seed = as_rng(rng)
    found = _scores(model, texts, resamples, generator, progress)
    room = found.varentropy > floor
    _require_room(room, lags, floor)
    excess = found.surprise - found.entropy
    spread = np.sqrt(np.where(room, found.varentropy, np.nan))
    z = excess / spread
    drawn = found.drawn - found.entropy
    series, redrawn = (z, drawn / spread) if errors == "z" else (np.where(room, excess, np.nan), drawn)
    options = {"lags": lags, "block": block, "resamples": resamples, "rng": generator}
    pooled = whiteness_tests(series, draws=redrawn, **options)
    each = [_of_prompt(series[i], redrawn[:, i], options) for i in range(len(series))]
    trust = reliability(
        found.confidence, found.correct, bins=bins, level=confidence, resamples=resamples, generator=generator
    )
    per_prompt = [np.where(room, v, 0.0).sum(1) / np.maximum(room.sum(1), 1) for v in (excess, z)]
    per_prompt = [v[room.any(1)] for v in per_prompt]
    intervals = [bootstrap_interval(v, confidence=confidence, resamples=resamples, rng=generator) for v in per_prompt]
    squares = (np.where(room, z, 0.0) ** 2).sum(1)
    z_variance = ratio_interval(squares, room.sum(1), confidence=confidence, within=(0, np.inf))
    sums = np.where(room, drawn, 0.0).sum((1, 2))
    total = np.abs(excess[room].sum())
    tests = list(ASSUMES)
    data = {
        **{name: (("prompt", "time"), getattr(found, name)) for name in ("surprise", "entropy", "varentropy")},
        "excess": (("prompt", "time"), excess),
        "z": (("prompt", "time"), z),
        "excess_mean": per_prompt[0].mean(),
        "excess_mean_interval": ("bound", intervals[0]),
        "z_mean": per_prompt[1].mean(),
        "z_mean_interval": ("bound", intervals[1]),
        "z_variance": np.nanmean(z**2),
        "z_variance_interval": ("bound", z_variance),
        "mean_statistic": mean_test(np.where(room, excess, np.nan), found.varentropy)[0],
        "mean_p_value": (1 + (np.abs(sums) >= total * (1 - 1e-10)).sum()) / (1 + resamples),
        "autocorrelation": ("lag", pooled.autocorrelation),
        "autocorrelation_deviation": ("lag", pooled.deviation),
        "autocorrelation_prompt": (("prompt", "lag"), _stacked(each, "autocorrelation", lags)),
        "statistic": ("test", [pooled.statistic[name] for name in tests]),
        "p_value": ("test", [pooled.p_value[name] for name in tests]),
        "p_value_prompt": (
            ("prompt", "test"),
            [[np.nan if w is None else w.p_value[name] for name in tests] for w in each],
        ),
        **{name: ("bin", getattr(trust, name)) for name in ("count", "confidence", "accuracy")},
        "accuracy_interval": (("bound", "bin"), trust.accuracy_interval),
        "ece_interval": ("bound", trust.ece_interval),
        **{name: getattr(trust, name) for name in ("ece", "ece_calibrated", "ece_p_value")},
    }
    coords = {
        "prompt": np.arange(len(texts)),
        "time": np.arange(1, texts.shape[1]),
        "lag": np.arange(1, lags + 1),
        "test": tests,
        "assumes": ("test", [ASSUMES[name] for name in tests]),
        "bin": np.arange(bins),
        "bin_low": ("bin", trust.edges[:-1]),
        "bin_high": ("bin", trust.edges[1:]),
        "bound": ["lower", "upper"],
    }
    arguments = {"ids": texts, "lags": lags, "errors": errors, "floor": floor, "block": block, "bins": bins}
    arguments |= {"confidence": confidence, "resamples": resamples}
    attrs = {
        **provenance("innovations", model=model, arguments=arguments, seed=seed),
        "errors": errors,
        "masked": int((~room).sum()),
        "confidence": confidence,
    }
    return units(xr.Dataset(data, coords, attrs), _UNITS)


def _require_room(room: np.ndarray, lags: int, floor: float) -> None:
    """Refuse predictions [prompts, T - 1] that are too sure to test: too few of them with room, or too far apart."""
    apart = [bool((room[:, k:] & room[:, :-k]).any()) for k in range(1, lags + 1)]
    if room.sum() < 3 or not all(apart):
        lacking = "" if room.sum() < 3 else f", and no two of them are {apart.index(False) + 1} tokens apart"
        raise NothingToMeasure(
            f"floor: {int(room.sum())} predictions have a varentropy over {floor:g} bits squared{lacking}; give longer "
            "texts or a smaller floor"
        )


@torch.no_grad()
def _scores(
    model: HybridLM | AdaptedLM, texts: torch.Tensor, draws: int, generator: np.random.Generator, progress: bool
) -> Scores:
    """Scores [prompts, T - 1] of every prediction, prompt by prompt."""
    device = next(model.parameters()).device
    rows = []
    for text in tqdm(texts, disable=not progress, unit="prompt", desc="innovations"):
        logits = model(text[None, :-1].to(device)).logits[0]
        log_p = finite(logits, "the logits").double().log_softmax(-1).cpu().numpy()
        rows.append(scores(log_p, text[1:].numpy(), draws, generator))
    drawn = np.stack([row.drawn for row in rows], 1)
    surprise, entropy, varentropy, confidence, correct = (
        np.stack(field) for field in list(zip(*rows, strict=True))[:5]
    )
    return Scores(surprise, entropy, varentropy, confidence, correct, drawn)


def scores(log_p: np.ndarray, token: np.ndarray, draws: int, generator: np.random.Generator) -> Scores:
    """Scores [T] of predictions given as natural logarithms [T, vocabulary], and of the tokens [T] that came."""
    bits = -log_p / _LOG2
    p = np.exp(log_p)
    some = p > 0  # 0 log 0 = 0
    entropy = np.where(some, p * np.where(some, bits, 0.0), 0.0).sum(-1)
    away = np.where(some, bits, 0.0) - entropy[:, None]
    cumulative = p.cumsum(-1)
    uniform = generator.random((len(token), draws))
    drawn = np.empty((draws, len(token)), dtype=np.float32)
    for t, row in enumerate(cumulative):
        came = np.searchsorted(row, uniform[t] * row[-1], side="right")
        drawn[:, t] = bits[t, np.minimum(came, len(row) - 1)]
    top = log_p.argmax(-1)
    return Scores(
        np.take_along_axis(bits, token[:, None], -1)[:, 0],
        entropy,
        (p * away**2).sum(-1),
        np.minimum(p.max(-1), 1.0),
        (top == token).astype(np.float64),
        drawn,
    )


def _of_prompt(series: np.ndarray, redrawn: np.ndarray, options: dict[str, Any]) -> WhitenessTests | None:
    """The tests of one prompt, centred by its own mean; None where it has too few errors for them."""
    try:
        return whiteness_tests(series, draws=redrawn, **options)
    except ValueError:
        return None


def _stacked(each: list[WhitenessTests | None], name: str, lags: int) -> np.ndarray:
    return np.stack([np.full(lags, np.nan) if w is None else getattr(w, name) for w in each])
