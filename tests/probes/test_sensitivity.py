"""Full and frozen derivatives against those of the layer written out, and of functions without gates."""

import numpy as np
import pytest
import torch

from solomonic.kernels import ssd
from solomonic.models import adapt
from solomonic.probes import load_dataset, save_dataset, sensitivity
from solomonic.probes.products import embedding_table, replaced_embeddings

from ..models.adapters.small import small
from .small import small_model, tokens


def squared(model, ids, read):
    """Norms of the derivative of read(output) [T], all rows of the Jacobian by autograd."""
    embedded = embedding_table(model).weight.detach()[ids].clone().requires_grad_(True)
    with torch.enable_grad(), replaced_embeddings(model, embedded):
        value = read(model(ids)).flatten()
    rows = [torch.autograd.grad(each, embedded, retain_graph=True)[0][0] for each in value]
    return torch.stack(rows).square().sum((0, 2)).sqrt().flip(0).numpy()


def centred(out):
    last = out.logits[0, -1]
    return last - last.mean()


@pytest.mark.parametrize("pattern", ["BMF", "SWA-M2"])
def test_the_full_norm_is_that_of_the_jacobian(pattern):
    model, ids = small_model(pattern, dtype=torch.float64), tokens(1, 8)
    found = sensitivity(model, ids, projections=600, rng=0)
    expected = squared(model, ids, centred)
    seen = expected > 1e-12
    ratio = found.norm.sel(jacobian="full", target="logits")[0].to_numpy()[seen] / expected[seen]
    assert np.abs(ratio - 1).max() < 0.15
    layer = len(model.config.pattern) - 1
    expected = squared(model, ids, lambda out: out.memory.get(layer, "state"))
    ratio = found.norm.sel(jacobian="full", target=f"layer {layer}")[0].to_numpy() / expected
    assert np.abs(ratio - 1).max() < 0.15


def test_frozen_is_the_scan_at_the_gates_of_the_run():
    """One layer: the state from x alone, with dt and B as they were."""
    model, ids = small_model("M2", dtype=torch.float64), tokens(1, 7)
    held = {}
    model(ids, record=lambda layer, name, value: held.__setitem__(name, value.detach()))
    A = (held["log_decay"] / held["dt"])[0, 0]

    class Frozen(torch.nn.Module):
        """x as the model makes it, then the scan at fixed gates."""

        def __call__(self, embedded):
            taken = {}
            with replaced_embeddings(model, embedded):
                model(ids, record=lambda layer, name, value: taken.__setitem__(name, value))
            return ssd(taken["x"], held["dt"], A, held["B"], held["C"], D=held["D"]).state

    embedded = embedding_table(model).weight.detach()[ids].clone().requires_grad_(True)
    with torch.enable_grad():
        value = Frozen()(embedded).flatten()
    rows = torch.stack([torch.autograd.grad(each, embedded, retain_graph=True)[0][0] for each in value])
    expected = rows.square().sum((0, 2)).sqrt().flip(0).numpy()
    found = sensitivity(model, ids, projections=800, rng=0).norm.sel(jacobian="frozen", target="layer 0")[0].to_numpy()
    assert np.abs(found / expected - 1).max() < 0.15


def test_frozen_attention_passes_values_alone():
    """At fixed weights the derivative of what a softmax reads is its weight: earlier tokens beyond W have none."""
    found = sensitivity(small_model("SWA", dtype=torch.float64), tokens(2, 14), rng=0)
    for kind in ("full", "frozen"):
        norm = found.norm.sel(jacobian=kind, target="logits")
        assert (norm.sel(lag=slice(0, 4)) > 0).all()
        assert (norm.sel(lag=slice(5, None)) == 0).all()
    assert not np.allclose(found.ratio.sel(target="logits", lag=slice(0, 4)), 1)
    assert found.ratio.sel(target="logits", lag=slice(5, None)).isnull().all()


def test_lags_layers_and_files(tmp_path):
    model, ids = small_model("M2-M2"), tokens(2, 14)
    whole, some = sensitivity(model, ids), sensitivity(model, ids, lags=[3, 9])
    np.testing.assert_array_equal(whole.norm.sel(lag=[3, 9]), some.norm)
    assert sensitivity(model, ids, layers=1).target.values.tolist() == ["layer 1", "logits"]
    assert load_dataset(save_dataset(some, tmp_path / "s.nc")).identical(some)


def test_what_it_refuses():
    model = small_model("M2-SWA")
    nan = small_model("M2")
    nan.get_parameter("model.embed_tokens.weight")[3] = torch.nan
    for call, error, message in (
        (lambda: sensitivity(adapt(small("mamba2")), tokens(1, 8)), TypeError, "expected a HybridLM.*controllability"),
        (lambda: sensitivity(model, tokens(1, 1)), ValueError, "at least 2 tokens"),
        (lambda: sensitivity(model, tokens(1, 9), layers=1), ValueError, r"layer 1 \(SWA\) has none"),
        (lambda: sensitivity(model, tokens(1, 9), layers=5), ValueError, "layers"),
        (lambda: sensitivity(model, tokens(1, 9), lags=[9]), ValueError, "has lags from 1 to 8"),
        (lambda: sensitivity(model, tokens(1, 9), projections=0), ValueError, "projections"),
        (lambda: sensitivity(nan, torch.full((1, 9), 3)), ValueError, "NaN or infinite"),
    ):
        with pytest.raises(error, match=message):
            call()
