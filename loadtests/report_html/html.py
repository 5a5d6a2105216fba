"""HTML built from calls, so that nothing of a run reaches a page without being escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

# C0 and C1 controls, what turns the direction of text, lone surrogates: they would hide what an ID
# is, or cannot be written as UTF-8. Tabs and line ends stay.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
VOID = {"meta", "line", "path", "rect", "circle", "polygon", "polyline", "br", "input"}


class Markup(str):
    """Text that is HTML already."""


Child: TypeAlias = "str | float | Iterable[Child] | None"


def shown(text: str) -> str:
    """The text with controls and the like as `\\u202e`, so that a reader sees them."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escape(text: str) -> Markup:
    """Fit for text and for quoted attributes."""
    return Markup(html.escape(shown(text), quote=True))


def markup(*children: Child) -> Markup:
    """The children after each other: strings are escaped, `Markup` and numbers are as they are."""
    return Markup("".join(_parts(children)))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element.

    `class_` is written `class`, and other underscores of attributes become dashes. None and False
    leave an attribute out.
    """
    written = "".join(
        f" {_attribute(key)}" + ("" if value is True else f'="{escape(_number(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{markup(*children)}</{name}>")


def identifier(text: str, limit: int = 120) -> Markup:
    """A name that somebody chose: kept apart from the direction of what is around it, and short."""
    if len(text) <= limit:
        return tag("bdi", text)
    return tag("bdi", f"{text[:limit]}…", title=text[:1000])


def _attribute(key: str) -> str:
    if key == "viewBox":
        return key
    return key.rstrip("_").replace("_", "-")


def _number(value: str | float) -> str:
    """Coordinates need no more than two digits, and a report has many of them."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _parts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(child)
        elif isinstance(child, int | float):
            yield _number(child)
        else:
            yield from _parts(child)
