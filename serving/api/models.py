"""Two of the lists of models: OpenAI's (`/v1/models`) and that of Create Completion's API
(`/v4/models`, field names as scale-gp's `ModelInstance`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from serving.api.completion import CompletionRequest
from serving.errors import InvalidField

PAGE_ITEMS = 100
MAX_PAGE_ITEMS = 10_000
OWNER = "serving"
_SORTABLE = ("id", "name", "created_at", "model_type")
_VENDORS = {"openai": "OPENAI", "anthropic": "ANTHROPIC", "gemini": "GOOGLE"}
RESPONSE_SCHEMA = {
    "type": "object",
    "required": ["completion", "token_usage"],
    "properties": {
        "completion": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "finish_reason": {"type": ["string", "null"]},
                "response_metadata": {"type": ["object", "null"]},
            },
        },
        "token_usage": {
            "type": ["object", "null"],
            "properties": {name: {"type": "integer"} for name in ("prompt", "completion", "total")},
        },
    },
}

# Written once: a page may have ten thousand models, each with both.
_REQUEST_SCHEMA = msgspec.Raw(msgspec.json.encode(CompletionRequest.model_json_schema()))
_RESPONSE_SCHEMA = msgspec.Raw(msgspec.json.encode(RESPONSE_SCHEMA))


@dataclass(frozen=True)
class ModelEntry:
    """One model ID as callers see it.

    `kind` is `engine`, `adapter`, `upstream`, `retired` or `alias`; `root` the model that answers,
    `parent` an adapter's base; `context` is in tokens, None where it is not known. `chat` is
    true for chat models, `embeds` for models that make embeddings and no text, `ranks` for those
    that score texts and do nothing else, `transcribes` for those that take recordings. `ready` is
    true if the model can answer; one that sleeps can. `runtime` is `vllm`, `transformers` or
    `hosted`. `more` are fields of one kind: `tool_parser` and `reasoning_parser`, `provider`,
    `retired_on`, `successor`.
    """

    id: str
    kind: str
    deployed: bool
    root: str
    parent: str | None = None
    context: int | None = None
    chat: bool = False
    embeds: bool = False
    ranks: bool = False
    transcribes: bool = False
    replicas: int = 0
    ready: bool = False
    runtime: str = "vllm"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """scale-gp's word for what the model is for."""
        if self.embeds:
            return "EMBEDDING"
        return "RERANKING" if self.ranks else "GENERIC" if self.transcribes else "COMPLETION"


@dataclass(frozen=True)
class Query:
    """What a list is asked for. `page` counts from 1."""

    all: bool = False
    page: int = 1
    limit: int = PAGE_ITEMS
    model_type: str | None = None
    sort_by: tuple[tuple[str, bool], ...] = ()


def parse_query(query: bytes, sortable: Sequence[str] = _SORTABLE) -> Query:
    """The query of a list of models; unknown parameters are ignored.

    Raises:
        InvalidField: a parameter has an invalid value.
    """
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)

    def number(name: str, default: int, most: int) -> int:
        text = given.get(name, [str(default)])[-1]
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise InvalidField(f"'{name}': must be a number from 1 to {most}", param=name)
        return int(text)

    flag = given.get("all", ["false"])[-1].lower()
    if flag not in ("", "true", "false", "1", "0"):
        raise InvalidField("'all': must be true or false", param="all")
    orders = []
    for text in given.get("sort_by", []) + given.get("sort_by[]", []):
        for part in text.split(","):
            name, _, order = part.partition(":")
            if name not in sortable or order not in ("", "asc", "desc"):
                raise InvalidField(
                    f"'sort_by': must be one of {', '.join(sortable)}, with :asc or :desc",
                    param="sort_by",
                )
            orders.append((name, order == "desc"))
    return Query(
        all=flag in ("", "true", "1"),
        page=number("page", 1, 10**8),
        limit=number("limit", PAGE_ITEMS, MAX_PAGE_ITEMS),
        model_type=given.get("model_type", [None])[-1],
        sort_by=tuple(orders),
    )


def openai_model(entry: ModelEntry, created: int) -> dict[str, Any]:
    """One entry of `GET /v1/models`, with vLLM's extra fields and ours. `created` is in seconds
    since 1970."""
    return {
        "id": entry.id,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "root": entry.root,
        "parent": entry.parent,
        "max_model_len": entry.context,
        "kind": entry.kind,
        "deployed": entry.deployed,
        **entry.more,
    }


def model_instance(entry: ModelEntry, created: int, account: str | None) -> dict[str, Any]:
    """One entry of `GET /v4/models`."""
    return {
        "id": entry.id,
        "name": entry.id,
        "display_name": entry.id,
        "account_id": account or OWNER,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "created_by_identity_type": "service_account",
        "created_by_user_id": OWNER,
        "deployment_count": int(entry.deployed),
        "model_type": entry.model_type,
        "model_vendor": _VENDORS.get(str(entry.more.get("provider")), "OTHER"),
        "base_model_id": entry.parent or (entry.root if entry.kind == "alias" else None),
        "base_model_metadata": {"modelDetails": {"token_context_window": entry.context}},
        "request_schema": _REQUEST_SCHEMA,
        "response_schema": _RESPONSE_SCHEMA,
        "supports_multi_turn": entry.chat,
        "kind": entry.kind,
        "deployed": entry.deployed,
        **entry.more,
    }


def model_page(
    entries: Sequence[ModelEntry], query: Query, created: int, account: str | None
) -> dict[str, Any]:
    """One page of `GET /v4/models`."""
    found = [at for at in entries if query.model_type in (None, at.model_type)]
    return page_of(found, query, lambda entry: model_instance(entry, created, account))


def page_of(
    entries: Sequence[ModelEntry], query: Query, show: Callable[[ModelEntry], dict[str, Any]]
) -> dict[str, Any]:
    """One page of a list, as scale-gp pages through all its lists."""
    found = list(entries)
    for name, descending in reversed(query.sort_by):
        if name in ("id", "name", "model_instance_id"):  # the others have one value for all
            found.sort(key=lambda entry: entry.id, reverse=descending)
    start = (query.page - 1) * query.limit
    page = found[start : start + query.limit]
    return {
        "items": [show(entry) for entry in page],
        "current_page": query.page,
        "items_per_page": query.limit,
        "total_item_count": len(found),
    }
