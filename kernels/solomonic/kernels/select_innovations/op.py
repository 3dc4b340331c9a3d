"""The public function `select_innovations`: arguments, dispatch, result and state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import choose
from solomonic.kernels.select_innovations.configs import MOST_TOKENS
from solomonic.kernels.select_innovations.cpu import innovation_cpu, select_cpu
from solomonic.kernels.select_innovations.naive import innovation_naive, select_naive
from solomonic.kernels.select_innovations.plan import Plan

__all__ = ["InnovationSelection", "InnovationState", "select_innovations"]

_TRITON = "solomonic.kernels.select_innovations.triton_op:"
_INNOVATIONS = {
    "reference": innovation_naive,
    "cpu": innovation_cpu,
    "triton": _TRITON + "innovation_triton",
}
_SELECTIONS = {"reference": select_naive, "cpu": select_cpu, "triton": _TRITON + "select_triton"}


class InnovationState(NamedTuple):
    """What a selection carries from the tokens it has seen.

    The n tokens are the stored ones, highest score first, then those that wait for their refresh, oldest first.
    How many there are follows from `seen` and the options of the call alone. A slot with score minus infinity is
    empty; a caller may empty a slot, and put any position and score into one.

    Attributes
    ----------
    past : torch.Tensor
        Last outputs [B, min(span, seen), C], oldest first; [B, 0, 0] where scores were given.
    position : torch.Tensor
        Position of each token, int64 [B, n]; -1 in an empty slot.
    score : torch.Tensor
        Its innovation [B, n], float32 (float64 for float64 inputs).
    enter : torch.Tensor
        Position of the first query that may read it, int64 [B, n]; 0 for tokens that wait.
    seen : int
        Number of tokens seen, which is the position of the next one.
    """

    past: Tensor
    position: Tensor
    score: Tensor
    enter: Tensor
    seen: int


@dataclass(frozen=True, eq=False)
class InnovationSelection:
    """What `select_innovations` returns.

    Columns are the n tokens of the state that came in, in its order, and the T new ones.

    Attributes
    ----------
    score : torch.Tensor
        Innovation of the new tokens [B, T], float32 (float64 for float64 inputs).
    enter, exit : torch.Tensor
        int64 [B, n + T]: queries at positions ``enter .. exit - 1`` may read the token. Both are 0 where none
        may, and `exit` is 2^62 where the token is still stored.
    kept : torch.Tensor
        int64 [B, n']: the columns that the new state holds, in its order; 0 for an empty slot.
    state : InnovationState
        The state after the last token.
    """

    score: Tensor
    enter: Tensor
    exit: Tensor
    kept: Tensor
    state: InnovationState

    def __repr__(self) -> str:
        return (
            f"InnovationSelection(score={tuple(self.score.shape)}, enter={tuple(self.enter.shape)}, "
            f"kept={tuple(self.kept.shape)}, seen={self.state.seen})"
        )


@torch.no_grad()
def select_innovations(
    y: Tensor | None,
    *,
    size: int,
    window: int,
    chunk: int | None = None,
    span: int = 4,
    norm: str = "l2",
    score: Tensor | None = None,
    state: InnovationState | None = None,
    backend: str = "auto",
) -> InnovationSelection:
    r"""Tokens at which an output was hardest to predict: a running selection of the m greatest innovations.

    .. math::
        \varepsilon_t = \Bigl\lVert y_t - \frac1k \sum_{i=1}^{k} y_{t-i} \Bigr\rVert, \qquad
        M_s = \operatorname{top}_m \{ \varepsilon_j : j \le s - W \}

    Queries at s .. s+R-1 read the memory M_s, where s is a multiple of R: memory is refreshed at chunk
    boundaries, and a token is a candidate once it has left the window of W tokens.

    Parameters
    ----------
    y : torch.Tensor or None
        Output [B, T, C] of the layer whose innovation counts; None where `score` is given.
    size : int
        How many tokens m are stored at most; 0 for none.
    window : int
        Window W of the queries: the query at position t reads the tokens t-W+1 .. t by itself.
    chunk : int, optional
        Queries R between two refreshes; `window` if not given. With 1, memory is that of Algorithm 1 at every token.
    span : int, default 4
        How many past outputs k are averaged. At the first tokens, the average is over those that exist, and 0
        before the first.
    norm : {"l2", "relative"}, default "l2"
        Euclidean norm over the channels, or that over the norm of y_t.
    score : torch.Tensor, optional
        Select by these [B, T] instead of the innovation of an output (controls, scores of a probe).
    state : InnovationState, optional
        State after the tokens before; the sequence begins here if not given.
    backend : {"auto", "reference", "cpu", "triton"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    InnovationSelection
        ``.score`` of the new tokens, ``.enter`` and ``.exit`` of the state's and the new tokens, ``.kept`` and
        the new ``.state``. ``.enter`` and ``.exit`` are what `solomonic.kernels.memory_attention` takes with
        eidetic keys.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape, a device, an option or the state does not fit.

    Notes
    -----
    A stored token gives way only to one with a strictly greater score; of several least ones the youngest goes.
    So the memory is the top m in the order (score, age), a token is stored in one piece, and cutting a sequence
    anywhere changes no interval and no bit of a score. NaN is never stored.

    Nothing has a gradient: the selection is hard. Costs ``B T C (k + 3)`` FLOP for the innovations, and a sort
    of m + min(m, R) numbers per refresh. The innovation tells how far y_t is from what the last outputs foretell,
    not how badly the model predicts the next token. The state holds at most m + W + R - 2 tokens.

    References
    ----------
    Zancato et al., "B'MOJO" (arXiv:2407.06324), Algorithm 1 and appendix B.2. The paper leaves span, norm,
    capacity and candidates open: the choices here are ours.

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import select_innovations
    >>> y = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0]).view(1, 8, 1)
    >>> out = select_innovations(y, size=1, window=2, chunk=2, span=1)
    >>> out.score.tolist()
    [[0.0, 9.0, 9.0, 0.0, 0.0, 5.0, 5.0, 0.0]]
    >>> out.enter.tolist()[0], [min(e, 99) for e in out.exit.tolist()[0]]
    ([2, 4, 0, 0, 0, 0, 0, 0], [4, 99, 0, 0, 0, 0, 0, 0])
    >>> more = select_innovations(y + 10, size=1, window=2, chunk=2, span=1, state=out.state)
    >>> out.state.position.tolist(), more.state.position.tolist()
    ([[1, 7]], [[8, 15]])
    """
    _check_options(size, window, chunk, span, norm)
    given = y if score is None else score
    if score is not None and y is not None:
        raise ValueError("score: expected either y or score, got both; pass y=None to select by score")
    assert given is not None or y is None
    if given is None:
        raise TypeError("y: expected a torch.Tensor [B, T, C], got None; or give score")
    validate.check_floating("y" if score is None else "score", given)
    validate.check_rank("y" if score is None else "score", given, "B T C" if score is None else "B T")
    work = validate.compute_dtype(given.dtype)
    B, T = given.shape[:2]
    plan = Plan(_seen(state), T, size, window, chunk or window)
    state = _start(given, work) if state is None else state
    _check_state(state, given, work, plan, span if score is None else 0)
    past = state.past
    if score is None:
        assert y is not None
        innovation = choose(backend, _INNOVATIONS, device=y.device, operation="select_innovations")
        new = innovation(y.to(work), past.to(work), span, norm == "relative").to(work)
        keep = min(span, plan.end)
        past = torch.cat([past, y], 1)
        past = past[:, past.shape[1] - keep :].contiguous()
    else:
        new = score.to(work)
    scores = torch.cat([state.score, new], 1)
    here = torch.arange(plan.seen, plan.end, device=given.device).expand(B, T)
    positions = torch.cat([state.position, here], 1)
    enters = torch.nn.functional.pad(state.enter, (0, T))
    select = choose(backend, _SELECTIONS, device=given.device, lacking=_lacking(plan), operation="select_innovations")
    first, last, kept = select(scores, positions, enters, plan)
    empty = kept < 0
    kept = kept.clamp(min=0)
    after = InnovationState(
        past,
        positions.gather(1, kept).masked_fill(empty, -1),
        scores.gather(1, kept).masked_fill(empty, -torch.inf),
        first.gather(1, kept).masked_fill(empty, 0),
        plan.end,
    )
    return InnovationSelection(new, first, last, kept, after)


def _lacking(plan: Plan) -> dict[str, str | None]:
    if plan.size + plan.chunk > MOST_TOKENS:
        return {
            "triton": f"its program sorts at most {MOST_TOKENS} tokens, and size + chunk is {plan.size + plan.chunk}"
        }
    return {}


def _start(like: Tensor, work: torch.dtype) -> InnovationState:
    """Nothing seen."""
    B, C = like.shape[0], like.shape[2] if like.dim() == 3 else 0
    none = like.new_zeros(B, 0, dtype=torch.int64)
    return InnovationState(like.new_zeros(B, 0, C), none, like.new_zeros(B, 0, dtype=work), none, 0)


def _seen(state: object) -> int:
    if state is None:
        return 0
    if not isinstance(state, InnovationState):
        raise TypeError(f"state: expected an InnovationState, got {type(state).__name__}")
    if isinstance(state.seen, bool) or not isinstance(state.seen, int):
        raise TypeError(f"state.seen: expected an int, got {type(state.seen).__name__}")
    if state.seen < 0:
        raise ValueError(f"state.seen: expected at least 0, got {state.seen}")
    return state.seen


def _check_options(size: object, window: object, chunk: object, span: object, norm: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"size: expected an int of at least 0, got {type(size).__name__}")
    if size < 0:
        raise ValueError(f"size: expected an int of at least 0, got {size}")
    validate.check_positive_int("window", window)
    validate.check_positive_int("span", span)
    if chunk is not None:
        validate.check_positive_int("chunk", chunk)
    if norm not in ("l2", "relative"):
        raise ValueError(f"norm: expected 'l2' or 'relative', got {norm!r}")


def _check_state(state: InnovationState, given: Tensor, work: torch.dtype, plan: Plan, span: int) -> None:
    B, n = given.shape[0], plan.columns - plan.length
    C = given.shape[2] if given.dim() == 3 else 0
    past = "y" if given.dim() == 3 else "score"
    validate.check_like("state.past", state.past, past, given)
    validate.check_shape("state.past", state.past, (B, min(span, plan.seen), C), "B k C")
    validate.check_like("state.score", state.score, past, given, dtypes=(work,))
    for name, value in (("position", state.position), ("enter", state.enter)):
        validate.check_tensor(f"state.{name}", value)
        if value.dtype != torch.int64:
            raise TypeError(f"state.{name}: expected dtype torch.int64, got {value.dtype}")
        if value.device != given.device:
            raise ValueError(f"state.{name}: expected device {given.device}, got {value.device}")
    for name, value in (("position", state.position), ("score", state.score), ("enter", state.enter)):
        if tuple(value.shape) != (B, n):
            raise ValueError(
                f"state.{name}: expected [B, n] = {(B, n)} after {plan.seen} tokens with size={plan.size}, "
                f"window={plan.window}, chunk={plan.chunk}, got {tuple(value.shape)}; continue with the same options"
            )
