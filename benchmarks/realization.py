"""The numbers of the certificates, each measured over a thousand trials, and their cost beside one SVD.

Run ``python benchmarks/realization.py`` (all), or name parts: ``structure any coupled gapless skewed nilpotent
defective chain balanced``. ``--trials`` sets their number. Each part prints what it asks and what it got; the exit
status is 1 when one falls short.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import scipy.linalg

from solomonic.realization import canonical_form, diagonalizability, nilpotency
from solomonic.realization.gallery import cyclic_shift, jordan_matrix, known_structure, random_orthogonal

EPS = float(np.finfo(float).eps)


def rotated(matrix, rng):
    """The matrix in a random orthogonal basis."""
    q = random_orthogonal(len(matrix), rng)
    return q @ matrix @ q.T


def structure(trials, rng, largest=128, cores=("any", "few", "outside")):
    """Index and Weyr characteristic right, orthogonal similarity, n <= 128, moduli 1e-3 to 1e3."""
    right, slowest = 0, 0.0
    for k in range(trials):
        truth = known_structure(rng, largest=largest, core=cores[k % len(cores)])
        a = rotated(truth.matrix, rng)
        start = time.perf_counter()
        found = nilpotency(a)
        slowest = max(slowest, time.perf_counter() - start)
        right += found.weyr == truth.weyr and found.verdict is (truth.core_order == 0)
    print(f"structure ({', '.join(cores)}): asked {trials} of {trials} right, got {right} (slowest {slowest:.2f} s)")
    return right == trials


def any_core(trials, rng):
    """The same with any number of modes anywhere, in every trial."""
    return structure(trials, rng, cores=("any",))


def coupled(trials, rng):
    """Modes that are not normal, so that none can be split off: a miss is undecidable in float64 in most cases.

    A miss counts as undecidable where the structure found, or another one of its table, lies within 8 n eps |A| of the
    matrix: as near as the one it was made with.
    """
    right = undecidable = 0
    for _ in range(trials):
        truth = known_structure(rng, core="any")
        matrix, d = truth.matrix.copy(), sum(truth.weyr)
        moduli = np.abs(np.linalg.eigvals(matrix[d:, d:]))
        matrix[d:, d:] += np.triu(rng.standard_normal((len(moduli), len(moduli))), 2) * (
            moduli.mean() if len(moduli) else 0
        )
        a = rotated(matrix, rng)
        found = nilpotency(a)
        if found.weyr == truth.weyr:
            right += 1
            continue
        band = 8 * len(a) * EPS * np.linalg.norm(a, 2)
        undecidable += any(row.weyr != truth.weyr and row.discarded <= band for row in found.table)
    wrong = trials - right - undecidable
    print(
        f"coupled: {right} of {trials} as made; in {undecidable} another structure lies within the rounding; "
        f"asked at most 1 % wrong, got {wrong}"
    )
    return wrong <= trials / 100


def gapless(trials, rng):
    """Random strictly triangular matrices of order 5 to 24, rotated: nilpotent without any gap. Never denied."""
    counts = {True: 0, None: 0, False: 0}
    chains = 0
    for _ in range(trials):
        n = int(rng.integers(5, 25))
        found = nilpotency(rotated(np.triu(rng.standard_normal((n, n)), 1), rng))
        counts[found.verdict] += 1
        chains += found.verdict is True and found.index == n
    print(
        f"gapless: {counts[True]} of {trials} found nilpotent ({chains} as one chain), {counts[None]} undecided, "
        f"{counts[False]} denied"
    )
    return counts[False] == 0


def skewed(trials, rng, largest=32):
    """Never a wrong verdict, at most 10 % None: similarity of condition up to 1e3, n <= 32."""
    wrong = none = weyr = 0
    for k in range(trials):
        truth = known_structure(rng, largest=largest, core=("few", "outside")[k % 2])
        n = len(truth.matrix)
        scale = np.logspace(0, -rng.uniform(0, 3), n) if n > 1 else np.ones(1)
        t = random_orthogonal(n, rng) @ np.diag(scale) @ random_orthogonal(n, rng)
        back = np.linalg.inv(t)
        rounding = n * EPS * float(np.prod([np.linalg.norm(x, 2) for x in (t, truth.matrix, back)]))
        found = nilpotency(t @ truth.matrix @ back, uncertainty=rounding)
        none += found.verdict is None
        wrong += found.verdict is not None and found.verdict is not (truth.core_order == 0)
        weyr += found.verdict is not None and found.weyr != truth.weyr
    print(
        f"skewed: asked 0 wrong and at most 10 % None, got {wrong} wrong, {100 * none / trials:.1f} % None "
        f"(Weyr characteristic wrong beside a verdict: {weyr})"
    )
    return wrong == 0 and none <= 0.1 * trials


def nilpotent(trials, rng, largest=64):
    """Brackets of the distance to nilpotency: truth inside in every trial, median width under 30."""
    missed, widths = 0, []
    for k in range(trials):
        size = 10 ** rng.uniform(-12, -2)
        if k % 3 == 0:
            n = int(rng.integers(2, largest))
            weights = np.ones(n)
            weights[rng.integers(n)] = size
            a = rotated(cyclic_shift(weights), rng)
        elif k % 3 == 1:
            nil = known_structure(rng, largest=largest, core="none").matrix
            a = rotated(nil + size * np.eye(len(nil)), rng)
        else:
            nil = known_structure(rng, largest=largest, core="none").matrix
            noise = rng.standard_normal(nil.shape)
            a = rotated(nil, rng) + size * noise / np.linalg.norm(noise, 2)
        lower, upper = nilpotency(a).distance
        slack = 20 * len(a) * EPS * np.linalg.norm(a, 2)  # the rounding of the rotation itself
        missed += lower > size * (1 + 1e-9) + slack
        if k % 3 != 2:
            missed += upper < size * (1 - 1e-9) - slack
        else:
            widths.append(upper / lower if lower > 0 else np.inf)
    median = float(np.median(widths))
    print(f"nilpotent: asked 0 of {trials} brackets that miss the truth, got {missed}; median width {median:.1f} < 30")
    return missed == 0 and median < 30


def defective(trials, rng, largest=5):
    """Brackets of the distance to a defective matrix: truth inside in every trial."""
    missed, widths = 0, []
    for k in range(trials):
        size = 10 ** rng.uniform(-12, -2)
        if k % 2:
            blocks, distances = [], []
            for i in range(int(rng.integers(1, largest))):
                m = np.array([[0.0, 1], [0, 0]]) + size * rng.standard_normal((2, 2))
                m -= np.trace(m) / 2 * np.eye(2)
                distances.append(float(np.linalg.svd(m, compute_uv=False)[-1]))
                blocks.append(m + 10 * i * np.eye(2))
            a, truth = rotated(scipy.linalg.block_diag(*blocks), rng), min(distances)
        else:
            sizes = [2, *rng.integers(1, 5, int(rng.integers(0, largest - 1)))]
            a = rotated(jordan_matrix(sizes, rng.choice([-3.0, -1, 1, 2, 5], len(sizes))), rng)
            noise = rng.standard_normal(a.shape)
            a, truth = a + size * noise / np.linalg.norm(noise, 2), size
        lower, upper = diagonalizability(a, uncertainty=size).distance
        slack = 20 * len(a) * EPS * np.linalg.norm(a, 2)
        missed += lower > truth * (1 + 1e-6) + slack
        if k % 2:
            missed += upper < truth * (1 - 1e-6) - slack
            widths.append(upper / lower if lower > 0 else np.inf)
    width = np.median(widths)
    print(f"defective: asked 0 of {trials} brackets that miss the truth, got {missed}; median width {width:.2f}")
    return missed == 0


def chain(trials, rng):
    """A single chain of n = 512 in at most 20 times one SVD, measured side by side."""
    a = rotated(np.eye(512, k=1), rng)
    ratios, found = [], nilpotency(a)
    for _ in range(3):
        start = time.process_time()
        scipy.linalg.svd(a)
        middle = time.process_time()
        found = nilpotency(a)
        ratios.append((time.process_time() - middle) / (middle - start))
    ok = found.index == 512 and found.verdict is True
    print(f"chain: asked at most 20 SVDs, got {min(ratios):.1f} to {max(ratios):.1f}; index {found.index}")
    return ok and float(np.median(ratios)) <= 20


def balanced(trials, rng):
    """Gramians of balanced forms equal and diagonal within 1e-10 relative, random stable systems up to n = 200."""
    worst = 0.0
    for n in (2, 10, 50, 100, 200):
        a = rng.standard_normal((n, n))
        a *= 0.9 / np.abs(np.linalg.eigvals(a)).max()
        form = canonical_form((a, rng.standard_normal((n, 2)), rng.standard_normal((2, n))), "balanced").system
        a, b, c = (np.asarray(x) for x in (form.A, form.B, form.C))
        p = scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
        q = scipy.linalg.solve_discrete_lyapunov(a.T, c.T @ c)
        top = np.diag(p).max()
        worst = max(worst, float(np.abs(p - np.diag(np.diag(p))).max() / top), float(np.abs(q - p).max() / top))
    print(f"balanced: asked 1e-10, got {worst:.1e}")
    return worst <= 1e-10


PARTS = {
    "structure": structure,
    "any": any_core,
    "coupled": coupled,
    "gapless": gapless,
    "skewed": skewed,
    "nilpotent": nilpotent,
    "defective": defective,
    "chain": chain,
    "balanced": balanced,
}


def main() -> int:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=[], help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"parts: expected any of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    results = []
    for name in options.parts or PARTS:
        results.append(PARTS[name](options.trials, np.random.default_rng(options.seed)))
        sys.stdout.flush()
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
