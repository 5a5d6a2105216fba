"""What kinds of JSON value each field of a request model takes, as the model itself says.

vLLM's validators that run before pydantic's own check take the kind of some values for granted:
`structured_outputs: false` raises an AttributeError in one of them. Here a value's kind is compared
with the field's type, for every field that the models have, today's and those of an upgrade.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import typing_extensions
from pydantic import BaseModel

from serving.engine.bodies.values import shown
from serving.errors import InvalidRequest

OBJECT, LIST, SCALAR = "an object", "a list", "a single value"
EVERYTHING = frozenset((OBJECT, LIST, SCALAR))

Kinds = frozenset[str]

_SCALARS = (str, int, float, bool, bytes)
_ALIASES = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", ()))


def kinds_of(annotation: Any) -> Kinds:
    """The kinds of JSON value that a type takes. Null is none of them: vLLM takes it for absent.

    Raises:
        TypeError: a type that this rule does not cover; extend it.
    """
    if annotation is Any or isinstance(annotation, typing.TypeVar):
        return EVERYTHING
    if annotation is None or annotation is type(None):
        return frozenset()
    if isinstance(annotation, _ALIASES):
        return kinds_of(annotation.__value__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kinds_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return frozenset[str]().union(*map(kinds_of, arguments))
    if origin is typing.Literal:
        return frozenset((SCALAR,))
    kind = origin or annotation
    if isinstance(kind, type):
        if issubclass(kind, (*_SCALARS, enum.Enum)):
            return frozenset((SCALAR,))
        if (
            issubclass(kind, (BaseModel, collections.abc.Mapping))
            or dataclasses.is_dataclass(kind)
            or typing.is_typeddict(kind)
            or typing_extensions.is_typeddict(kind)
        ):
            return frozenset((OBJECT,))
        if issubclass(kind, collections.abc.Iterable):
            return frozenset((LIST,))
    raise TypeError(f"no rule for a field of the type {annotation}: extend kinds_of")


def fields_of(models: Iterable[type[BaseModel]]) -> dict[str, Kinds]:
    """The fields of an endpoint that takes any of these models, by name and by alias."""
    found: dict[str, Kinds] = {}
    for model in models:
        for name, field in model.model_fields.items():
            kinds = kinds_of(field.annotation)
            for key in {name, field.alias or name}:
                found[key] = found.get(key, frozenset()) | kinds
    return found


def check_kind(name: str, value: Any, fields: Mapping[str, Kinds]) -> None:
    """
    Raises:
        InvalidRequest: the field takes no value of this kind.
    """
    kinds = fields.get(name)
    if kinds is None or value is None:
        return
    kind = OBJECT if type(value) is dict else LIST if type(value) is list else SCALAR
    if kind not in kinds:
        wanted = " or ".join(sorted(kinds))
        raise InvalidRequest(f"'{shown(name)}': must be {wanted}, and is {kind}", param=name)
