"""Writes helm/README.md from helm/values.yaml: `python -m docs.chart [--check]`.

A value is documented by the comment that begins with `# --` right above it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILE = ROOT / "helm" / "README.md"
VALUES = ROOT / "helm" / "values.yaml"

HEAD = """\
# The chart's values

One HTTP API in front of every model, as a RayService on KubeRay. How to install, size, upgrade and
run it is in [docs/kubernetes.md](../docs/kubernetes.md); `scenarios/` has sets of values.

`values.schema.json` refuses what is not listed here.

| value | default | meaning |
|---|---|---|
"""
FOOT = """
This file is made from `values.yaml` by `python -m docs.chart`.
"""


@dataclass(frozen=True)
class Value:
    """One value: its path, its default, and what its comment says; empty if it has none."""

    path: tuple[str, ...]
    default: Any
    comment: str


def values(text: str) -> Iterator[Value]:
    """Every documented value, and every one that no comment covers."""
    lines = text.splitlines()
    yield from _of(yaml.compose(text, Loader=yaml.SafeLoader), (), lines)


def _of(node: Any, path: tuple[str, ...], lines: Sequence[str]) -> Iterator[Value]:
    for key, value in node.value:
        place = (*path, key.value)
        comment = _comment(lines, key.start_mark.line)
        if comment or not isinstance(value, yaml.MappingNode) or not value.value:
            yield Value(place, yaml.SafeLoader("").construct_object(value, deep=True), comment)
        else:
            yield from _of(value, place, lines)


def _comment(lines: Sequence[str], at: int) -> str:
    """The comment above a line, from its `# --` on."""
    found: list[str] = []
    for line in reversed(lines[:at]):
        words = line.strip()
        if not words.startswith("#"):
            break
        found.insert(0, words.lstrip("# "))
        if words.startswith("# --"):
            return " ".join(found).removeprefix("-- ")
    return ""


def document() -> str:
    rows = [
        f"| `{'.'.join(each.path)}` | {_shown(each.default)} | {_cell(each.comment)} |"
        for each in values(VALUES.read_text())
    ]
    return HEAD + "\n".join(rows) + "\n" + FOOT


def _shown(default: Any) -> str:
    return f"`{_cell(json.dumps(default, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(args: Sequence[str]) -> int:
    new = document()
    if "--check" not in args:
        FILE.write_text(new)
        return 0
    if FILE.exists() and FILE.read_text() == new:
        return 0
    print("helm/README.md is stale; run `python -m docs.chart`", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
