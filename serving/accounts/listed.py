"""Keys that need no store: of the setting, and of a file that is mounted as a secret.

A line of the file is `KEY` or `KEY:ACCOUNT`, and more about the key after spaces:

    sk-team-one:acme  models=tiny-llama,tiny-llama.*  networks=10.0.0.0/8
    sk-dashboard      role=read  expires=2027-01-31T00:00:00Z  requests_per_minute=60
    account acme      tokens_per_day=1000000  cost_per_month=25.00
    # a comment

A line `account NAME` has limits on what an account uses, which a key may have as well.

Kubernetes changes a mounted secret by pointing a link at another folder; who looks at the path
again sees another file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from pydantic import ValidationError

from serving.accounts.caller import Caller, Role
from serving.accounts.key_limits import NAMES, KeyLimits
from serving.accounts.ring import Entry
from serving.accounts.secret import digest_of, id_of
from serving.catalogue.quota import Quota
from serving.observability.logs import Log
from serving.settings import LOCAL_KEY

_QUOTA = tuple(Quota.model_fields)
_FIELDS = (*NAMES, "role", "expires", *_QUOTA)
ACCOUNT = "account"


class KeysFileError(Exception):
    """The file cannot be read, or a line of it. The message has no key."""


def entry_of(
    key: str,
    account: str | None,
    role: Role = Role.USE,
    limits: KeyLimits | None = None,
    expires: float = inf,
    quota: Quota | None = None,
) -> Entry:
    """The entry of a key that is known as a text. One that was not made here is called by the
    beginning of its digest."""
    digest = digest_of(key.encode())
    caller = Caller(id_of(key) or digest.hex()[:8], account, role, limits or KeyLimits(), quota)
    return Entry(digest, caller, expires)


def entries_of(keys: Mapping[str, str | None]) -> list[Entry]:
    """The entries of the setting's keys, each with its account."""
    return [entry_of(key, account) for key, account in keys.items()]


def read_keys(text: str) -> tuple[list[Entry], dict[str, Quota]]:
    """The entries of a file, and the limits of accounts.

    Raises:
        KeysFileError: a line is not valid, or a key or account is there twice.
    """
    found: dict[bytes, Entry] = {}
    quotas: dict[str, Quota] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] == ACCOUNT and len(words) > 1 and "=" not in words[1]:
                quota = _quota(_read(words[2:], _QUOTA, 3))
                if quota is None or quotas.setdefault(words[1], quota) is not quota:
                    raise ValueError("an account has one line, with limits")
                continue
            entry = _entry(words)
        except ValueError as error:
            raise KeysFileError(f"line {number}: {error}") from None
        if entry.digest in found:
            raise KeysFileError(f"line {number}: the key stands in a line before")
        found[entry.digest] = entry
    return list(found.values()), quotas


def _entry(words: list[str]) -> Entry:
    key, _, account = words[0].partition(":")
    if not key:
        raise ValueError("there is no key before the ':'")
    fields = _read(words[1:], _FIELDS, 2)
    role = fields.get("role", Role.USE)
    if role not in list(Role):
        raise ValueError(f"role must be one of {', '.join(Role)}")
    limits = KeyLimits(**{n: tuple(fields[n].split(",")) for n in NAMES if n in fields})
    expires = _moment(fields["expires"]) if "expires" in fields else inf
    return entry_of(key, account or None, Role(role), limits, expires, _quota(fields))


def _read(words: list[str], known: tuple[str, ...], first: int) -> dict[str, str]:
    """Fields and their values; the first word is number `first` of its line."""
    fields: dict[str, str] = {}
    for position, word in enumerate(words, first):
        name, equals, value = word.partition("=")
        # A word that is no field may be a key: it is not repeated.
        if not equals or name not in known or name in fields:
            raise ValueError(f"word {position} must be one of {', '.join(known)}, with =, once")
        fields[name] = value
    return fields


def _quota(fields: Mapping[str, str]) -> Quota | None:
    given = {name: fields[name] for name in _QUOTA if name in fields}
    try:
        return Quota.model_validate(given) if given else None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None


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
            self.entries, self.quotas = self._read()
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
            self.entries, self.quotas = self._read()
        except (OSError, UnicodeDecodeError, KeysFileError) as error:
            reason = _reason(error)
            if reason != self._complained:
                self._complained = reason
                self._log.error("keys_file_unusable", path=str(self._path), reason=reason)
            return False
        self._seen, self._complained = state, ""
        self._log.info("keys_file_taken", path=str(self._path), keys=len(self.entries))
        return True

    def _read(self) -> tuple[list[Entry], dict[str, Quota]]:
        found, quotas = read_keys(self._path.read_text("utf-8"))
        known = digest_of(LOCAL_KEY.encode())
        if not self._here_only and any(entry.digest == known for entry in found):
            raise KeysFileError(
                f"everybody knows the key '{LOCAL_KEY}', and other machines may call"
            )
        return found, quotas

    def _state(self) -> tuple[int, ...]:
        found = os.stat(self._path)
        return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
