"""The salts of vLLM's caches: what keeps callers of different spaces apart.

A router names the space of each call, after a secret that callers do not know. A caller may send a
salt of its own (`cache_salt` in an OpenAI body) and so divide its space further; it cannot leave
it, because what vLLM gets is an HMAC-SHA256 (RFC 2104) of the caller's salt under the space's name.
The names of media, which vLLM makes of their content, are salted with the space alone.
"""

from __future__ import annotations

import hmac
from contextvars import ContextVar
from functools import lru_cache


class Salts:
    """Salts the requests and the media of each call."""

    def __init__(self) -> None:
        self._space: ContextVar[str] = ContextVar("cache_space", default="")

    def enter(self, space: str) -> None:
        """Put the requests that the current task adds, or a task it starts, and their media into a
        space. In the empty one all callers share the caches, and salts are theirs."""
        self._space.set(space)

    def salt(self, own: str | None) -> str | None:
        """The salt for vLLM of a request whose caller sent `own`."""
        space = self._space.get()
        if not space:
            return own
        # A caller's own salt is never empty: the empty one stands for none.
        return _salt(space, own or "")

    def name(self, made: str) -> str:
        """The name for vLLM of a medium that it has named `made`."""
        space = self._space.get()
        return _digest(space, made) if space else made


@lru_cache(4096)
def _salt(space: str, own: str) -> str:
    return _digest(space, own)


def _digest(space: str, own: str) -> str:
    own_bytes = own.encode("utf-8", "surrogatepass")
    return hmac.digest(space.encode(), own_bytes, "sha256").hex()
