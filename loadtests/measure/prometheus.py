"""Prometheus' text form, as far as a scrape needs it.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Labels = tuple[tuple[str, str], ...]

_LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*",
    re.DOTALL,
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?\s*', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page. `labels` are in the order of their names."""

    name: str
    labels: Labels
    value: float


def parse(page: str, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Sample]:
    """The samples whose names are wanted. Lines that are none are passed over: a page of one
    broken exporter should not cost the others' figures."""
    for line in page.split("\n"):  # a label may have what else ends a line in Python
        if not line or line[0] == "#":
            continue
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if not wanted(name):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match["value"])  # also +Inf and NaN
        except ValueError:
            continue
        yield Sample(name, _labels(match["labels"] or ""), value)


def is_counter(name: str) -> bool:
    """Whether it only grows, until its process ends; by the endings that counters must have."""
    return name.endswith(("_total", "_sum", "_count"))


def _labels(text: str) -> Labels:
    return tuple(sorted((match[1], _unescape(match[2])) for match in _LABEL.finditer(text)))


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)
