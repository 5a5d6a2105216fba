"""An entry is on the disk when `append` returns, whatever happens to the process or the disk."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serving.accounts.ledger import journal as journal_module
from serving.accounts.ledger import segment
from serving.accounts.ledger.journal import Journal, JournalFull, lock
from tests.conftest import Eventually
from tests.unit.accounts.ledger.conftest import Make


class Disk:
    """Counts the writes, and refuses them while `full` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.writes = 0
        self._write = segment.write
        monkeypatch.setattr(segment, "write", self.write)
        monkeypatch.setattr(journal_module, "AGAIN_S", 0.02)

    def write(self, descriptor: int, records: list[bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes += 1
        time.sleep(0.01)
        self._write(descriptor, records)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def numbers(journal: Journal) -> list[int]:
    return [number for number, _ in segment.entries(journal.folder)]


async def test_entries_that_come_together_share_a_write(
    tmp_path: Path, make: Make, disk: Disk
) -> None:
    journal = Journal(tmp_path)
    await asyncio.gather(*(journal.append(make(n)) for n in range(1, 201)))
    assert list(segment.entries(journal.folder)) == [(n, make(n)) for n in range(1, 201)]
    assert disk.writes < 10
    assert journal.unwritten == 0
    await journal.close()


async def test_an_entry_is_there_when_append_returns(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path)
    for n in range(1, 20):
        await journal.append(make(n))
        assert numbers(journal) == list(range(1, n + 1))
    await journal.close()


class Syncs:
    """What the journal waits for to be on the disk, instead of waiting for it: how long its file
    was at each `fdatasync`, and the files among them whose name was not there yet by an `fsync` of
    their folder. While `broken` is set, `fdatasync` fails; without `may` the disk takes its time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        self.named: set[Path] = set()
        self.unnamed: list[Path] = []
        self.broken = self.waiting = False
        self.may = threading.Event()
        self.may.set()
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(journal_module, "AGAIN_S", 0.02)

    def fdatasync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.waiting = True
        assert self.may.wait(30)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.unnamed += {path, path.parent} - self.named
        self.lengths.append(os.fstat(descriptor).st_size)

    def fsync(self, descriptor: int) -> None:
        self.named.update(Path(os.readlink(f"/proc/self/fd/{descriptor}")).iterdir())


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


def length(journal: Journal) -> int:
    return sum(path.stat().st_size for path in segment.segments(journal.folder))


async def test_append_returns_when_the_disk_has_the_entry(
    tmp_path: Path, make: Make, syncs: Syncs, eventually: Eventually
) -> None:
    journal = Journal(tmp_path)
    syncs.may.clear()
    appending = asyncio.create_task(journal.append(make(1)))
    await eventually(lambda: syncs.waiting)
    assert numbers(journal) == [1], "it has been written, and may be lost all the same"
    assert not appending.done()
    assert journal.unwritten == 1
    syncs.may.set()
    await appending
    assert syncs.lengths == [length(journal)]
    for n in range(2, 6):
        await journal.append(make(n))
        assert syncs.lengths[-1] == length(journal)
        assert len(syncs.lengths) == n
    await journal.close()


async def test_entries_that_come_together_wait_for_the_disk_together(
    tmp_path: Path, make: Make, syncs: Syncs, eventually: Eventually
) -> None:
    """Those that come while it is busy with the first ones go out in one."""
    journal = Journal(tmp_path)
    syncs.may.clear()
    appending = asyncio.gather(*(journal.append(make(n)) for n in range(1, 201)))
    await eventually(lambda: syncs.waiting and journal.unwritten == 200)
    syncs.may.set()
    await appending
    assert syncs.lengths[-1] == length(journal)
    assert len(syncs.lengths) <= 2
    await journal.close()


async def test_what_the_disk_has_not_confirmed_counts_as_unwritten(
    tmp_path: Path, make: Make, syncs: Syncs, eventually: Eventually
) -> None:
    """Linux may drop what `fdatasync` has failed on, and say yes the next time: it is written
    anew, and nothing of the failed write stays."""
    changes: list[OSError | None] = []
    journal = Journal(tmp_path, on_change=changes.append)
    await journal.append(make(1))
    confirmed = length(journal)
    syncs.broken = True
    await asyncio.wait_for(journal.append(make(2)), 5)
    assert journal.refused
    assert journal.unwritten == 1
    await eventually(lambda: length(journal) == confirmed)
    syncs.broken = False
    await eventually(lambda: not journal.refused)
    assert journal.unwritten == 0
    assert syncs.lengths[-1] == length(journal)
    assert numbers(journal) == [1, 2]
    assert [getattr(change, "errno", None) for change in changes] == [errno.EIO, None]
    await journal.close()


async def test_the_names_of_a_journal_are_on_the_disk_before_its_entries(
    tmp_path: Path, make: Make, syncs: Syncs
) -> None:
    """What is in a file whose name is not there after a crash, nobody finds."""
    journal = Journal(tmp_path, segment_bytes=1)
    for n in range(1, 4):
        await journal.append(make(n))
    await journal.close()
    assert len(syncs.lengths) == 3
    assert len(segment.segments(journal.folder)) == 4
    assert syncs.unnamed == []


async def test_a_request_that_is_cancelled_while_it_waits_is_written(
    tmp_path: Path, make: Make, disk: Disk
) -> None:
    journal = Journal(tmp_path)
    task = asyncio.create_task(journal.append(make(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.close()
    assert numbers(journal) == [1]


async def test_a_long_segment_is_followed_by_another(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path, segment_bytes=1000)
    for n in range(1, 51):
        await journal.append(make(n))
    await journal.close()
    assert len(segment.segments(journal.folder)) > 5
    assert numbers(journal) == list(range(1, 51))


async def test_a_full_disk_holds_up_nobody_and_loses_nothing_that_it_takes_later(
    tmp_path: Path, make: Make, disk: Disk, eventually: Eventually
) -> None:
    changes: list[OSError | None] = []
    journal = Journal(tmp_path, on_change=changes.append)
    await journal.append(make(1))
    disk.full = True
    for n in range(2, 12):
        await asyncio.wait_for(journal.append(make(n)), 5)
    assert journal.refused
    assert journal.unwritten == 10
    assert numbers(journal) == [1]
    disk.full = False
    await eventually(lambda: not journal.refused)
    await journal.append(make(12))
    assert numbers(journal) == list(range(1, 13))
    assert [type(change) for change in changes] == [OSError, type(None)]
    await journal.close()


async def test_what_is_kept_while_the_disk_refuses_is_bounded(
    tmp_path: Path, make: Make, disk: Disk
) -> None:
    journal = Journal(tmp_path, keep=3)
    disk.full = True
    for n in range(3):
        await journal.append(make(n))
    with pytest.raises(JournalFull, match="3 entries"):
        await journal.append(make(4))
    await asyncio.wait_for(journal.close(), 5)


async def test_closing_writes_what_is_left(tmp_path: Path, make: Make, disk: Disk) -> None:
    journal = Journal(tmp_path)
    disk.full = True
    for n in range(1, 4):
        await journal.append(make(n))
    disk.full = False
    await journal.close()
    assert numbers(journal) == [1, 2, 3]


async def test_a_journal_is_held_until_its_process_ends(tmp_path: Path, make: Make) -> None:
    journal = Journal(tmp_path)
    assert lock(journal.folder) is None
    await journal.close()
    held = lock(journal.folder)
    assert held is not None
    os.close(held)


async def test_the_journal_of_a_process_that_was_killed_has_all_that_it_was_told(
    tmp_path: Path,
) -> None:
    writer = f"""
import asyncio, sys
from pathlib import Path
import msgspec
from serving.accounts.ledger.journal import Journal
from tests.unit.accounts.ledger.conftest import ENTRY
async def main():
    journal = Journal(Path({str(tmp_path)!r}))
    async def client(base):
        for n in range(1000000):
            entry = msgspec.structs.replace(ENTRY, request_id=f"{{base}}-{{n}}")
            await journal.append(entry)
            print(entry.request_id, flush=True)
    await asyncio.gather(*(client(base) for base in range(8)))
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(200)]
    process.kill()
    told += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    (folder,) = tmp_path.iterdir()
    found = [entry.request_id for _, entry in segment.entries(folder)]
    assert len(set(found)) == len(found)
    # The last line may have been cut short by the kill.
    assert {line.strip() for line in told if line.endswith("\n")} <= set(found)
    assert lock(folder) is not None
