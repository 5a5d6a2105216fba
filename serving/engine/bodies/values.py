"""What every JSON value of a body must be, whichever field it is in.

vLLM passes some fields on unchecked, to a core whose messages (msgpack) have UTF-8 strings and
64-bit integers. So these rules hold for all values and name no field.
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from serving.api.structure import check_counts
from serving.engine.bodies.limits import BodyLimits
from serving.errors import InvalidRequest

MIN_INT, MAX_INT = -(2**63), 2**63 - 1
# A body of fewer bytes is read in less than a millisecond whatever it holds.
SMALL = 16_384
# Of a caller's own field names, in messages.
MAX_NAME = 64

_HALF_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_whole = msgspec.json.Decoder()


def check_structure(body: bytes, limits: BodyLimits) -> None:
    """Refuse a body that may hold so many values that reading it takes long.

    Counting bytes takes a tenth of the time of reading, and does not know texts from structure: the
    limits leave room for the commas and brackets of a long text.

    Raises:
        InvalidRequest: it has too many.
    """
    if len(body) >= SMALL:
        check_counts(body, limits.brackets, limits.commas)


def read_fields(body: bytes) -> dict[str, int]:
    """The names of a body's fields and how many bytes each has; no value is made of them.

    Raises:
        InvalidRequest: the body is no JSON object.
    """
    try:
        return {name: len(memoryview(raw)) for name, raw in _raw.decode(body).items()}
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    except (RecursionError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise _unreadable(error, body) from None


def read(body: bytes) -> dict[str, Any]:
    """A body that `read_fields` took. All its strings are valid UTF-8 and its numbers finite.

    Raises:
        InvalidRequest: they are not.
    """
    try:
        return cast(dict[str, Any], _whole.decode(body))
    except (
        RecursionError,
        UnicodeDecodeError,
        msgspec.DecodeError,
        msgspec.ValidationError,
    ) as error:
        raise _unreadable(error, body) from None


def _unreadable(error: Exception, body: bytes) -> InvalidRequest:
    if isinstance(error, RecursionError):
        return InvalidRequest("the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequest(f"the body is not valid UTF-8: {error.reason}")
    if isinstance(error, msgspec.ValidationError):
        return InvalidRequest("the body has a number that is out of range")
    if _HALF_SURROGATE.search(body):
        return InvalidRequest(
            "the body is not valid JSON, or has half of a surrogate pair (\\ud800 to \\udfff), "
            f"which no text has: {error}"
        )
    return InvalidRequest(f"the body is not valid JSON: {error}")


def shown(name: str) -> str:
    """A caller's field name for a message."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."


def check_values(name: str, value: Any, most: int, limits: BodyLimits) -> None:
    """Check one field: integers of 64 bits, at most `most` values, nesting within the limit.

    Raises:
        InvalidRequest: it is not so.
    """
    count, todo = 1, [(value, 0)]
    while todo:
        item, depth = todo.pop()
        if type(item) is dict:
            children = list(item.values())
        elif type(item) is list:
            children = item
        else:
            _check_int(name, item)
            continue
        count += len(children)
        if count > most:
            raise InvalidRequest(
                f"'{shown(name)}': has more than {most} values; at most {most} are taken",
                param=shown(name),
            )
        if depth >= limits.depth:
            raise InvalidRequest(
                f"'{shown(name)}': is nested more than {limits.depth} levels deep; at most "
                f"{limits.depth} are taken",
                param=shown(name),
            )
        if _are_numbers(name, children):
            continue
        for child in children:
            kind = type(child)
            if kind is int:
                _check_int(name, child)
            elif kind is dict or kind is list:
                todo.append((child, depth + 1))


def _are_numbers(name: str, children: list[Any]) -> bool:
    """True for token IDs and the like, which it has checked: there are hundreds of thousands."""
    if len(children) < 16 or type(children[0]) is not int:
        return False
    try:
        least, most = min(children), max(children)
    except TypeError:
        return False
    _check_int(name, least)
    _check_int(name, most)
    return True


def _check_int(name: str, value: Any) -> None:
    if type(value) is int and not MIN_INT <= value <= MAX_INT:
        raise InvalidRequest(
            f"'{shown(name)}': has an integer of more than 64 bits; integers are from -2**63 to "
            "2**63 - 1",
            param=shown(name),
        )
