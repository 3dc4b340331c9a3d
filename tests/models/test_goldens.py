"""The published format against what the reference implementation of its checkpoints computes."""

import pytest
import torch
from safetensors.torch import load_file

from solomonic.models import load

TOLERANCE = 5e-5  # float32, logits of order 1; two routes of the reference differ by up to 1.6e-5


#: Folder -> largest difference of the logits, of order 1, in float32: measured 4e-6 and 1.1e-4. The Chebyshev solve
#: amplifies rounding: two sound float32 routes differ by 1.1e-4, and in float64 we are as far from the file.
OTHER_MIXERS = {"gdn": 5e-5, "bmojof-gka": 5e-4}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OTHER_MIXERS)
def test_other_mixers(name, dtype, shared):
    folder = shared / "goldens" / name
    model, numbers = load(folder, dtype=dtype), load_file(folder / "golden.safetensors")
    seen = {}
    out = model(numbers["input_ids"], record=lambda i, name, value: seen.update({(i, name): value}))
    _close(out.logits, numbers["logits"], OTHER_MIXERS[name])
    for i in range(len(model.config.pattern)):
        _close(seen[i, "hidden"], numbers[f"hidden.{i}"], OTHER_MIXERS[name])


@pytest.fixture(params=["bmojof-mamba2", "mamba2"])
def golden(request, shared):
    folder = shared / "goldens" / request.param
    return load(folder), load_file(folder / "golden.safetensors")


def _close(ours, theirs, tolerance=TOLERANCE):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < tolerance


def test_logits_and_hidden_states(golden):
    model, numbers = golden
    seen = {}
    out = model(numbers["input_ids"], record=lambda i, name, value: seen.update({(i, name): value}))
    _close(out.logits, numbers["logits"])
    for i, symbol in enumerate(model.config.pattern):
        scale = numbers[f"hidden.{i}"].abs().max()
        _close(seen[i, "hidden"], numbers[f"hidden.{i}"], TOLERANCE * max(1.0, scale))
        if f"ssm_out.{i}" in numbers:
            _close(seen[i, "ssm_out" if symbol == "BMF" else "mixer_out"], numbers[f"ssm_out.{i}"])


def test_cached_logits_token_by_token(golden):
    model, numbers = golden
    ids = numbers["input_ids"]
    out = model(ids[:, :31])
    logits = [out.logits]
    for t in range(31, ids.shape[1]):
        out = model(ids[:, t : t + 1], memory=out.memory)
        logits.append(out.logits)
    _close(torch.cat(logits, 1), numbers["logits_cached"])


def test_states(golden):
    model, numbers = golden
    ids = numbers["input_ids"]
    decays = {}
    prefill = model(ids[:, :31], record=lambda i, n, v: decays.update({(i, n): v})).memory
    final = model(ids).memory
    layers = [i for i, symbol in enumerate(model.config.pattern) if symbol in ("M2", "BMF")]
    assert layers
    for i in layers:
        _close(prefill.get(i, "state"), numbers[f"prefill.ssm_state.{i}"])
        _close(final.get(i, "state"), numbers[f"final.ssm_state.{i}"])
        # The reference keeps four columns, oldest first; three of them can still be read.
        _close(prefill.get(i, "conv").mT, numbers[f"prefill.conv_state.{i}"][..., 1:])
        _close(decays[i, "log_decay"].sum(1), numbers[f"prefill.log_aprods.{i}"])


def test_bfloat16_stays_near_float32(golden, shared):
    model, numbers = golden
    rough = model.bfloat16()
    out = rough(numbers["input_ids"])
    assert out.logits.dtype == torch.bfloat16
    error = (out.logits.float() - numbers["logits"]).abs()
    assert error.mean() < 0.05 * numbers["logits"].std()
    assert all(out.memory.get(p.layer, p.part).dtype == torch.float32 for p in out.memory.parts() if p.part == "state")
