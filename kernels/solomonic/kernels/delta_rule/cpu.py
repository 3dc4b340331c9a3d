"""Fast path of `delta_rule`: the chunked form.

What token t writes is u_t = beta_t (v_t - exp(g_t) S_{t-1}' k_t), and S_t = exp(g_t) S_{t-1} + k_t u_t'. Inside a
chunk the u_t solve a unit lower triangular system,

    (I + diag(beta) strictly_lower(L * K K')) U = diag(beta) (V - diag(e) K S_in),

so that U = U_v - W S_in with U_v and W from one solve for all chunks at once. Then

    O = diag(e) Q S_in + lower(L * Q K') U,      S_out = total S_in + K' diag(w) U.
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
    c = Chunks(T, min(chunk, T))
    d = c.decays(g, reset)
    b, e = c.cut_scalars(beta).unsqueeze(-1), d.e.unsqueeze(-1)
    q, k, v = c.cut(q), c.cut(k), c.cut(v)
    repeat = H // k.shape[1]
    overlaps = (k @ k.mT).repeat_interleave(repeat, 1)
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    system = (b * d.L * overlaps).tril(-1)  # the unit diagonal is implied
    right = torch.cat([b * v, b * e * k], -1)
    U_v, W = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True).split([V, K], -1)
    leaving, total = (d.w.unsqueeze(-1) * k).mT, d.total[..., None, None]
    entering, written = [], []
    for i in range(c.n):
        entering.append(S)
        written.append(U_v[:, :, i] - W[:, :, i] @ S)
        S = total[:, :, i] * S + leaving[:, :, i] @ written[-1]
    out = e * (q @ torch.stack(entering, 2)) + (d.L * (q @ k.mT)) @ torch.stack(written, 2)
    return c.join(scale * out), S
