"""Patches from a layer on against whole runs, closed cases of direct and indirect effects, controls and estimates."""

import json

import numpy as np
import pytest
import torch

from solomonic.probes import causal_trace
from solomonic.probes.causal_plan import default_times

from .small import small_model, tokens

PATTERN = "BMF-M2-SWA-*-GDN"


def pair(prompts=3, length=18, at=(4, 7)):
    clean = tokens(prompts, length)
    corrupt = clean.clone()
    for t in at:
        corrupt[:, t] = (corrupt[:, t] + 1 + torch.arange(prompts)) % 64
    return clean, corrupt


def whole_run(model, base, source, layer, part, time, path="total"):
    """Last logits with a part of a layer's memory after a token taken from the other run, and read on from there."""
    memory = model(base[:, : time + 1]).memory
    donor = model(source[:, : time + 1]).memory
    patched = memory.transplant(donor, layers=layer, parts=None if part == "all" else part)
    end = base.shape[1] - 1
    if time + 1 < end:
        memory = model(base[:, time + 1 : end], memory).memory
        patched = model(base[:, time + 1 : end], patched).memory
    if path == "direct":
        patched = memory.transplant(patched, layers=layer)
    elif path == "indirect":
        patched = patched.transplant(memory, layers=layer)
    return model(base[:, end:], patched).logits[:, -1].double()


@pytest.mark.parametrize(("direction", "times"), [("denoise", [4, 12]), ("noise", [8])])
def test_every_effect_is_that_of_a_whole_run(direction, times):
    model = small_model(PATTERN, dtype=torch.float64)
    clean, corrupt = pair(length=14)
    found = causal_trace(model, clean, corrupt, times=times, direction=direction, answers=(3, [4, 5, 6]), resamples=50)
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    other = torch.tensor([4, 5, 6])

    def difference(logits):
        return logits[:, 3] - logits.gather(1, other[:, None])[:, 0]

    before, after = (model(ids).logits[:, -1].double() for ids in (base, source))
    np.testing.assert_allclose(found.base_difference, difference(before), atol=1e-12)
    np.testing.assert_allclose(found.source_difference, difference(after), atol=1e-12)
    seen = 0
    for part in found.part.values:
        for layer in found.layer.values:
            for time in times:
                for path in found.path.values:
                    at = found.sel(part=part, layer=layer, time=time, path=path)
                    if part != "all" and part not in model.empty_memory().layers[layer]:
                        assert np.isnan(at.effect).all()
                        continue
                    logits = whole_run(model, base, source, int(layer), str(part), time, str(path))
                    np.testing.assert_allclose(at.effect, difference(logits) - difference(before), atol=1e-10)
                    p, q, s = before.log_softmax(-1), logits.log_softmax(-1), after.log_softmax(-1)
                    np.testing.assert_allclose(at.kl, (p.exp() * (p - q)).sum(-1) / np.log(2), atol=1e-9)
                    np.testing.assert_allclose(at.kl_source, (s.exp() * (s - q)).sum(-1) / np.log(2), atol=1e-9)
                    seen += 1
    assert seen == 3 * len(times) * 15  # 10 parts and 5 times "all"


def test_all_memories_carry_everything_and_the_last_layer_acts_directly():
    model = small_model("M2-SWA", dtype=torch.float64)
    clean, corrupt = pair(at=(4,))
    found = causal_trace(model, clean, corrupt, resamples=50, controls=[])
    last = found.sel(layer=1, part="all")
    np.testing.assert_allclose(last.effect.sel(path="indirect"), 0, atol=1e-12)
    np.testing.assert_allclose(last.effect.sel(path="direct"), last.effect.sel(path="total"), atol=1e-12)
    # after the last token but one, nothing else can have been written
    late = found.sel(time=16, part="all")
    np.testing.assert_allclose(late.effect.sel(path="direct"), late.effect.sel(path="total"), atol=1e-12)
    # a window of 5: a patch of it is out of its own register, but not of the model, five tokens on
    one = causal_trace(small_model("SWA", dtype=torch.float64), clean, corrupt, resamples=50, controls=[])
    effect = one.effect.sel(path="total", layer=0, part="window")
    assert np.abs(effect.sel(time=slice(None, 12))).max() < 1e-12
    whole = causal_trace(small_model("M2", dtype=torch.float64), clean, corrupt, resamples=50, controls=[])
    np.testing.assert_allclose(whole.normalised.sel(path="total", part="all", layer=0), 1, atol=1e-8)
    np.testing.assert_allclose(whole.normalised_mean_interval.sel(path="total", part="all", layer=0), 1, atol=1e-8)
    np.testing.assert_allclose(whole.kl_source.sel(path="total", part="all", layer=0), 0, atol=1e-12)


