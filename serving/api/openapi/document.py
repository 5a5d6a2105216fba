"""The API's description: an OpenAPI 3.1 document made from the table of endpoints.

What an endpoint takes and answers comes from its line in the table (`serving/api/endpoints.py`),
its words and examples from `describe.py`, the schemas from `schemas.py`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from serving.api.dialect import ANTHROPIC, CREATE_COMPLETION, OPENAI, RESPONSES, Dialect
from serving.api.endpoints import NAME, Endpoint, Managed, Relayed, Reported
from serving.api.llm_engine import LLM_ENGINE
from serving.api.openapi.admin import ADMIN_TEXTS
from serving.api.openapi.describe import BASE, TEXTS, Text
from serving.api.openapi.scale import SCALE_TEXTS
from serving.api.openapi.schemas import REF, schemas
from serving.api.openapi.usage import USAGE_TEXTS

VERSION = "3.1.0"
_TEXTS = TEXTS | SCALE_TEXTS | USAGE_TEXTS
JSON, EVENTS = "application/json", "text/event-stream"
# The schema of each dialect's error bodies.
ERRORS: dict[Dialect, str] = {
    CREATE_COMPLETION: "Error",
    OPENAI: "OpenAIError",
    RESPONSES: "OpenAIError",
    LLM_ENGINE: "Error",
    ANTHROPIC: "MessagesError",
}
# How else a request may end, by what an endpoint does. 405, 431 and the like can come from all.
_ANY = {
    "405": "the path has no such method",
    "408": "the request did not come to its end in time",
    "431": "the headers are too large",
}
_WITH_KEY = {"401": "there is no key, or it is unknown", "403": "the key may not do this"}
_WITH_QUERY = {"422": "a parameter has an invalid value"}
_WITH_MODEL = {"404": "there is no such model, or it is not deployed", "410": "it was retired"}
_RELAYED = {
    "400": "the body is not valid, or the model refuses what it asks for",
    **_WITH_MODEL,
    "411": "the length of the body is not told",
    "413": "the body is too large",
    "415": "the body has a content-encoding that is not known",
    "422": "a field is missing, unknown or out of range, or the model is not for this",
    "429": "too many requests; `retry-after` says how long to wait",
    "500": "the request failed; `x-should-retry` says whether to try again",
    "502": "the model's provider failed",
    "503": "the model is away or overloaded; `retry-after` says how long to wait",
    "504": "the request took too long",
}
_MANAGED = {
    "501": "the installation has no store",
    "503": "the store is away; `retry-after` says how long to wait",
}
_WITH_BODY = {
    "400": "the body is not valid",
    "409": "it exists already, or the key was revoked",
    "411": "the length of the body is not told",
    "413": "the body is too large",
    "415": "the body has a content-encoding that is not known",
    "422": "a field is missing, unknown or has an impossible value",
}
_ALLOW = {"allow": {"schema": {"type": "string"}}}
_KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "azure": {"type": "apiKey", "in": "header", "name": "api-key"},
}
# How a body names its model.
_IN_BODY = {
    "required": ["model"],
    "properties": {"model": {"type": "string", "minLength": 1, "maxLength": 256}},
}
# The path, or the query, names it.
_IN_PATH = {"not": {"required": ["model"]}}
_NAME_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "a model ID; it may have slashes",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}

_ID_PARAMETER = {
    **_NAME_PARAMETER,
    "description": "the ID of an account or a key",
    "example": "acme",
}


def document(table: Sequence[Endpoint]) -> dict[str, Any]:
    """The description of a table of endpoints.

    Raises:
        KeyError: `describe.py` lacks an endpoint.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in table:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": VERSION,
        "info": {
            "title": "serving",
            "version": importlib.metadata.version("serving"),
            "description": "One HTTP API in front of every model. A request names a model ID: of a "
            "base model, an adapter, an alias or a hosted provider's model.",
        },
        "security": [{name: []} for name in _KEYS],
        "paths": paths,
        "components": {"schemas": schemas(), "securitySchemes": _KEYS},
    }


def path_of(endpoint: Endpoint) -> str:
    """The path whose words an endpoint has, if they do not differ by method. Without words of its
    own, it is another way to one that has."""
    answer = endpoint.answer
    if endpoint.path not in _TEXTS and isinstance(answer, Relayed) and answer.path:
        return answer.path
    return endpoint.path


