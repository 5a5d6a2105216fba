"""The models as scale-gp-beta lists them: `/v5/models` and `/v5/chat/completions/models`.

The fields are those of the SDK's `InferenceModel` and `ModelDefinition`. A model's vendor is the
provider of a hosted model, and `llmengine` for every other; `VENDOR/ID` names a model as well as
its ID does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from serving.api.excerpt import excerpt
from serving.api.models import MAX_PAGE_ITEMS, OWNER, PAGE_ITEMS, ModelEntry
from serving.api.pages import Ask, Page, View, json_page
from serving.errors import InvalidField

OWN_VENDOR = "llmengine"
_SORTABLE = {
    "id": lambda entry: entry.id,
    "name": lambda entry: entry.id,
    "model_type": lambda entry: _type(entry),
    "model_vendor": lambda entry: _vendor(entry),
    # One value for all.
    "created_at": lambda entry: 0,
    "status": lambda entry: 0,
}


@dataclass(frozen=True)
class Query:
    """What a list is asked for: the `limit` models after or before one ID."""

    limit: int = PAGE_ITEMS
    after: str | None = None
    before: str | None = None
    vendor: str | None = None
    name: str | None = None
    sort_by: str | None = None
    descending: bool = False


def models(view: View, ask: Ask) -> Page:
    """`GET /v5/models`."""
    query = parse_query(ask.query)
    found, more = select(view.entries(everything=False), query)
    items = [inference_model(entry, view.started) for entry in found]
    return json_page({"object": "list", "items": items, "has_more": more})


def one_model(view: View, ask: Ask) -> Page:
    """`GET /v5/models/{model}`."""
    return json_page(inference_model(view.entry(ask.name), view.started))


def chat_models(view: View, ask: Ask) -> Page:
    """`GET /v5/chat/completions/models`: the models that can be talked to."""
    query = parse_query(ask.query)
    entries = [entry for entry in view.entries(everything=False) if entry.chat]
    found, more = select(entries, query)
    items = [definition(entry) for entry in found]
    return json_page({"object": "list", "items": items, "has_more": more})


def inference_model(entry: ModelEntry, created: int) -> dict[str, Any]:
    """One entry of `GET /v5/models`. `created` is in seconds since 1970."""
    return {
        "id": entry.id,
        "object": "model",
        "name": entry.id,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "created_by_identity_type": "service_account",
        "created_by_user_id": OWNER,
        "model_type": _type(entry),
        "model_vendor": _vendor(entry),
        "model_availability": "available" if entry.ready else "unavailable",
        "status": "ready" if entry.ready else "deploying",
        "status_reason": None,
        "vendor_configuration": None,
        "model_metadata": {
            "kind": entry.kind,
            "root": entry.root,
            "parent": entry.parent,
            "context": entry.context,
        },
    }


def definition(entry: ModelEntry) -> dict[str, Any]:
    """One entry of `GET /v5/chat/completions/models`."""
    return {
        "model_name": entry.id,
        "model_type": _type(entry),
        "model_vendor": _vendor(entry),
        "model_availability": "available" if entry.ready else "unavailable",
    }


def parse_query(query: bytes) -> Query:
    """The query of a list; unknown parameters are ignored.

    Raises:
        InvalidField: a parameter has an invalid value.
    """
    given = {
        name: values[-1]
        for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()
    }
    limit = given.get("limit", str(PAGE_ITEMS))
    if not (limit.isascii() and limit.isdigit() and 1 <= len(limit) < 10) or not (
        1 <= int(limit) <= MAX_PAGE_ITEMS
    ):
        raise InvalidField(f"'limit': must be a number from 1 to {MAX_PAGE_ITEMS}", param="limit")
    order, sort_by = given.get("sort_order", "asc"), given.get("sort_by")
    if order not in ("asc", "desc"):
        raise InvalidField("'sort_order': must be asc or desc", param="sort_order")
    if sort_by is not None and sort_by not in _SORTABLE:
        raise InvalidField(f"'sort_by': must be one of {', '.join(_SORTABLE)}", param="sort_by")
    after, before = given.get("starting_after") or None, given.get("ending_before") or None
    if after and before:
        raise InvalidField(
            "'starting_after' and 'ending_before' exclude each other", param="ending_before"
        )
    return Query(
        limit=int(limit),
        after=after,
        before=before,
        vendor=given.get("model_vendor") or None,
        name=given.get("name") or None,
        sort_by=sort_by,
        descending=order == "desc",
    )


def select(entries: list[ModelEntry], query: Query) -> tuple[list[ModelEntry], bool]:
    """The page that is asked for, and whether there is more in its direction.

    Raises:
        InvalidField: the model that the page is to begin or end at is not in the list.
    """
    found = [
        entry
        for entry in entries
        if query.vendor in (None, _vendor(entry)) and query.name in (None, entry.id)
    ]
    if query.sort_by is not None:
        found.sort(key=_SORTABLE[query.sort_by])
    if query.descending:
        found.reverse()
    if query.before is not None:
        end = _place(found, query.before, "ending_before")
        start = max(0, end - query.limit)
        return found[start:end], start > 0
    start = 0 if query.after is None else _place(found, query.after, "starting_after") + 1
    end = start + query.limit
    return found[start:end], end < len(found)


def _place(entries: list[ModelEntry], name: str, param: str) -> int:
    for place, entry in enumerate(entries):
        if entry.id == name:
            return place
    raise InvalidField(f"'{param}': no model '{excerpt(name)}' in this list", param=param)


def _vendor(entry: ModelEntry) -> str:
    return str(entry.more.get("provider", OWN_VENDOR))


def _type(entry: ModelEntry) -> str:
    if entry.embeds or entry.transcribes:
        return "generic"
    return "chat_completion" if entry.chat else "completion"
