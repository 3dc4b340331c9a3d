"""A thousand random trials of each promise, by the functions that the benchmark measures full size with."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "realization.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_realization", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: Part of the benchmark: pairs (trials, largest size), a thousand trials in all, most of them at cheaper sizes.
TRIALS = {
    "structure": ((60, 128), (940, 24)),
    "skewed": ((300, 32), (700, 10)),
    "nilpotent": ((200, 64), (800, 18)),
    "defective": ((200, 5), (800, 3)),
}


@pytest.mark.parametrize("part", TRIALS)
def test_a_thousand_trials(bench, part):
    assert sum(trials for trials, _ in TRIALS[part]) == 1000
    for trials, largest in TRIALS[part]:
        assert bench.PARTS[part](trials, np.random.default_rng(largest), largest)
