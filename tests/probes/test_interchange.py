"""Interchanged subspaces: a linear system whose causal directions are known, and models that are run by hand."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from solomonic.probes import Edit, edit, interchange_subspace, load_dataset, save_dataset, trace
from solomonic.probes.interchange import CASES, interchanged, learn_basis, random_basis

from .small import small_model, tokens


@pytest.mark.parametrize("directions", [1, 2])
def test_the_causal_directions_of_a_linear_system_are_found(directions):
    """The answer of pair i is the sign along one of k directions; the others of the twelve carry noise as large."""
    rng = np.random.default_rng(0)
    causal = random_basis(12, directions, rng)
    base, source = torch.from_numpy(rng.normal(size=(2, 600, 12)))
    which = torch.arange(600) % directions
    wanted = (source @ causal).gather(1, which[:, None])[:, 0].sign()

    def margin(pick, values):
        return 3 * wanted[pick] * (values @ causal).gather(1, which[pick, None])[:, 0]

    options = {"directions": directions, "steps": 300, "lr": 0.03, "batch_size": 400, "rng": rng}
    q, losses = learn_basis(margin, base, source, np.arange(400), **options)
    np.testing.assert_allclose(q.T @ q, np.eye(directions), atol=1e-10)
    assert np.degrees(subspace_angles(q.numpy(), causal.numpy())).max() < 12
    assert losses[-10:].mean() < 0.6 * losses[:5].mean()
    held = np.arange(400, 600)
    flipped = margin(held, interchanged(base[held], source[held], q)) > 0
    assert float(flipped.double().mean()) > 0.9
    by_chance = [
        (margin(held, interchanged(base[held], source[held], random_basis(12, directions, rng))) > 0).double().mean()
        for _ in range(20)
    ]
    assert float(np.mean(by_chance)) < 0.75


def pairs(model, count, *, length=10, time=6):
    """Prompts with the same last tokens, and the two tokens for each whose order turns most between the two."""
    base, source = tokens(2 * count, length).view(2, count, length)
    base[:, time - 2 :] = source[:, time - 2 :] = base[0, time - 2 :]
    before, after = model(base).logits[:, -1], model(source).logits[:, -1]
    turned = torch.minimum(before[:, None] - before[:, :, None], after[:, :, None] - after[:, None])
    best = turned.flatten(1).argmax(1)
    return base, source, (best % 64, best // 64)


def test_the_whole_state_is_all_that_differs(tmp_path):
    """One Mamba2 layer and equal last tokens: with the source's state the base gives the source's logits."""
    model = small_model("M2", dtype=torch.float64)
    base, source, answers = pairs(model, 60)
    options = {"layer": 0, "time": 6, "directions": 8, "steps": 60, "lr": 0.05}
    found = interchange_subspace(model, base, source, answers, **options)
    accuracy = dict(zip(CASES, found.accuracy.values, strict=True))
    assert accuracy["none"] == 0
    assert accuracy["whole part"] == 1
    assert accuracy["learned"] > accuracy["random subspace"]
    assert float(found.loss[-5:].mean()) < float(found.loss[:5].mean())
    assert (found["shift"].sel(case="none") == 0).all()
    start = float(found.accuracy.sel(case="random model, none"))
    gain = (float(found.accuracy.sel(case="random model")) - start) / (1 - start)
    assert float(found.gain.sel(case="random model").mean()) == pytest.approx(gain)
    assert float(found.selectivity.sel(control="random model")) == pytest.approx(accuracy["learned"] - gain)
    assert float(found.selectivity.sel(control="random subspace")) > 0
    for name in ("accuracy", "selectivity"):
        low, high = found[f"{name}_interval"]
        assert (low <= found[name]).all()
        assert (found[name] <= high).all()
    assert (np.abs(found.accuracy_interval - 0.5) <= 0.5).all()
    held = found.pair.values.copy()
    before, after = (model(each[held]).logits[:, -1] for each in (base, source))
    two = torch.stack(answers[::-1], 1)[held]
    margin = [float(x) for x in (after - before).gather(1, two).diff(dim=1)[:, 0]]
    np.testing.assert_allclose(found["shift"].sel(case="whole part"), -np.array(margin), atol=1e-9)
    np.testing.assert_array_equal(found.exact.sel(case="whole part"), after.argmax(-1) == two[:, 0])
    assert load_dataset(save_dataset(found, tmp_path / "i.nc")).identical(found)
    again = interchange_subspace(model, base, source, answers, **options)
    np.testing.assert_allclose(again.basis, found.basis, atol=1e-8)


def test_the_scores_are_those_of_edits_with_the_basis():
    model = small_model("M2-SWA", dtype=torch.float64)
    base, source = tokens(20, 9).view(2, 10, 9)
    found = interchange_subspace(model, base, source, (3, 5), layer=0, time=4, heads=(1, 2), directions=3, steps=4)
    held = found.pair.values.copy()
    value = model(source[held.tolist(), :5]).memory.get(0, "state")[:, [1, 2]]
    done = edit(
        model, base[held], Edit(0, "state", 4, "set", value, heads=(1, 2), subspace=found.basis.values), answers=(5, 3)
    )
    np.testing.assert_allclose(found["shift"].sel(case="learned"), done.effects.effect[0, :, -1], atol=1e-9)
    flipped = done.effects.logit_difference[0, :, -1] > 0
    np.testing.assert_array_equal(found.flipped.sel(case="learned"), flipped)


def test_a_state_acts_on_the_next_token_along_what_reads_it_alone():
    """One token follows: interchanging the directions (channel, C) is interchanging all, the others nothing."""
    model = small_model("M2", dtype=torch.float64)
    base, source = tokens(8, 6).view(2, 4, 6)
    base[:, 2:] = source[:, 2:] = base[0, 2:]
    read = torch.from_numpy(trace(model, base[:1]).C(0)[0, 5])  # [heads, N]
    read = read / read.norm(dim=1, keepdim=True)
    heads, size = read.shape
    causal = torch.block_diag(*[torch.kron(torch.eye(size), row[:, None]) for row in read]).double()
    value = model(source[:, :5]).memory.get(0, "state")
    rest = torch.linalg.qr(torch.cat([causal, torch.eye(len(causal)).double()], 1)).Q[:, causal.shape[1] :]
    whole, along, across = (
        edit(model, base, Edit(0, "state", 4, "set", value, subspace=q)).logits[0, :, -1] for q in (None, causal, rest)
    )
    plain = model(base).logits[:, -1]
    assert causal.shape == (heads * size * size, heads * size)
    torch.testing.assert_close(along, whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(across, plain, rtol=0, atol=1e-9)
    assert float((whole - plain).abs().max()) > 1e-4


def test_the_model_and_the_global_seed_stay():
    model = small_model("M2").requires_grad_(True)
    base, source = tokens(16, 7).view(2, 8, 7)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    interchange_subspace(model, base, source, (1, 2), layer=0, time=3, steps=2, draws=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_register_by_its_field():
    base, source = tokens(16, 9).view(2, 8, 9)
    options = {"layer": 1, "part": "window", "field": "value", "time": 6, "steps": 2, "draws": 2}
    found = interchange_subspace(small_model("M2-SWA"), base, source, (1, 2), directions=2, **options)
    assert found.basis.shape == (5 * 2 * 8, 2)  # W = 5 tokens, 2 heads of 8


def test_what_it_refuses():
    model = small_model("M2-SWA-*")
    base, source = tokens(16, 9).view(2, 8, 9)
    good = {"layer": 0, "time": 4, "steps": 1, "draws": 1}
    for changes, message in (
        ({"source": source[:3]}, "source: expected a prompt for each"),
        ({"answers": (1, 1)}, "answers"),
        ({"answers": (1, 99)}, "answers"),
        ({"answers": ([1, 2], 3)}, "answers"),
        ({"layer": 7}, "layer"),
        ({"part": "kv"}, "part"),
        ({"time": 8}, "time"),
        ({"source_time": 9}, "source_time"),
        ({"layer": 1, "part": "window"}, "field"),
        ({"layer": 2, "part": "kv", "field": "value", "source_time": 6}, "source_time: expected part 'kv'"),
        ({"directions": 0}, "directions"),
        ({"directions": 257}, "directions: expected at most 256"),
        ({"heads": 9}, "heads"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr"),
        ({"train_share": 0.99}, "at least two pairs"),
        ({"train_share": 1.0}, "train_share"),
        ({"base": base[:, :1]}, "base"),
    ):
        call = {"base": base, "source": source, "answers": (1, 2), **good, **changes}
        with pytest.raises(ValueError, match=message):
            interchange_subspace(model, call.pop("base"), call.pop("source"), call.pop("answers"), **call)
    with pytest.raises(TypeError, match="model"):
        interchange_subspace("fading", base, source, (1, 2), **good)  # type: ignore[arg-type]
