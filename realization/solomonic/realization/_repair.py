"""Warnings that the library gives: what was repaired, and by how much."""

from __future__ import annotations

__all__ = ["RepairWarning"]


class RepairWarning(UserWarning):
    """Something was not what theory asks for (stable, positive real) and was repaired: the warning says by how much.

    Examples
    --------
    >>> issubclass(RepairWarning, UserWarning)
    True
    """
