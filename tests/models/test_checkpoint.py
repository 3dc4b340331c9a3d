"""Loading and saving: round trips, shards, older names, and damaged files."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from solomonic.models import HybridLM, describe, from_hub, load, save

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
        assert model.memory_nbytes(6 * 10**6 + 20) == model.memory_nbytes(20)  # with a period of W, at most


PUBLISHED = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("mixer", "nbytes", "state"),
    [("mamba2", 18_501_384_576, 2 << 20), ("gdn", 18_505_728_768, 2 << 20), ("gka", 18_510_449_664, 4 << 20)],
)
def test_published_sizes(tmp_path, mixer, nbytes, state):
    """18 of 36 layers of an 8B model as B'MOJO-F, in bfloat16 (reference: sizes of the published formats)."""
    hybrid = {*range(1, 7), *range(9, 12), *range(26, 29), *range(30, 36)}
    pattern = "-".join("BMF" if i in hybrid else "*" for i in range(36))
    config = small_config("attention", pattern=pattern, ssm_mixer=mixer, **PUBLISHED)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    described = describe(tmp_path)
    assert described.nbytes == nbytes
    assert described.files == ()
    layer = described.layers[1].memory_nbytes  # window 2048: 8 MiB, and as much of fading tokens after 2048 tokens
    assert (layer["window"], layer["fading_tokens"], layer["state"]) == (8 << 20, 8 << 20, state)


@pytest.mark.parametrize(
    ("symbol", "parameters"), [("*", 41_943_296), ("M2", 58_886_496), ("GKA", 59_138_304), ("GDN", 59_007_168)]
)
def test_published_mixers(symbol, parameters):
    with torch.device("meta"):
        model = HybridLM(small_config("attention", pattern=symbol, **PUBLISHED))
    assert sum(p.numel() for p in model.layers[0].mixer.parameters()) == parameters


@pytest.mark.parametrize("name", ["bmojo-f-gka", "bmojo-f-gdn", "bmojo-untied-gdn", "mamba2-no-norms", "gdn-negative"])
def test_tensors_win_over_the_configuration(tmp_path, caplog, name):
    folder = save(small_model(name, dtype=torch.float32), tmp_path / "m")
    ids = tokens(1, 17)
    now = load(folder)(ids).logits
    raw = json.loads((folder / "config.json").read_text())
    for section, key, value in (
        ("bmojo_config", "ssm_mixer", "mamba2"),
        ("bmojo_config", "tie_attn_weights", name == "bmojo-f-gka"),
        ("mamba2_config", "use_qk_norm", True),
        ("gdn_config", "conv_bias", False),
    ):
        raw.setdefault(section, {})[key] = value
    (folder / "config.json").write_text(json.dumps(raw))
    model = load(folder)
    assert "the tensors win" in caplog.text
    assert torch.equal(model(ids).logits, now)
    assert describe(folder).config == model.config


def test_tensors_that_contradict_the_pattern(tmp_path):
    folder = save(small_model("gdn", dtype=torch.float32), tmp_path / "m")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"hybrid_override_pattern": "GDN-GKA"}))
    with pytest.raises(ValueError, match=r"layer 1 is 'GKA'.*under gka, but its tensors are under gdn; the pattern"):
        load(folder)
    folder = save(small_model("bmojo-f", dtype=torch.float32), tmp_path / "n")
    _edit(folder, lambda w: w.update({"model.layers.1.bmojo_f.gka.A_log": torch.zeros(4)}))
    with pytest.raises(ValueError, match="expected one state space mixer, the tensors have gka, mamba2"):
        load(folder)


def test_a_tensor_listed_twice(folder):
    weight_map = _shard(folder)
    index = folder / "model.safetensors.index.json"
    name = sorted(weight_map)[0]
    text = json.dumps({"weight_map": weight_map})
    index.write_text(text.replace('{"weight_map": {', f'{{"weight_map": {{"{name}": "model-00001.safetensors", '))
    with pytest.raises(ValueError, match=f"{name} listed more than once"):
        load(folder)


def test_a_truncated_shard(folder):
    shard = folder / sorted(set(_shard(folder).values()))[1]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(folder)


def test_device_maps(folder, monkeypatch):
    ids = tokens(1, 9)
    whole = load(folder)(ids).logits
    for device_map in ("auto", {"": "cpu"}, {"model.layers.0": "cpu", "": "cpu"}):
        assert torch.equal(load(folder, device_map=device_map)(ids).logits, whole)
    nbytes = describe(folder).nbytes
    with pytest.raises(ValueError, match=f"device_map: {nbytes:,} bytes on 'cpu', which has room for 1,000"):
        load(folder, device_map={"": "cpu"}, max_memory={"cpu": 1000})
    with pytest.raises(ValueError, match=r"bytes of the model fit on no device \(room: cpu: 20,000\)"):
        load(folder, device_map="auto", max_memory={"cpu": "20KB"})
    with pytest.raises(ValueError, match="the model has no module layers"):
        load(folder, device_map={"layers": "cpu"})
    with pytest.raises(ValueError, match=r"names no device for model\.embed_tokens\.weight"):
        load(folder, device_map={"model.layers": "cpu"})
    with pytest.raises(ValueError, match="expected 'auto' or a dictionary"):
        load(folder, device_map="balanced")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"solomonic\[hub\]"):
        load(folder, device_map="auto")


def test_from_hub_asks_for_one_commit(folder, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    commit = "0123456789abcdef" * 2 + "01234567"
    model = from_hub("someone/model", revision=commit, dtype="bfloat16")
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert (asked["repo_id"], asked["revision"]) == ("someone/model", commit)
    assert not any("bin" in pattern or "py" in pattern for pattern in asked["allow_patterns"])
    for moving in ("main", commit[:7], None):
        with pytest.raises(ValueError, match="revision: expected the hash of a commit"):
            from_hub("someone/model", revision=moving)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"solomonic\[hub\]"):
        from_hub("someone/model", revision=commit)


def test_files_are_as_readable_as_others(tmp_path):
    (tmp_path / "other").write_text("")
    folder = save(small_model("mamba2"), tmp_path / "m")
    for file in folder.iterdir():
        assert file.stat().st_mode == (tmp_path / "other").stat().st_mode
