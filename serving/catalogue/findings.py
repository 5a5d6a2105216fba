"""Turns one of pydantic's errors into a message for operators: model, field, mistake and fix."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel

from serving.catalogue.catalogue import Catalogue, RouterSpec
from serving.catalogue.merge import Merged
from serving.catalogue.providers import Provider
from serving.catalogue.spec import (
    AdapterSpec,
    EngineSpec,
    ImageLimits,
    Lora,
    RetiredSpec,
    UpstreamSpec,
)

KINDS: dict[str, type[BaseModel]] = {
    "engine": EngineSpec,
    "adapter": AdapterSpec,
    "upstream": UpstreamSpec,
    "retired": RetiredSpec,
}
SECTIONS: dict[str, type[BaseModel]] = {"router": RouterSpec, "images": ImageLimits}
Place = tuple[str | int, ...]


def describe(item: Any, merged: Merged) -> tuple[Place, str]:
    """Return an error's place in the data, and `model 'x': field: what is wrong; the fix`."""
    loc: Place = tuple(item["loc"])
    if len(loc) < 2 or loc[0] != "models" or not isinstance(loc[1], int):
        section = SECTIONS.get(str(loc[0])) if loc else None
        if len(loc) > 2 and loc[0] == "providers":
            section = Provider
        subject = ".".join(str(part) for part in loc if part != "[key]")
        return loc, f"{subject}: {_what(item, section or Catalogue)}"
    index = loc[1]
    model = merged.models[index]
    number = f"number {merged.places[index] + 1}" if index < len(merged.places) else "of the seed"
    if not isinstance(model, dict):
        return loc[:2], f"model '{number}': is neither an ID nor a mapping with `id:`"
    name = model["id"] if isinstance(model.get("id"), str) else number
    # After the index, pydantic puts the model's kind, which is not a field.
    field = loc[3:]
    if item["type"] == "union_tag_invalid":
        message = f"'{model.get('kind')}' is no kind; one of {', '.join(KINDS)}"
        return ("models", index, "kind"), f"model '{name}': kind: {message}"
    kind = KINDS[str(model["kind"])]
    what = _what(item, Lora if len(field) > 1 and field[0] == "lora" else kind)
    if kind is RetiredSpec and item["type"] == "extra_forbidden":
        what = "is no field of a retired model; to serve it from elsewhere, write `kind: engine`"
    path = ".".join(str(part) for part in field)
    return ("models", index, *field), f"model '{name}': {f'{path}: ' if path else ''}{what}"


def _what(item: Any, model: type[BaseModel]) -> str:
    name = str(item["loc"][-1]) if item["loc"] else ""
    if item["type"] == "missing":
        return f"is required; add `{name}: ...`"
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, 1)
        fields = ", ".join(model.model_fields)
        return f"is no field; {f'did you mean `{near[0]}`?' if near else f'there are {fields}'}"
    if item["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return "must be a mapping"
    message = re.sub("^(Input|String) ", "it ", str(item["msg"]).removeprefix("Value error, "))
    value = item.get("input")
    if item["type"] == "value_error" or isinstance(value, dict | list):
        return message
    return f"{message}; it is {value!r:.60}"
