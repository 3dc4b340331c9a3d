"""Progress bars: every probe that runs a model has one, it advances to its end, and it is silent unless asked for."""

import inspect
import re

import numpy as np
import pytest
import torch
import xarray as xr

from solomonic import probes as p
from solomonic.models import save
from solomonic.probes import cli

from .small import small_model, tokens

#: Public functions whose first argument is a model, and which have no bar: why.
WITHOUT = {"editing": "it sets hooks and runs nothing; what runs inside is the caller's"}


def run_a_model() -> list[str]:
    names = []
    for name in p.__all__:
        member = getattr(p, name)
        if inspect.isfunction(member) and next(iter(inspect.signature(member).parameters)) in ("model", "models"):
            names.append(name)
    return names


def test_the_rule_sees_the_probes():
    assert {"trace", "fading", "structure", "steer", "report", "editing"} <= set(run_a_model())
    assert set(WITHOUT) <= set(run_a_model()), "an exception that is no public function any more"


@pytest.mark.parametrize("name", sorted(set(run_a_model()) - set(WITHOUT)))
def test_a_probe_that_runs_a_model_has_a_bar(name):
    parameter = inspect.signature(getattr(p, name)).parameters.get("progress")
    assert parameter is not None, f"{name} takes no progress"
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert parameter.default is (name == "report")


def run(name, **options):
    """One probe on something tiny."""
    model, ids = small_model("M2-SWA"), tokens(1, 24)
    many, state = tokens(10, 16), small_model("M2", dtype=torch.float64)
    beliefs = np.random.default_rng(0).random((10, 16, 2))
    calls = {
        "trace": lambda: p.trace(model, ids, **options),
        "structure": lambda: p.structure(model, 0, ids=ids, **options),
        "structures": lambda: p.structures(model, **options),
        "conformance": lambda: p.conformance(model, ids[:, :10], **options),
        "transplant": lambda: p.transplant(model, ids, ids.flip(1), tokens=2, **options),
        "layer_influence": lambda: p.layer_influence(model, 1, many, projections=1, rng=0, **options),
        "extra_information": lambda: p.extra_information(model, many, samples=2, **options),
        "belief_states": lambda: p.belief_states(model, many, beliefs, samples=2, **options),
        "compress": lambda: p.compress(small_model("M2-M2"), ids, order=2, **options),
        "unsaid": lambda: p.unsaid(state, ids, 0, horizon=2, directions=4, iterations=0, **options),
        "steer": lambda: p.steer(
            state, ids, 1.01 * state(ids).memory.get(0, "state")[0], 0, span=4, steps=1, iterations=3, **options
        ),
        "retention": lambda: p.retention(p.trace(model, ids), **options),
        "memory_curve": lambda: p.memory_curve(p.trace(model, ids), **options),
        "receptive_field": lambda: p.receptive_field(p.trace(model, ids, attention=True), **options),
        "decay_law": lambda: p.decay_law(
            xr.Dataset({"kl": (("prompt", "lag"), np.random.default_rng(0).random((6, 5)))}, {"lag": np.arange(1, 6)}),
            laws=["exponential", "power"],
            **options,
        ),
    }
    calls[name]()


#: Probe -> label of its bar, where it ends, and its total.
BARS = {
    "trace": ("trace", 3, 3),  # two layers, and the states of one
    "structure": ("trace", 2, 2),
    "structures": ("structures", 2, 2),
    "conformance": ("conformance", 8, 8),
    "transplant": ("transplant", 6, 6),
    "layer_influence": ("layer influence", 10, 10),
    "extra_information": ("extra information", 1, 1),
    "belief_states": ("belief states", 5, 5),  # conv, state, window, and two residual streams
    "compress": ("compress", 2, 2),
    "unsaid": ("unsaid", None, 15),  # the search ends early where the largest change does
    "steer": ("steer", 1, 1),
    "retention": ("retention", 4, 4),
    "memory_curve": ("memory curve", 1, 1),
    "receptive_field": ("receptive field", 2, 2),
    "decay_law": ("decay law", 2, 2),
}


@pytest.mark.parametrize("name", BARS)
def test_a_bar_comes_to_its_end(name, capsys):
    label, last, total = BARS[name]
    run(name, progress=True)
    captured = capsys.readouterr()
    seen = [(int(n), int(of)) for n, of in re.findall(rf"{label}: .*? (\d+)/(\d+) \[", captured.err)]
    assert captured.out == ""
    assert seen[0] == (0, total)
    assert seen[-1][1] == total
    assert seen[-1][0] == last if last is not None else 4 < seen[-1][0] <= total


@pytest.mark.parametrize("name", BARS)
def test_nothing_is_shown_unless_asked_for(name, capsys):
    run(name)
    captured = capsys.readouterr()
    assert captured.err + captured.out == ""


def test_the_check_of_the_command_shows_its_progress(tmp_path, capsys):
    folder = save(small_model("M2"), tmp_path / "mine")
    for quiet in ([], ["--quiet"]):
        with pytest.raises(SystemExit):
            cli.main(["check", str(folder), *quiet])
        err = capsys.readouterr().err
        assert bool(re.search(r"conformance: 100%.* 8/8", err)) == (not quiet)
