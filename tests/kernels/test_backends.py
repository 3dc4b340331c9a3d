"""Dispatch: which implementation a call gets, and what is said about it."""

import logging
import subprocess
import sys

import pytest
import torch

from solomonic.kernels import available_backends, backends, default_backend, ssd
from solomonic.kernels.backends import choose

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def reference():
    return "reference"


def cpu():
    return "cpu"


def triton():
    return "triton"


ALL = {"reference": reference, "cpu": cpu, "triton": triton}


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(backends, "_told", set())


@pytest.mark.parametrize(("device", "want"), [(CPU, "cpu"), (GPU, "triton"), (torch.device("meta"), "cpu")])
def test_auto_follows_the_device(device, want):
    assert choose("auto", ALL, device=device)() == want


@pytest.mark.parametrize("name", ["reference", "cpu", "triton"])
def test_a_name_is_taken_literally(name):
    assert choose(name, ALL)() == name


def test_auto_falls_to_a_backend_that_can_and_says_so_once(untold, caplog):
    lacking = {"triton": "it has no edits", "cpu": "it has no edits either"}
    with caplog.at_level(logging.WARNING, "solomonic.kernels"):
        for _ in range(2):
            assert choose("auto", ALL, device=GPU, lacking=lacking, operation="op")() == "reference"
    assert [record.getMessage() for record in caplog.records] == [
        "op: backend 'triton' is passed over: it has no edits",
        "op: backend 'cpu' is passed over: it has no edits either",
    ]


def test_a_backend_that_lacks_an_option_is_refused_when_named():
    with pytest.raises(ValueError, match=r"^backend: 'triton' cannot serve this call: it has no edits; choose one of"):
        choose("triton", ALL, lacking={"triton": "it has no edits"})


def test_a_backend_that_the_operation_lacks():
    with pytest.raises(ValueError, match=r"^backend: 'triton' .* does not offer it; choose one of 'auto', 'cpu'$"):
        choose("triton", {"cpu": cpu})


def test_triton_needs_a_gpu_or_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "triton" not in available_backends()
    with pytest.raises(ValueError, match=r"^backend: 'triton' .* needs tensors on a GPU, and these are on cpu"):
        choose("triton", ALL)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert available_backends()[-1] == "triton"
    assert choose("triton", ALL)() == "triton"


def test_the_switch_turns_dispatch_off(monkeypatch):
    with default_backend("reference"):
        assert choose("auto", ALL, device=GPU)() == "reference"
        assert choose("cpu", ALL, device=GPU)() == "cpu"
        with default_backend("auto"):
            assert choose("auto", ALL, device=GPU)() == "triton"
    monkeypatch.setenv("SOLOMONIC_BACKEND", "cpu")
    assert choose("auto", ALL, device=GPU)() == "cpu"
    with pytest.raises(ValueError, match="it has no edits"):
        choose("auto", ALL, device=GPU, lacking={"cpu": "it has no edits"})
    monkeypatch.setenv("SOLOMONIC_BACKEND", "gpu")
    with pytest.raises(ValueError, match=r"^SOLOMONIC_BACKEND: expected one of .* got 'gpu'"):
        choose("auto", ALL)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"^backend: expected one of 'auto', .* got 'gpu'"):
        choose("gpu", ALL)
    with pytest.raises(ValueError, match=r"^backend: expected one of"), default_backend("gpu"):
        pass
    with pytest.raises(TypeError, match=r"^backend: expected a string, got NoneType"):
        choose(None, ALL)


def test_nothing_loads_triton_before_it_is_used():
    code = """
import sys
import torch
from solomonic.kernels import ssd
one = torch.ones(1, 2, 1, 1)
ssd(one, one[..., 0], -torch.ones(1), one, one)
print([name for name in sys.modules if name.partition(".")[0] == "triton"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_operation_goes_through_dispatch():
    one = torch.ones(1, 2, 1, 1)
    with default_backend("reference"):
        out = ssd(one, one[..., 0], -torch.ones(1), one, one)
    assert out.y.dtype == torch.float32
