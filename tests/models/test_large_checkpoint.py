"""A sharded B'MOJO-F checkpoint of several GB: written, described, loaded a shard at a time, run, deleted."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from solomonic.models import HybridConfig, HybridLM, describe

#: About 3.1 GB in bfloat16, 2 layers a shard.
CONFIG = HybridConfig(
    pattern="BMF-*-" * 6 + "BMF-*",
    vocab_size=100_000,
    hidden_size=2048,
    intermediate_size=8192,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=128,
    ssm_mixer="gka",
    dtype="bfloat16",
)
TOKENS = 8

#: Run in a process of its own, whose peak memory is the load's and the run's.
RUN = """
import re, sys, torch
from solomonic.models import load
torch.set_num_threads(1)
def peak():  # of this program alone: what getrusage says outlives exec
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = peak()
model = load(sys.argv[1])
memory, ids = None, torch.tensor([[1]])
for _ in range(int(sys.argv[2])):
    out = model(ids, memory=memory)
    memory, ids = out.memory, out.logits[:, -1:].argmax(-1)
    assert out.logits.isfinite().all()
print(memory.position, peak() - before)
"""


def write(folder):
    """Random weights, made and written a shard at a time; returns the bytes of the model and of the largest shard."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in HybridLM(CONFIG).state_dict().items()}
    rng = torch.Generator().manual_seed(0)
    shards: dict[int, list[str]] = {}
    for name in shapes:
        layer = int(name.split(".")[2]) // 2 + 1 if ".layers." in name else 0
        shards.setdefault(layer, []).append(name)
    weight_map, sizes = {}, []
    for i, names in shards.items():
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        weights = {}
        for name in names:
            weight = torch.empty(shapes[name], dtype=torch.bfloat16).normal_(std=0.02, generator=rng)
            weights[name] = weight + 1 if "norm" in name else weight
        save_file(weights, folder / file)
        sizes.append(sum(w.numel() * 2 for w in weights.values()))
        weight_map.update(dict.fromkeys(names, file))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(sizes), max(sizes)


@pytest.mark.slow
@pytest.mark.large
def test_several_gigabytes(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    if free < 8 << 30:
        pytest.skip(f"needs 8 GiB of disk, {free / 2**30:.1f} are free")
    try:
        nbytes, shard = write(tmp_path)
        assert nbytes > 2 << 30
        assert describe(tmp_path).nbytes == nbytes
        command = [sys.executable, "-c", RUN, str(tmp_path), str(TOKENS)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        position, peak = done.stdout.split()
        assert int(position) == TOKENS
        assert nbytes < int(peak) < nbytes + shard + (300 << 20)  # the interpreter's own growth, and what a token takes
    finally:
        shutil.rmtree(tmp_path)
