"""What no probe of a memory may pass over in silence: NaN, a memory that is not there, one token, what lies outside."""

import pytest
import torch

from solomonic import probes as p

from .small import small_model, tokens


@pytest.fixture(scope="module")
def damaged():
    """A model with a damaged embedding, and texts that hit it."""
    model = small_model("M2-SWA")
    model.model.embed_tokens.weight[3] = torch.nan  # type: ignore[index,union-attr]
    return model, torch.full((6, 20), 3)


def traced(model, ids):
    return p.trace(model, ids, attention=True)


STATE = torch.ones(4, 8, 8)
CALLS = {
    "retention": lambda m, t: p.retention(traced(m, t)),
    "effective_state": lambda m, t: p.effective_state(traced(m, t), cuts=2),
    "receptive_field": lambda m, t: p.receptive_field(traced(m, t)),
    "hidden_attention": lambda m, t: p.hidden_attention(traced(m, t), 0, 0),
    "memory_curve": lambda m, t: p.memory_curve(traced(m, t)),
    "innovations": lambda m, t: p.innovations(m, t, lags=3, resamples=19),
    "fading": lambda m, t: p.fading(m, t, replacements=[1, 2]),
    "fading_by_memory": lambda m, t: p.fading_by_memory(m, t, replacements=[1, 2]),
    "layer_influence": lambda m, t: p.layer_influence(m, 0, t),
    "sensitivity": lambda m, t: p.sensitivity(m, t),
    "lyapunov": lambda m, t: p.lyapunov(m, t[0], segment=4),
    "distinguishability": lambda m, t: p.distinguishability(m, t),
    "observability": lambda m, t: p.observability(m, t[0], horizon=4, directions=3),
    "controllability": lambda m, t: p.controllability(m, t[0], span=4, directions=3),
    "empirical_gramians": lambda m, t: p.empirical_gramians(m, t[0], 0, horizon=4, span=4, directions=3),
    "unsaid": lambda m, t: p.unsaid(m, t[0], 0, horizon=4, directions=3),
    "steer": lambda m, t: p.steer(m, t[0], STATE, 0, span=4),
    "compress": lambda m, t: p.compress(m, t),
    "compression": lambda m, t: p.compression(m, t, orders=[4]),
    "structure": lambda m, t: p.structure(m, 0, ids=t),
    "structures": lambda m, t: p.structures(m, ids=t),
}
#: Probes that ask for a state, and those that ask for two tokens.
OF_STATES = (
    "retention",
    "hidden_attention",
    "observability",
    "controllability",
    "empirical_gramians",
    "unsaid",
    "steer",
    "compress",
    "compression",
)
OF_TWO = (
    "retention",
    "effective_state",
    "memory_curve",
    "innovations",
    "fading",
    "fading_by_memory",
    "layer_influence",
    "sensitivity",
    "lyapunov",
    "distinguishability",
    "observability",
    "controllability",
    "empirical_gramians",
    "steer",
    "compression",
)


@pytest.mark.parametrize("name", CALLS)
def test_nan_is_never_a_result(name, damaged):
    with pytest.raises(ValueError, match=r"NaN|got nan"):
        CALLS[name](*damaged)


def test_nan_breaks_the_split_law(damaged):
    assert p.split_law(*damaged).attrs["holds"] == "no"


@pytest.mark.parametrize("name", OF_STATES)
def test_a_state_that_is_not_there(name):
    with pytest.raises(ValueError, match=r"SWA|\[\]"):
        CALLS[name](small_model("SWA"), tokens(6, 20))


@pytest.mark.parametrize("name", OF_TWO)
def test_prompts_of_one_token(name):
    with pytest.raises(ValueError, match="token"):
        CALLS[name](small_model("M2-SWA"), tokens(6, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t, r: p.hidden_attention(r, 7, 0), "layer"),
        (lambda m, t, r: p.hidden_attention(r, 0, 4), "head"),
        (lambda m, t, r: p.hidden_attention(r, 0, -1), "head"),
        (lambda m, t, r: p.hidden_attention(r, 0, 0, times=[20]), "times"),
        (lambda m, t, r: r.states(0, times=[20]), "times"),
        (lambda m, t, r: p.memory_curve(r, time=20), "times"),
        (lambda m, t, r: p.effective_state(r, cuts=[20]), "cuts"),
        (lambda m, t, r: p.retention(r, lags=[20]), "lags"),
        (lambda m, t, r: p.retention(r, heads=[9]), "heads"),
        (lambda m, t, r: p.fading(m, t, lags=[20]), "lags"),
        (lambda m, t, r: p.innovations(m, t, lags=19), "lags"),
        (lambda m, t, r: p.fading_by_memory(m, t, lags=[20]), "lags"),
        (lambda m, t, r: p.layer_influence(m, 0, t, lags=[20]), "lags"),
        (lambda m, t, r: p.sensitivity(m, t, lags=[20]), "lags"),
        (lambda m, t, r: p.memory_curve(r, lags=[19]), "lags"),
        (lambda m, t, r: p.split_law(m, t, splits=[20]), "splits"),
        (lambda m, t, r: p.observability(m, t[0], layers=[2], horizon=4), "layers"),
        (lambda m, t, r: p.controllability(m, t[0], layers=-1, span=4), "layers"),
        (lambda m, t, r: p.unsaid(m, t[0], 5), "layer"),
        (lambda m, t, r: p.compress(m, t, layers=5), "layers"),
        (lambda m, t, r: p.distinguishability(m, t, layers=[5]), "layers"),
        (lambda m, t, r: p.structure(m, 5), "layer"),
        (lambda m, t, r: p.structures(m, layers=[5]), "layers"),
        (lambda m, t, r: p.trace(m, t, layers=[5]), "layers"),
    ],
)
def test_what_lies_outside(call, message):
    model, ids = small_model("M2-SWA"), tokens(6, 20)
    with pytest.raises(ValueError, match=message):
        call(model, ids, traced(model, ids))
