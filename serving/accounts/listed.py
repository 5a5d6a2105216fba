"""Keys that need no store: of the setting, and of a file that is mounted as a secret.

A line of the file is `KEY` or `KEY:ACCOUNT`, and more about the key after spaces:

    sk-team-one:acme  models=tiny-llama,tiny-llama.*  networks=10.0.0.0/8
    sk-dashboard      role=read  expires=2027-01-31T00:00:00Z
    # a comment

Kubernetes changes a mounted secret by pointing a link at another folder; who looks at the path
again sees another file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from serving.accounts.caller import Caller, Role
from serving.accounts.key_limits import NAMES, KeyLimits
from serving.accounts.ring import Entry
from serving.accounts.secret import digest_of, id_of
from serving.observability.logs import Log
from serving.settings import LOCAL_KEY

_FIELDS = (*NAMES, "role", "expires")


class KeysFileError(Exception):
    """The file cannot be read, or a line of it. The message has no key."""


def entry_of(
    key: str,
    account: str | None,
    role: Role = Role.USE,
    limits: KeyLimits | None = None,
    expires: float = inf,
) -> Entry:
    """The entry of a key that is known as a text. One that was not made here is called by the
    beginning of its digest."""
    digest = digest_of(key.encode())
    caller = Caller(id_of(key) or digest.hex()[:8], account, role, limits or KeyLimits())
    return Entry(digest, caller, expires)


def entries_of(keys: Mapping[str, str | None]) -> list[Entry]:
    """The entries of the setting's keys, each with its account."""
    return [entry_of(key, account) for key, account in keys.items()]


def read_keys(text: str) -> list[Entry]:
    """The entries of a file.

    Raises:
        KeysFileError: a line is not valid, or a key is there twice.
    """
    found: dict[bytes, Entry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            entry = _entry(words)
        except ValueError as error:
            raise KeysFileError(f"line {number}: {error}") from None
        if entry.digest in found:
            raise KeysFileError(f"line {number}: the key stands in a line before")
        found[entry.digest] = entry
    return list(found.values())


def _entry(words: list[str]) -> Entry:
    key, _, account = words[0].partition(":")
    if not key:
        raise ValueError("there is no key before the ':'")
    fields: dict[str, str] = {}
    for position, word in enumerate(words[1:], 2):
        name, equals, value = word.partition("=")
        # A word that is no field may be a key: it is not repeated.
        if not equals or name not in _FIELDS or name in fields:
            raise ValueError(f"word {position} must be one of {', '.join(_FIELDS)}, with =, once")
        fields[name] = value
    role = fields.get("role", Role.USE)
    if role not in list(Role):
        raise ValueError(f"role must be one of {', '.join(Role)}")
    limits = KeyLimits(**{n: tuple(fields[n].split(",")) for n in NAMES if n in fields})
    expires = _moment(fields["expires"]) if "expires" in fields else inf
    return entry_of(key, account or None, Role(role), limits, expires)


def _moment(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class KeysFile:
    """A file of keys that may change.

    Args:
        here_only: true if only this machine can call; then the key that everybody knows will do.

    Raises:
        KeysFileError: it cannot be read, or is not valid.
    """

    def __init__(self, path: Path, log: Log, *, here_only: bool) -> None:
        self._path = path
        self._log = log
        self._here_only = here_only
        self._seen: tuple[int, ...] = ()
        self._complained = ""
        try:
            self._seen = self._state()
            self.entries = self._read()
        except (OSError, UnicodeDecodeError, KeysFileError) as error:
            raise KeysFileError(f"{path}: {_reason(error)}") from None

    def changed(self) -> bool:
        """Look at the file again; true if there are other entries now. While it cannot be read or
        is not valid, the old ones stay, and the log says so once."""
        try:
            state = self._state()
            if state == self._seen:
                self._complained = ""
                return False
            self.entries = self._read()
        except (OSError, UnicodeDecodeError, KeysFileError) as error:
            reason = _reason(error)
            if reason != self._complained:
                self._complained = reason
                self._log.error("keys_file_unusable", path=str(self._path), reason=reason)
            return False
        self._seen, self._complained = state, ""
        self._log.info("keys_file_taken", path=str(self._path), keys=len(self.entries))
        return True

    def _read(self) -> list[Entry]:
        found = read_keys(self._path.read_text("utf-8"))
        known = digest_of(LOCAL_KEY.encode())
        if not self._here_only and any(entry.digest == known for entry in found):
            raise KeysFileError(
                f"everybody knows the key '{LOCAL_KEY}', and other machines may call"
            )
        return found

    def _state(self) -> tuple[int, ...]:
        found = os.stat(self._path)
        return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
