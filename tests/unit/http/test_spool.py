"""Bodies that go to disk: what is kept where, and what is left of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.errors import Overloaded
from serving.http import spool as module
from serving.http.spool import MEMORY_BYTES, Spools
from serving.wire.body import PIECE_BYTES, pieces_of, whole
from tests.conftest import Eventually

ROOM = 4 * MEMORY_BYTES


def files() -> list[str]:
    """The unnamed files that this process has open."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # that of this look
    return [link for link in links if "(deleted)" in link]


async def test_a_small_body_stays_in_memory(tmp_path: Path) -> None:
    spools, before = Spools(str(tmp_path), ROOM), files()
    with spools.open() as spool:
        await spool.write(b"x" * (MEMORY_BYTES - 1))
        await spool.write(b"y")
        assert spool.body == b"x" * (MEMORY_BYTES - 1) + b"y"
        assert (files(), spools.used) == (before, 0)


async def test_a_large_one_is_on_disk_and_leaves_nothing(
    tmp_path: Path, eventually: Eventually
) -> None:
    spools, before = Spools(str(tmp_path), ROOM), files()
    sent = os.urandom(3 * PIECE_BYTES + 5)
    with spools.open() as spool:
        for at in range(0, len(sent), 1000):
            await spool.write(sent[at : at + 1000])
        body = spool.body
        assert not isinstance(body, bytes)
        assert not spool._memory
        for _ in range(2):
            assert b"".join(pieces_of(body)) == whole(body) == sent
        assert max(map(len, pieces_of(body))) == PIECE_BYTES
        assert (len(body), spools.used) == (len(sent), len(sent))
        assert len(files()) == len(before) + 1
        assert not list(tmp_path.iterdir()), "it has no name"
    assert spools.used == 0
    await eventually(lambda: files() == before)
    with pytest.raises(ValueError, match="closed"):
        body.read(0, 1)


async def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    spools = Spools(str(tmp_path), ROOM)
    with spools.open() as first, spools.open() as second:
        await first.write(bytes(ROOM))
        await second.write(bytes(MEMORY_BYTES))
        with pytest.raises(Overloaded, match=str(ROOM)) as caught:
            await second.write(b"x")
        assert caught.value.retry_after_s
    assert spools.used == 0
    with spools.open() as third:
        await third.write(bytes(ROOM))


async def test_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    spools = Spools(str(tmp_path / "missing"), ROOM)
    with spools.open() as spool, pytest.raises(Overloaded, match="No such file"):
        await spool.write(bytes(MEMORY_BYTES + 1))
    assert spools.used == 0


def test_where_it_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", str(tmp_path))
    assert Spools(None, ROOM)._folder == str(tmp_path)
    monkeypatch.setattr(module, "FOLDER", "/proc/missing")
    assert Path(Spools(None, ROOM)._folder).is_dir()
