"""What stands in a journal is read as it was written, or said to be damaged."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from serving.accounts.ledger import segment
from serving.accounts.ledger.segment import Damaged
from tests.unit.accounts.ledger.conftest import Make


@pytest.fixture
def file(tmp_path: Path, make: Make) -> Path:
    path = tmp_path / f"1{segment.SUFFIX}"
    path.write_bytes(b"".join(segment.record(n, make(n)) for n in range(1, 6)))
    return path


def test_entries_come_back_in_pieces(file: Path, make: Make) -> None:
    first, offset = segment.read(file, 0, limit=2)
    rest, end = segment.read(file, offset)
    assert [*first, *rest] == [(n, make(n)) for n in range(1, 6)]
    assert end == file.stat().st_size
    assert segment.read(file, end) == ([], end)
    assert list(segment.entries(file.parent)) == [*first, *rest]


def test_a_file_cut_anywhere_gives_what_is_whole(file: Path, make: Make) -> None:
    whole = file.read_bytes()
    ends = [len(segment.record(n, make(n))) * n for n in range(6)]
    assert ends[-1] == len(whole)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        found, offset = segment.read(file)
        assert len(found) == sum(end <= length for end in ends[1:])
        assert offset == ends[len(found)]


@pytest.mark.parametrize("zeros", [1, 15, 16, 17, 5000])
def test_zeros_behind_the_last_entry_end_the_file(file: Path, zeros: int) -> None:
    with file.open("ab") as opened:
        opened.write(bytes(zeros))
    assert len(segment.read(file)[0]) == 5


def test_any_changed_byte_but_in_the_last_entry_is_damage(file: Path, make: Make) -> None:
    whole = bytearray(file.read_bytes())
    size = len(segment.record(1, make(1)))
    for at in range(2 * size, 3 * size):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        file.write_bytes(changed)
        found, offset = segment.read(file)
        assert [number for number, _ in found] == [1, 2]
        with contextlib.suppress(Damaged):
            # Where nothing is raised, a length reaches past the end: that is a record cut short.
            assert segment.read(file, offset)[0] == []


def test_a_last_entry_that_did_not_reach_the_disk_whole_is_left_out(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 0xFF
    file.write_bytes(whole)
    assert len(segment.read(file)[0]) == 4


def test_a_write_that_fails_leaves_the_file_as_it_was(
    file: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()
    real, calls = os.write, 0

    def half(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="space"):
        segment.write(descriptor, [segment.record(6, make(6))])
    assert calls == 2
    assert file.read_bytes() == before
    monkeypatch.setattr(os, "write", real)
    segment.write(descriptor, [segment.record(6, make(6))])
    os.close(descriptor)
    assert segment.read(file)[0][-1] == (6, make(6))
