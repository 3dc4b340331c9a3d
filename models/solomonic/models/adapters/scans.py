"""Taps of the scans of transformers: what a state space layer is at every step, and a state to go on from.

From the start of a text the function that was there computes the output, so that logits are those of transformers. From
a state the kernels of this package do: the functions of transformers write states in place, or take none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from solomonic.kernels import delta_rule, selective_scan, ssd

from .session import Session, elsewhere, versions_advice


def ssd_tap(original: Callable[..., Any], session: Session) -> Callable[..., Any]:
    """``mamba2_chunk_scan``: h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t', y_t = h_t C_t + D x_t."""

    def mamba2_chunk_scan(
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        chunk_size: int,
        D: Tensor | None = None,
        dt_bias: Tensor | None = None,
        initial_states: Tensor | None = None,
        dt_softplus: bool = False,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        return_final_states: bool = False,
        **kwargs: Any,
    ) -> Any:
        if elsewhere(session):
            return original(
                hidden_states, dt, A, B, C, chunk_size, D=D, dt_bias=dt_bias, initial_states=initial_states,
                dt_softplus=dt_softplus, dt_limit=dt_limit, return_final_states=return_final_states, **kwargs,
            )  # fmt: skip
        layer = session.enter("scan")
        _only(initial_states is None and kwargs.get("z") is None, layer, "a state or a gate of its own")
        wide = torch.promote_types(hidden_states.dtype, torch.float32)
        step = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
        step = (softplus(step) if dt_softplus else step).clamp(*dt_limit).to(wide)
        if session.cache.fresh:
            y, state = original(
                hidden_states, dt, A, B, C, chunk_size, D=D, dt_bias=dt_bias, dt_softplus=dt_softplus,
                dt_limit=dt_limit, return_final_states=True, **kwargs,
            )  # fmt: skip
        else:
            x, b, c = (each.to(wide) for each in (hidden_states, B, C))
            skip = None if D is None else D.to(wide)
            scan = ssd(x, step, A.to(wide), b, c, D=skip, h0=session.cache.initial[layer])
            y, state = scan.y.contiguous(), scan.state
        session.cache.states[layer] = state
        if session.record is not None:
            skip = A.new_zeros(len(A)) if D is None else D
            session.tap(layer, x=hidden_states, dt=step, log_decay=step * A.to(wide), B=B, C=C, D=skip, y=y)
        return (y, state) if return_final_states else y

    return mamba2_chunk_scan


def selective_tap(original: Callable[..., Any], session: Session) -> Callable[..., Any]:
    """``mamba_selective_scan``: every channel a head of its own, with N decays exp(dt_t A_n)."""

    def mamba_selective_scan(
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        z: Tensor | None = None,
        delta_bias: Tensor | None = None,
        delta_softplus: bool = False,
        return_last_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        if elsewhere(session):
            return original(
                hidden_states, dt, A, B, C, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus,
                return_last_state=return_last_state, **kwargs,
            )  # fmt: skip
        layer = session.enter("scan")
        wide = torch.promote_types(hidden_states.dtype, torch.float32)
        step = dt if delta_bias is None else dt + delta_bias.to(dt.dtype)[..., None]
        step = (softplus(step) if delta_softplus else step).transpose(1, 2).to(wide)
        x, b, c = hidden_states.transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2)
        if session.cache.fresh:
            y, state = original(
                hidden_states, dt, A, B, C, D=D, z=None, delta_bias=delta_bias, delta_softplus=delta_softplus,
                return_last_state=True, **kwargs,
            )  # fmt: skip
        else:
            skip = None if D is None else D.to(wide)
            initial = session.cache.initial[layer].squeeze(2)
            scan = selective_scan(x.to(wide), step, A.to(wide), b.to(wide), c.to(wide), D=skip, h0=initial)
            y, state = scan.y.transpose(1, 2), scan.state
        session.cache.states[layer] = state.unsqueeze(2)
        if session.record is not None:
            skip = A.new_zeros(len(A)) if D is None else D
            seen = y.transpose(1, 2).unsqueeze(3)
            session.tap(
                layer, x=x.unsqueeze(3), dt=step, A=A.to(wide), B=b.unsqueeze(2), C=c.unsqueeze(2), D=skip, y=seen
            )
        out = y if z is None else y * silu(z)
        return (out, state) if return_last_state else out

    return mamba_selective_scan


def delta_tap(original: Callable[..., Any], session: Session) -> Callable[..., Any]:
    """``torch_chunk_gated_delta_rule``: S_t = a_t (I - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t'."""

    def torch_chunk_gated_delta_rule(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        initial_state: Tensor | None = None,
        output_final_state: bool = False,
        use_qk_l2norm_in_kernel: bool = False,
        **kwargs: Any,
    ) -> Any:
        if elsewhere(session):
            return original(
                query, key, value, g=g, beta=beta, initial_state=initial_state, output_final_state=output_final_state,
                use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, **kwargs,
            )  # fmt: skip
        layer = session.enter("scan")
        _only(initial_state is None, layer, "a state of its own")
        wide = torch.promote_types(value.dtype, torch.float32)
        heads = value.shape[2]
        q, k = (each.to(wide).repeat_interleave(heads // each.shape[2], 2) for each in (query, key))
        if use_qk_l2norm_in_kernel:
            q, k = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + 1e-6) for each in (q, k))
        v, gate, strength = value.to(wide), g.to(wide), beta.to(wide)
        if session.cache.fresh:
            y, state = original(
                query, key, value, g=g, beta=beta, output_final_state=True,
                use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, **kwargs,
            )  # fmt: skip
        else:
            read = delta_rule(q, k, v, gate, strength, state=session.cache.initial[layer])
            y, state = read.out.to(query.dtype), read.state
        session.cache.states[layer] = state
        session.tap(layer, C=q, B=k, x=v, log_decay=gate, beta=strength, y=y)
        return y, state if output_final_state else None

    return torch_chunk_gated_delta_rule


def never(original: Callable[..., Any], session: Session) -> Callable[..., Any]:
    """A form of the scan for one token, which writes the state in place: no run takes it."""

    def step(*args: Any, **kwargs: Any) -> Any:
        if elsewhere(session):
            return original(*args, **kwargs)
        raise ValueError(f"model: {original.__name__} ran, which writes the state in place; {versions_advice()}")

    return step


def _only(held: bool, layer: int, what: str) -> None:
    if not held:
        raise ValueError(f"model: the scan of layer {layer} got {what}, which this version's adapter does not know")


#: Functions of the families of Mamba2, of Mamba and of gated delta rules.
MAMBA2_TAPS = {"mamba2_chunk_scan": ssd_tap, "mamba2_selective_state_update": never}
MAMBA1_TAPS = {"mamba_selective_scan": selective_tap, "mamba_selective_state_update": never}
DELTA_TAPS = {"torch_chunk_gated_delta_rule": delta_tap, "torch_recurrent_gated_delta_rule": never}
