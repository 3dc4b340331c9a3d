"""Fast path of `ridge_readout`: the chunked form.

With the weights of `solomonic.kernels.chunks`, H_t x_t for all tokens of a chunk at once (the x_t are the rows of X) is

    diag(e) X H_in + (L * X K') K,

so that an iteration is three products of matrices for all chunks, and no H_t is ever formed. Its norm is

    |H_t|^2 = e_t^2 |H_in|^2 + 2 e_t (L k' H_in k)_t + (L (K K')^2 L')_tt,

a sum of terms that are not negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solomonic.kernels.chunks import Chunks, carry
from solomonic.kernels.ridge_readout.chebyshev import positive_norm
from solomonic.kernels.ridge_readout.naive import ridge_readout_step

__all__ = ["ridge_readout_cpu"]


def ridge_readout_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    alpha: Tensor,
    gram: Tensor | None,
    content: Tensor | None,
    reset: Tensor | None,
    ridge: float,
    iterations: int,
    decay_gram: bool,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the chunked form. Arguments are validated and in the compute dtype."""
    B, T, H, K = q.shape
    V = v.shape[3]
    gram = q.new_zeros(B, H, K, K) if gram is None else gram
    content = q.new_zeros(B, H, K, V) if content is None else content
    if T == 0:
        return q.new_zeros(B, 0, H, V), gram, content
    if T == 1:
        k, v = (each.repeat_interleave(H // each.shape[2], 2)[:, 0] for each in (k, v))
        if reset is not None:
            gone = reset[:, 0, None, None, None]
            gram, content = gram.masked_fill(gone, 0.0), content.masked_fill(gone, 0.0)
        token = (q[:, 0], k, v, g[:, 0], alpha[:, 0])
        out, gram, content = ridge_readout_step(gram, content, *token, ridge, iterations, decay_gram)
        return (scale * out).unsqueeze(1), gram, content
    c, repeat = Chunks(T, min(chunk, T)), H // k.shape[2]
    d = c.decays(g, reset)
    q, k, v = c.cut(q), c.cut(k, repeat), c.cut(v, repeat)
    contents, content = carry(content, d.total, (d.w.unsqueeze(-1) * k).mT @ v)
    dg = d if decay_gram else c.decays(torch.zeros_like(g), reset)
    grams, gram = carry(gram, dg.total, (dg.w.unsqueeze(-1) * k).mT @ k)
    if iterations:
        solved = _solve(grams, k, dg.L, dg.e.unsqueeze(-1), q, ridge, iterations)
        q = q + c.cut_scalars(alpha).unsqueeze(-1) * (solved - q)
    out = d.e.unsqueeze(-1) * (q @ contents) + (d.L * (q @ k.mT)) @ v
    return c.join(scale * out), gram, content


def _solve(grams: Tensor, k: Tensor, L: Tensor, e: Tensor, q: Tensor, ridge: float, iterations: int) -> Tensor:
    """The iteration of `chebyshev` for the right sides q [n, B, H, Q, K], all tokens at once."""
    entering = ((k @ grams) * k).sum(-1, keepdim=True)
    square = (
        e.square() * grams.square().sum((-1, -2), keepdim=True)
        + 2 * e * (L @ entering)
        + ((L @ (k @ k.mT).square()) * L).sum(-1, keepdim=True)
    )

    # In units of the step 2 / (2 ridge F + F), where lambda is a constant: s H x = diag(s e) X H_in + (s L * X K') K.
    step = 2 / ((2 * ridge + 1) * positive_norm(square))
    keep, rho2 = 1 - 2 * ridge / (2 * ridge + 1), (2 * ridge + 1) ** -2
    first = step * q
    L, e = (step * L).flatten(0, 2), (step * e).flatten(0, 2)
    first, grams, k = first.flatten(0, 2), grams.flatten(0, 2), k.flatten(0, 2)
    x, before, omega = first, torch.zeros_like(first), 2.0
    for _ in range(iterations):
        omega = 1 / (1 - rho2 * omega / 4)
        written = torch.bmm(x, grams.mT) * e
        written = torch.baddbmm(written, torch.bmm(x, k.mT) * L, k)
        moved = torch.add(first, x, alpha=keep) - written
        x, before = torch.add((1 - omega) * before, moved, alpha=omega), x
    return x.view(q.shape)
