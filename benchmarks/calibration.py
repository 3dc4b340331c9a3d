"""How often intervals cover, and how often tests find what is not there: the tables of docs/probes/statistics.md.

Run ``python benchmarks/calibration.py [PART ...] [--simulations 2000] [--jobs 2]``. Parts, all by default: ``means``;
``medians``; ``shares``, exact and without simulation; ``ratios``; ``alike``, pairs of memories; ``calibration``, the
expected calibration error; ``survival``, Kaplan-Meier medians; ``fisher``; ``shuffled``; ``copies``; and ``library``,
all of ``linear_probe`` with a tenth of the simulations. The whole takes an hour or more on one core; ``shares``,
``alike`` and ``survival`` seconds, ``means``, ``medians``, ``ratios`` and ``calibration`` minutes. Seeds are fixed.

``shuffled`` and ``copies`` fit logistic regressions by Newton's method for many data sets at once; the first data sets
are compared with the fits of the library. ``library`` goes through scikit-learn, as users do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import beta as beta_law
from scipy.stats import binom
from scipy.stats import t as student

from solomonic.probes import (
    bootstrap_interval,
    discoveries,
    held_out_interval,
    held_out_test,
    kaplan_meier,
    linear_probe,
    paired_test,
    ratio_interval,
    shuffle_test,
)
from solomonic.probes.distinguishability import alike_interval
from solomonic.probes.fisher_information import _PROXIES, _interval, _jackknife
from solomonic.probes.held_out_scores import HeldOutScores
from solomonic.probes.reliability import ece_interval

BLOCK = 25
FOLDS = 5


def skewed(sigma: float, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-normal numbers."""
    return np.exp(sigma * rng.normal(size=shape))


