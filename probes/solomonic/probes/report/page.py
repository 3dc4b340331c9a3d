"""What a page consists of, and how it becomes HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import svg

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A figure; ``narrow`` is the same one drawn for small screens, where it has one."""

    svg: Markup
    caption: str = ""
    narrow: Markup | None = None
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading. ``numbers`` aligns the others to the right, but for
    the columns in ``left``.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numbers: bool = True
    left: Sequence[int] = ()


@dataclass(frozen=True)
class Point:
    """An item of a list, or a fact: a name and what there is to say about it."""

    name: str
    text: str


@dataclass(frozen=True)
class Block:
    """A heading with paragraphs, points, figures and tables, in this order."""

    anchor: str
    title: str
    reading: Sequence[str] = ()
    points: Sequence[Point] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class ModelPart:
    """The section of one model."""

    anchor: str
    name: str
    summary: str
    facts: Sequence[Point]
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Entry:
    """An entry of the table of contents: where it leads and what it says."""

    anchor: str
    title: str


@dataclass(frozen=True)
class Page:
    """A whole page: what comes first, a section a model, what comes last."""

    title: str
    lede: str
    version: str
    date: str
    opening: Sequence[Block]
    models: Sequence[ModelPart]
    closing: Sequence[Block] = field(default_factory=tuple)

    @property
    def contents(self) -> list[Entry]:
        """The entries of the table of contents; the first block is seen without one."""
        parts = [*self.opening[1:], *self.models, *self.closing]
        return [Entry(part.anchor, part.name if isinstance(part, ModelPart) else part.title) for part in parts]


def render(page: Page) -> str:
    """The page as HTML; every string is escaped, figures are the only markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        page=page,
        css=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        light=Markup(svg.variables(1)),
        dark=Markup(svg.variables(2)),
    )


def shown(name: str) -> str:
    """A name as it can be shown: what cannot be printed becomes a replacement character.

    >>> shown("a\\x00b")
    'a\\ufffdb'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in name) or "model"
