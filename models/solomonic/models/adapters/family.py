"""What an adapter says of a family: which functions are tapped, and what each layer remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import Session

#: What symbols of adapted models are made of: "+" is side by side, ">" is one into the other.
PIECES = {
    "*": ("attention",),
    "SWA": ("attention",),
    "M1": ("scan",),
    "M2": ("scan",),
    "GDN": ("scan",),
    "M2+*": ("scan", "attention"),
    "*>M2": ("scan", "attention"),
    "MLP": (),
}


@dataclass(frozen=True)
class Layer:
    """A decoder layer of a transformers model.

    Parameters
    ----------
    symbol : str
        Its pattern symbol, a key of :data:`PIECES`.
    block : torch.nn.Module
        The decoder layer itself; what it returns is the residual stream after it.
    mixer : torch.nn.Module or None
        Its one sequence mixer; None where there are two.
    shapes : mapping of str to tuple of int
        The memory's parts: ``conv`` (k - 1, channels), ``state`` as in the memory without the batch, ``kv`` or
        ``window`` (key heads, channels).
    window : int or None
        W of its attention in tokens.
    """

    symbol: str
    block: Any
    mixer: Any
    shapes: Mapping[str, tuple[int, ...]]
    window: int | None = None


#: Makes the tapped version of a function: (original, session) -> function.
Tap = Callable[[Callable[..., Any], "Session"], Any]


@dataclass(frozen=True)
class Family:
    """One family of transformers.

    Parameters
    ----------
    name : str
        Its model type in transformers, such as ``"mamba2"``.
    architectures : tuple of str
        The classes that the adapter is for.
    taps : mapping of str to Tap
        Names in the family's modeling module, and what is put in their place during a run.
    layers : callable
        From the model to its layers.
    cache : str, default "past_key_values"
        The argument that takes the cache.
    """

    name: str
    architectures: tuple[str, ...]
    taps: Mapping[str, Tap]
    layers: Callable[[Any], Sequence[Layer]]
    cache: str = "past_key_values"

    @property
    def module(self) -> str:
        """The module of transformers that holds the functions."""
        return f"transformers.models.{self.name}.modeling_{self.name}"


def mamba2_shapes(mixer: Any) -> dict[str, tuple[int, ...]]:
    """Parts of a Mamba2 mixer: conv (k - 1, channels) and state (H, P, N)."""
    channels, _, width = mixer.conv1d.weight.shape
    return {"conv": (width - 1, channels), "state": (mixer.num_heads, mixer.head_dim, mixer.ssm_state_size)}


def mamba1_shapes(mixer: Any) -> dict[str, tuple[int, ...]]:
    """Parts of a Mamba mixer: conv (k - 1, E) and state (E, 1, N), a head a channel."""
    channels, _, width = mixer.conv1d.weight.shape
    return {"conv": (width - 1, channels), "state": (channels, 1, mixer.A_log.shape[1])}


def delta_shapes(mixer: Any) -> dict[str, tuple[int, ...]]:
    """Parts of a gated delta rule: conv (k - 1, channels) and state (H, K, V)."""
    channels, _, width = mixer.conv1d.weight.shape
    return {"conv": (width - 1, channels), "state": (mixer.num_v_heads, mixer.head_k_dim, mixer.head_v_dim)}


def attention_shapes(mixer: Any, window: int | None = None) -> dict[str, tuple[int, ...]]:
    """The part of an attention layer: kv or window (key heads, channels)."""
    return {"kv" if window is None else "window": (mixer.k_proj.out_features // mixer.head_dim, mixer.head_dim)}
