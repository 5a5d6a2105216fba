"""Bodies of multipart/form-data (RFC 7578): where their parts begin and end.

No part is copied to find the next one. What two readers could read in two ways is refused: text
before the first boundary, spaces after a boundary, parts without a name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from serving.errors import InvalidRequest

MEDIA_TYPE = "multipart/form-data"
# More are no form of an API.
MOST_PARTS = 64
_HEADER_BYTES = 8 * 1024
# RFC 2046, section 5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';[ \t]*([A-Za-z*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')


class Part(NamedTuple):
    """One part of a body: its content is `body[start:end]`. `is_file`: it has a file's name."""

    name: str
    is_file: bool
    start: int
    end: int


def is_form(content_type: str) -> bool:
    """True for a content type of such bodies."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The parts of a body. Takes a millisecond for some megabytes.

    Raises:
        InvalidRequest: it is no such body, or has more than `MOST_PARTS` parts.
    """
    if not is_form(content_type):
        raise InvalidRequest(f"the body must be {MEDIA_TYPE}")
    dashes = b"--" + _boundary(content_type)
    if not body.startswith(dashes):
        raise _malformed("it does not begin with its boundary")
    at, delimiter = len(dashes), b"\r\n" + dashes
    found: list[Part] = []
    while body[at : at + 2] != b"--":
        if body[at : at + 2] != b"\r\n":
            raise _malformed("a boundary is followed by something else than a line's end")
        if len(found) == MOST_PARTS:
            raise InvalidRequest(f"the body has more than {MOST_PARTS} parts")
        start = body.find(b"\r\n\r\n", at, at + _HEADER_BYTES)
        end = body.find(delimiter, start + 4) if start >= 0 else -1
        if end < 0:
            raise _malformed("a part has no end, or its headers have none")
        name, is_file = _disposition(body[at:start])
        found.append(Part(name, is_file, start + 4, end))
        at = end + len(delimiter)
    return found


def _boundary(content_type: str) -> bytes:
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == "boundary" and _BOUNDARY.fullmatch(given := quoted or plain):
            return bytes(given, "ascii")
    raise _malformed("its content type has no boundary")


def _disposition(head: bytes) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise _malformed("a part's headers are not UTF-8") from None
    for line in lines:
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            given = {
                name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(value)
            }
            if value.split(";")[0].strip().lower() == "form-data" and given.get("name"):
                return given["name"], "filename" in given or "filename*" in given
    raise _malformed("a part has no name")


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"the body is no valid {MEDIA_TYPE}: {why}")
