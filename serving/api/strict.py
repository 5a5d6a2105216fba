"""Reads a body whose fields are all known: the first thing that is wrong with it refuses it.

Unlike pydantic, msgspec stops at the first mistake, so that a body of a million mistakes costs no
more than one without any.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from serving.api.excerpt import excerpt
from serving.errors import InvalidField, InvalidRequest, ServingError

T = TypeVar("T")

MAX_MESSAGE = 200
_PLACE = re.compile(r" - at `(?P<path>[^`]*)`$", re.S)
_INDEX = re.compile(r"\[(\d+)\]")
_NAMED = re.compile(
    r"Object (?P<what>contains unknown|missing required) field `(?P<name>.*)`", re.S
)


def read_strictly(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """
    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, unknown, of the wrong type or out of range (422).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refusal_of(str(error)) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def place_in(message: str) -> tuple[str, str]:
    """What msgspec says of a body, and the field that it says it of.

    For example: Expected `int` <= 4 - at `$.messages[4].content`
    """
    place = _PLACE.search(message)
    # As pydantic has it: messages.4.content
    path = _INDEX.sub(r".\1", place["path"].removeprefix("$")).strip(".") if place else ""
    return _PLACE.sub("", message), path


def refusal_of(message: str) -> ServingError:
    """What a caller is told of a message of msgspec's."""
    said, path = place_in(message)
    if (named := _NAMED.match(said)) is not None:
        where = excerpt(".".join(filter(None, (path, named["name"]))))
        if named["what"].startswith("contains"):
            return InvalidField(f"unknown field '{where}'", param=where)
        return InvalidField(f"'{where}' is required", param=where)
    if not path:
        return InvalidRequest("the body must be a JSON object")
    where = excerpt(path)
    said = excerpt(said.replace("`", ""), MAX_MESSAGE)
    return InvalidField(f"'{where}': {said[0].lower()}{said[1:]}", param=where)


def null() -> msgspec.Raw:
    """The default of a field that is not decoded."""
    return msgspec.Raw(b"null")


def raw_object(name: str, raw: msgspec.Raw) -> msgspec.Raw | None:
    """An object that goes on as it is, however deep it is; the engine checks what is in it.

    Raises:
        InvalidField: it is no object, and not null.
    """
    data = bytes(raw).lstrip()
    if data == b"null":
        return None
    if not data.startswith(b"{"):
        raise InvalidField(f"'{name}': must be an object", param=name)
    return msgspec.Raw(data)


def without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
