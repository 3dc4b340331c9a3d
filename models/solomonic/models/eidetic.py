"""Eidetic memory from outside: take stored tokens out, put others in, give it to a model that was trained without."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from .lm import HybridLM
from .memory import Memory, StoredTokens


def stored_tokens(memory: Memory, layer: int) -> StoredTokens:
    """The tokens that a B'MOJO layer has stored, and those that wait to be.

    Parameters
    ----------
    memory : Memory
        The memory of a model with ``BMO`` layers.
    layer : int
        Which layer.

    Returns
    -------
    StoredTokens
        Keys, values, positions, scores and times of admission, the highest score first; tokens that wait follow, with
        time 0.

    Raises
    ------
    ValueError
        If the layer has no eidetic part.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM, stored_tokens
    >>> model = HybridLM(HybridConfig(pattern="BMO", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8, bmojo_window=4, eidetic_tokens=2), rng=0)
    >>> tokens = stored_tokens(model(torch.arange(14)[None]).memory, 0)
    >>> (tokens.admitted > 0).sum().item()
    2
    """
    value = memory.get(layer, "eidetic")
    assert isinstance(value, StoredTokens)
    return value


def evict(memory: Memory, layer: int, positions: Iterable[int] | int) -> Memory:
    """A memory without the tokens that stood at some positions: what was stored or waited there is forgotten.

    Parameters
    ----------
    memory : Memory
        The memory of a model with ``BMO`` layers.
    layer : int
        Which layer.
    positions : iterable of int
        Positions in the sequence; those of no stored token are passed over, in each sequence.

    Returns
    -------
    Memory
        A new one; the emptied slots are filled at the next refresh.

    Raises
    ------
    ValueError
        If no sequence holds a token of these positions.

    Notes
    -----
    A token that still is in the window is read there all the same.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM, evict, stored_tokens
    >>> model = HybridLM(HybridConfig(pattern="BMO", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8, bmojo_window=4, eidetic_tokens=2), rng=0)
    >>> memory = model(torch.arange(14)[None]).memory
    >>> first = stored_tokens(memory, 0).position[0, 0].item()
    >>> stored_tokens(evict(memory, 0, first), 0).position[0, 0].item()
    -1
    """
    tokens = stored_tokens(memory, layer)
    wanted = torch.tensor([positions] if isinstance(positions, int) else list(positions), device=tokens.position.device)
    gone = (tokens.position.unsqueeze(-1) == wanted).any(-1) & (tokens.position >= 0)
    if not gone.any():
        held = sorted(set(tokens.position.flatten().tolist()) - {-1})
        raise ValueError(f"positions: layer {layer} holds tokens of the positions {held}, got {wanted.tolist()}")
    wide = gone[..., None, None]
    emptied = StoredTokens(
        tokens.key.masked_fill(wide, 0.0),
        tokens.value.masked_fill(wide, 0.0),
        tokens.position.masked_fill(gone, -1),
        tokens.score.masked_fill(gone, -torch.inf),
        tokens.admitted.masked_fill(gone, 0),
        tokens.past,
    )
    return memory.set(layer, "eidetic", emptied)


def insert(
    memory: Memory, layer: int, key: Tensor, value: Tensor, *, position: int, score: float = torch.inf
) -> Memory:
    """A memory that holds one token more: in an empty slot, or in place of the stored token of least score.

    Parameters
    ----------
    memory : Memory
        The memory of a model with ``BMO`` layers, after the first refresh that stores something.
    layer : int
        Which layer.
    key, value : Tensor
        [B, Hkv, D] as the layer makes them, the key after norm and rotation (that of another run's
        :func:`stored_tokens`, say).
    position : int
        Where the token is said to have stood.
    score : float
        Its innovation; with infinity it stays for good.

    Returns
    -------
    Memory
        A new one; the next query reads the token.

    Raises
    ------
    ValueError
        If the layer stores nothing yet, or the shapes do not fit.

    Examples
    --------
    >>> import torch
    >>> from solomonic.models import HybridConfig, HybridLM, insert, stored_tokens
    >>> model = HybridLM(HybridConfig(pattern="BMO", vocab_size=16, hidden_size=16, intermediate_size=16,
    ...     num_attention_heads=2, num_key_value_heads=2, head_dim=8, bmojo_window=4, eidetic_tokens=2), rng=0)
    >>> memory = model(torch.arange(14)[None]).memory
    >>> tokens = stored_tokens(memory, 0)
    >>> new = insert(memory, 0, tokens.key[:, 1], tokens.value[:, 1], position=3)
    >>> stored_tokens(new, 0).position[0, 1].item()
    3
    """
    tokens = stored_tokens(memory, layer)
    shape = (tokens.key.shape[0], *tokens.key.shape[2:])
    for name, given in (("key", key), ("value", value)):
        if tuple(given.shape) != shape:
            raise ValueError(f"{name}: expected shape [B, Hkv, D] = {shape}, got {tuple(given.shape)}")
    waiting = (tokens.admitted == 0) & (tokens.position >= 0)
    if waiting.all() or not tokens.score.shape[1]:
        raise ValueError(f"memory: layer {layer} stores no token yet after {memory.position}; insert after a refresh")
    slot = tokens.score.masked_fill(waiting, torch.inf).argmin(1, keepdim=True)
    here = torch.zeros_like(waiting).scatter(1, slot, True)
    wide = here[..., None, None]
    changed = StoredTokens(
        torch.where(wide, key.unsqueeze(1), tokens.key),
        torch.where(wide, value.unsqueeze(1), tokens.value),
        tokens.position.masked_fill(here, position),
        tokens.score.masked_fill(here, score),
        tokens.admitted.masked_fill(here, max(memory.position, 1)),
        tokens.past,
    )
    return memory.set(layer, "eidetic", changed)


def with_eidetic(model: HybridLM, tokens: int, *, span: int | None = None, norm: str | None = None) -> HybridLM:
    """The same model with so many stored tokens a layer, which it may not have been trained with: an experiment.

    ``BMF`` layers become ``BMO`` layers that read the same fading tokens and, beside them in the same softmax, the keys
    and values of ``tokens`` inputs of greatest innovation; ``BMO`` layers get another budget. Parameters are shared,
    not copied.

    Parameters
    ----------
    model : HybridLM
        A model with ``BMF`` or ``BMO`` layers.
    tokens : int
        How many tokens a layer stores; with 0 a B'MOJO-F model computes what it did.
    span : int or None
        Past outputs that the innovation is measured against; None leaves it as it is.
    norm : str or None
        ``"l2"``, ``"relative"`` or ``"random"``; None leaves it as it is.

    Returns
    -------
    HybridLM
        In the mode of ``model``.

    Raises
    ------
    ValueError
        If the model has no such layers, or an option does not fit.

    Notes
    -----
    A model with rotary positions that was trained without stored tokens meets phases in them that it has never seen,
    and gets worse with each: see the measurement in the documentation. So nothing does this unless it is asked for.

    Examples
    --------
    >>> from solomonic.models import load, with_eidetic
    >>> with_eidetic(load("bmojo-f"), 8).config.pattern
    ('BMO', 'BMO', 'BMO', 'BMO')
    """
    old = model.config
    if not {"BMF", "BMO"} & set(old.pattern):
        raise ValueError(f"model: expected BMF or BMO layers, its pattern is {'-'.join(old.pattern)}")
    config = dataclasses.replace(
        old,
        pattern=tuple("BMO" if symbol == "BMF" else symbol for symbol in old.pattern),
        eidetic_tokens=tokens,
        fading_tokens=old.fading_tokens if "BMO" in old.pattern else None,
        innovation_span=old.innovation_span if span is None else span,
        innovation_norm=old.innovation_norm if norm is None else norm,
    )
    with torch.device("meta"):
        out = HybridLM(config)
    given = {name.replace(".bmojo_f.", ".bmojo."): value for name, value in model.state_dict(keep_vars=True).items()}
    # Assigning gives the shared parameters the flag of those they replace, which would thaw what is frozen.
    for name, parameter in out.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(given[name].requires_grad)
    out.load_state_dict(given, assign=True)
    return out.train(model.training)
