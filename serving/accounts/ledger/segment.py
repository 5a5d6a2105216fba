"""One file of a journal: numbered entries, each with a checksum.

A record is its payload's length and CRC-32 (four bytes each, big-endian), its number (eight bytes)
and the payload, an `Entry` in MessagePack. The checksum covers number and payload. Records follow
each other; what a process that died has left half-written ends the file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from serving.store.entry import Entry, Numbered

SUFFIX = ".journal"
# Records are small; whatever says that it is larger is no record.
MAX_PAYLOAD = 1024 * 1024
_HEAD = struct.Struct(">IIQ")
_NUMBER = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class Damaged(Exception):
    """A record in the middle of a segment is not what was written."""


def record(number: int, entry: Entry) -> bytes:
    """An entry as it stands in a segment."""
    payload = _encode(entry)
    checksum = zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))
    return _HEAD.pack(len(payload), checksum, number) + payload


def read(path: Path, offset: int = 0, limit: int = 1000) -> tuple[list[Numbered], int]:
    """Up to `limit` entries from `offset` on, and the offset behind them.

    A record that is cut short ends the file, as nobody was told that it is safe. What comes before
    a damaged record is returned first.

    Raises:
        Damaged: the record at `offset` is whole and wrong.
        OSError: the file cannot be read.
    """
    found: list[Numbered] = []
    with path.open("rb") as file:
        file.seek(offset)
        size = os.fstat(file.fileno()).st_size
        while len(found) < limit:
            try:
                taken = _take(file, size - offset)
            except Damaged as error:
                if found:
                    break
                raise Damaged(f"{path.name}, byte {offset}: {error}") from None
            if taken is None:
                break
            number, entry, length = taken
            found.append((number, entry))
            offset += length
    return found, offset


def _take(file: BinaryIO, rest: int) -> tuple[int, Entry, int] | None:
    """Number, entry and length of the next record; None where the file ends. `rest` is what the
    file has from here on, in bytes."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum, number = _HEAD.unpack(head)
    if not any(head) and not any(file.read()):
        return None  # a crash of the machine may leave zeros behind what was written
    if not 0 < length <= MAX_PAYLOAD:
        raise Damaged("no record begins here")
    payload = file.read(length)
    if len(payload) < length:
        return None
    if zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number))) != checksum:
        if _HEAD.size + length == rest:
            return None  # the last one: its bytes had not all reached the disk
        raise Damaged("the record has another checksum")
    try:
        return number, _decode(payload), _HEAD.size + length
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"the record is no entry: {error}") from None


def segments(folder: Path) -> list[Path]:
    """The segments of a journal, the oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def entries(folder: Path) -> Iterator[Numbered]:
    """All entries of a journal. Raises as `read`."""
    for path in segments(folder):
        offset, more = 0, True
        while more:
            found, offset = read(path, offset)
            yield from found
            more = bool(found)


def write(descriptor: int, records: Iterable[bytes]) -> None:
    """Append records and wait until they are on the disk. Leaves no half of them behind.

    Raises:
        OSError: they are not there; the file is as long as before.
    """
    end = os.lseek(descriptor, 0, os.SEEK_END)
    data = memoryview(b"".join(records))
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fdatasync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
