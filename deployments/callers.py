"""Who may call what `serving up` starts: its store of accounts and keys, and its first key.

On loopback, without a key of one's own, that is the key which everybody knows. Elsewhere a key is
made at the first start, and shown then and never again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from serving.accounts.bootstrap import first_key
from serving.settings import LOCAL_KEY, Settings, is_loopback
from serving.store.engine import Store, StoreAway
from serving.store.local import local_store_url
from serving.store.migrate import SchemaError
from serving.store.url import shown, store_url

STORE, KEYS, KEYS_FILE = "SERVING_STORE_URL", "SERVING_API_KEYS", "SERVING_API_KEYS_FILE"
NAME = "first start"


class Callers:
    """Sets what the environment does not say of store and keys.

    Args:
        host, port: where the service is to listen.
    """

    def __init__(self, host: str, port: int) -> None:
        self._made_up = STORE not in os.environ
        os.environ.setdefault(STORE, local_store_url(port))
        listed = os.environ.get(KEYS) or os.environ.get(KEYS_FILE)
        self._wants_key = not listed and not is_loopback(host)
        if not listed and not self._wants_key:
            os.environ.setdefault(KEYS, LOCAL_KEY)
        self._shown = "(one of $SERVING_API_KEYS_FILE)"
        if key := os.environ.get(KEYS, "").split(",")[0].split(":")[0].strip():
            self._shown = key if key == LOCAL_KEY else "(the first of $SERVING_API_KEYS)"

    @property
    def shown(self) -> str:
        """The key as the banner has it, or which it is."""
        return self._shown

    @property
    def store_shown(self) -> str:
        """Where the store is, without a password; empty if there is none."""
        url = os.environ[STORE]
        return shown(store_url(url)) if url else ""

    def problem(self) -> str:
        """Why nobody could call, or the store cannot be used; empty if all is well."""
        url = os.environ[STORE]
        if self._wants_key and not url:
            return (
                "there is no key for callers, and no store to make one in; set SERVING_API_KEYS, "
                "or leave SERVING_STORE_URL as it is"
            )
        try:
            if url:
                store_url(url)
        except ValueError as error:
            return str(error)
        return ""

    def prepare(self, say: Callable[[str], None]) -> bool:
        """Bring the store up to date and make the first key, if one is needed; `say` tells the
        user. False if nobody could call."""
        url = os.environ[STORE]
        if not url:
            return True
        try:
            made = asyncio.run(self._open(url))
        except (StoreAway, SchemaError) as error:
            say(f"the store of accounts and keys cannot be used: {error}")
            if self._wants_key:
                return False
            if self._made_up:
                say("going on without it; SERVING_STATE_DIR names another folder for it")
                os.environ[STORE] = ""
            return True
        if made is not None:
            say(f"made the first API key, an administrator's. It is shown this once:\n\n{made}\n")
            self._shown = "(made now, and shown above)"
        elif self._wants_key:
            self._shown = "(made before; `serving keys bootstrap` makes another)"
        return True

    async def _open(self, url: str) -> str | None:
        store = Store(url, migrates=Settings().store_migrates)
        try:
            await store.prepare()
            return await first_key(store, NAME) if self._wants_key else None
        finally:
            await store.close()
