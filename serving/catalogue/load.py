"""Reads a models file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serving.catalogue.spec import Catalogue


class CatalogueError(Exception):
    """A models file that cannot be used; the message names the file and the field."""


def load_catalogue(path: str | Path) -> Catalogue:
    """The catalogue in a YAML file.

    `weights` that begin with `./` or `../` are relative to the file.

    Raises:
        CatalogueError: the file is missing, is no YAML, or says something impossible.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text())
    except OSError as error:
        raise CatalogueError(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise CatalogueError(f"{file}: must be a mapping with `models:`")
    models = data.get("models")
    for model in models if isinstance(models, list) else ():
        if isinstance(model, dict):
            model.setdefault("kind", "engine")
            _resolve_weights(model, file.parent)
    try:
        return Catalogue.model_validate(data)
    except ValidationError as error:
        findings = [_finding(item, data) for item in error.errors(include_url=False)]
        raise CatalogueError("\n".join(f"{file}: {finding}" for finding in findings)) from None


def _resolve_weights(model: dict[str, Any], folder: Path) -> None:
    weights = model.get("weights")
    if isinstance(weights, str) and weights.startswith(("./", "../")):
        model["weights"] = str((folder / weights).resolve())


def _finding(item: Any, data: dict[str, Any]) -> str:
    """One finding with its place: a model is named by its ID, not by its position."""
    loc = list(item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if len(loc) >= 2 and loc[0] == "models" and isinstance(loc[1], int):
        model = data["models"][loc[1]]
        name = model.get("id", f"number {loc[1] + 1}") if isinstance(model, dict) else loc[1] + 1
        field = ".".join(str(part) for part in loc[3:])
        return f"model '{name}'{f': {field}' if field else ''}: {message}"
    return f"{'.'.join(str(part) for part in loc)}: {message}" if loc else str(message)
