"""Probes of the state on models of transformers: same answers from the system, the Jacobian and transplants."""

import numpy as np
import pytest
import torch

from solomonic.models import adapt
from solomonic.probes import (
    compress,
    effective_state,
    fading_by_memory,
    hidden_attention,
    observability,
    receptive_field,
    trace,
    unsaid,
)

from ..models.adapters.small import small, tokens


@pytest.mark.parametrize("name", ["mamba", "mamba2", "qwen3_next", "falcon_h1"])
def test_effective_states_are_those_of_the_systems(name):
    run = trace(small(name, dtype=torch.float64), tokens(1, 16))
    found = effective_state(run, cuts=[4, 9]).singular_value.sel(part="state", prompt=0)
    layer = run.state_layers[0]
    for head, cut in ((0, 4), (1, 9)):
        expected = run.system(layer, head).hankel_singular_values(cut)
        here = found.sel(layer=layer, head=head, cut=cut).to_numpy()[: expected.size]
        np.testing.assert_allclose(here, expected, atol=1e-12 * max(expected[0], 1))


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_hidden_attention_makes_the_output(name):
    run = trace(small(name, dtype=torch.float64), tokens(2, 12))
    found = hidden_attention(run, 0, 3)
    for t in (0, 7, 11):
        read = np.einsum("bs,bsp->bp", found.weight[:, t, : t + 1], run.u(0)[:, : t + 1, 3][:, ::-1])
        np.testing.assert_allclose(read + found.attrs["D"] * run.u(0)[:, t, 3], run.y(0)[:, t, 3], atol=1e-12)
    assert (receptive_field(run).distance < 12).all()


def test_delta_rules_are_named_where_they_are_left_out():
    run = trace(small("qwen3_next", dtype=torch.float64), tokens(1, 12), attention=True)
    left = receptive_field(run).attrs["left_out"]
    layer = next(i for i in run.state_layers if run.kind(i) == "delta")
    assert f"layer {layer}" in left
    with pytest.raises(ValueError, match="dense transitions"):
        hidden_attention(run, layer, 0)


@pytest.mark.parametrize("name", ["mamba2", "bamba", "mistral"])
def test_influence_is_split_by_the_parts_that_the_family_has(name):
    hf = small(name, dtype=torch.float64)
    split = fading_by_memory(hf, tokens(2, 14), lags=[2, 9], rng=0)
    assert set(split.part.values) == {part.part for part in adapt(hf).empty_memory().parts()}
    np.testing.assert_allclose(split.shapley.sum("part"), split.kl, atol=1e-14)
    assert (split.kl.sel(lag=2) > 0).all()


def test_what_is_seen_of_a_state_of_transformers():
    hf = small("mamba2", dtype=torch.float64)
    ids = tokens(1, 20)
    found = observability(hf, ids, layers=0, horizon=5, directions=4, iterations=8)
    model = adapt(hf)
    memory = model(ids[:, :15]).memory
    state, v = memory.get(0, "state"), torch.from_numpy(found.vector.sel(layer=0, direction=0).to_numpy())
    size = 1e-5

    def logits(sign: float) -> torch.Tensor:
        out = model(ids[:, 15:], memory=memory.set(0, "state", state + sign * size * v)).logits
        return out - out.mean(-1, keepdim=True)

    along = (logits(1.0) - logits(-1.0)) / (2 * size)
    assert float(along.norm()) == pytest.approx(found.singular_value.sel(layer=0, direction=0).item(), rel=1e-5)
    pair = unsaid(hf, ids, 0, horizon=4, directions=6)
    assert int(pair.agreeing.sel(kind="unsaid")) == 4


def test_states_of_transformers_are_not_rebuilt():
    with pytest.raises(TypeError, match="HybridLM"):
        compress(small("mamba2"), tokens(2, 9))