def test_batches_subsets_and_layers_do_not_change_the_numbers():
    model = small_model(PATTERN, dtype=torch.float64)
    clean, corrupt = pair()
    options = {"times": [5, 11, 16], "resamples": 50, "controls": [], "attribution": False}
    whole = causal_trace(model, clean, corrupt, **options)
    small = causal_trace(model, clean, corrupt, batch_size=4, **options)
    np.testing.assert_allclose(small.effect, whole.effect, atol=1e-11)
    some = causal_trace(model, clean, corrupt, layers=[1, 3], parts=["state", "all"], **options)
    np.testing.assert_allclose(some.effect, whole.effect.sel(layer=[1, 3], part=["state", "all"]), atol=1e-11)
    for paths in ("total", ["indirect"]):
        one = causal_trace(model, clean, corrupt, paths=paths, **options)
        assert one.path.values.tolist() == list(dict.fromkeys(["total", *([paths] if paths == "total" else paths)]))
        np.testing.assert_allclose(one.effect, whole.effect.sel(path=one.path), atol=1e-11)
        np.testing.assert_allclose(one.kl_source, whole.kl_source.sel(path=one.path), atol=1e-11)
    few = causal_trace(model, clean, corrupt, exact=7, **options)
    known = np.isfinite(few.effect)
    assert known.isel(prompt=0, path=0).sum() == 7
    np.testing.assert_allclose(few.effect.values[known], whole.effect.values[known], atol=1e-11)
    checks = json.loads(whole.attrs["checks"])
    assert checks["patches"] == 45
    assert checks["tokens_by_layers"] < checks["of_full_forwards"]


def test_first_order_estimates_are_derivatives():
    """With prompts whose memories are close together, the estimate is the effect."""
    model = small_model("M2-SWA-BMF", dtype=torch.float64)
    table = model.model.embed_tokens.weight
    table[1] = table[0] + 1e-5 * torch.randn(32, generator=torch.Generator().manual_seed(0)).double()
    clean = tokens(3, 14)
    clean[:, 3] = 0
    corrupt = clean.clone()
    corrupt[:, 3] = 1
    found = causal_trace(model, clean, corrupt, answers=(5, 6), resamples=50, controls=[])
    effect = found.effect.sel(path="total")
    np.testing.assert_allclose(found.attribution, effect, atol=1e-3 * float(np.abs(effect).max()))
    assert float(found.agreement.sel(statistic="pearson")) > 0.999
    assert float(found.agreement.sel(statistic="spearman")) > 0.98  # the ranks of effects that are 0 are rounding
    assert float(found.agreement.sel(statistic="slope")) == pytest.approx(1, abs=1e-3)
    assert not any(p.requires_grad for p in model.parameters())