def text_of(endpoint: Endpoint) -> Text:
    """The words for an endpoint."""
    if isinstance(endpoint.answer, Managed):
        return ADMIN_TEXTS[endpoint.method, endpoint.path]
    return _TEXTS[path_of(endpoint)]


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    text, answer = text_of(endpoint), endpoint.answer
    leads_to = path_of(endpoint) if path_of(endpoint) != endpoint.path else ""
    azure = bool(leads_to) and endpoint.path.startswith("/openai/")
    parameters = [{"name": name, "in": "query", **more} for name, more in text.query.items()]
    if NAME in endpoint.path:
        named = [value["model"] for value in text.examples.values() if "model" in value]
        of_model = {**_NAME_PARAMETER, "example": named[0] if named else BASE}
        managed = isinstance(answer, Managed)
        parameters.insert(0, _ID_PARAMETER if managed else of_model)
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "tags": ["Azure" if azure else text.tag],
        "summary": text.title,
        "responses": _responses(endpoint, text),
    }
    more = text.more
    if leads_to:
        more = f"The same as {leads_to}" + (", in Azure's way." if azure else ".")
    if more:
        operation["description"] = more
    if parameters:
        operation["parameters"] = parameters
    if endpoint.public:
        operation["security"] = []
    if isinstance(answer, Relayed):
        content = {text.takes: _body(endpoint, text)}
        operation["requestBody"] = {"required": True, "content": content}
    elif isinstance(answer, Managed) and answer.reads:
        examples = {name: {"value": value} for name, value in text.examples.items()}
        body = {"schema": {"$ref": REF + answer.reads}, "examples": examples}
        operation["requestBody"] = {"required": True, "content": {JSON: body}}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path)
    return "_".join([endpoint.method.lower(), *words])


def _body(endpoint: Endpoint, text: Text) -> dict[str, Any]:
    """The content of a request. The engines' app takes a body without a model; the API does not,
    but where the path names it."""
    options = [{"$ref": REF + name} for name in text.reads]
    schema: dict[str, Any] = options[0] if len(options) == 1 else {"anyOf": options}
    in_path = NAME in endpoint.path or "model_endpoint_name" in text.query
    examples = {
        name: {"value": {k: v for k, v in value.items() if not (in_path and k == "model")}}
        for name, value in text.examples.items()
    }
    return {"schema": {"allOf": [schema, _IN_PATH if in_path else _IN_BODY]}, "examples": examples}


def _responses(endpoint: Endpoint, text: Text) -> dict[str, Any]:
    relayed = isinstance(endpoint.answer, Relayed)
    kinds = dict(_ANY)
    if not endpoint.public:
        kinds |= _WITH_KEY
    if text.query:
        kinds |= _WITH_QUERY
    if relayed:
        kinds |= _RELAYED
    elif isinstance(endpoint.answer, Reported):
        kinds |= _MANAGED
    elif isinstance(endpoint.answer, Managed):
        kinds |= _MANAGED | (_WITH_BODY if endpoint.answer.reads else {})
        if NAME in endpoint.path:
            kinds["404"] = "there is no such account or key"
    elif text.refuses:
        kinds |= text.refuses
    elif NAME in endpoint.path:
        kinds |= _WITH_MODEL
    error = {JSON: {"schema": {"$ref": REF + ERRORS[endpoint.dialect]}}}
    responses: dict[str, Any] = {}
    if not text.refuses:
        responses["200"] = {"description": "the answer", "content": _answer(endpoint, text)}
    for status, why in sorted(kinds.items()):
        responses[status] = {"description": why, "content": error}
    responses["405"] = {**responses["405"], "headers": _ALLOW}
    if endpoint.path == "/ready":
        responses["503"] = {**responses["200"], "description": "not yet"}
    return responses


def _answer(endpoint: Endpoint, text: Text) -> dict[str, Any]:
    if text.media:
        return {text.media: {"schema": {"type": "string"}}}
    content: dict[str, Any] = {}
    if text.writes or not text.streams:
        content[JSON] = {"schema": {"$ref": REF + (text.writes or "Object")}}
    if "format" in text.query:
        content["text/csv"] = {"schema": {"type": "string"}}
    if text.streams:
        content[EVENTS] = {"schema": _event(text.streams, endpoint.dialect)}
    return content


def _event(name: str, dialect: Dialect) -> dict[str, Any]:
    """The schema of one server-sent event; OpenAPI 3.1 has no other place for it."""
    part = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"$ref": REF + name},
    }
    # Streams in OpenAI's dialect end with a mark that is not JSON.
    data = part if dialect is ANTHROPIC else {"anyOf": [{"const": "[DONE]"}, part]}
    properties = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "description": "an event of the stream", "properties": properties}
