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
    c, repeat = Chunks(T, min(chunk, T)), H // k.shape[2]
    d = c.decays(g, reset)
    b, e = c.cut_scalars(beta).unsqueeze(-1), d.e.unsqueeze(-1)
    q, k, v = c.cut(q), c.cut(k, repeat), c.cut(v, repeat)
    kt = k.mT
    system = torch.matmul(k, kt) * d.L * b  # read below its diagonal, which counts as 1
    right = torch.cat([v, e * k], -1) * b
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True).flatten(1, 2)
    U_v, W = solved[..., :V].contiguous(), solved[..., V:].contiguous()
    leaving, total = (kt * d.w.unsqueeze(-2)).flatten(1, 2), d.total.flatten(1, 2)[..., None, None]
    state, entering, written = S.flatten(0, 1), [], []
    for u, w, out_of, a in zip(U_v, W, leaving, total, strict=True):
        entering.append(state)
        written.append(torch.baddbmm(u, w, state, alpha=-1))
        state = torch.baddbmm(a * state, out_of, written[-1])
    S_in, U = (torch.stack(each).unflatten(1, (B, H)) for each in (entering, written))
    out = torch.matmul(q, S_in) * e + torch.matmul(torch.matmul(q, kt) * d.L, U)
    return c.join(scale * out), state.unflatten(0, (B, H))
