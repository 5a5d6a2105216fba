"""Bodies of multipart/form-data (RFC 7578): where their parts begin and end, as the body comes.

Nothing is kept of a body but the contents that are asked for and a line's worth at a piece's end.
What two readers could read in two ways is refused: text before the first boundary, spaces after a
boundary, parts without a name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Set
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
    """One part of a body: its content is `body[start:end]`. `is_file`: it has a file's name.
    `content` is there if the reader was told to keep it."""

    name: str
    is_file: bool
    start: int
    end: int
    content: bytes | None = None


class _At(enum.Enum):
    """What comes next in a body."""

    START = enum.auto()
    BOUNDARY_END = enum.auto()
    HEADERS = enum.auto()
    CONTENT = enum.auto()
    END = enum.auto()


class FormReader:
    """Reads one body, piece by piece. Takes a millisecond for some megabytes.

    Args:
        keep: the names of the parts whose content is wanted.
        most: of such a part's content, in bytes; what is longer is not kept.

    Raises:
        InvalidRequest: the content type is that of no such body.
    """

    def __init__(self, content_type: str, keep: Set[str] = frozenset(), most: int = 0) -> None:
        if not is_form(content_type):
            raise InvalidRequest(f"the body must be {MEDIA_TYPE}")
        self._delimiter = b"\r\n--" + _boundary(content_type)
        self._keep = keep
        self._most = most
        self._at: _At = _At.START
        # What was not decided on yet: the end of what has come, and where in the body that begins.
        self._kept = b""
        self._offset = 0
        self._parts = 0
        # The part that is being read.
        self._name, self._is_file, self._start = "", False, 0
        self._content: bytearray | None = None

    def feed(self, data: bytes) -> list[Part]:
        """The parts that end in `data`, which is the next piece of the body.

        Raises:
            InvalidRequest: it is no such body, or has more than `MOST_PARTS` parts.
        """
        found: list[Part] = []
        if self._ended:  # what follows the last boundary means nothing
            return found
        buffer = self._kept + data if self._kept else data
        at = 0
        while (step := self._step(buffer, at, found)) >= 0:
            at = step
        if self._at is _At.CONTENT:
            # All but what may be the beginning of a delimiter.
            done = max(at, len(buffer) - len(self._delimiter) + 1)
            self._keep_content(buffer, at, done)
            at = done
        self._kept = b"" if self._ended else buffer[at:] if at else buffer
        self._offset += at
        return found

    @property
    def _ended(self) -> bool:
        return self._at is _At.END

    def close(self) -> None:
        """The body is complete.

        Raises:
            InvalidRequest: it ends too early.
        """
        if self._at is _At.START:
            raise _malformed("it does not begin with its boundary")
        if self._at is _At.BOUNDARY_END:
            raise _malformed("it ends in a boundary")
        if self._at is not _At.END:
            raise _malformed("a part has no end, or its headers have none")

    def _step(self, buffer: bytes, at: int, found: list[Part]) -> int:
        """Read what comes next at `at`; returns where it ends, -1 if not all of it is here, or
        nothing comes next."""
        if self._at is _At.START:
            dashes = self._delimiter[2:]
            head = buffer[at : at + len(dashes)]
            if not dashes.startswith(head):
                raise _malformed("it does not begin with its boundary")
            if len(head) < len(dashes):
                return -1
            self._at = _At.BOUNDARY_END
            return at + len(dashes)
        if self._at is _At.BOUNDARY_END:
            return self._boundary_end(buffer, at)
        if self._at is _At.HEADERS:
            return self._headers(buffer, at)
        if self._at is _At.END:
            return -1
        end = buffer.find(self._delimiter, at)
        if end < 0:
            return -1
        self._keep_content(buffer, at, end)
        content = None if self._content is None else bytes(self._content)
        found.append(Part(self._name, self._is_file, self._start, self._offset + end, content))
        self._at = _At.BOUNDARY_END
        return end + len(self._delimiter)

    def _boundary_end(self, buffer: bytes, at: int) -> int:
        mark = buffer[at : at + 2]
        if len(mark) < 2:
            return -1
        if mark == b"--":
            self._at = _At.END
            return at + 2
        if mark != b"\r\n":
            raise _malformed("a boundary is followed by something else than a line's end")
        if self._parts == MOST_PARTS:
            raise InvalidRequest(f"the body has more than {MOST_PARTS} parts")
        self._parts += 1
        self._at = _At.HEADERS
        return at  # a part without headers begins with an empty line

    def _headers(self, buffer: bytes, at: int) -> int:
        end = buffer.find(b"\r\n\r\n", at, at + _HEADER_BYTES)
        if end < 0:
            if len(buffer) - at >= _HEADER_BYTES:
                raise _malformed("a part has no end, or its headers have none")
            return -1
        self._name, self._is_file = _disposition(buffer[at:end])
        self._start = self._offset + end + 4
        self._content = bytearray() if self._name in self._keep else None
        self._at = _At.CONTENT
        return end + 4

    def _keep_content(self, buffer: bytes, start: int, end: int) -> None:
        if self._content is None:
            return
        if len(self._content) + end - start > self._most:
            self._content = None
        else:
            self._content += buffer[start:end]


def is_form(content_type: str) -> bool:
    """True for a content type of such bodies."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The parts of a whole body; raises as `FormReader`."""
    reader = FormReader(content_type)
    found = reader.feed(body)
    reader.close()
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
