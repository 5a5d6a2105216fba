"""The two forms of the API's description, made when they are first asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from serving.api.endpoints import Endpoint
from serving.api.openapi.document import document
from serving.api.openapi.page import page


class Description:
    """The description of a table of endpoints."""

    def __init__(self, table: Sequence[Endpoint]) -> None:
        self._table = table

    @cached_property
    def json(self) -> bytes:
        """The OpenAPI document."""
        return json.dumps(self._document()).encode()

    @cached_property
    def html(self) -> bytes:
        """The page for people."""
        return page(self._document()).encode()

    def _document(self) -> dict[str, Any]:
        return document(self._table)
