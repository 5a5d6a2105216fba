"""Which pages a listener shows to a caller without a key.

Every router has two listeners. Callers come through the port that all routers of a machine share.
Its own port is for Prometheus: it has an address inside the cluster, which the network must not
let anybody else reach. One application answers on both, and the port of the connection tells them
apart.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.types import Scope

from serving.http.request import bearer
from serving.settings import Settings


class Doors:
    """Knows the listeners of one router. `own_port` is 0 until they listen."""

    def __init__(self, settings: Settings) -> None:
        self._shared_is_open = settings.pages_are_open
        self._token = settings.metrics_token.get_secret_value().encode()
        self.own_port = 0

    def shows_pages(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """True if a request may see pages that name models, though it has no key."""
        _, port = scope.get("server") or ("", 0)
        if not self.own_port or port != self.own_port:
            return self._shared_is_open
        return not self._token or hmac.compare_digest(bearer(headers), self._token)
