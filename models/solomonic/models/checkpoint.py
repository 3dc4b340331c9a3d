"""Checkpoints in the published format: read, written, checked."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import HybridConfig
from .files import whole_file, write_json
from .lm import HybridLM
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


def load(path_or_zoo_name: str | Path, *, dtype: str | torch.dtype | None = None, device: str = "cpu") -> HybridLM:
    """Load a checkpoint folder, or one of the models that ship with the package.

    Parameters
    ----------
    path_or_zoo_name : path or str
        A folder with ``config.json`` and ``model.safetensors`` (or an index and its shards), or a name in ``zoo()``.
    dtype : str, torch.dtype or None
        Dtype of the parameters: float32, bfloat16, float16 or float64; None keeps that of the configuration.
    device : str
        Where to put the model.

    Returns
    -------
    HybridLM
        In evaluation mode, with ``requires_grad`` off.

    Raises
    ------
    FileNotFoundError
        Where the folder, its configuration or a file with weights is missing.
    ValueError
        Where the configuration does not make sense, a file is damaged, or tensors are missing, unexpected, of the
        wrong shape, or not finite.

    Examples
    --------
    >>> from solomonic.models import load
    >>> model = load("fading")
    >>> model.config.pattern
    ('M2', 'M2', 'M2', 'M2')
    """
    folder = find(path_or_zoo_name)
    config = _mend(HybridConfig.from_file(folder), folder)
    wanted = _dtype(dtype if dtype is not None else config.dtype)
    with torch.device("meta"):
        model = HybridLM(config)
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    where = _locate(folder)
    rename = _renames(where, expected)
    _check_names(folder, {rename.get(n, n) for n in where}, set(expected), config)
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
                loaded[target] = tensor.to(device=device, dtype=wanted, copy=True)
    model.load_state_dict(loaded, assign=True)
    return model.eval().requires_grad_(False)


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
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
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


def _mend(config: HybridConfig, folder: Path) -> HybridConfig:
    """Take from the tensors' names what they say better than the configuration: untied projections."""
    import dataclasses

    if "BMF" not in config.pattern:
        return config
    untied = any(".bmojo_attn.q_proj_." in name for name in _locate(folder))
    if untied == (not config.tie_attn_weights):
        return config
    logger.warning(
        "%s: tie_attn_weights is %s but the tensors are %s; the tensors win",
        folder,
        config.tie_attn_weights,
        "untied" if untied else "tied",
    )
    return dataclasses.replace(config, tie_attn_weights=not untied)


def _renames(names: Iterable[str], expected: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Older files have the parameters of SWA layers under ``self_attn``."""
    out = {}
    for name in names:
        swa = re.sub(r"(\.layers\.\d+)\.self_attn\.", r"\1.swa.", name)
        if name not in expected and swa in expected:
            out[name] = swa
    return out


def _check_names(folder: Path, have: set[str], expected: set[str], config: HybridConfig) -> None:
    missing, extra = sorted(expected - have), sorted(have - expected)
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
