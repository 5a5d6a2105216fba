"""A provider's API key: from a variable, or from a file that may change while we run."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from serving.catalogue.providers import Provider
from serving.errors import ModelUnavailable


class ProviderKey:
    """Reads the key whenever it is needed. A file is read again when it has changed, which is how
    Kubernetes and others rotate mounted secrets: a new key needs no restart."""

    def __init__(self, name: str, provider: Provider) -> None:
        self._name = name
        self._variable = provider.api_key_env
        self._file = Path(provider.api_key_file) if provider.api_key_file else None
        self._seen: tuple[int, int, int] | None = None
        self._key = ""

    def read(self) -> SecretStr:
        """The current key.

        Raises:
            ModelUnavailable: there is none; the message names the file or the variable.
        """
        key = self._from_file() if self._file is not None else self._from_variable()
        # Text that no header can carry is no key, and the HTTP client's error would repeat it.
        if not key or not key.isascii() or not key.isprintable():
            raise ModelUnavailable(
                f"no key for provider '{self._name}': {self._where} is missing, empty or no key"
            )
        return SecretStr(key)

    @property
    def _where(self) -> str:
        if self._file is not None:
            return f"the file {self._file} (`api_key_file`)"
        if self._variable:
            return f"the variable {self._variable} (`api_key_env`)"
        return "`api_key_env` or `api_key_file` of the provider"

    def _from_variable(self) -> str:
        return os.environ.get(self._variable or "", "").strip()

    def _from_file(self) -> str:
        assert self._file is not None
        try:
            now = self._file.stat()
            # All three: a mounted secret is a link that is pointed to another file, which may have
            # been written at the same moment.
            seen = (now.st_mtime_ns, now.st_ino, now.st_size)
            if seen != self._seen:
                self._key = self._file.read_text().strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError):
            self._seen = None
            return ""
        return self._key
