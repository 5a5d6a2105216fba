"""Parses YAML and remembers lines, so that a refusal can name the line at fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

# PyYAML's C parser, if it was built with one, is ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class RepeatedKey:
    """A key that a mapping has twice. YAML forbids that; PyYAML silently keeps the last value."""

    line: int
    key: str
    first_line: int


@dataclass(frozen=True)
class Document:
    """One parsed YAML document."""

    data: Any
    repeated: tuple[RepeatedKey, ...]
    root: yaml.Node | None

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line (from 1) of the value at a path, or of the nearest value around it.

        The line of a field that a merge key (`<<`) brought in is where it is written.
        """
        node, line = self.root, 1
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line


def parse(text: str) -> Document:
    """Parse one document.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        # This comes first, since construction writes merged fields into the nodes.
        repeated = tuple(_repeated(root)) if root is not None else ()
        data = loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()
    return Document(data, repeated, root)


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode):
        # Merged fields stand first. The mapping's own fields stand after them, and win.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key.start_mark.line + 1, value
    return None


def _repeated(root: yaml.Node) -> Iterator[RepeatedKey]:
    seen: set[int] = set()  # aliases lead to the same node more than once
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                    continue
                line = key.start_mark.line + 1
                if key.value in lines:
                    yield RepeatedKey(line, key.value, lines[key.value])
                lines.setdefault(key.value, line)
