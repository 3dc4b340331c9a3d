"""Checkpoints in the published format: read, written, checked."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import HybridConfig
from .files import whole_file, write_json
from .lm import HybridLM
from .placement import device_of, placement, spread
from .zoo import zoo

logger = logging.getLogger("solomonic")

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load(
    path_or_zoo_name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    device_map: str | dict[str, str | int] | None = None,
    max_memory: dict[str | int, int | str] | None = None,
) -> HybridLM:
    """Load a checkpoint folder, or one of the models that ship with the package.

    Parameters
    ----------
    path_or_zoo_name : path or str
        A folder with ``config.json`` and ``model.safetensors`` (or an index and its shards), or a name in ``zoo()``.
    dtype : str, torch.dtype or None
        Dtype of the parameters: float32, bfloat16, float16 or float64; None keeps that of the configuration.
    device : str
        Where to put the model.
    device_map : str, dict or None
        Spread the layers over devices with accelerate: ``"auto"`` fills one device after the other, a dictionary says
        module -> device, such as ``{"model.layers.0": 0, "": "cpu"}``. None puts everything on ``device``.
    max_memory : dict or None
        With a device map: device -> the most bytes (or ``"20GB"``) to put there; what is free if not given.

    Returns
    -------
    HybridLM
        In evaluation mode, with ``requires_grad`` off.

    Raises
    ------
    FileNotFoundError
        Where the folder, its configuration or a file with weights is missing.
    ValueError
        Where the configuration does not make sense, a file is damaged, tensors are missing, unexpected, of the wrong
        shape, or not finite, or the model does not fit on the devices.
    ImportError
        Where a device map is given and accelerate is not installed.

    Notes
    -----
    Files are read one after the other: at most the model and one file are held at a time. Where tensors and
    configuration disagree about what a layer is made of (the mixer inside B'MOJO, tied projections, norms and biases),
    the tensors win, since they are what was trained, and a warning says so. About the kind of a layer the
    configuration wins, since tensors do not tell attention from sliding windows: then the names do not fit, which is
    an error.

    Examples
    --------
    >>> from solomonic.models import load
    >>> model = load("fading")
    >>> model.config.pattern
    ('M2', 'M2', 'M2', 'M2')
    """
    folder = find(path_or_zoo_name)
    where = _locate(folder)
    config = read_config(folder, where)
    wanted = _dtype(dtype if dtype is not None else config.dtype)
    with torch.device("meta"):
        model = HybridLM(config)
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    rename = _renames(where, expected)
    _check_names(folder, {rename.get(n, n) for n in where}, set(expected), config)
    places = None if device_map is None else placement(model, device_map, wanted, max_memory)
    loaded: dict[str, Tensor] = {}
    for file in sorted(set(where.values())):
        with _open(file) as shard:
            for name in shard.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                target = rename.get(name, name)
                if target not in expected:
                    continue
                tensor = _read(shard, name, file)
                if tuple(tensor.shape) != expected[target]:
                    raise ValueError(
                        f"{file}: tensor {name}: expected shape {expected[target]}, got {tuple(tensor.shape)}"
                    )
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{file}: tensor {name} holds NaN or infinity")
                # A copy: tensors mapped from the file are not aligned, which costs speed and changes the last bits.
                place = device if places is None else device_of(target, places)
                loaded[target] = tensor.to(device=place, dtype=wanted, copy=True)
    model.load_state_dict(loaded, assign=True)
    model.eval().requires_grad_(False)
    return model if places is None else spread(model, places)


def save(model: HybridLM, path: str | Path) -> Path:
    """Write ``config.json`` and ``model.safetensors`` in the published format.

    Parameters
    ----------
    model : HybridLM
        The model; its parameters keep their dtype.
    path : path
        Folder to write to; made if it is not there. Each file appears whole or not at all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from solomonic.models import load, save
    >>> folder = save(load("fading"), tempfile.mkdtemp())
    >>> sorted(p.name for p in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().contiguous().cpu() for name, p in model.state_dict().items()}
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    with whole_file(path / WEIGHTS) as beside:
        save_file(weights, beside, metadata={"format": "pt"})
    write_json(path / "config.json", {**model.config.to_dict(), "dtype": dtype})
    return path


def find(path_or_zoo_name: str | Path) -> Path:
    """The folder of a checkpoint given by its path or its name in the zoo."""
    folder = Path(path_or_zoo_name)
    if folder.is_dir():
        return folder
    shipped = zoo()
    if str(path_or_zoo_name) in shipped:
        return shipped[str(path_or_zoo_name)]
    if folder.is_file():
        raise FileNotFoundError(f"{folder}: expected a checkpoint folder, this is a file; name the folder it lies in")
    raise FileNotFoundError(
        f"{path_or_zoo_name}: no such folder, and no checkpoint of that name ships with the package "
        f"(those are {', '.join(shipped) or 'none'})"
    )


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")


def _locate(folder: Path) -> dict[str, Path]:
    """Tensor name -> file, from the index where there is one, else from the single file."""
    index, single = folder / INDEX, folder / WEIGHTS
    if index.is_file():
        return _locate_shards(folder, index)
    if not single.is_file():
        raise FileNotFoundError(f"{folder}: expected {WEIGHTS} or {INDEX}, found neither")
    with _open(single) as weights:
        return dict.fromkeys(weights.keys(), single)


def _locate_shards(folder: Path, index: Path) -> dict[str, Path]:
    try:
        text = index.read_text(encoding="utf-8")
        weight_map = json.loads(text, object_pairs_hook=lambda pairs: _listed_once(index, pairs))["weight_map"]
    except _TwiceError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: expected JSON with a 'weight_map', got something else: {error!r}") from None
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index}: weight_map: expected an object, got {type(weight_map).__name__}")
    for shard in sorted({str(s) for s in weight_map.values()}):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise ValueError(f"{index}: shard {shard!r} lies outside the checkpoint's folder; refusing to read it")
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"{folder / shard}: this shard is named in {index.name} but is missing")
    found: dict[str, Path] = {}
    for shard in sorted(set(weight_map.values())):
        with _open(folder / shard) as weights:
            for name in weights.keys():  # noqa: SIM118
                if name in found:
                    raise ValueError(f"{folder / shard}: tensor {name} is also in {found[name].name}")
                found[name] = folder / shard
    lost = sorted(n for n, s in weight_map.items() if found.get(n) != folder / s)
    if lost:
        raise ValueError(f"{index}: {_some(lost)} not in the shard that the index names")
    return found


