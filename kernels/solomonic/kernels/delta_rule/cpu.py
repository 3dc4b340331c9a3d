"""Fast path of `delta_rule`: the chunked form.

What token t writes is u_t = beta_t (v_t - exp(g_t) S_{t-1}' k_t), and S_t = exp(g_t) S_{t-1} + k_t u_t'. Inside a
chunk the u_t solve a unit lower triangular system,

    (I + diag(beta) strictly_lower(L * K K')) U = diag(beta) (V - diag(e) K S_in).

Its inverse T, of Q x Q numbers, is taken for all chunks at once; it does not grow, being made of products of
contractions. Then, chunk after chunk,

    U = T diag(beta) (V - diag(e) K S_in),
    O = diag(e) Q S_in + lower(L * Q K') U,      S_out = total S_in + K' diag(w) U.

Heads that share their keys share K K' and stand side by side in Q K'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solomonic.kernels.chunks import Chunks
from solomonic.kernels.delta_rule.naive import delta_rule_step

__all__ = ["delta_rule_cpu"]


def delta_rule_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None,
    reset: Tensor | None,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Run the chunked form. Arguments are validated and in the compute dtype."""
    B, T, H, K = q.shape
    V = v.shape[3]
    S = q.new_zeros(B, H, K, V) if state is None else state
    if T == 0:
        return q.new_zeros(B, 0, H, V), S
    if T == 1:
        k, v = (each.repeat_interleave(H // each.shape[2], 2)[:, 0] for each in (k, v))
        if reset is not None:
            S = S.masked_fill(reset[:, 0, None, None, None], 0.0)
        out, S = delta_rule_step(S, q[:, 0], k, v, g[:, 0], beta[:, 0])
        return (scale * out).unsqueeze(1), S
    c, G = Chunks(T, min(chunk, T)), k.shape[2]
    d = c.decays(g, reset)
    Q, heads = c.Q, (c.n, B, G, H // G)
    q, k, v = c.cut(q), c.cut(k), c.cut(v).unsqueeze(3)
    b, e, w = (each.view(*heads, Q, 1) for each in (c.cut_scalars(beta), d.e, d.w))
    L, shared = d.L.view(*heads, Q, Q), k.unsqueeze(3)
    system = (torch.matmul(k, k.mT).unsqueeze(3) * L * b).view(-1, Q, Q)  # read below its diagonal, which counts as 1
    unit = torch.eye(Q, dtype=q.dtype, device=q.device).expand_as(system)
    inverse = torch.linalg.solve_triangular(system, unit, upper=False, unitriangular=True)
    mix = torch.matmul(q.view(c.n, B, G, H // G * Q, K), k.mT).view_as(L) * L

    def per_chunk(value: Tensor) -> Tensor:
        return value.reshape(c.n, B * H, *value.shape[-2:])

    parts = (inverse.view_as(L), b * v, b * e * shared, w * shared, e * q.view(*heads, Q, K), mix)
    state, out = S.flatten(0, 1), []
    for (solve, new, held, key, query, inside), a in zip(
        zip(*map(per_chunk, parts), strict=True), d.total.flatten(1, 2)[..., None, None], strict=True
    ):
        written = torch.bmm(solve, torch.baddbmm(new, held, state, alpha=-1))
        out.append(torch.baddbmm(torch.bmm(query, state), inside, written))
        state = torch.baddbmm(a * state, key.mT, written)
    out = torch.stack(out).unflatten(1, (B, H))
    return c.join(scale * out), state.unflatten(0, (B, H))
