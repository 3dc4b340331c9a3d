"""The numbers of the bilinear systems: simulation, realization, reduction, identification, tanks, automata.

Run ``python benchmarks/bilinear.py`` (all), or name parts: ``simulate realize truncate identify tanks automata``.
``--data`` names a folder with ``nonlinear/cascaded_tanks.csv`` and ``wfa/``; the parts that need it say so and pass
where it is absent. Each part prints what it asks and what it got; the exit status is 1 when one falls short.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.signal

from solomonic.realization import (
    BilinearSystem,
    FitWarning,
    RationalSeries,
    fit_bilinear,
    gallery,
    partial_realization,
    read_strings,
    spectral_learning,
)


def loop(system, u):
    """The definition, one step after another."""
    x, y, flat = np.zeros(system.order), np.empty((len(u), system.outputs)), system.N.reshape(system.inputs, -1)
    for t, row in enumerate(u):
        y[t] = system.C @ x + system.D @ row
        x = system.A @ x + (row @ flat).reshape(system.A.shape) @ x + system.B @ row
    return y


def best_of(count, call):
    """The shortest of some runs, in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def simulate(data):
    """n = 16, m = 4, T = 1e5: at least 20 times faster than a loop; 64 runs at most 4 times the time of one."""
    rng = np.random.default_rng(0)
    system = gallery.random_bilinear(16, 4, 2, radius=0.7, rng=rng)
    many = 0.5 * rng.standard_normal((64, 100_000, 4))
    one, plain = best_of(5, lambda: system.simulate(many[0])), best_of(1, lambda: loop(system, many[0]))
    batch = best_of(3, lambda: system.simulate(many))
    work = 64 * 100_000 * 2 * 16 * (16 * 5 + 4)  # multiplications and additions of the batch
    square = rng.standard_normal((1500, 1500))
    peak = 2 * 1500**3 / best_of(5, lambda: square @ square)
    print(f"simulate: asked 20 times a loop, got {plain / one:.1f} ({1e3 * one:.0f} ms against {plain:.2f} s)")
    print(
        f"simulate: 64 runs asked in 4 times the time of one, got {batch / one:.1f} ({batch:.2f} s, "
        f"{work / batch / 1e9:.0f} GFLOP/s; one run {work / 64 / one / 1e9:.0f}, a product of large matrices "
        f"{peak / 1e9:.0f}); {64 * plain / batch:.0f} times as fast as 64 loops"
    )
    return plain / one >= 20 and batch <= 4 * one


def realize(data):
    """200 random systems: the dimension always, unseen kernels of length 7 within 1e-8 of their scale."""
    rng, wrong, worst = np.random.default_rng(1), 0, 0.0
    for _ in range(200):
        n, m, p = rng.integers(1, 7), rng.integers(1, 4), rng.integers(1, 4)
        system = gallery.random_bilinear(n, m, p, rng=rng)
        found = partial_realization(system.kernel, inputs=m, outputs=p, length=2 if m > 1 or n < 4 else 3)
        wrong += found.order != n
        names = [tuple(rng.integers(0, m + 1, 7)) for _ in range(20)]
        want, got = (np.array([s.kernel(w) for w in names]) for s in (system, found.system))
        worst = max(worst, float(np.abs(want - got).max() / np.abs(want).max()) if found.order == n else np.inf)
    print(f"realize: asked 0 of 200 dimensions wrong and 1e-8, got {wrong} and {worst:.1e}")
    return wrong == 0 and worst <= 1e-8


def truncate(data):
    """100 random systems: the measured error below its estimate in 95."""
    rng, below = np.random.default_rng(2), 0
    for _ in range(100):
        n = int(rng.integers(3, 12))
        system = gallery.random_bilinear(n, rng.integers(1, 4), rng.integers(1, 4), radius=0.7, rng=rng)
        cut = system.balanced_truncation(int(rng.integers(1, n)))
        u = rng.standard_normal((8, 2000, system.inputs))
        gap = system.simulate(u) - cut.system.simulate(u)
        below += float(np.sqrt(np.mean(np.sum(gap**2, -1)))) < cut.estimate
    print(f"truncate: asked 95 of 100 below the estimate, got {below}")
    return below >= 95


