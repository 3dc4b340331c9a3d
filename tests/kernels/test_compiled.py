"""What the Triton kernels compile to, without a GPU: compared with what is committed, and with the cost model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from solomonic.kernels.memory_attention.configs import config as attention_config
from solomonic.kernels.ssd import cost
from solomonic.kernels.triton import aot

WANTED, VERSIONS = aot.expected()
ROWS = [
    (operation, build, kernel, arch)
    for operation, builds in WANTED.items()
    for build, kernels in builds.items()
    for kernel, architectures in kernels.items()
    for arch in architectures
]


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """Everything compiled afresh, in a process that does not interpret, with an empty cache."""
    triton = pytest.importorskip("triton")
    if {triton.__version__} != VERSIONS:
        pytest.skip(f"what is committed was compiled with Triton {VERSIONS}, and this is {triton.__version__}")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "-m", "solomonic.kernels.triton.aot", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_differs_from_what_is_committed(found):
    lines = aot.differences(found, WANTED)
    assert not lines, "make kernels prints the difference, make kernels WRITE=1 accepts it:\n" + "\n".join(lines)


def test_every_mix_of_options_of_ssd_is_accepted():
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("options.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mixes = json.loads(done.stdout)
    assert len(mixes) == 12
    whole = ["forward_kernel", "backward_C_kernel", "backward_B_kernel", "backward_x_kernel"]
    assert all(names == whole for names in mixes.values())


def test_every_operation_with_builds_has_an_expectation():
    assert set(WANTED) == set(aot.operations())
    assert {arch for *_, arch in ROWS} == set(aot.ARCHITECTURES)


@pytest.mark.parametrize(("operation", "build", "kernel", "arch"), ROWS, ids=lambda v: v.replace(" ", "_"))
def test_no_spills(operation, build, kernel, arch):
    """The committed numbers keep the promise: what is in registers stays there."""
    metrics = WANTED[operation][build][kernel][arch]
    assert metrics["stack"] == 0
    assert metrics["spills"] == 0
    # All that NVIDIA has; on AMD more would leave room for a single wave.
    assert metrics["registers"] <= 255
    assert metrics["shared"] <= {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}[arch]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("build", "size", "itemsize"), [("bfloat16, head 64", 64, 2), ("bfloat16, head 128", 128, 2)])
def test_ssd_moves_each_byte_about_once(build, size, itemsize, arch):
    """Bytes of the loads and stores in the compiled loop, for each token of a head, against the compulsory ones."""
    metrics = WANTED["ssd"][build]["forward_kernel"][arch]
    sizes = cost.Sizes(B=1, T=4096, H=8, P=size, N=size, GB=8, GC=8, itemsize=itemsize)
    model = cost.forward(sizes, arch)
    assert model.reread == 0
    assert model.ratio <= 1.3
    Q = cost.config("forward", arch, itemsize, size, size).Q
    counted = (metrics["loop_load_bytes"] + metrics["loop_store_bytes"]) / Q
    states = 2 * size * size * 4 / 4096
    compulsory = model.compulsory / (sizes.T * sizes.H)
    assert compulsory <= counted + states + 1
    assert counted + states <= 1.3 * compulsory


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("build", "size"), [("bfloat16, head 64", 64), ("bfloat16, head 128", 128)])
def test_attention_loads_each_key_of_a_tile_once(build, size, arch):
    """Bytes of the loads in the three compiled loops, against the keys and values of one tile of each source."""
    found = WANTED["memory_attention"][build]["forward_kernel"][arch]
    BN = attention_config("forward", arch, 2, size, 1 << 20).BN
    tile = BN * 2 * size * 2
    assert 3 * tile <= found["loop_load_bytes"] <= 1.2 * 3 * tile  # the rest: the list and the intervals
    assert found["loop_store_bytes"] == 0


def test_a_difference_is_told():
    one = {"op": {"build": {"kernel": {"sm_80": {"registers": 3}}}}}
    other = {"op": {"build": {"kernel": {"sm_80": {"registers": 4, "spills": 0}}}}}
    assert aot.differences(other, one) == [
        "op / build / kernel / sm_80 / registers: expected 3, got 4",
        "op / build / kernel / sm_80 / spills: expected nothing, got 0",
    ]
    assert aot.differences(one, one) == []


def test_an_interpreting_process_does_not_compile():
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        aot.compiled(["ssd"])
