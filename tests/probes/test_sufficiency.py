"""The whole memory is the past, exactly; a part is what the architecture says it is."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from solomonic.models import HybridLM
from solomonic.probes import bootstrap_interval, load_dataset, save_dataset, sufficiency
from solomonic.probes.sufficiency import _share

from .small import small_model, tokens


@pytest.fixture(scope="module")
def texts():
    ids = tokens(10, 30)
    return ids[:5], ids[5:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pattern", ["M2", "SWA-SWA", "*-M2", "BMF-M2-SWA-*", "BMO-M2", "GDN-SWA"])
def test_everything_is_exactly_the_donor(pattern, dtype, texts):
    found = sufficiency(small_model(pattern, dtype=dtype), *texts, horizon=8, resamples=99)
    assert not found.kl.sel(travels="everything").any()
    assert float(found.share.sel(travels="everything")) == 1
    assert float(found.share.sel(travels="nothing")) == 0
    assert (found.kl.sel(travels="nothing") > 0).any()
    assert (found.kl > -1e-6 if dtype == torch.float32 else found.kl > -1e-14).all()


def test_divergences_agree_with_scipy_and_runs_by_hand(texts):
    model = small_model("M2-SWA", dtype=torch.float64)
    receiver, donor = texts
    found = sufficiency(model, receiver, donor, horizon=6, travels=["state"], layers=0, resamples=99)
    own, other = model(receiver[:, :24]).memory, model(donor[:, :24]).memory
    goal = model(donor).logits[:, 24:].softmax(-1).numpy()
    for name, memory in (("nothing", own), ("state", own.set(0, "state", other.get(0, "state")))):
        p = model(donor[:, 24:], memory).logits.softmax(-1).numpy()
        np.testing.assert_allclose(found.kl.sel(travels=name), entropy(goal, p, base=2, axis=-1), atol=1e-10)
    assert found.time.values.tolist() == list(range(24, 30))
    np.testing.assert_allclose(found.kl_mean, found.kl.mean(("prompt", "time")))


def test_parts_hold_what_the_architecture_says(texts):
    """A window alone is all that a window layer has; a B'MOJO-F state is not read for the first W tokens."""
    window = sufficiency(small_model("SWA-SWA"), *texts, horizon=8, resamples=99)
    assert not window.kl.sel(travels="window").any()
    bmojo = small_model("BMF", dtype=torch.float64)  # W = 6
    short = sufficiency(bmojo, *texts, horizon=6, resamples=99)
    np.testing.assert_array_equal(short.kl.sel(travels="state"), short.kl.sel(travels="nothing"))
    np.testing.assert_array_equal(short.kl.sel(travels="all but state"), 0)
    longer = sufficiency(bmojo, *texts, horizon=8, resamples=99)
    assert (longer.kl.sel(travels="all but state").sum("time") > 0).all()


def test_a_set_of_parts_and_its_complement(texts):
    model = small_model("BMF-M2", dtype=torch.float64)
    sets = {"recurrent": ["conv", "state"], "registers": ["window", "fading_tokens"]}
    sets["both"] = [part for parts in sets.values() for part in parts]
    found = sufficiency(model, *texts, horizon=8, travels=sets, resamples=99)
    assert found.travels.values.tolist() == ["nothing", "everything", *sets]
    assert not found.kl.sel(travels="both").any()
    for name in ("recurrent", "registers"):
        assert (found.kl.sel(travels=name).mean(("prompt", "time")) > 0).all()


def test_equal_pasts_have_no_share(texts):
    found = sufficiency(small_model("M2"), texts[0], texts[0], horizon=4, resamples=99)
    assert not found.kl.any()
    assert np.isnan(found.share).all()


def test_intervals_files_and_seeds(texts, tmp_path):
    model = small_model("M2-SWA")
    found, again = (sufficiency(model, *texts, horizon=4, resamples=199, rng=3) for _ in range(2))
    assert found.identical(again)
    low, high = found.kl_mean_interval
    assert (low <= found.kl_mean + 1e-12).all()
    assert (found.kl_mean <= high + 1e-12).all()
    assert found.identical(load_dataset(save_dataset(found, tmp_path / "found.nc")))
    one = sufficiency(model, texts[0][0], texts[1][0], horizon=4, resamples=99)
    assert np.isnan(one.kl_mean_interval).all()
    assert np.isnan(one.share_interval).all()


def test_intervals_of_shares_cover():
    """24 prompts whose divergences spread like gamma variables; the true share is 0.6."""
    source, hits = np.random.default_rng(0), 0
    for _ in range(400):
        nothing = source.gamma(2, 0.3, 24)
        values = np.stack([nothing, nothing * source.beta(2, 3, 24)], 1)
        low, high = bootstrap_interval(values, _share, resamples=300, rng=source)
        hits += low[1] <= 0.6 <= high[1]
    assert 0.91 <= hits / 400 <= 0.98


class Secretive(HybridLM):
    """A model that carries a number from call to call beside its memory."""

    calls = 0

    def forward(self, ids, memory=None, *, record=None):
        out = super().forward(ids, memory, record=record)
        self.calls += 1
        return dataclasses.replace(out, logits=out.logits + 1e-3 * self.calls * torch.arange(out.logits.shape[-1]))


def test_a_model_that_carries_more_than_its_memory_is_found_out(texts):
    honest = small_model("M2")
    model = Secretive(honest.config)
    model.load_state_dict(honest.state_dict())
    with pytest.raises(ValueError, match="its memory does not hold"):
        sufficiency(model, *texts, horizon=4)


def test_a_model_of_transformers(texts):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        vocab_size=64, hidden_size=16, state_size=8, num_heads=4, head_dim=8, n_groups=1, num_hidden_layers=2
    )
    found = sufficiency(transformers.Mamba2ForCausalLM(config).eval(), *texts, horizon=4, resamples=99)
    assert found.travels.values.tolist() == ["nothing", "everything", "conv", "state"]
    assert not found.kl.sel(travels="everything").any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 30}, "at least 31 tokens"),
        ({"horizon": 0}, "horizon"),
        ({"donor_ids": tokens(5, 29)}, "shape"),
        ({"donor_ids": tokens(4, 30)}, "shape"),
        ({"travels": "kv"}, "travels"),
        ({"travels": []}, "travels"),
        ({"travels": {"none": []}}, "travels"),
        ({"travels": {"everything": ["state"]}}, "another name"),
        ({"travels": "window", "layers": 0}, "travels"),
        ({"layers": 2}, "layers"),
        ({"confidence": 0}, "confidence"),
        ({"receiver_ids": torch.full((5, 30), 64)}, "receiver_ids"),
    ],
)
def test_bad_input_says_what_to_do(options, words, texts):
    arguments = {"receiver_ids": texts[0], "donor_ids": texts[1], "horizon": 4, **options}
    with pytest.raises(ValueError, match=words):
        sufficiency(small_model("M2-SWA"), **arguments)


def test_nan_is_never_a_result():
    model = small_model("M2")
    model.model.embed_tokens.weight[3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        sufficiency(model, torch.full((2, 20), 3), torch.full((2, 20), 3), horizon=4)
