"""Reads an operator's models file and merges it with the known models of `seed/`.

A file with mistakes is refused with all of them at once, one line each:
`file:line: model 'x': field: what is wrong; the fix`. References between entries are checked only
when every entry is right by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.findings import describe
from serving.catalogue.merge import Entry, Merged, merge, providers
from serving.catalogue.references import MisreferenceError
from serving.catalogue.yaml_lines import Document, parse

SEED = Path(__file__).parent / "seed"


class CatalogueError(Exception):
    """A models file cannot be used. The message names file, line, model and field."""


def load_catalogue(path: str | Path) -> Catalogue:
    """Read an operator's file. Its models come first, then all other known models.

    `weights` that begin with `./` or `../` are relative to the file.

    Raises:
        CatalogueError: the file is missing, is not YAML, or has a mistake.
    """
    file = Path(path)
    return _load(_read(file), file, file.parent)


def load_text(text: str, name: str = "models.yaml") -> Catalogue:
    """Read a models file that came as text, such as KubeRay's copy; `name` is for messages.

    Raises:
        CatalogueError: as `load_catalogue`.
    """
    # Relative `weights` are relative to where this runs; there is no file beside them.
    return _load(_parsed(text, Path(name)), Path(name), Path())


def _load(document: Document, file: Path, folder: Path) -> Catalogue:
    written = document.data
    if not isinstance(written, dict) or "models" not in written:
        raise CatalogueError(f"{file}:1: must be a mapping with `models:`, a list of models")
    findings = [
        (each.line, f"the key `{each.key}` is already on line {each.first_line}; remove one")
        for each in document.repeated
    ]
    if not isinstance(written["models"], list):
        line = document.line(("models",))
        raise CatalogueError(f"{file}:{line}: models: must be a list; write `- id: ...` items")
    merged = merge(written, _known(), folder)
    findings += [(document.line(each.place), each.message) for each in merged.problems]
    try:
        catalogue = Catalogue.model_validate(merged.data)
        if not findings:
            return catalogue
    except ValidationError as error:
        for item in error.errors(include_url=False):
            findings += _located(item, merged, document, known_too_few=bool(merged.problems))
    lines = [f"{file}:{line}: {message}" for line, message in sorted(findings)]
    raise CatalogueError("\n".join(lines))


def seed_catalogue() -> Catalogue:
    """Every known model, none of them deployed."""
    return Catalogue.model_validate(
        {"models": list(_known().values()), "providers": providers(None)}
    )


@functools.cache
def _known() -> Mapping[str, Entry]:
    """Return the seed's entries by ID. Callers copy an entry before they change it."""
    entries = [
        {"kind": "engine", **model, "deployed": False}
        for file in sorted(SEED.glob("*.yaml"))
        for model in _read(file).data["models"]
    ]
    return {entry["id"]: entry for entry in entries}


def _read(file: Path) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogueError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{file}: not valid YAML: {error}") from None
    return _parsed(text, file)


def _parsed(text: str, file: Path) -> Document:
    try:
        return parse(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise CatalogueError(f"{file}: not valid YAML: {error}") from None


def _located(
    item: Any, merged: Merged, document: Document, known_too_few: bool
) -> list[tuple[int, str]]:
    """Return the findings of one of pydantic's errors, each with its line in the file."""
    error = item.get("ctx", {}).get("error")
    if isinstance(error, MisreferenceError):
        # A refused item is missing from the data, so references to it only seem to be wrong.
        found = [] if known_too_few else error.findings
        return [(document.line(_written(each.place, merged)), each.message) for each in found]
    place, message = describe(item, merged)
    return [(document.line(_written(place, merged)), message)]


def _written(place: tuple[str | int, ...], merged: Merged) -> tuple[str | int, ...]:
    """Return where in the file a place of the merged data was written."""
    if len(place) > 1 and place[0] == "models" and isinstance(place[1], int):
        index = place[1]
        if index < len(merged.places):
            return ("models", merged.places[index], *place[2:])
    return place
