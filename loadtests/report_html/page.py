"""The shell of a page: style, script and security policy, all in one file that asks no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from loadtests.report_html.html import Child, Markup, markup, tag

HATCH = Markup(
    '<svg class="defs" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" y2="6"/></pattern></defs></svg>'
)
# Else a browser asks the page's host for one.
ICON = Markup('<link rel="icon" href="data:,">')


class Section(Markup):
    """A part of the page that the list of contents leads to."""

    anchor: str
    heading: str


def section(anchor: str, title: str, *children: Child) -> Section:
    """A part with a heading."""
    made = Section(tag("section", tag("h2", title), markup(*children), id=anchor))
    made.anchor, made.heading = anchor, title
    return made


def page(title: str, header: Child, parts: Sequence[Markup | None]) -> str:
    """The whole file. Sections among the parts are in its contents; None is left out."""
    style, script = _file("report.css"), _file("report.js")
    # An ID that found a way past the escaping still could not run: only this script may.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    return "<!doctype html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            ICON,
            tag("style", Markup(style)),
        ),
        tag(
            "body",
            HATCH,
            tag("header", header),
            _contents(parts),
            tag("main", parts),
            Markup(f"<script>{script}</script>"),
        ),
        lang="en",
    )


def _contents(parts: Sequence[Markup | None]) -> Markup:
    links = [
        tag("a", part.heading, href=f"#{part.anchor}")
        for part in parts
        if isinstance(part, Section)
    ]
    return tag("nav", links, aria_label="Contents")


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
