"""Cost of `select_innovations`: arithmetic and bytes as functions of the sizes."""

from __future__ import annotations

from solomonic.kernels.cost import Cost
from solomonic.kernels.select_innovations.plan import Plan, merge_length

__all__ = ["comparisons", "innovation", "selection"]


def innovation(B: int, T: int, C: int, span: int, itemsize: int = 2, *, known: int = 0) -> Cost:
    """Cost of the distances.

    Parameters
    ----------
    B, T, C : int
        Batch, tokens and channels.
    span : int
        Past outputs that are averaged.
    itemsize : int
        Bytes of an element.
    known : int
        Outputs in the register that comes in.

    Returns
    -------
    Cost
        An output is read again for each of the `span` tokens after it, from the cache: that is in `reread`.
    """
    work = 8 if itemsize == 8 else 4
    compulsory = B * (T + known) * C * itemsize + B * T * work
    return Cost(B * T * C * (span + 4), 0, compulsory, compulsory, span * B * T * C * itemsize)


def selection(B: int, plan: Plan, itemsize: int = 4) -> Cost:
    """Cost of the merges, without the sort of the scores that comes before them.

    Parameters
    ----------
    B : int
        Batch.
    plan : Plan
        Which tokens the call has to do with.
    itemsize : int
        Bytes of a score.

    Returns
    -------
    Cost
        `flops` is 0, see `comparisons`. Compulsory are a score in, and the interval and the list of stored tokens out;
        a merge also looks up the column of each of its numbers, which the cache holds.
    """
    compulsory = B * (plan.columns * (itemsize + 16) + 8 * plan.held_after)
    marks = 8 * min(plan.size, plan.chunk) * len(plan.refreshes)
    lookups = 8 * merge_length(plan) * (len(plan.refreshes) + 1)
    return Cost(0, 0, compulsory, B * (plan.columns * 12 + 2 * marks + 16 * plan.held_after), B * lookups)


def comparisons(B: int, plan: Plan) -> int:
    """Comparisons of the sorting networks of all merges: n log n (log n + 1) / 4 each, for n numbers.

    Parameters
    ----------
    B : int
        Batch.
    plan : Plan
        Which tokens the call has to do with.

    Returns
    -------
    int
        Their number.
    """
    n = merge_length(plan)
    stages = n.bit_length() - 1
    return B * (len(plan.refreshes) + 1) * n * stages * (stages + 1) // 4
