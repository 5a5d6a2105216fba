"""Calls from web pages of other origins (CORS, fetch.spec.whatwg.org/#http-cors-protocol).

Off unless the operator lists origins. A page's key comes in a header, so cookies are never allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.accounts.quota.words import HEADERS
from serving.http.request import Headers

# How long a browser may remember a preflight's answer, in seconds; Chromium's limit.
MAX_AGE_S = 7200
# What a page's script may read of a response's headers, besides the usual ones.
EXPOSED = b", ".join(
    (
        *(b"x-request-id", b"request-id", b"x-served-model", b"x-account-warning"),
        *(b"retry-after", b"x-should-retry", *HEADERS),
    )
)


class CrossOrigin:
    """Knows which origins may call.

    Args:
        origins: as `https://host[:port]`, in lower case; `*` stands for all.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, asked: Mapping[bytes, bytes]) -> Headers:
        """What every response to a request with these headers says, whatever else it says."""
        if not self._origins:
            return []
        if self._any:
            return [(b"access-control-allow-origin", b"*"), (_EXPOSE, EXPOSED)]
        # A cache must not give one origin what was said to another.
        vary = (b"vary", b"origin")
        origin = asked.get(b"origin", b"")
        if origin.lower() not in self._origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), vary, (_EXPOSE, EXPOSED)]

    def preflight(self, method: str, asked: Mapping[bytes, bytes], methods: str) -> Headers | None:
        """The answer to a browser that asks whether it may send a request; None if a request with
        this method and these headers is no such question, or the origin is not listed.

        Args:
            methods: those that the path takes.
        """
        if method != "OPTIONS" or b"access-control-request-method" not in asked:
            return None
        if not (self._any or asked.get(b"origin", b"").lower() in self._origins):
            return None
        found = [
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-max-age", str(MAX_AGE_S).encode()),
        ]
        if wanted := asked.get(b"access-control-request-headers"):
            found.append((b"access-control-allow-headers", wanted))
        return found


_EXPOSE = b"access-control-expose-headers"
