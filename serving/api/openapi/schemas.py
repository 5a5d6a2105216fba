"""The schemas of what routers read and write themselves, and those of the engines' app."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from serving.api.audio import AudioRequest
from serving.api.completion import CompletionRequest
from serving.api.models import RESPONSE_SCHEMA
from serving.api.openapi.admin import admin_schemas
from serving.api.openapi.scale import scale_schemas
from serving.api.openapi.usage import usage_schemas

REF = "#/components/schemas/"

_NULLABLE_TEXT = {"type": ["string", "null"]}
_ERROR_FIELDS = {
    "type": {"type": "string"},
    "code": _NULLABLE_TEXT,
    "message": {"type": "string"},
    "param": _NULLABLE_TEXT,
    "request_id": {"type": "string"},
}
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": _ERROR_FIELDS,
        }
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}
_TRANSLATION = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
}
_TRANSCRIPTION = {
    "type": "object",
    "required": ["text", "usage"],
    "properties": {
        "text": {"type": "string"},
        "usage": {
            "type": "object",
            "required": ["type", "seconds"],
            "properties": {"type": {"const": "duration"}, "seconds": {"type": "integer"}},
        },
    },
}
_MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "kind", "deployed"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "root": {"type": "string", "description": "the model that answers"},
        "parent": {**_NULLABLE_TEXT, "description": "an adapter's base"},
        "max_model_len": {"type": ["integer", "null"]},
        "kind": {"enum": ["engine", "adapter", "upstream", "retired", "alias"]},
        "deployed": {"type": "boolean"},
    },
}
_INSTANCE = {
    "type": "object",
    "required": ["id", "name", "model_type", "kind", "deployed"],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "model_type": {"type": "string"},
        "kind": {"enum": ["engine", "adapter", "upstream", "retired", "alias"]},
        "deployed": {"type": "boolean"},
    },
}


def _list_of(name: str, more: dict[str, Any]) -> dict[str, Any]:
    items, others = next(iter(more.items())), dict(list(more.items())[1:])
    return {
        "type": "object",
        "required": list(more),
        "properties": {items[0]: {"type": "array", "items": {"$ref": REF + name}}, **others},
    }


def schemas() -> dict[str, Any]:
    """Every schema by its name."""
    engine = resources.files("serving.api.openapi").joinpath("engine.json").read_text()
    completion = CompletionRequest.model_json_schema(ref_template=REF + "{model}")
    number = {"type": "integer"}
    return {
        **json.loads(engine),
        **completion.pop("$defs"),
        "CreateCompletion": completion,
        "AudioRequest": AudioRequest.model_json_schema(),
        "Transcription": _TRANSCRIPTION,
        "Translation": _TRANSLATION,
        "Completion": RESPONSE_SCHEMA,
        "Error": {
            **_OPENAI_ERROR,
            "required": ["error", "detail"],
            "properties": {**_OPENAI_ERROR["properties"], "detail": {"type": "string"}},  # type: ignore[dict-item]
        },
        "OpenAIError": _OPENAI_ERROR,
        "MessagesError": _ANTHROPIC_ERROR,
        "Model": _MODEL,
        "ModelInstance": _INSTANCE,
        "ModelList": _list_of("Model", {"data": None, "object": {"const": "list"}}),
        "ModelPage": _list_of(
            "ModelInstance",
            {
                "items": None,
                "current_page": number,
                "items_per_page": number,
                "total_item_count": number,
            },
        ),
        "ResponseEvent": {
            "type": "object",
            "description": "As in OpenAI's API.",
            "required": ["type", "sequence_number"],
            "properties": {"type": {"type": "string"}, "sequence_number": number},
        },
        **scale_schemas(REF),
        **admin_schemas(REF),
        **usage_schemas(),
        "Object": {"type": "object"},
        "List": {"type": "array"},
    }