def paired(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences of two rare outcomes."""
    return rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=shape)


#: Law -> (draw, mean). The last six took no part in choosing how much the intervals widen.
LAWS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], float]] = {
    "normal": (lambda r, s: r.normal(size=s), 0.0),
    "exponential": (lambda r, s: r.exponential(size=s), 1.0),
    "log-normal, sigma 1": (partial(skewed, 1.0), np.exp(0.5)),
    "t, 3 degrees": (lambda r, s: r.standard_t(3, s), 0.0),
    "gamma, shape 1/4": (lambda r, s: r.gamma(0.25, size=s), 0.25),
    "-1, 0, 1: 5, 80, 15 %": (paired, 0.1),
    "log-normal, sigma 1/2": (partial(skewed, 0.5), np.exp(0.125)),
    "log-normal, sigma 3/2": (partial(skewed, 1.5), np.exp(1.125)),
    "chi square, 1 degree": (lambda r, s: r.chisquare(1, s), 1.0),
    "Pareto, index 3": (lambda r, s: r.pareto(3.0, s), 0.5),
    "Laplace": (lambda r, s: r.laplace(size=s), 0.0),
    "beta 1/2, 1/2": (lambda r, s: r.beta(0.5, 0.5, s), 0.5),
}


#: Natural ranges, where there are two ends.
RANGES = {"-1, 0, 1: 5, 80, 15 %": (-1.0, 1.0), "beta 1/2, 1/2": (0.0, 1.0)}


def blocks(total: int) -> Iterator[tuple[int, int]]:
    """(seed, size) of blocks; the simulations of one share their resamples, not their data."""
    for seed, start in enumerate(range(0, total, BLOCK)):
        yield seed, min(BLOCK, total - start)


def gathered(work: Callable[..., Any], total: int, jobs: int, *given: Any) -> list[Any]:
    """What every block gives."""
    return list(Parallel(jobs)(delayed(work)(seed, size, *given) for seed, size in blocks(total)))


def covered(bounds: np.ndarray, truth: Any) -> np.ndarray:
    """Whether intervals hold the truth."""
    return np.asarray((bounds[0] <= truth) & (truth <= bounds[1]))


def of_means(seed: int, size: int, law: str, n: int) -> dict[str, np.ndarray]:
    """Coverage by method, and which bounds are not finite."""
    rng = np.random.default_rng([seed, n, 1])
    draw, mean = LAWS[law]
    values = draw(rng, (n, size))
    half = student.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    found = {"Student": np.stack([values.mean(0) - half, values.mean(0) + half])}
    for method in ("percentile", "bca", "studentized"):
        found[method] = bootstrap_interval(values, method=method, rng=rng)
    if law in RANGES:
        found["within"] = bootstrap_interval(values, within=RANGES[law], rng=rng)
    out = {name: covered(bounds, mean) for name, bounds in found.items()}
    return out | {"infinite": np.asarray(~np.isfinite(found["studentized"]).all(0))}


def means(total: int, jobs: int) -> None:
    """Coverage of means."""
    for law in LAWS:
        for n in (12, 20, 32, 64):
            rows = gathered(of_means, total, jobs, law, n)
            print(f"{law:24}{n:4}  ", shares_of(rows), flush=True)


def shares_of(rows: list[dict[str, np.ndarray]]) -> str:
    """Percentages by name."""
    return "  ".join(f"{name} {100 * np.concatenate([row[name] for row in rows]).mean():.1f}" for name in rows[0])


@cache
def middle_of(law: str) -> float:
    """The median of a law, to a thousandth of its spread."""
    return float(np.median(LAWS[law][0](np.random.default_rng(0), (4_000_001,))))


def of_medians(seed: int, size: int, law: str, n: int) -> dict[str, np.ndarray]:
    """Coverage of medians."""
    rng = np.random.default_rng([seed, n, 6])
    values = LAWS[law][0](rng, (n, size))
    return {"percentile": covered(bootstrap_interval(values, "median", rng=rng), middle_of(law))}


def medians(total: int, jobs: int) -> None:
    """Coverage of medians."""
    for law in ("normal", "exponential", "log-normal, sigma 3/2", "t, 3 degrees", "gamma, shape 1/4"):
        for n in (12, 20, 32, 64):
            print(f"{law:24}{n:4}  ", shares_of(gathered(of_medians, total, jobs, law, n)), flush=True)


#: Sizes of the classes that memories fall into, up to a factor.
CLASSES = {
    "two of 1/2": [0.5, 0.5],
    "four of 1/4": [0.25] * 4,
    "twelve, as 1/k": [1 / k for k in range(1, 13)],
    "one of 0.7": [0.7, *[0.05] * 6],
    "0.95, 0.05": [0.95, 0.05],
    "forty of 1/40": [1 / 40] * 40,
}


def of_alike(seed: int, size: int, law: str, n: int) -> dict[str, np.ndarray]:
    """Coverage of the share of alike pairs."""
    rng, p = np.random.default_rng([seed, n, 7]), np.array(CLASSES[law]) / sum(CLASSES[law])
    kind = rng.choice(len(p), size=(size, n), p=p)
    same = np.moveaxis(kind[:, :, None] == kind[:, None], 0, -1).astype(int)
    return {"jackknife": covered(alike_interval(same, 0.95)[:, 1:], np.square(p).sum())}


def alike(total: int, jobs: int) -> None:
    """Coverage of the share of pairs of memories that are alike."""
    for law in CLASSES:
        for n in (8, 12, 20, 32, 64):
            print(f"{law:16}{n:4}  ", shares_of(gathered(of_alike, total, jobs, law, n)), flush=True)


#: How often the top prediction is right at a confidence.
RIGHT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda c: c,
    "c - (c - 0.4) / 10": lambda c: c - 0.1 * (c - 0.4),
    "c^1.5": lambda c: c**1.5,
    "c - 0.1 above 0.8": lambda c: np.where(c > 0.8, c - 0.1, c),
}
BINS = 15


def of_calibration(seed: int, size: int, law: str, length: int, n: int) -> dict[str, np.ndarray]:
    """Coverage of the expected calibration error of infinitely many predictions."""
    rng, right = np.random.default_rng([seed, n, length, 8]), RIGHT[law]
    many = (np.arange(1_000_000) + 0.5) / 1_000_000
    weight = beta_law.pdf(many, 2, 1.5)
    truth = np.abs(np.bincount((many * BINS).astype(int), weight * (right(many) - many))).sum() / weight.sum()
    truth = 0.0 if law == "calibrated" else truth
    out: dict[str, list[bool]] = {"redrawn": [], "ece_interval": []}
    for _ in range(size):
        confidence = rng.beta(2, 1.5, (n, length))
        hit = rng.random((n, length)) < right(confidence)
        place = (np.minimum(confidence * BINS, BINS - 1).astype(int) + BINS * np.arange(n)[:, None]).ravel()
        sums = np.stack([np.bincount(place, w.ravel(), n * BINS).reshape(n, BINS) for w in (hit * 0.0 + 1, confidence,
                         hit * 1.0)], 1)  # fmt: skip
        times = rng.multinomial(n, np.full(n, 1 / n), size=499)
        gaps = times @ (sums[:, 2] - sums[:, 1]) / (times @ sums[:, 0].sum(1))[:, None]
        out["redrawn"].append(bool(covered(np.quantile(np.abs(gaps).sum(1), [0.025, 0.975]), truth)))
        bounds = ece_interval(sums, confidence=0.95, resamples=499, rng=rng)
        out["ece_interval"].append(bool(covered(bounds, truth)))
    return {name: np.array(hits) for name, hits in out.items()}


def calibration(total: int, jobs: int) -> None:
    """Coverage of the expected calibration error."""
    for law in RIGHT:
        for length in (64, 256):
            for n in (12, 32):
                rows = gathered(of_calibration, total, jobs, law, length, n)
                print(f"{law:20} {length:4} tokens {n:3} prompts  ", shares_of(rows), flush=True)


def of_survival(seed: int, size: int, cut: float, n: int) -> dict[str, np.ndarray]:
    """Coverage of the median of exponential durations, cut off after the same time."""
    rng, middle = np.random.default_rng([seed, n, int(10 * cut), 9]), np.log(2)
    held = []
    for _ in range(size):
        durations = rng.exponential(size=n)
        _, low, high = kaplan_meier(np.minimum(durations, cut), durations < cut).quantile(0.5)
        held.append(low <= middle <= high)
    return {"Brookmeyer-Crowley": np.array(held)}


def survival(total: int, jobs: int) -> None:
    """Coverage of Kaplan-Meier medians."""
    for cut in (0.8, 1.5, np.inf):
        for n in (12, 20, 32, 64):
            rows = gathered(of_survival, total, jobs, min(cut, 1e6), n)
            print(f"cut off after {cut} means, n {n:3}  ", shares_of(rows), flush=True)


def shares(total: int, jobs: int) -> None:
    """Exact coverage of the mean of n outcomes, over probabilities."""
    p = np.linspace(0.02, 0.98, 961)
    for n in (12, 20, 32, 64):
        hits = np.arange(n + 1)
        outcomes = (np.arange(n)[:, None] < hits).astype(bool)
        low, high = bootstrap_interval(outcomes, rng=0)
        held = (low[:, None] <= p) & (p <= high[:, None])
        share = (binom.pmf(hits[:, None], n, p) * held).sum(0)
        at = {q: share[np.abs(p - q).argmin()] for q in (0.02, 0.05, 0.1, 0.3, 0.5)}
        print(
            f"n {n:3}  mean {share.mean():.3f}  least {share.min():.3f} ",
            {q: round(float(v), 3) for q, v in at.items()},
        )


def of_ratios(seed: int, size: int, freedom: int, kind: str, n: int) -> dict[str, np.ndarray]:
    """Coverage of 1 - sum of errors / sum of squares, and of a difference of two of them."""
    rng = np.random.default_rng([seed, n, freedom, 2])
    z, e, f = rng.normal(size=(3, n, size, freedom))
    total = (z**2).mean(-1)
    error = 0.3 * ((0.6 * z + 0.8 * e) ** 2).mean(-1) * np.exp(0.4 * rng.normal(size=(n, size)) - 0.08)
    other = 0.5 * ((0.6 * z + 0.8 * f) ** 2).mean(-1)
    top, truth = (error, 0.3) if kind == "r2" else (other - error, 0.2)
    both = np.stack([top, total], -1)

    def ratio(values: np.ndarray, axis: int) -> np.ndarray:
        mean = values.mean(axis)
        return mean[..., 0] / mean[..., 1]

    by = bootstrap_interval(both, ratio, rng=rng)
    return {"percentile": covered(by, truth), "Fieller": covered(ratio_interval(top, total), truth)}


def ratios(total: int, jobs: int) -> None:
    """Coverage of R^2 and its differences over few prompts."""
    for kind in ("r2", "gain"):
        for freedom in (2, 4, 10):
            for n in (12, 20, 48):
                print(
                    f"{kind:5} freedom {freedom:3} n {n:3}  ",
                    shares_of(gathered(of_ratios, total, jobs, freedom, kind, n)),
                )


def of_fisher(seed: int, size: int, spread: float, n: int) -> dict[str, np.ndarray]:
    """Coverage of the sums that ``fisher_information`` gives, of squared scores with a known mean."""
    rng = np.random.default_rng([seed, n, int(10 * spread), 3])
    mean = np.exp(rng.normal(0, 2, size=60))
    grid = np.array([0.1, 1.0])
    out: dict[str, list[bool]] = {name: [] for name in ("fisher_mean", "effective", "information")}
    for _ in range(size):
        prompt = np.exp(spread * rng.normal(size=(n, 1)) - spread**2 / 2)
        squares = mean * prompt * rng.gamma(1.0, size=(n, 60))
        where = [slice(0, 60)]
        bounds = _interval(squares.sum(1)[:, None], 0.95, 999, rng, (0.0, np.inf))
        out["fisher_mean"].append(bool(covered(bounds, mean.sum())[0]))
        for name, each in _PROXIES.items():
            value, pseudo = _jackknife(squares, where, grid, each)
            bounds = _interval(pseudo - pseudo.mean(0) + value, 0.95, 999, rng)
            truth = np.array([[each(mean, float(strength)).sum()] for strength in grid])
            out[name].extend(covered(bounds, truth).ravel().tolist())
    return {name: np.array(hits) for name, hits in out.items()}


def fisher(total: int, jobs: int) -> None:
    """Coverage of Fisher information by block."""
    for spread in (0.5, 1.0):
        for n in (12, 20, 32, 64):
            print(f"spread {spread} n {n:3}  ", shares_of(gathered(of_fisher, total, jobs, spread, n)), flush=True)


def logistic(x: np.ndarray, y: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Weights [sets, labellings, d + 1] of logistic regressions of labels 0 and 1 [sets, labellings, n] by Newton."""
    ones = np.concatenate([x, np.ones((*x.shape[:2], 1))], 2)[:, None]
    penalty = np.diag([strength] * x.shape[2] + [1e-9])
    weight = np.zeros((*y.shape[:2], x.shape[2] + 1))
    for _ in range(12):
        p = 1 / (1 + np.exp(-np.clip((ones @ weight[..., None])[..., 0], -30, 30)))
        slope = ((y - p)[..., None, :] @ ones)[..., 0, :] - weight @ penalty
        bend = ((p * (1 - p))[..., None] * ones).swapaxes(2, 3) @ ones + penalty
        weight = weight + np.linalg.solve(bend, slope[..., None])[..., 0]
    return weight


def splits(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of the prompts."""
    fold = np.arange(n) % FOLDS
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(FOLDS)]


def held_out(x: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """Scores [sets, labellings, n] of features [sets, n, d]."""
    if task == "regress":
        fit = HeldOutScores(task, 1.0, splits(x.shape[1]), np.arange(x.shape[1]))
        return np.stack([fit(a, [*b]) for a, b in zip(x, y, strict=True)])
    out = np.empty(y.shape)
    for train, test in splits(x.shape[1]):
        mean, std = x[:, train].mean(1, keepdims=True), x[:, train].std(1, keepdims=True)
        seen = y[:, :, train].astype(float)
        weight = logistic((x[:, train] - mean) / std, seen)
        said = weight[..., :-1] @ ((x[:, test] - mean) / std).swapaxes(1, 2) + weight[..., -1:] > 0
        share = seen.mean(2, keepdims=True)
        said = np.where(share == 0, False, np.where(share == 1, True, said))
        out[:, :, test] = said == y[:, :, test]
    return out


def labels(rng: np.random.Generator, shape: tuple[int, ...], task: str, share: float) -> np.ndarray:
    """Random labels; a share of them is 1."""
    return rng.normal(size=shape) if task == "regress" else rng.random(shape) < share


def of_shuffled(seed: int, size: int, task: str, n: int, share: float, most: int) -> dict[str, np.ndarray]:
    """Discoveries among 8 units of 12 features that know nothing of the labels, by the number of shuffles."""
    rng = np.random.default_rng([seed, n, int(100 * share), most])
    out: dict[str, list[bool]] = {}
    for _ in range(size):
        y = labels(rng, (n,), task, share)
        all_ = np.stack([y, *(rng.permutation(y) for _ in range(most))])
        value = held_out(rng.normal(size=(8, n, 12)), np.broadcast_to(all_, (8, *all_.shape)), task)
        score = value.mean(2)
        old = np.asarray(paired_test((value[:, 0] - value[:, 1:6].mean(1)).T, resamples=999, rng=rng))
        above = score[:, 0] > score[:, 1:6].mean(1)
        out.setdefault("any, signs", []).append(bool((discoveries(old) & above).any()))
        out.setdefault("p, signs", []).extend((old <= 0.05).tolist())
        for count in (10, 20, 99):
            if count <= most:
                p = np.asarray(shuffle_test(score[:, 0], score[:, 1 : count + 1].T))
                out.setdefault(f"any, K {count}", []).append(bool(discoveries(p).any()))
                out.setdefault(f"p, K {count}", []).extend((p <= 0.05).tolist())
    return {name: np.array(hits) for name, hits in out.items()}


def compare_fits() -> None:
    """The fits of this file are those of the library."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 40, 12)), rng.random((3, 2, 40)) < 0.4
    fit = HeldOutScores("classify", 1.0, splits(40), np.arange(40))
    theirs = np.stack([fit(a, [*b]) for a, b in zip(x, y, strict=True)])
    np.testing.assert_array_equal(held_out(x, y, "classify"), theirs)


def shuffled(total: int, jobs: int) -> None:
    """Random labels: how often something is found beside shuffled ones."""
    compare_fits()
    for task, n, share, most in (
        ("classify", 40, 0.5, 20),
        ("classify", 40, 0.2, 20),
        ("classify", 120, 0.5, 20),
        ("regress", 40, 0.0, 99),
        ("regress", 120, 0.0, 99),
    ):
        rows = gathered(of_shuffled, total, jobs, task, n, share, most)
        print(f"{task} n {n} share {share}  ", shares_of(rows), flush=True)


def of_copies(seed: int, size: int, task: str, n: int, noise: float) -> dict[str, np.ndarray]:
    """Two noisy copies of the same features, or features that know nothing (infinite noise), with one target."""
    rng = np.random.default_rng([seed, n, int(min(noise, 99) * 10), 4])
    z, w = rng.normal(size=(size, n, 12)), rng.normal(size=(size, 12, 1))
    y = (z @ w)[..., 0] / np.sqrt(12) + 0.3 * rng.normal(size=(size, n))
    y = y > np.median(y, 1, keepdims=True) if task == "classify" else y
    one, two = rng.normal(size=(2, *z.shape)) if np.isinf(noise) else z + noise * rng.normal(size=(2, *z.shape))
    value = held_out(one, y[:, None], task)[:, 0] - held_out(two, y[:, None], task)[:, 0]
    signs = np.asarray(paired_test(value.T, resamples=999, rng=rng))
    p = np.asarray(held_out_test(value.T, folds=FOLDS))
    return {
        "signs, two-sided": signs <= 0.05,
        "signs, above": (signs <= 0.1) & (value.mean(1) > 0),
        "held_out_test": p <= 0.05,
        "held_out_interval": covered(held_out_interval(value.T, folds=FOLDS), 0.0),
    }


def copies(total: int, jobs: int) -> None:
    """Features that carry the same: how often one is found to be above the other."""
    compare_fits()
    for task in ("classify", "regress"):
        for n in (40, 120):
            for noise in (0.1, 0.7, 3.0, np.inf):
                rows = gathered(of_copies, total, jobs, task, n, noise)
                print(f"{task} n {n:3} noise {noise:3}  ", shares_of(rows), flush=True)


def of_library(seed: int, size: int) -> dict[str, np.ndarray]:
    """``linear_probe`` itself: 40 prompts, random labels, 8 units of 12 features, and as many that know as little."""
    out: dict[str, list[bool]] = {"any beside shuffled": [], "any beside other": [], "selective": [], "p": []}
    for i in range(size):
        rng = np.random.default_rng([seed, i, 5])
        x, other = rng.normal(size=(2, 40, 8, 12))
        found = linear_probe(x, rng.integers(2, size=40), controls={"other": other}, resamples=199, rng=rng)
        out["any beside shuffled"].append(bool(found.discovery.sel(control="shuffled").any()))
        out["any beside other"].append(bool(found.discovery.sel(control="other").any()))
        out["selective"].append(bool(found.selective.any()))
        out["p"].extend((found.p.sel(control="shuffled") <= 0.05).values.tolist())
    return {name: np.array(hits) for name, hits in out.items()}


def library(total: int, jobs: int) -> None:
    """The whole of ``linear_probe`` on random labels."""
    print("linear_probe  ", shares_of(gathered(of_library, max(BLOCK, total // 10), jobs)), flush=True)


_ALL = (means, medians, shares, ratios, alike, calibration, survival, fisher, shuffled, copies, library)
PARTS = {each.__name__: each for each in _ALL}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Coverage of intervals and levels of tests.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"PART: expected some of {', '.join(PARTS)}, got {unknown[0]}")
    for part in given.parts or PARTS:
        print(f"-- {part}: {given.simulations} simulations, percent", flush=True)
        PARTS[part](given.simulations, given.jobs)


if __name__ == "__main__":
    main()
