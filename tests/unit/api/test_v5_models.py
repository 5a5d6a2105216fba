"""The lists of models that scale-gp-beta pages through."""

from __future__ import annotations

import pytest

from serving.api.models import ModelEntry
from serving.api.v5_models import definition, inference_model, parse_query, select
from serving.errors import InvalidField

ENTRIES = [
    ModelEntry("b", "engine", True, "b", context=128, chat=True, replicas=2, ready=True),
    ModelEntry("a", "adapter", True, "a", parent="b", context=128),
    ModelEntry("h", "upstream", True, "h", chat=True, ready=True, more={"provider": "openai"}),
    ModelEntry("e", "engine", True, "e", embeds=True),
]


def page(query: bytes) -> tuple[list[str], bool]:
    found, more = select(ENTRIES, parse_query(query))
    return [entry.id for entry in found], more


@pytest.mark.parametrize(
    ("query", "found", "more"),
    [
        (b"", "bahe", False),
        (b"limit=2", "ba", True),
        (b"limit=2&starting_after=a", "he", False),
        (b"starting_after=e", "", False),
        (b"limit=2&ending_before=e", "ah", True),
        (b"limit=2&ending_before=a", "b", False),
        (b"sort_by=name", "abeh", False),
        (b"sort_by=name&sort_order=desc&limit=1", "h", True),
        (b"sort_order=desc", "ehab", False),
        (b"sort_by=created_at", "bahe", False),
        (b"model_vendor=openai", "h", False),
        (b"model_vendor=llmengine&limit=2&starting_after=b", "ae", False),
        (b"model_vendor=cohere", "", False),
        (b"name=a&other=1", "a", False),
    ],
)
def test_a_page(query: bytes, found: str, more: bool) -> None:
    assert page(query) == (list(found), more)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=", "limit"),
        (b"limit=1e3", "limit"),
        (b"limit=99999999999999999999", "limit"),
        (b"limit=\xb2", "limit"),
        (b"sort_by=weight", "sort_by"),
        (b"sort_by=", "sort_by"),
        (b"sort_order=up", "sort_order"),
        (b"starting_after=a&ending_before=b", "ending_before"),
        (b"starting_after=nobody", "starting_after"),
        (b"ending_before=h&model_vendor=llmengine", "ending_before"),
    ],
)
def test_a_query_that_is_refused(query: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        page(query)
    assert refused.value.param == param


def test_the_fields_of_the_sdk() -> None:
    model = inference_model(ENTRIES[0], 5)
    assert (model["id"], model["name"], model["object"]) == ("b", "b", "model")
    assert model["created_at"] == "1970-01-01T00:00:05+00:00"
    assert (model["model_type"], model["model_vendor"]) == ("chat_completion", "llmengine")
    assert (model["status"], model["model_availability"]) == ("ready", "available")
    adapter = inference_model(ENTRIES[1], 5)
    assert (adapter["model_type"], adapter["status"]) == ("completion", "deploying")
    assert adapter["model_metadata"]["parent"] == "b"
    assert inference_model(ENTRIES[3], 5)["model_type"] == "generic"
    assert definition(ENTRIES[2]) == {
        "model_name": "h",
        "model_type": "chat_completion",
        "model_vendor": "openai",
        "model_availability": "available",
    }
