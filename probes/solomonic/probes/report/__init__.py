"""The report: one page that shows how models forget, and the data beside it."""

from .run import report

__all__ = ["report"]
