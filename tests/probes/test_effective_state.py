"""Effective state sizes against ranks that are known, the systems' own Hankel operators, and dense attention."""

import numpy as np
import pytest

from solomonic.probes import effective_state, load_dataset, save_dataset, trace
from solomonic.probes.effective_state import sizes

from .small import small_model, tokens

T = 24
CUTS = [1, 2, 3, 7, 12, 20, 22, 23]


@pytest.fixture(scope="module")
def run():
    import torch

    return trace(small_model(dtype=torch.float64), tokens(2, T), attention=True)


def test_the_state_of_a_head_has_the_rank_of_what_is_on_both_sides(run):
    found = effective_state(run, cuts=CUTS).sel(part="state", layer=1)
    expected = np.minimum(np.minimum(CUTS, 8), T - np.array(CUTS))
    np.testing.assert_array_equal(found["rank"], np.broadcast_to(expected, (2, 4, len(CUTS))))
    assert (found.nominal == 8).all()


@pytest.mark.parametrize("layer", [0, 1])
def test_the_state_has_the_singular_values_of_its_system(run, layer):
    found = effective_state(run, cuts=CUTS).singular_value
    for prompt, head in ((0, 0), (1, 3)):
        system = run.system(layer, head, prompt=prompt)
        for cut in CUTS:
            expected = system.hankel_singular_values(cut)
            here = found.sel(part="state", prompt=prompt, layer=layer, head=head, cut=cut).to_numpy()
            np.testing.assert_allclose(here[: expected.size], expected, atol=1e-12 * expected[0])
            assert np.abs(here[expected.size :]).max(initial=0) < 1e-12 * expected[0]


def test_a_window_is_a_register_of_its_length(run):
    found = effective_state(run, cuts=CUTS).sel(part="attention", layer=2)
    expected = np.minimum(np.minimum(CUTS, 5 - 1), T - np.array(CUTS))
    np.testing.assert_array_equal(found["rank"], np.broadcast_to(expected, (2, 4, len(CUTS))))
    np.testing.assert_array_equal(found.nominal, np.broadcast_to(np.minimum(CUTS, 4), (2, 4, len(CUTS))))


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_attention_is_the_block_of_its_weights(run, layer):
    found = effective_state(run, cuts=CUTS).singular_value.sel(part="attention", layer=layer)
    for head in (0, 2):
        weights = run.attention(layer, head, times=np.arange(T))
        lag, source = weights.lag.to_numpy(), weights.source.to_numpy()
        dense = {kind: np.zeros((2, T, T)) for kind in ("window", "fading")}
        for place, (each, kind) in enumerate(zip(lag, source, strict=True)):
            for t in range(each, T):
                dense[kind][:, t, t - each] = weights.weight[:, t, place]
        for cut in CUTS:
            block = np.concatenate([dense[kind][:, cut:, :cut] for kind in dense], -1)
            expected = np.linalg.svd(block, compute_uv=False)
            here = found.sel(head=head, cut=cut).to_numpy()
            both = min(here.shape[-1], expected.shape[-1])
            np.testing.assert_allclose(here[:, :both], expected[:, :both], atol=1e-12)
            assert np.abs(expected[:, both:]).max(initial=0) < 1e-12


def test_going_on_from_a_memory_counts_the_inputs_of_the_run():
    import torch

    model = small_model("*-SWA", dtype=torch.float64)
    ids = tokens(1, 12)
    whole = trace(model, ids, attention=True)
    memory = model(ids[:, :4]).memory
    rest = trace(model, ids[:, 4:], memory=memory, attention=True)
    found = effective_state(rest, cuts=[5]).singular_value.sel(part="attention", prompt=0, cut=5, layer=0, head=1)
    weights = whole.attention(0, 1, times=np.arange(9, 12)).weight[0].to_numpy()
    block = np.array([[weights[r, t - s] for s in range(4, 9)] for r, t in enumerate(range(9, 12))])
    np.testing.assert_allclose(found[:3], np.linalg.svd(block, compute_uv=False), atol=1e-12)


def test_sizes_by_hand():
    values = np.array([[4.0, 2.0, 1.0, 1.0], [3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4, [np.nan] * 4])
    rank, order, entropy = sizes(values, 0.4, 0.75)
    np.testing.assert_array_equal(rank, [2, 1, 4, 0, np.nan])
    np.testing.assert_array_equal(order, [2, 1, 3, 0, np.nan])
    half = np.exp(0.5 * np.log(2) + 0.25 * np.log(4) + 0.25 * np.log(8))
    np.testing.assert_allclose(entropy, [half, 1, 4, 0, np.nan])


def test_scaling_the_input_does_not_change_the_sizes():
    values = np.random.default_rng(0).exponential(size=(5, 7))
    values = -np.sort(-values, -1)
    for one, other in zip(sizes(values, 1e-3, 0.9), sizes(values * 1e-30, 1e-3, 0.9), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_the_result_can_be_saved_and_has_intervals(run, tmp_path):
    found = effective_state(run, cuts=4, rng=1)
    low, high = found.order_mean_interval
    seen = found.order_mean.notnull()
    assert ((low <= found.order_mean) & (found.order_mean <= high)).where(seen, True).all()
    assert found.attrs["probe"] == "effective_state"
    assert found.identical(effective_state(run, cuts=4, rng=1))
    again = load_dataset(save_dataset(found, tmp_path / "size.nc"))
    np.testing.assert_array_equal(again["rank"], found["rank"])


def test_what_it_refuses(run):
    with pytest.raises(TypeError, match="trace"):
        effective_state(3)
    for cuts in ([0], [T], [1.5], [], 0):
        with pytest.raises(ValueError, match="cuts"):
            effective_state(run, cuts=cuts)
    with pytest.raises(ValueError, match="share"):
        effective_state(run, share=1.5)
    with pytest.raises(ValueError, match="tol"):
        effective_state(run, tol=-1.0)
    with pytest.raises(ValueError, match="cut"):
        effective_state(trace(small_model("M2"), tokens(1, 1)))
    with pytest.raises(ValueError, match="attention=True"):
        effective_state(trace(small_model("SWA"), tokens(1, 9)))


@pytest.mark.parametrize(("pattern", "kind"), [("GDN", "delta"), ("BMF", "scalar")])
def test_other_transitions_have_the_values_of_their_system(pattern, kind):
    import torch

    run = trace(small_model(pattern, dtype=torch.float64), tokens(1, 14))
    assert run.kind(0) == kind
    found = effective_state(run, cuts=[5, 9]).singular_value.sel(part="state", layer=0, prompt=0)
    for cut in (5, 9):
        expected = run.system(0, 2).hankel_singular_values(cut)
        np.testing.assert_allclose(found.sel(head=2, cut=cut)[: expected.size], expected, atol=1e-12)