def _listed_once(index: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, unless a name stands in it twice: JSON would silently keep the last."""
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"{index}: {_some(sorted(n for n in out if names.count(n) > 1))} listed more than once")
    return out


class _TwiceError(ValueError):
    """A name that stands twice in an index."""


def read_config(folder: Path, where: Mapping[str, Path] | None = None) -> HybridConfig:
    """The configuration of a checkpoint; where tensors are at hand, what they say better than ``config.json``.

    ``where`` has the names of the tensors; None looks for them.
    """
    config = HybridConfig.from_file(folder)
    if where is None:
        try:
            where = _locate(folder) if folder.is_dir() else {}
        except FileNotFoundError:
            where = {}
    if not where:
        return config
    changes = {name: value for name, value in _told_by(where, config).items() if value != getattr(config, name)}
    for name, value in changes.items():
        logger.warning(
            "%s: %s is %r in config.json, but the tensors are those of %r; the tensors win, since they were trained",
            folder,
            name,
            getattr(config, name),
            value,
        )
    return dataclasses.replace(config, **changes)


def _told_by(names: Iterable[str], config: HybridConfig) -> dict[str, Any]:
    """What the names of the tensors tell about the layers of the configuration's pattern."""
    out: dict[str, Any] = {}
    # Symbol -> the part of a name after "model.layers.N.", for layers of that symbol.
    found: dict[str, set[str]] = {symbol: set() for symbol in config.pattern}
    for name in names:
        match = re.match(r"model\.layers\.(\d+)\.(.*)", name)
        if match and int(match[1]) < len(config.pattern):
            found[config.pattern[int(match[1])]].add(match[2])
    inside = {rest.split(".", 1)[1] for symbol in ("BMF", "BMO") for rest in found.get(symbol, ()) if "bmojo" in rest}
    if inside:
        out["tie_attn_weights"] = not any(rest.startswith("bmojo_attn.q_proj_.") for rest in inside)
        mixers = {prefix: name for name, prefix in _MIXER_PREFIX.items()}
        held = sorted({mixers[rest.split(".")[0]] for rest in inside if rest.split(".")[0] in mixers})
        if len(held) > 1:
            raise ValueError(f"B'MOJO layers: expected one state space mixer, the tensors have {', '.join(held)}")
        if held:
            out["ssm_mixer"] = held[0]
    everything = set().union(*found.values())
    if any(".mamba." in f".{rest}" for rest in everything):
        out["use_qk_norm"] = any(rest.endswith("mamba.B_norm.weight") for rest in everything)
    if any(".gdn." in f".{rest}" for rest in everything):
        out["gdn_conv_bias"] = any(rest.endswith("gdn.q_conv1d.bias") for rest in everything)
    return out


#: Name of a state space mixer -> its prefix in a B'MOJO layer.
_MIXER_PREFIX = {"mamba2": "mamba", "gdn": "gdn", "gka": "gka"}


def _renames(names: Iterable[str], expected: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Older files have the parameters of SWA layers under ``self_attn``."""
    out = {}
    for name in names:
        swa = re.sub(r"(\.layers\.\d+)\.self_attn\.", r"\1.swa.", name)
        if name not in expected and swa in expected:
            out[name] = swa
    return out


#: What a decoder layer has beside its mixer.
_EVERY_LAYER = {"mlp", "input_layernorm", "post_attention_layernorm"}


def _check_names(folder: Path, have: set[str], expected: set[str], config: HybridConfig) -> None:
    missing, extra = sorted(expected - have), sorted(have - expected)
    for i, symbol in enumerate(config.pattern):
        prefix = f"model.layers.{i}."
        there = {n.removeprefix(prefix).split(".")[0] for n in have if n.startswith(prefix)} - _EVERY_LAYER
        wanted = {n.removeprefix(prefix).split(".")[0] for n in expected if n.startswith(prefix)} - _EVERY_LAYER
        if there and there != wanted:
            raise ValueError(
                f"{folder}: layer {i} is {symbol!r} in hybrid_override_pattern, with tensors under "
                f"{', '.join(wanted)}, but its tensors are under {', '.join(sorted(there))}; "
                "the pattern decides what is built: correct it, or the files"
            )
    if config.tie_word_embeddings and extra == ["lm_head.weight"]:
        logger.info("%s: lm_head.weight is not read, since tie_word_embeddings is true", folder)
        extra = []
    if missing or extra:
        problems = [f"missing {_some(missing)}"] * bool(missing) + [f"unexpected {_some(extra)}"] * bool(extra)
        raise ValueError(f"{folder}: tensors do not fit the pattern {'-'.join(config.pattern)}: {'; '.join(problems)}")


def _some(names: list[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _open(file: Path):
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: not a whole safetensors file (truncated or damaged?): {error}") from None


def _read(shard, name: str, file: Path) -> Tensor:
    try:
        return shard.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: tensor {name} cannot be read: {error}") from None
