"""The lists of models, as the SDKs read them."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import pytest

from serving.api.models import (
    MAX_PAGE_ITEMS,
    ModelEntry,
    Query,
    model_page,
    openai_model,
    parse_query,
)
from serving.errors import InvalidField

ENTRIES = [
    ModelEntry("b", "engine", True, "b", context=128, chat=True, replicas=2),
    ModelEntry("a", "adapter", True, "a", parent="b", context=128),
    ModelEntry("z", "alias", True, "b", context=128),
    ModelEntry(
        "old", "retired", False, "old", more={"provider": "openai", "retired_on": "2024-01-04"}
    ),
]


def test_an_openai_model() -> None:
    entry = openai_model(ENTRIES[1], 5)
    assert entry["id"] == "a"
    assert entry["object"] == "model"
    assert (entry["created"], entry["root"], entry["parent"]) == (5, "a", "b")
    assert entry["max_model_len"] == 128
    assert (entry["kind"], entry["deployed"]) == ("adapter", True)
    assert openai_model(ENTRIES[3], 5)["retired_on"] == "2024-01-04"


def ids(query: bytes) -> list[str]:
    page = model_page(ENTRIES, parse_query(query), 5, "acme")
    return [item["id"] for item in page["items"]]


def test_a_page() -> None:
    page = model_page(ENTRIES, Query(page=2, limit=3), 5, "acme")
    assert (page["current_page"], page["items_per_page"], page["total_item_count"]) == (2, 3, 4)
    (item,) = page["items"]
    assert item["id"] == "old"
    assert item["account_id"] == "acme"
    assert item["model_vendor"] == "OPENAI"
    assert item["created_at"] == "1970-01-01T00:00:05+00:00"


def test_the_longest_page_takes_a_moment() -> None:
    """Each of its models has the schemas of a request and of an answer, 3 KB."""
    entries = [replace(ENTRIES[0], id=f"m{n}") for n in range(MAX_PAGE_ITEMS)]
    began = time.thread_time()
    page = msgspec.json.encode(model_page(entries, Query(limit=MAX_PAGE_ITEMS), 5, "acme"))
    assert time.thread_time() - began < 0.4  # 0.08 is usual, and with the standard library's 0.5
    last = msgspec.json.decode(page)["items"][-1]
    assert last["id"] == f"m{MAX_PAGE_ITEMS - 1}"
    assert last["request_schema"]["properties"]["prompt"]["type"] == "string"


def test_what_a_model_is_for() -> None:
    for purpose, kind in (
        ({}, "COMPLETION"),
        ({"chat": True}, "COMPLETION"),
        ({"embeds": True}, "EMBEDDING"),
        ({"ranks": True}, "RERANKING"),
        ({"transcribes": True}, "GENERIC"),
    ):
        assert ModelEntry("m", "engine", True, "m", **purpose).model_type == kind


def test_an_alias_and_an_adapter_name_their_base() -> None:
    page = model_page(ENTRIES, Query(), 5, None)
    bases = {item["id"]: item["base_model_id"] for item in page["items"]}
    assert bases == {"b": None, "a": "b", "z": "b", "old": None}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", ["b", "a", "z", "old"]),
        (b"limit=2", ["b", "a"]),
        (b"limit=2&page=2", ["z", "old"]),
        (b"page=9", []),
        (b"sort_by=id:asc", ["a", "b", "old", "z"]),
        (b"sort_by=name:desc", ["z", "old", "b", "a"]),
        (b"sort_by=created_at:asc", ["b", "a", "z", "old"]),
        (b"model_type=COMPLETION", ["b", "a", "z", "old"]),
        (b"model_type=EMBEDDING", []),
        (b"view=Deployments", ["b", "a", "z", "old"]),
    ],
)
def test_what_a_list_may_be_asked(query: bytes, found: list[str]) -> None:
    assert ids(query) == found


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=10001", "limit"),
        (b"limit=many", "limit"),
        (b"limit=%C2%B2", "limit"),
        (b"page=-1", "page"),
        (b"limit=0000000019999999", "limit"),
        (b"page=1" + b"0" * 4400, "page"),
        (b"page=" + b"9" * 5000, "page"),
        (b"all=perhaps", "all"),
        (b"sort_by=colour:asc", "sort_by"),
        (b"sort_by=id:up", "sort_by"),
    ],
)
def test_what_it_may_not(query: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_query(query)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("query", "everything"), [(b"", False), (b"all=true", True), (b"all=1", True), (b"all", True),
                              (b"all=false", False), (b"all=TRUE", True)]
)  # fmt: skip
def test_all(query: bytes, everything: bool) -> None:
    assert parse_query(query).all is everything