def identify(data):
    """n = 2 and 3, 2000 samples, 30 dB, white and not: PEM within 5 % of the true error, subspace within 20 %."""
    pem, sub, steps = [], [], 2000
    for case in range(32):
        n, white, innovations, seed = 2 + case // 16, case % 2 == 0, case // 2 % 2, case // 4 % 4
        rng = np.random.default_rng(seed)
        system = gallery.random_bilinear(n, radius=0.6, rng=rng)
        u = rng.standard_normal((2 * steps, 1))
        if not white:
            u = scipy.signal.lfilter([1.0], [1.0, -0.8], u, axis=0)
            u /= u.std()
        u = 0.5 * u
        k = innovations * 0.3 * rng.standard_normal((n, 1))
        e = system.simulate(u).std() * 10 ** (-30 / 20) * rng.standard_normal((2 * steps, 1))
        more = np.concatenate([system.N, np.zeros((1, n, n))])
        noisy = BilinearSystem(system.A, more, np.hstack([system.B, k]), system.C, np.hstack([system.D, [[1.0]]]))
        y = noisy.simulate(np.hstack([u, e]))
        start = fit_bilinear(y[:steps], u[:steps], n, method="subspace", rng=0)
        fit = fit_bilinear(y[:steps], u[:steps], n, start=start, rng=0)
        truth = np.sqrt(np.mean(e[steps + 50 :] ** 2))
        for model, ratios in ((start, sub), (fit, pem)):
            rest = (y - model.predict(y, u, x0=model.x0[0]))[steps + 50 :]
            ratios.append(float(np.sqrt(np.mean(rest**2)) / truth))
    good = [sum(r <= limit for r in ratios) for ratios, limit in ((pem, 1.05), (sub, 1.2))]
    print(
        f"identify: asked 32 of 32 within 5 % and 20 %, got PEM {good[0]} (worst {max(pem):.3f}), subspace {good[1]} "
        f"(median {np.median(sub):.3f}, worst {max(sub):.2f})"
    )
    return good == [32, 32]


def tanks(data):
    """Cascaded tanks: free run on the validation record under 0.50; order 3, ridge chosen on the estimation record."""
    path = data / "nonlinear" / "cascaded_tanks.csv"
    if not path.is_file():
        print(f"tanks: skipped, {path} is absent")
        return True
    rows = [row.split(",")[:4] for row in path.read_text().splitlines()[1:] if row.strip()]
    u, u_new, y, y_new = np.array(rows, float).T[:, :, None]

    def fitted(stop, ridge):
        return fit_bilinear(
            y[:stop], u[:stop], 3, noise="output", constant=True, restarts=3, iterations=40, ridge=ridge, rng=0
        )

    def error(model, outputs, inputs):
        try:
            return float(np.sqrt(np.mean((outputs - model.simulate(inputs, model.x0[0])) ** 2)))
        except ValueError:
            return np.inf

    ridges = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
    held = [error(fitted(700, ridge), y, u) for ridge in ridges]
    table = [error(fitted(len(y), ridge), y_new, u_new) for ridge in ridges]
    chosen = int(np.argmin(held))
    for ridge, inside, outside in zip(ridges, held, table, strict=True):
        print(f"tanks: ridge {ridge:.0e}: estimation record by its first 700 {inside:.3f}, validation {outside:.3f}")
    print(f"tanks: asked 0.50 (tried 0.396), got {table[chosen]:.3f}; initial state: that of the estimation record")
    return table[chosen] < 0.5


