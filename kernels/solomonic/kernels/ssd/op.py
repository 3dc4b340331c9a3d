"""The public function `ssd`: arguments, dispatch and result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from solomonic.kernels import validate
from solomonic.kernels.backends import Implementation, choose, transformed
from solomonic.kernels.ssd.access import ssd_with_access
from solomonic.kernels.ssd.cpu import ssd_cpu
from solomonic.kernels.ssd.naive import ssd_naive
from solomonic.kernels.ssd.pieces import Edits, read_edits, read_save, read_want

__all__ = ["SSDOutput", "ssd"]


@dataclass(frozen=True, eq=False)
class SSDOutput:
    """What `ssd` returns.

    Attributes
    ----------
    y : torch.Tensor
        Output [B, T, H, P] in the dtype of ``x``.
    state : torch.Tensor
        State after the last token [B, H, P, N], in float32 (float64 for float64 inputs).
    states : torch.Tensor or None
        Saved states [B, S, H, P, N]; None for ``save="final"``.
    statistics : mapping of str to torch.Tensor
        What `want` asked for, by name.
    """

    y: Tensor
    state: Tensor
    states: Tensor | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [f"y={tuple(self.y.shape)}", f"state={tuple(self.state.shape)}"]
        if self.states is not None:
            parts.append(f"states={tuple(self.states.shape)}")
        if self.statistics:
            parts.append(f"statistics={list(self.statistics)}")
        return f"SSDOutput({', '.join(parts)}, dtype={self.y.dtype})"


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    save: str | int | Sequence[int] | Tensor = "final",
    edit: tuple | list | None = None,
    want: str | Sequence[str] = (),
    chunk: int = 64,
    backend: str = "auto",
) -> SSDOutput:
    r"""Selective state space scan with a scalar decay per head and token.

    .. math:: h_t = e^{\Delta_t A} h_{t-1} + \Delta_t x_t B_t^\top, \qquad y_t = h_t C_t + D x_t

    Parameters
    ----------
    x : torch.Tensor
        Input [B, T, H, P]: batch, time, heads, channels of a head.
    dt : torch.Tensor
        Step [B, T, H], after softplus, so not negative. In the dtype of `x` or the compute dtype.
    A : torch.Tensor
        Rate [H], negative (per unit of `dt`): a token decays the state by ``exp(dt * A)``.
    B : torch.Tensor
        Write direction [B, T, GB, N]; GB divides H and head h uses group ``h // (H // GB)``.
    C : torch.Tensor
        Read direction [B, T, GC, N]; GC divides H and may differ from GB.
    D : torch.Tensor, optional
        Direct feedthrough [H].
    h0 : torch.Tensor, optional
        State before the first token [B, H, P, N]; zero if not given.
    reset : torch.Tensor, optional
        Boolean [B, T]: the state is set to zero before these tokens (packed sequences). A reset at the first
        token discards `h0`.
    save : {"final", "chunk"} or positions, default "final"
        Which states to keep besides the last one: those after the last token of every chunk, or after the given
        tokens (an int, or a sequence or tensor of int from 0 to T - 1). They have gradients.
    edit : tuple or list of tuple, optional
        An intervention on the state, ``(positions, mode, value)`` or ``(positions, mode, value, heads)``. Before
        each token of `positions`, after its reset, the state of `heads` (all if not given) is set to `value`, or
        multiplied by it, or `value` is added to it: `mode` is ``"set"``, ``"scale"`` or ``"add"``. `value` is a number,
        or a tensor that broadcasts to [B, E, heads] for ``"scale"`` and to [B, E, heads, P, N] otherwise, E being the
        number of positions; it has a gradient. A list of K such tuples (or None: the plain scan) runs K interventions
        in one scan: y, state and states then have a first dimension K.
    want : names, optional
        Statistics to return, without gradients, of the scan without edits; n is the number of chunks:

        - ``"log_decay"`` [B, n, H]: sum of dt A over each chunk, -inf where a reset lies in the chunk;
        - ``"controllability"`` [B, H, N, N]: sum over s of phi(T-1, s)^2 dt_s^2 B_s B_s', the Gramian at the end of a
          start at zero, with phi(t, s) the decay from after token s to after token t;
        - ``"observability"`` [B, H, N, N]: sum over t of phi(t, -1)^2 C_t C_t', the Gramian of the state h0;
        - ``"row_sums"`` [B, T, H]: row sums of the hidden attention C_t' phi(t, s) dt_s B_s (without D and h0);
        - ``"innovation"`` [B, n, H, 2]: energy, summed over the channels and tokens of a chunk, of what a token adds to
          its own output, (dt_t C_t' B_t + D) x_t, and of the output y_t.
    chunk : int, default 64
        Tokens that the fast path handles in one matrix product. Changes speed and rounding, and where the chunks
        of `save` and `want` end.
    backend : {"auto", "reference", "cpu", "triton"}, default "auto"
        Implementation, see `solomonic.kernels.available_backends`.

    Returns
    -------
    SSDOutput
        ``.y`` [B, T, H, P] and the last ``.state`` [B, H, P, N], which continues the scan as `h0`:
        the scan of ``a + b`` is the scan of ``b`` from the state after ``a``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor or has a dtype that does not go with `x`.
    ValueError
        If a shape, a device, a position, a mode, a name, `chunk` or `backend` is wrong.

    Notes
    -----
    The fast path costs about ``B T H (2 Q P + 4 N P)`` FLOP with Q = `chunk`, and keeps ``4 N P / Q`` bytes
    of states per token and head for the backward pass (float32). Sums are taken in float32, or float64 for
    float64 inputs. Decays inside a chunk are exponentials of differences of running sums, clamped at 0 before
    the exponential: they never overflow, and their relative error is about ``eps * chunk * max|dt A|``. The
    gradient of `dt` and `A` is a running sum of differences too, and has an absolute error of the same kind.

    Every tensor argument has a gradient, through both outputs. Derivatives of second order and forward mode
    go through a slower form of the same path. Signs of `dt` and `A` are not checked, as that would read the
    data. NaN in an input spreads to the outputs of its whole chunk, earlier tokens included, and to all that
    follow, also past a reset: 0 times NaN is NaN.

    On processors whose arithmetic is slow on subnormal numbers, ``torch.set_flush_denormal(True)`` helps
    where states decay to nothing.

    References
    ----------
    Dao and Gu, "Transformers are SSMs" (arXiv:2405.21060), equation 16 and section 6 (block decomposition).

    Examples
    --------
    >>> import torch
    >>> from solomonic.kernels import ssd
    >>> x = torch.ones(1, 3, 1, 1)
    >>> step, rate = torch.ones(1, 3, 1), -torch.log(torch.tensor([2.0]))
    >>> one = torch.ones(1, 3, 1, 1)
    >>> ssd(x, step, rate, one, one).y.flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    _check(x, dt, A, B, C, D, h0, reset)
    validate.check_positive_int("chunk", chunk)
    work = validate.compute_dtype(x.dtype)
    saves, names = read_save(save, x.shape[1]), read_want(want)
    interventions: list[Edits | None] | None = None
    if edit is not None:
        many = isinstance(edit, list)
        each = [(f"edit[{k}]", one) for k, one in enumerate(edit)] if many else [("edit", edit)]
        interventions = [None if one is None else read_edits(one, x, B.shape[3], name=name) for name, one in each]
        if not interventions:
            raise ValueError("edit: expected at least one intervention, got an empty list")
    lacking = {"triton": _lacking_triton(x, B, interventions, names, (x, dt, A, B, C, D, h0))}
    plain = interventions is None and not names and saves == ()
    implementations: dict[str, Implementation] = {
        "reference": _raised(ssd_naive),
        "cpu": _raised(ssd_cpu if plain else ssd_with_access),
        "triton": "solomonic.kernels.ssd.triton_op:ssd_triton",
    }
    implementation = choose(backend, implementations, device=x.device, lacking=lacking, operation="ssd")
    if plain:
        y, state, *_ = implementation(x, dt, A, B, C, D, h0, reset, chunk)
        return SSDOutput(y.to(x.dtype), state.to(work))
    y, state, states, found = implementation(x, dt, A, B, C, D, h0, reset, chunk, interventions, saves, names)
    if interventions is not None and not isinstance(edit, list):
        y, state, states = y[0], state[0], None if states is None else states[0]
    statistics = dict(zip(names, (value.to(work) for value in found), strict=True))
    states = None if states is None else states.to(work)
    return SSDOutput(y.to(x.dtype), state.to(work), states, statistics)


def _raised(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """`implementation` with its tensors in the compute dtype."""

    def call(x: Tensor, *values: Any) -> Any:
        work = validate.compute_dtype(x.dtype)
        raised = [v.to(work) if isinstance(v, Tensor) and v.is_floating_point() else v for v in (x, *values)]
        return implementation(*raised)

    return call


def _lacking_triton(
    x: Tensor, B: Tensor, interventions: list[Edits | None] | None, want: tuple[str, ...], inputs: tuple
) -> str | None:
    """Why the Triton kernels cannot serve a call; None if they can."""
    if want:
        return "it measures no statistics (want=)"
    if interventions is not None and len(interventions) != 1:
        return "it runs one intervention at a time (edit= with a list)"
    if max(x.shape[3], B.shape[3]) > 128:
        return "it has no configuration for heads with more than 128 channels or states"
    if not (x.numel() and B.numel()):
        return "there is nothing to compute"
    if transformed(*inputs):
        return "it knows no function transforms and no forward mode"
    return None


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h0: Tensor | None,
    reset: Tensor | None,
) -> None:
    validate.check_floating("x", x)
    validate.check_rank("x", x, "B T H P")
    batch, time, heads, channels = x.shape
    work = (validate.compute_dtype(x.dtype),)
    validate.check_like("dt", dt, "x", x, dtypes=work)
    validate.check_shape("dt", dt, (batch, time, heads), "B T H")
    validate.check_like("A", A, "x", x, dtypes=work)
    validate.check_shape("A", A, (heads,), "H")
    for name, value in (("B", B), ("C", C)):
        validate.check_like(name, value, "x", x)
        validate.check_rank(name, value, "B T G N")
        groups = value.shape[2]
        if value.shape[:2] != x.shape[:2]:
            raise ValueError(f"{name}: expected [B, T] = {(batch, time)} as x has, got {tuple(value.shape[:2])}")
        if groups < 1 or heads % groups:
            raise ValueError(f"{name}: expected a number of groups that divides H = {heads}, got {groups}")
    if B.shape[3] != C.shape[3]:
        raise ValueError(f"C: expected N = {B.shape[3]} as B has, got {C.shape[3]}")
    if D is not None:
        validate.check_like("D", D, "x", x, dtypes=work)
        validate.check_shape("D", D, (heads,), "H")
    if h0 is not None:
        validate.check_like("h0", h0, "x", x, dtypes=work)
        validate.check_shape("h0", h0, (batch, heads, channels, B.shape[3]), "B H P N")
    if reset is not None:
        validate.check_reset("reset", reset, x)