def test_controls_are_of_their_kind():
    model = small_model("M2-SWA", dtype=torch.float64)
    clean, corrupt = pair(prompts=4)
    found = causal_trace(model, clean, corrupt, times=[9], answers=(3, 4), resamples=50, rng=1)
    assert found.control.values.tolist() == ["resample", "random", "shuffle"]
    assert np.isfinite(found.control_effect.sel(part="all")).all()
    before = model(corrupt).logits[:, -1]
    base = (before[:, 3] - before[:, 4]).double()
    donor = model(clean[:, :10]).memory
    memory = model(corrupt[:, :10]).memory
    for prompt in range(4):
        got = float(found.control_effect.sel(control="resample", part="state", layer=0, time=9)[prompt])
        could = []
        for other in set(range(4)) - {prompt}:
            state = memory.get(0, "state").clone()
            state[prompt] = donor.get(0, "state")[other]
            logits = model(corrupt[:, 10:], memory.set(0, "state", state)).logits[prompt, -1]
            could.append(abs(float(logits[3] - logits[4] - base[prompt]) - got))
        assert min(could) < 1e-12
    one = causal_trace(model, clean[:1], corrupt[:1], times=[9], resamples=50)
    assert one.control.values.tolist() == ["random", "shuffle"]
    assert np.isnan(one.effect_mean_interval).all()
    again = causal_trace(model, clean, corrupt, times=[9], answers=(3, 4), resamples=50, rng=1)
    assert found.identical(again)


def test_intervals_hold_their_means_and_files_come_back(tmp_path):
    from solomonic.probes import load_dataset, save_dataset

    clean, corrupt = pair(prompts=6)
    found = causal_trace(small_model("M2-SWA"), clean, corrupt, resamples=200)
    for name in ("effect_mean", "control_mean"):
        low, high = found[f"{name}_interval"].transpose("bound", ...).values
        mean = found[name].values
        known = np.isfinite(mean)
        assert ((low <= mean + 1e-9) & (mean <= high + 1e-9))[known].all()
    assert load_dataset(save_dataset(found, tmp_path / "a.nc")).equals(found)


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        vocab_size=64, hidden_size=16, state_size=8, num_heads=4, head_dim=8, n_groups=1, num_hidden_layers=2
    )
    from solomonic.models import adapt

    model = adapt(transformers.Mamba2ForCausalLM(config).eval().requires_grad_(False).double())
    clean, corrupt = pair(prompts=2, length=12)
    found = causal_trace(model, clean, corrupt, times=[5, 10], answers=(3, 4), resamples=50)
    base = model(corrupt).logits[:, -1].double()
    for path in found.path.values:
        logits = whole_run(model, corrupt, clean, 0, "state", 5, path)
        want = (logits - base)[:, 3] - (logits - base)[:, 4]
        np.testing.assert_allclose(found.effect.sel(path=path, layer=0, part="state", time=5), want, atol=1e-10)
    assert np.isfinite(found.attribution).all()


def test_default_times_are_near_the_end():
    assert default_times(3, 12).tolist() == list(range(3, 11))
    times = default_times(4, 512)
    assert len(times) == 64
    assert (times[0], times[-1]) == (4, 510)
    assert (np.diff(times)[:-1] >= np.diff(times)[1:]).mean() > 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corrupt_ids": tokens(3, 17)}, "shape of clean_ids"),
        ({"corrupt_ids": pair()[0]}, "nothing to trace"),
        ({"corrupt_ids": pair(at=(17,))[1]}, "only the last token"),
        ({"layers": 2}, "layers from 0 to 1"),
        ({"parts": "kv"}, "parts: expected"),
        ({"parts": ()}, "parts: expected"),
        ({"times": [3]}, "would touch nothing"),
        ({"times": [17]}, "to 16"),
        ({"times": []}, "at least one"),
        ({"direction": "both"}, "direction"),
        ({"answers": (3, 3)}, "the same"),
        ({"controls": ["noise"]}, "controls: expected"),
        ({"paths": "straight"}, "paths: expected"),
        ({"exact": 1000}, "at most the"),
        ({"exact": 0}, "exact"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_says_what_to_do(changes, words):
    clean, corrupt = pair()
    arguments = {"clean_ids": clean, "corrupt_ids": corrupt, **changes}
    with pytest.raises(ValueError, match=words):
        causal_trace(small_model("M2-SWA"), **arguments)


def test_resampling_needs_another_prompt_and_nan_is_refused():
    clean, corrupt = pair(prompts=1)
    with pytest.raises(ValueError, match="there is one only"):
        causal_trace(small_model("M2-SWA"), clean, corrupt, controls="resample")
    model = small_model("M2-SWA")
    model.model.embed_tokens.weight[corrupt[0, 4]] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        causal_trace(model, clean, corrupt)
