"""The tables of the page on innovations, calibration, sufficiency and belief states.

Run ``python benchmarks/innovations.py [sizes] [zoo] [sufficiency] [extra] [beliefs]``; without names, all. Several
minutes on one thread.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from solomonic.models import HybridConfig, HybridLM, load, stdlib_corpus
from solomonic.models.evaluation import windows
from solomonic.models.tasks import mess3
from solomonic.probes import belief_states, extra_information, innovations, sufficiency, whiteness_tests
from solomonic.probes.white import ASSUMES

ZOO = ("transformer", "deadbeat", "fading", "bmojo-f")
TRIALS = 2000


# ---------------------------------------------------------------- sizes of the tests
def predicted(kind: str, trials: int, steps: int, source: np.random.Generator, draws: int = 99) -> list[np.ndarray]:
    """Excess of a calibrated predictor of three tokens, its deviation, and draws of it; certainty drifts or jumps."""
    error, deviation = np.empty((2, trials, steps))
    drawn = np.empty((draws, trials, steps), dtype=np.float32)
    a = source.standard_normal(trials)
    for t in range(steps):
        logits = [0, 1.0, 2.0] * np.exp(0.8 * a)[:, None] if kind == "drift" else [0, 0.4, 0.8] * np.exp(a)[:, None]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        p = np.exp(log_p)
        excess, bounds = -log_p + (p * log_p).sum(-1, keepdims=True), p.cumsum(-1)[:, :2]
        deviation[:, t] = np.sqrt((p * excess**2).sum(-1))
        rows = np.arange(trials)
        error[:, t] = excess[rows, (bounds < source.random((trials, 1))).sum(-1)]
        drawn[:, :, t] = excess[rows, (bounds < source.random((draws, trials, 1))).sum(-1)]
        a = (
            np.where(error[:, t] > 0, 1.2, 0.6 * a)
            if kind == "jump"
            else 0.97 * a + 0.243 * source.standard_normal(trials)
        )
    return [error, deviation, drawn]


def rejected(name: str, errors: np.ndarray, source: np.random.Generator, draws: np.ndarray | None) -> None:
    """Print how often each test rejects, in per cent."""
    found = [
        whiteness_tests(row, lags=4, resamples=99, rng=source, draws=None if draws is None else draws[:, i]).p_value
        for i, row in enumerate(errors)
    ]
    shares = [
        100 * np.mean([p[test] <= 0.05 + 1e-12 for p in found]) if test in found[0] else np.nan for test in ASSUMES
    ]
    print(f"| {name} | {errors.shape[1]} |", " | ".join(f"{share:.1f}" for share in shares), "|", flush=True)


def sizes() -> None:
    """How often each test rejects at 5 %."""
    print("| errors | length |", " | ".join(ASSUMES), "|")
    source = np.random.default_rng(0)
    unit = source.standard_normal((TRIALS, 250))
    drawn = np.broadcast_to(source.standard_normal((99, 1, 250)), (99, TRIALS, 250))
    rejected("Gaussian", unit, source, drawn)
    for kind in ("drift", "jump"):
        error, deviation, again = predicted(kind, TRIALS, 250, source)
        rejected(f"{kind}: excess", error, source, again)
        rejected(f"{kind}: z", error / deviation, source, again / deviation)
        error, deviation, _ = predicted(kind, TRIALS, 1000, source, draws=1)
        rejected(f"{kind}: z", error / deviation, source, None)
    arch = np.zeros_like(unit)
    for t in range(250):
        arch[:, t] = unit[:, t] * np.sqrt(0.3 + 0.7 * arch[:, t - 1] ** 2)
    rejected("ARCH 0.7", arch, source, None)
    for weight in (0.1, 0.2):
        ar = unit.copy()
        for t in range(1, 250):
            ar[:, t] += weight * ar[:, t - 1]
        rejected(f"order one, {weight}", ar, source, drawn)


# ---------------------------------------------------------------- checkpoints
def zoo() -> None:
    """Whiteness and calibration of the checkpoints, on 32 windows of 256 bytes."""
    ids = windows(stdlib_corpus().validation_plain, 256, most=32)
    for name in ZOO:
        found = innovations(load(name), ids, rng=0)
        rho, (low, high) = found.autocorrelation.values, found.excess_mean_interval.values
        alone = (found.p_value_prompt.sel(test="redraw") <= 0.05).mean()
        spread = f"{found.excess_mean:.3f} ({low:.3f} to {high:.3f})"
        least, most = found.ece_interval.values
        ece = f"{found.ece:.3f} ({least:.3f} to {most:.3f}) | {found.ece_p_value:.2f} | {found.ece_calibrated:.3f}"
        p = f"{found.p_value.sel(test='redraw'):.3f} | {alone:.2f}"
        correlation = ", ".join(f"{rho[k - 1]:.3f}" for k in (1, 2, 5))
        print(f"| `{name}` | {found.surprise.mean():.2f} | {correlation} | {p} | {spread} | {ece} |", flush=True)


def futures() -> None:
    """Shares that travel with parts of the memory: 24 pairs of windows of 256 bytes, a horizon of 32."""
    ids = windows(stdlib_corpus().validation_plain, 255, most=48)
    for name in ZOO:
        found = sufficiency(load(name), ids[:24], ids[24:], horizon=32, rng=0)
        for what in found.travels.values:
            low, high = found.share_interval.sel(travels=what).values
            print(f"| `{name}` | {what} | {found.kl_mean.sel(travels=what):.3f} | "
                  f"{found.share.sel(travels=what):.2f} ({low:.2f} to {high:.2f}) |", flush=True)  # fmt: skip


def extra() -> None:
    """What the last 4 bytes add to parts of the memory: 64 windows of 256 bytes, 6 places in each."""
    ids = windows(stdlib_corpus().validation_plain, 255, most=64)
    for name, part in (("fading", "state"), ("fading", "conv"), ("bmojo-f", "state"), *((n, "residual") for n in ZOO)):
        found = extra_information(load(name), ids, part=part, samples=6, rng=0)
        for layer in found.layer.values:
            at = found.sel(layer=layer)
            share = " | ".join(f"{at.explained.sel(features=f):.2f}" for f in ("part", "tokens", "both"))
            low, high = at.extra_interval.values
            print(f"| `{name}` | {part} | {layer} | {share} | {at.extra:.3f} ({low:.3f} to {high:.3f}) |", flush=True)


def beliefs() -> None:
    """Mess3, 300 steps of training on 32 rows of 64 tokens; 64 other rows for the read-outs."""
    source = mess3()
    rows = source.sample(64, length=65, rng=10**6)
    p = source.next_token(rows.beliefs.numpy())[:, :-1]
    best = -np.log2(np.take_along_axis(p, rows.ids[:, 1:, None].numpy(), -1)).mean()
    for pattern in ("M2-M2", "SWA-SWA", "BMF-BMF", "GDN-GDN"):
        config = HybridConfig(pattern=pattern, vocab_size=3, hidden_size=32, intermediate_size=48, swa_window=8,
                              num_attention_heads=4, num_key_value_heads=2, head_dim=8, bmojo_window=8)  # fmt: skip
        model = HybridLM(config, rng=0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(300):
            ids = source.sample(32, length=65, rng=step).ids
            loss = cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.requires_grad_(False)
        lost = cross_entropy(model(rows.ids[:, :-1]).logits.flatten(0, 1), rows.ids[:, 1:].flatten()).item() / np.log(2)
        found = belief_states(model, rows.ids, rows.beliefs, rng=0)
        for name in found.source.values:
            at = found.sel(layer=1, source=name)
            own, random, shuffled = (float(v) for v in at.r2)
            low, high = at.above_random_interval.values
            print(f"| {pattern} | {lost - best:.4f} | {name} | {own:.3f} | {random:.3f} | {shuffled:.3f} | "
                  f"{at.above_random:.3f} ({low:.3f} to {high:.3f}) |", flush=True)  # fmt: skip
        print(f"last token alone {found.r2_token:.3f}, bits of the best predictor {best:.3f}", flush=True)


TABLES = {"sizes": sizes, "zoo": zoo, "sufficiency": futures, "extra": extra, "beliefs": beliefs}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or TABLES:
        print(f"\n{TABLES[chosen].__doc__}")
        TABLES[chosen]()
