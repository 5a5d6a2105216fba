"""YAML together with the line that each value stands in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from loadtests.scenarios.errors import ScenarioError

Path = tuple[str | int, ...]


@dataclass
class Source:
    """The content of a file, or of values given on the command line, which replace some of it."""

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    given: dict[Path, str] = field(default_factory=dict)  # where a value was given otherwise

    def place(self, path: Path) -> str:
        """Return where a value comes from: `FILE:LINE`, or the option that gave it.

        What has no line of its own, as a field that is missing, has that of what it belongs to.
        """
        for length in range(len(path), -1, -1):
            if path[:length] in self.given:
                return self.given[path[:length]]
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name

    def line(self, path: Path) -> int:
        """Return the line of a value, or of what it belongs to."""
        lengths = range(len(path), -1, -1)
        return next((self.lines[path[:n]] for n in lengths if path[:n] in self.lines), 0)


def parse(name: str, text: str) -> Source:
    """Read a YAML document. Raises ScenarioError for bad syntax and for a field given twice."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(f"{name}:{line}: no YAML: {error.reason}") from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise ScenarioError(f"{name}:1: is empty; it needs `name`, `phases` and `traffic`")
        lines = dict(_lines(name, node, ()))
        return Source(name, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = 1 if mark is None else mark.line + 1
        context = f" ({error.context})" if error.context else ""
        raise ScenarioError(f"{name}:{at}: no YAML: {error.problem}{context}") from None
    except RecursionError:
        raise ScenarioError(f"{name}:1: an alias is part of itself; write it out") from None
    finally:
        loader.dispose()


def _lines(name: str, node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _lines(name, item, (*path, number))
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                first = seen[key.value]
                raise ScenarioError(
                    f"{name}:{line}: `{key.value}` is given twice; line {first} has it too"
                )
            seen[key.value] = line
            yield from _lines(name, value, (*path, key.value))
            # A field's line is that of its name.
            yield (*path, key.value), line
