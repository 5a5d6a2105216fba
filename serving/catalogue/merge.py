"""Merges an operator's models file with the known models.

An item of `models:` is an ID or a mapping with `id`. The ID of a known model deploys it as it is. A
mapping with a known ID overrides that entry field by field: a field it gives replaces the known one
whole (`engine_args`, `config` and `lora` too), the others stay. A mapping with a new ID, or with
another `kind:` than the known entry, inherits nothing. Known models that the file does not name
come last and are not deployed. `providers:` override the built-in ones field by field.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.catalogue.advice import alias_retired
from serving.catalogue.providers import PROVIDERS

Entry = dict[str, Any]
Known = Mapping[str, Entry]

# Fields that describe the known repository. They are dropped when an entry has other weights.
OF_THE_REPOSITORY = (
    *("revision", "certainty", "chat_template"),
    *("tool_parser", "reasoning_parser"),
)


@dataclass(frozen=True)
class Problem:
    """A mistake and its place in the operator's file."""

    place: tuple[str | int, ...]
    message: str


@dataclass
class Merged:
    """The data of the whole catalogue. `models[n]` came from the operator's item `places[n]`; known
    models that were not named have no place."""

    data: dict[str, Any]
    places: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def models(self) -> list[Any]:
        models: list[Any] = self.data["models"]
        return models


def merge(written: dict[str, Any], known: Known, folder: Path) -> Merged:
    """Merge a models file with the known models. `./` and `../` are relative to `folder`."""
    merged = Merged({**written, "models": [], "providers": providers(written.get("providers"))})
    named: set[str] = set()
    for index, item in enumerate(written["models"]):
        if isinstance(item, str):
            entry = _by_name(item, known, index, merged)
        elif isinstance(item, dict):
            entry = _by_fields(item, known, folder)
            retired = known.get(entry["id"]) if isinstance(entry.get("id"), str) else None
            # With more fields the item corrects the retired entry. Without, it asks to serve it.
            if retired and entry["kind"] == "retired" and not item.keys() - {"id", "deployed"}:
                merged.problems.append(_retired(entry["id"], retired, known, index))
                continue
        elif item is None:
            merged.problems.append(
                Problem(("models", index), "is empty; write an ID or a mapping with `id:`")
            )
            continue
        else:
            entry = item  # pydantic refuses it, together with the other mistakes
        if entry is None:
            continue
        merged.models.append(entry)
        merged.places.append(index)
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            named.add(entry["id"])
    merged.models.extend(entry for name, entry in known.items() if name not in named)
    return merged


def providers(written: Any) -> Any:
    """Merge an operator's providers with the built-in ones."""
    if written is None:
        return dict(PROVIDERS)
    if not isinstance(written, dict):
        return written
    merged: dict[Any, Any] = dict(PROVIDERS)
    for name, fields in written.items():
        known = PROVIDERS.get(name)
        merged[name] = {**known, **fields} if known and isinstance(fields, dict) else fields
    return merged


def _by_name(name: str, known: Known, index: int, merged: Merged) -> Entry | None:
    entry = known.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, known, 3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}; " if near else ""
        merged.problems.append(
            Problem(
                ("models", index),
                f"model '{name}': is no known model; {hint}a new model is written "
                f"`- id: {name}` with `weights:` and `context:`",
            )
        )
        return None
    if entry["kind"] == "retired":
        merged.problems.append(_retired(name, entry, known, index))
        return None
    return {**entry, "deployed": True}


def _retired(name: str, entry: Entry, known: Known, index: int) -> Problem:
    successor = entry.get("successor")
    fix = alias_retired(name, entry["provider"], successor, known=successor in known)
    return Problem(
        ("models", index),
        f"model '{name}': was retired by its provider ({entry['retired_on']}) and cannot be "
        f"deployed; remove it, and {fix}",
    )


def _by_fields(item: dict[Any, Any], known: Known, folder: Path) -> Entry:
    entry = known.get(item["id"]) if isinstance(item.get("id"), str) else None
    kind = item.get("kind")
    if entry is None or (kind is not None and kind != entry["kind"]):
        merged = {"kind": "engine", **item}
    else:
        merged = {**entry, **item, "kind": entry["kind"]}
        if "weights" in item:
            for name in OF_THE_REPOSITORY:
                if name not in item:
                    merged.pop(name, None)
    merged["deployed"] = item.get("deployed", merged["kind"] != "retired")
    weights = merged.get("weights")
    if isinstance(weights, str) and weights.startswith(("./", "../")):
        merged["weights"] = str((folder / weights).resolve())
    return merged
