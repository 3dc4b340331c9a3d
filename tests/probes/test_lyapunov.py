"""Exponents of the full map against products written out, known decays and registers that end."""

import numpy as np
import pytest
import torch

from solomonic.models import adapt
from solomonic.probes import load_dataset, lyapunov, save_dataset
from solomonic.probes.lyapunov import _orthogonal

from ..models.adapters.small import small
from .small import small_model, tokens
from .test_retention import constant_decay


def test_constant_decays_are_their_exponents():
    """h_t = a h_{t-1} + ...: nothing else acts on a difference of the states of one layer."""
    model = constant_decay([4.0, 8.0, 16.0, 32.0]).double()
    found = lyapunov(model, tokens(1, 200), exponents=3, segment=16, parts="state")
    slowest = np.log(0.5) / 32
    np.testing.assert_allclose(found.frozen, slowest, rtol=1e-10)
    np.testing.assert_allclose(found.growth[-1], slowest, rtol=2e-3)
    assert found.time[-1] == 200
    assert found.attrs["start"] == 40


def test_the_first_exponent_is_the_growth_of_a_difference():
    """Against two runs that differ by little, over the same segments."""
    model, ids = small_model("M2-BMF", dtype=torch.float64), tokens(1, 64)
    found = lyapunov(model, ids, exponents=1, segment=8, parts="state", rng=1)
    rng = np.random.default_rng(1)
    memory = model(ids[:, :8]).memory
    other = memory
    drawn = [rng.standard_normal(tuple(memory.get(i, "state").shape)) for i in range(2)]
    size = np.sqrt(sum((d**2).sum() for d in drawn))
    for i, d in enumerate(drawn):
        other = other.set(i, "state", other.get(i, "state") + 1e-7 * torch.from_numpy(d / size))

    def distance():
        total = 0.0
        for layer, part, _ in memory.parts():
            one, two = memory.get(layer, part), other.get(layer, part)
            pairs = [(one, two)] if isinstance(one, torch.Tensor) else zip(one, two, strict=True)
            total += sum(float((a - b).square().sum()) for a, b in pairs)
        return np.sqrt(total)

    growth, before = [], distance()
    for start in range(8, 64, 8):
        memory = model(ids[:, start : start + 8], memory=memory).memory
        other = model(ids[:, start : start + 8], memory=other).memory
        growth.append(np.log(distance() / before) / 8)
        before = distance()
    np.testing.assert_allclose(found.growth[:, 0], growth[1:], atol=2e-4)


def test_registers_end_and_full_attention_keeps():
    gone = lyapunov(small_model("SWA-SWA", dtype=torch.float64), tokens(1, 120), segment=16)
    assert np.isneginf(gone.exponent).all()
    assert gone.frozen.isnull().all()
    kept = lyapunov(small_model("*-M2", dtype=torch.float64), tokens(1, 120), segment=16)
    assert np.abs(kept.exponent).max() < 0.01
    assert (kept.frozen < -0.01).all()


@pytest.mark.parametrize("name", ["mamba2", "qwen3_next", "mistral"])
def test_models_of_transformers(name):
    found = lyapunov(small(name, dtype=torch.float64), tokens(1, 60, vocabulary=48), segment=10, exponents=2)
    assert (found.exponent < 0.05).all()
    assert found.frozen.isnull().all() == (name == "mistral")
    assert adapt(small(name)).config.pattern


def test_files_and_seeds(tmp_path):
    model, ids = small_model("M2"), tokens(1, 60)
    one = lyapunov(model, ids, segment=10, rng=3)
    assert one.identical(lyapunov(model, ids, segment=10, rng=3))
    assert load_dataset(save_dataset(one, tmp_path / "l.nc")).identical(one)


def test_what_it_refuses():
    model = small_model("M2-SWA")
    nan = small_model("M2")
    nan.get_parameter("model.embed_tokens.weight")[3] = torch.nan
    for call, message in (
        (lambda: lyapunov(model, tokens(1, 64)), "more than two segments of 32 tokens, got 64"),
        (lambda: lyapunov(model, tokens(1, 40), segment=4, parts="kv"), "parts: expected some of conv, state, window"),
        (lambda: lyapunov(model, tokens(1, 40), segment=4, parts=[]), "parts"),
        (lambda: lyapunov(model, tokens(2, 40)), "one text"),
        (lambda: lyapunov(model, tokens(1, 40), exponents=0), "exponents"),
        (lambda: lyapunov(nan, torch.full((40,), 3), segment=4), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_maps_whose_exponents_are_known():
    """The orthogonalization on two maps, as nolds has them: logistic at r = 4, ln 2; Henon, 0.419 and sum ln 0.3.

    Sprott, Chaos and Time-Series Analysis (2003), A.1.1 and A.2.1.
    """

    def exponents(state, step, jacobian, count=6_000):
        tangents, total = [torch.eye(len(state), dtype=torch.float64)], np.zeros(len(state))
        for k in range(-100, count):
            tangents, grown = _orthogonal([tangents[0] @ jacobian(state).T], 1)
            total += grown if k >= 0 else 0
            state = step(state)
        return total / count

    def henon(state):
        return np.array([1 - 1.4 * state[0] ** 2 + state[1], 0.3 * state[0]])

    logistic = exponents(
        np.array([0.1]), lambda x: 4 * x * (1 - x), lambda x: torch.tensor([[4 - 8 * x[0]]], dtype=torch.float64)
    )
    np.testing.assert_allclose(logistic, np.log(2), atol=2e-3)
    both = exponents(np.zeros(2), henon, lambda x: torch.tensor([[-2.8 * x[0], 1.0], [0.3, 0.0]], dtype=torch.float64))
    np.testing.assert_allclose(both[0], 0.419, atol=0.02)  # 6000 steps: a standard error of about 0.008
    np.testing.assert_allclose(both.sum(), np.log(0.3), atol=1e-10)
