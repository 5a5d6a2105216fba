"""Tables that sort by a click on a column's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.report_html.html import Child, Markup, tag


@dataclass(frozen=True)
class Cell:
    """`sort` is the value it sorts by, where the text is not; `part` draws a bar of that share."""

    text: Child
    sort: float | None = None
    part: float | None = None
    kind: str = ""  # good, bad, text


def table(
    caption: str, names: Sequence[str], rows: Sequence[Sequence[Cell | str]], words: int = 1
) -> Markup:
    """The first `words` columns are words, and those whose cells say so; the others are figures.
    The first names the row."""
    worded = {*range(words)} | {
        number
        for row in rows
        for number, cell in enumerate(row)
        if isinstance(cell, Cell) and cell.kind == "text"
    }
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag(
                "thead",
                tag(
                    "tr",
                    [
                        tag("th", name, scope="col", class_="text" if number in worded else None)
                        for number, name in enumerate(names)
                    ],
                ),
            ),
            tag("tbody", [tag("tr", _cells(row, words)) for row in rows]),
            class_="sorts",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _cells(row: Sequence[Cell | str], words: int) -> list[Markup]:
    return [
        _cell(cell if isinstance(cell, Cell) else Cell(cell), head=number == 0, text=number < words)
        for number, cell in enumerate(row)
    ]


def _cell(cell: Cell, head: bool, text: bool) -> Markup:
    kinds = [cell.kind] if cell.kind else []
    if text and not head:
        kinds.append("text")
    if cell.part is not None:
        kinds.append("bar")
    return tag(
        "th" if head else "td",
        cell.text,
        scope="row" if head else None,
        class_=" ".join(kinds) or None,
        data_v=None if cell.sort is None else f"{cell.sort:.6g}",
        style=None if cell.part is None else f"--part:{100 * cell.part:.0f}%",
    )