def splearn_fits(path, longest):
    """Functions from (version, order) to the values of strings, of scikit-splearn; None where it is not installed."""
    try:
        from splearn.datasets.base import load_data_sample
        from splearn.spectral import Spectral
    except ImportError:
        return None
    setattr(np, "float_", np.float64)  # scikit-splearn 1.2.1 asks for a name that NumPy 2 took away  # noqa: B010
    sample = load_data_sample(str(path))

    def fit(version, order):
        model = Spectral(rank=order, lrows=4, lcolumns=4, version=version, sparse=True, smooth_method="none")
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(sample.data)

        def values(words):
            padded = np.array([[*word, *(-1,) * (longest - len(word))] for word in words], float)
            return np.asarray(model.predict(padded), float)

        return values

    return fit


def score(q, weights):
    """Perplexity of values q, as :meth:`RationalSeries.perplexity` has it."""
    q, p = np.maximum(q, 1e-12 * q.max()), weights / weights.sum()
    return float(2 ** -np.sum(p * np.log2(q / q.sum())))


def automata(data):
    """PAutomaC 3: perplexity of the spectral fit beside the true model's and scikit-splearn's.

    What is counted and how many states there are is chosen, for both programs alike, by the perplexity on the strings
    that a fifth of the sample, held out, has at least twice.
    """
    path = data / "wfa" / "pautomac3.txt"
    if not path.is_file():
        print(f"automata: skipped, {path} is absent")
        return True
    truth = RationalSeries.from_pautomac(path)
    strings, letters = read_strings(data / "wfa" / "3.pautomac.train")
    test = list(dict.fromkeys(truth.sample(2500, rng=0)))[:1000]
    p = truth.evaluate(test)
    print(f"automata: true model {truth.perplexity(test, p):.3f}")
    order = np.random.default_rng(1).permutation(len(strings))
    kept = [strings[i] for i in order[len(order) // 5 :]]
    often = {word: k for word, k in Counter(strings[i] for i in order[: len(order) // 5]).items() if k > 1}
    held, weights = list(often), np.array(list(often.values()), float)
    longest = max(map(len, [*strings, *test]))
    programs = {}

    def ours(sample):
        def fit(statistic, order):
            return spectral_learning(sample, order, letters=letters, statistic=statistic, longest=4).evaluate

        return fit

    programs["solomonic"] = (("string", "prefix", "factor"), ours(kept), ours(strings))
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "kept.train"
        rows = "\n".join(f"{len(word)} {' '.join(map(str, word))}".strip() for word in kept)
        part.write_text(f"{len(kept)} {letters}\n{rows}\n")
        fits = [splearn_fits(each, longest) for each in (part, data / "wfa" / "3.pautomac.train")]
    if None in fits:
        print("automata: scikit-splearn is not installed, its lines are left out")
    else:
        programs["scikit-splearn"] = (("classic", "prefix", "factor"), *fits)
    best = {}
    for program, (kinds, first, whole) in programs.items():
        found = []
        for kind, states in itertools.product(kinds, (16, 20, 25)):
            found.append((score(first(kind, states)(held), weights), kind, states))
            outside = score(whole(kind, states)(test), p)
            print(f"automata: {program}, {kind}, {states} states: held out {found[-1][0]:.2f}, test {outside:.3f}")
            best[program] = outside if min(found) == found[-1] else best[program]
        print(f"automata: {program}: {min(found)[1]}, {min(found)[2]} states chosen, test {best[program]:.3f}")
    return best["solomonic"] <= best.get("scikit-splearn", np.inf)


PARTS = {
    "simulate": simulate,
    "realize": realize,
    "truncate": truncate,
    "identify": identify,
    "tanks": tanks,
    "automata": automata,
}


def main() -> int:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=[], help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"parts: expected any of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore", FitWarning)
    results = []
    for name in options.parts or PARTS:
        results.append(PARTS[name](options.data))
        sys.stdout.flush()
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
