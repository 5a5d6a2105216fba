"""Reads models files: an operator's over the known models of `seed/`.

A mistake is refused as `file:line: model 'x': field: what is wrong; the fix`, every mistake of a
file at once. (What entries say about each other is looked at once each is right by itself.)
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
    """A models file that cannot be used; the message names file, line, model and field."""


def load_catalogue(path: str | Path) -> Catalogue:
    """The catalogue of an operator's file: its models first, then all others that are known.

    `weights` that begin with `./` or `../` are relative to the file.

    Raises:
        CatalogueError: the file is missing, is no YAML, or says something impossible.
    """
    file = Path(path)
    document = _read(file)
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
    merged = merge(written, _known(), file.parent)
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
    """The seed's entries by ID; what is made of them never changes them."""
    entries = [
        {"kind": "engine", **model, "deployed": False}
        for file in sorted(SEED.glob("*.yaml"))
        for model in _read(file).data["models"]
    ]
    return {entry["id"]: entry for entry in entries}


def _read(file: Path) -> Document:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{file}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{file}: not valid YAML: {error}") from None


def _located(
    item: Any, merged: Merged, document: Document, known_too_few: bool
) -> list[tuple[int, str]]:
    """One of pydantic's errors as findings, each with its line in the operator's file."""
    error = item.get("ctx", {}).get("error")
    if isinstance(error, MisreferenceError):
        # An item that was refused is missing from what others refer to.
        found = [] if known_too_few else error.findings
        return [(document.line(_written(each.place, merged)), each.message) for each in found]
    place, message = describe(item, merged)
    return [(document.line(_written(place, merged)), message)]


def _written(place: tuple[str | int, ...], merged: Merged) -> tuple[str | int, ...]:
    """The place in the file of a place in the merged data."""
    if len(place) > 1 and place[0] == "models" and isinstance(place[1], int):
        index = place[1]
        if index < len(merged.places):
            return ("models", merged.places[index], *place[2:])
    return place
