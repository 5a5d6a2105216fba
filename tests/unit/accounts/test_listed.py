"""Keys of the setting and of a mounted file."""

from __future__ import annotations

import logging
import os
from math import inf
from pathlib import Path

import pytest
from pydantic import SecretStr

from serving.accounts.caller import Role
from serving.accounts.listed import KeysFile, KeysFileError, entries_of, read_keys
from serving.accounts.secret import new_id, new_secret
from serving.catalogue.quota import Quota
from serving.observability.logs import Log
from serving.settings import Settings


def test_the_setting() -> None:
    settings = Settings(api_keys=SecretStr("sk-any, sk-acme:acme,,c2VjcmV0==:b"))
    found = [entry.caller.account for entry in entries_of(settings.keys)]
    assert found == [None, "acme", "b"]


def test_a_file() -> None:
    (first, second, third), quotas = read_keys(
        """
        # keys of the teams
        sk-one
        sk-two:acme   models=tiny-llama,tiny-*  endpoints=/v1/*  networks=10.0.0.0/8,::1
        sk-three role=read expires=2027-01-31T00:00:00Z requests_per_minute=60
        account acme tokens_per_day=1000 cost_per_month=25.5 without_store=block
        """
    )
    assert third.caller.quota == Quota(requests_per_minute=60)
    assert second.caller.quota is None
    assert {name: quota.stored for name, quota in quotas.items()} == {
        "acme": {"tokens_per_day": 1000, "cost_per_month": "25.5", "without_store": "block"}
    }
    assert (first.caller.account, first.caller.role, first.expires) == (None, Role.USE, inf)
    assert second.caller.account == "acme"
    assert second.caller.limits.models == ("tiny-llama", "tiny-*")
    assert second.caller.limits.endpoints == ("/v1/*",)
    assert second.caller.limits.networks == ("10.0.0.0/8", "::1")
    assert (third.caller.role, third.expires) == (Role.READ, 1801353600.0)
    assert not any(entry.stored for entry in (first, second, third))


def test_a_key_is_called_by_its_own_id_or_by_its_digest() -> None:
    key_id = new_id()
    (ours, other), _ = read_keys(f"{new_secret(key_id)}\nsk-other")
    assert ours.caller.key_id == key_id
    assert other.caller.key_id == other.digest.hex()[:8]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":acme", "before the ':'"),
        ("sk-secret sk-secret2", "word 2 must be one of"),
        ("sk-secret color=red", "word 2 must be one of"),
        ("sk-secret role=read role=use", "once"),
        ("sk-secret role=king", "role must be one of"),
        ("sk-secret networks=nowhere", "networks"),
        ("sk-secret models=", "models"),
        ("sk-secret expires=tomorrow", "tomorrow"),
        ("account acme", "one line, with limits"),
        ("account acme role=use", "word 3 must be one of"),
        ("account acme tokens_per_day=1\naccount acme tokens_per_day=2", "line 3: an account has"),
        ("sk-secret cost_per_day=-1", "cost_per_day"),
        ("sk-secret\nsk-secret", "line 3: the key stands in a line before"),
    ],
)
def test_what_is_not_valid_is_told_without_the_key(line: str, message: str) -> None:
    with pytest.raises(KeysFileError, match=message) as caught:
        read_keys(f"sk-first\n{line}")
    assert "line " in str(caught.value)
    assert "sk-" not in str(caught.value)


class Mounted:
    """A secret as the kubelet mounts it: a link to a link to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.path = folder / "keys"
        self.path.symlink_to(Path("..data") / "keys")

    def write(self, text: str) -> None:
        self.number += 1
        version = self.folder / f"..{self.number}"
        version.mkdir()
        (version / "keys").write_text(text)
        (self.folder / "..new").symlink_to(version.name)
        os.replace(self.folder / "..new", self.folder / "..data")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(record.getMessage())


def test_it_is_read_again_when_it_changes(tmp_path: Path) -> None:
    kept = Kept()
    logger = logging.getLogger("serving.test-keys-file")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(kept)
    mounted = Mounted(tmp_path)
    mounted.write("sk-a")
    file = KeysFile(mounted.path, Log(logger), here_only=True)

    def names() -> list[str | None]:
        return [entry.caller.account for entry in file.entries]

    assert not file.changed()
    mounted.write("sk-a:new\nsk-b:other")
    assert file.changed()
    assert names() == ["new", "other"]
    assert not file.changed()
    # What is not valid, or not there, changes nothing, and is told once.
    mounted.write("sk-a role=king")
    assert not file.changed()
    assert not file.changed()
    (tmp_path / "..data").unlink()
    assert not file.changed()
    assert not file.changed()
    assert names() == ["new", "other"]
    assert kept.events == ["keys_file_taken", "keys_file_unusable", "keys_file_unusable"]
    mounted.write("")
    assert file.changed()
    assert names() == []
    # A file that is written in place.
    (tmp_path / f"..{mounted.number}" / "keys").write_text("sk-c:c")
    assert file.changed()
    assert names() == ["c"]


@pytest.mark.parametrize("content", [None, b"\xff", b"sk-a role=king"])
def test_a_file_that_cannot_be_used_at_the_start(
    tmp_path: Path, content: bytes | None, log: Log
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeysFileError, match="keys: "):
        KeysFile(path, log, here_only=True)


def test_the_key_that_everybody_knows_is_for_this_machine(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "keys"
    path.write_text("sk-local role=read")
    assert KeysFile(path, log, here_only=True).entries
    with pytest.raises(KeysFileError, match="everybody knows"):
        KeysFile(path, log, here_only=False)
    path.write_text("sk-own")
    file = KeysFile(path, log, here_only=False)
    path.write_text("sk-local")
    assert not file.changed()
    assert file.entries[0].caller.key_id != entries_of({"sk-local": None})[0].caller.key_id
