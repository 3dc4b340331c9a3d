"""Loading and saving: round trips, shards, older names, and damaged files."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from solomonic.models import describe, load, save

from .small import VARIANTS, small_config, small_model, tokens


@pytest.fixture
def folder(tmp_path):
    return save(small_model("hybrid", dtype=torch.float32), tmp_path / "model")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_round_trip(tmp_path, name, dtype):
    model = small_model(name, dtype=dtype)
    again = load(save(model, tmp_path / "m"))
    ids = tokens(1, 9)
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert again.config.pattern == model.config.pattern
    wide = load(tmp_path / "m", dtype="float64")
    assert wide(ids).logits.dtype == torch.float64


def _shard(folder, names_per_shard=7):
    weights = load_file(folder / "model.safetensors")
    weight_map = {}
    names = sorted(weights)
    for k, start in enumerate(range(0, len(names), names_per_shard)):
        shard = f"model-{k + 1:05d}.safetensors"
        chosen = names[start : start + names_per_shard]
        save_file({n: weights[n] for n in chosen}, folder / shard)
        weight_map.update(dict.fromkeys(chosen, shard))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_shards(folder):
    ids = tokens(1, 9)
    whole = load(folder)(ids).logits
    weight_map = _shard(folder)
    assert len(set(weight_map.values())) > 3
    assert torch.equal(load(folder)(ids).logits, whole)
    assert len(describe(folder).files) == len(set(weight_map.values()))


def test_broken_indices(folder):
    weight_map = _shard(folder)
    index = folder / "model.safetensors.index.json"
    name = sorted(weight_map)[0]
    for evil in ("../outside.safetensors", "/etc/passwd", "sub/model.safetensors", ".."):
        index.write_text(json.dumps({"weight_map": {**weight_map, name: evil}}))
        with pytest.raises(ValueError, match="outside the checkpoint's folder"):
            load(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, name: "model-99999.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="model-99999"):
        load(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, name: weight_map[sorted(weight_map)[-1]]}}))
    with pytest.raises(ValueError, match="not in the shard"):
        load(folder)
    shutil.copy(folder / weight_map[name], folder / "again.safetensors")
    index.write_text(json.dumps({"weight_map": {**weight_map, "extra": "again.safetensors"}}))
    with pytest.raises(ValueError, match="is also in"):
        load(folder)
    for text in ("{", "[]", '{"weight_map": 3}', "{}"):
        index.write_text(text)
        with pytest.raises(ValueError, match="weight_map"):
            load(folder)


def _edit(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def test_missing_extra_and_misshapen_tensors(folder):
    keep = load_file(folder / "model.safetensors")

    def restore():
        save_file(keep, folder / "model.safetensors")

    _edit(folder, lambda w: w.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"missing model\.norm\.weight"):
        load(folder)
    restore()
    _edit(folder, lambda w: w.update(stranger=torch.zeros(2)))
    with pytest.raises(ValueError, match="unexpected stranger"):
        load(folder)
    restore()
    _edit(folder, lambda w: w.update({"model.norm.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"model\.norm\.weight: expected shape \(24,\), got \(3,\)"):
        load(folder)
    restore()
    for bad in (float("nan"), float("inf")):
        _edit(folder, lambda w, bad=bad: w["model.norm.weight"].fill_(bad))
        with pytest.raises(ValueError, match=r"model\.norm\.weight holds NaN or infinity"):
            load(folder)
        restore()
    load(folder)


def test_damaged_files(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 4, 100, len(whole) - 1, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated or damaged"):
            load(folder)
    file.write_bytes(b"\xff" * 1000)
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load(folder)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="is a file"):
        load(folder / "config.json")


def test_dtype_is_checked(folder):
    with pytest.raises(ValueError, match="dtype"):
        load(folder, dtype="int8")


def test_older_names_of_window_layers(folder):
    ids = tokens(1, 9)
    now = load(folder)(ids).logits

    def rename(weights):
        for name in [n for n in weights if ".swa." in n]:
            weights[name.replace(".swa.", ".self_attn.")] = weights.pop(name)

    _edit(folder, rename)
    assert torch.equal(load(folder)(ids).logits, now)


def test_tensors_win_over_the_configuration_about_tying(tmp_path, caplog):
    folder = save(small_model("bmojo-f-untied", dtype=torch.float32), tmp_path / "m")
    ids = tokens(1, 17)
    now = load(folder)(ids).logits
    raw = json.loads((folder / "config.json").read_text())
    raw["bmojo_config"]["tie_attn_weights"] = True
    (folder / "config.json").write_text(json.dumps(raw))
    assert torch.equal(load(folder)(ids).logits, now)
    assert "the tensors win" in caplog.text


def test_a_tied_head_may_be_stored(folder):
    _edit(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    load(folder)


def test_describe_counts_what_is_stored(folder):
    described = describe(folder, tokens=40)
    model = load(folder)
    assert described.parameters == sum(p.numel() for p in model.parameters())
    assert described.nbytes == sum(p.numel() * 4 for p in model.parameters())
    assert described.shapes == {n: tuple(p.shape) for n, p in model.state_dict().items()}
    assert described.memory_nbytes == model(tokens(1, 40)).memory.nbytes
    assert "fading" in repr(described)


@pytest.mark.parametrize("name", VARIANTS)
def test_memory_bytes_are_bounded(name):
    model = small_model(name, dtype=torch.float32)
    for length in (1, 5, 13, 40):
        assert model(tokens(3, length)).memory.nbytes == model.memory_nbytes(length, batch_size=3)
    if "*" not in model.config.pattern:
        assert model.memory_nbytes(10**6) == model.memory_nbytes(20)


@pytest.mark.parametrize(
    ("symbol", "nbytes"),
    [("BMF", 18_501_384_576)],
)
def test_published_size(tmp_path, symbol, nbytes):
    """18 of 36 layers of an 8B model as B'MOJO-F over Mamba2, in bfloat16 (reference: published index file)."""
    config = small_config(
        "attention",
        pattern="-".join([symbol, "*"] * 18),
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        dtype="bfloat16",
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    described = describe(tmp_path)
    assert described.nbytes == nbytes
    assert described.files == ()
    layer = described.layers[0].memory_nbytes  # window 2048: 8 MiB, 16 MiB and a state of 2 MiB
    assert (layer["window"], layer["fading_tokens"], layer["state"]) == (8 << 20, 8 << 20, 2 << 20)


def test_files_are_as_readable_as_others(tmp_path):
    (tmp_path / "other").write_text("")
    folder = save(small_model("mamba2"), tmp_path / "m")
    for file in folder.iterdir():
        assert file.stat().st_mode == (tmp_path / "other").stat().st_mode
