"""The API's description says all that the table of endpoints says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jsonschema
import pytest

from serving.api.endpoints import ENDPOINTS, NAME, Endpoint, Managed, Relayed
from serving.api.openapi.admin import ADMIN_TEXTS
from serving.api.openapi.describe import TEXTS
from serving.api.openapi.document import ERRORS, document, path_of, text_of
from serving.api.openapi.page import page
from serving.api.openapi.scale import SCALE_TEXTS, scale_schemas
from serving.api.openapi.schemas import REF, schemas
from serving.api.openapi.usage import USAGE_TEXTS

DOCUMENT = document(ENDPOINTS)
RELAYED = [endpoint for endpoint in ENDPOINTS if isinstance(endpoint.answer, Relayed)]


def refs(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from refs(value)
    elif isinstance(part, list):
        for value in part:
            yield from refs(value)


def test_every_endpoint_is_described_once() -> None:
    found = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert found == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    ids = [at["operationId"] for methods in DOCUMENT["paths"].values() for at in methods.values()]
    assert len(ids) == len(set(ids))


def test_no_words_are_left_of_an_endpoint_that_is_gone() -> None:
    managed = {at for at in ENDPOINTS if isinstance(at.answer, Managed)}
    assert ADMIN_TEXTS.keys() == {(endpoint.method, endpoint.path) for endpoint in managed}
    used = {path_of(endpoint) for endpoint in ENDPOINTS if endpoint not in managed}
    assert TEXTS.keys() | SCALE_TEXTS.keys() | USAGE_TEXTS.keys() == used
    assert len(used) == len(TEXTS) + len(SCALE_TEXTS) + len(USAGE_TEXTS)


def test_every_dialect_of_the_table_has_a_schema_of_its_errors() -> None:
    assert ERRORS.keys() == {endpoint.dialect for endpoint in ENDPOINTS}


def test_every_reference_leads_somewhere() -> None:
    found = {ref.removeprefix(REF) for ref in refs(DOCUMENT)}
    assert found <= schemas().keys()


def test_every_schema_is_used() -> None:
    everything = schemas()
    used: set[str] = set()
    new = {ref.removeprefix(REF) for ref in refs(DOCUMENT["paths"])}
    while new:
        used |= new
        new = {ref.removeprefix(REF) for name in new for ref in refs(everything[name])} - used
    assert used == everything.keys()


@pytest.mark.parametrize("endpoint", RELAYED, ids=lambda endpoint: endpoint.path)
def test_examples_are_what_the_schema_asks_for(endpoint: Endpoint) -> None:
    body = operation(endpoint)["requestBody"]["content"][text_of(endpoint).takes]
    assert body["examples"]
    schema = {**body["schema"], "components": DOCUMENT["components"]}
    for example in (each["value"] for each in body["examples"].values()):
        jsonschema.validate(example, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**example, "model": 1}, schema)


@pytest.mark.parametrize("endpoint", RELAYED, ids=lambda endpoint: endpoint.path)
def test_schemas_refuse_a_body_without_its_fields(endpoint: Endpoint) -> None:
    body = operation(endpoint)["requestBody"]["content"][text_of(endpoint).takes]
    schema = {**body["schema"], "components": DOCUMENT["components"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([], schema)
    if NAME not in endpoint.path:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({}, schema)


def test_who_needs_a_key() -> None:
    for endpoint in ENDPOINTS:
        at = operation(endpoint)
        assert (at.get("security") == []) == endpoint.public
        assert ("401" in at["responses"]) == (not endpoint.public)


def test_an_endpoint_that_only_refuses_is_not_said_to_answer() -> None:
    for endpoint in ENDPOINTS:
        refuses, statuses = text_of(endpoint).refuses, operation(endpoint)["responses"].keys()
        assert ("200" in statuses) == (not refuses)
        assert refuses.keys() <= statuses
    assert list(TEXTS["/v1/responses/{model}"].refuses) == ["404"]


def test_the_page_shows_every_endpoint_and_runs_no_script() -> None:
    html = page(DOCUMENT)
    for endpoint in ENDPOINTS:
        assert f"<code>{endpoint.method} {endpoint.path}</code>" in html
    assert "<script" not in html
    assert "http://" not in html
    assert "https://" not in html.replace(json.dumps(""), "")


def operation(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    return found


def test_no_two_schemas_have_one_name() -> None:
    engine = json.loads(resources.files("serving.api.openapi").joinpath("engine.json").read_text())
    assert not engine.keys() & scale_schemas(REF).keys()
    assert schemas().keys() > engine.keys() | scale_schemas(REF).keys()
