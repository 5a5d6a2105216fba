"""Writes serving/api/openapi/engine.json: the JSON schemas of the bodies that vLLM's app reads and
writes, for the API's description. `python -m docs.engine_schemas [--check]`; it imports vLLM.

Routers have no vLLM in them, so the schemas are a file. A test holds it equal to the installed
vLLM's.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

FILE = Path(__file__).parents[1] / "serving" / "api" / "openapi" / "engine.json"
PREFIX = "vllm.entrypoints."
REF = "#/components/schemas/"
# Modules below vllm.entrypoints, with what they read and what they write.
READ: dict[str, tuple[str, ...]] = {
    "anthropic.protocol": ("AnthropicMessagesRequest", "AnthropicCountTokensRequest"),
    "openai.chat_completion.protocol": ("ChatCompletionRequest",),
    "openai.completion.protocol": ("CompletionRequest",),
    "openai.responses.protocol": ("ResponsesRequest",),
    "pooling.embed.protocol": ("EmbeddingCompletionRequest", "EmbeddingChatRequest"),
    "pooling.scoring.protocol": (
        "ScoreTextRequest", "ScoreDataRequest", "ScoreQueriesDocumentsRequest",
        "ScoreQueriesItemsRequest", "RerankRequest",
    ),
    "serve.tokenize.protocol": (
        "TokenizeCompletionRequest", "TokenizeChatRequest", "DetokenizeRequest",
    ),
}  # fmt: skip
WRITTEN: dict[str, tuple[str, ...]] = {
    "anthropic.protocol": (
        "AnthropicMessagesResponse", "AnthropicCountTokensResponse", "AnthropicStreamEvent",
    ),
    "openai.chat_completion.protocol": ("ChatCompletionResponse", "ChatCompletionStreamResponse"),
    "openai.completion.protocol": ("CompletionResponse", "CompletionStreamResponse"),
    "openai.responses.protocol": ("ResponsesResponse",),
    "pooling.embed.protocol": ("EmbeddingResponse",),
    "pooling.scoring.protocol": ("ScoreResponse", "RerankResponse"),
    "serve.tokenize.protocol": ("TokenizeResponse", "DetokenizeResponse"),
}  # fmt: skip
# The classes of the `openai` package for the responses API, which would be 300 more schemas.
ELSEWHERE = "openai.types.responses"


class _Schemas(GenerateJsonSchema):
    """Leaves classes of `ELSEWHERE` open, and describes bytes as JSON can have them."""

    def bytes_schema(self, schema: Any) -> dict[str, Any]:
        """Of bytes: pydantic's `format: binary` is for bodies that are none of JSON's texts."""
        return {"type": "string", "contentEncoding": "base64"}

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        """Of a TypedDict."""
        return _open(schema) or super().typed_dict_schema(schema)

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Of a pydantic model."""
        return _open(schema) or super().model_schema(schema)


def _open(schema: Any) -> dict[str, Any] | None:
    found = schema.get("cls")
    if found is None or not found.__module__.startswith(ELSEWHERE):
        return None
    return {"type": "object", "title": found.__name__, "description": "As in OpenAI's API."}


def text() -> str:
    """What the file has to be."""
    models: list[tuple[Any, JsonSchemaMode]] = []
    modes: tuple[tuple[dict[str, tuple[str, ...]], JsonSchemaMode], ...] = (
        (READ, "validation"),
        (WRITTEN, "serialization"),
    )
    for table, mode in modes:
        for module, names in table.items():
            found = importlib.import_module(PREFIX + module)
            models += [(getattr(found, name), mode) for name in names]
    _, schemas = models_json_schema(models, ref_template=REF + "{model}", schema_generator=_Schemas)
    used = _used([model.__name__ for model, _ in models], schemas["$defs"])
    return json.dumps(used, indent=1, sort_keys=True) + "\n"


def _used(names: list[str], schemas: dict[str, Any]) -> dict[str, Any]:
    """These schemas and those that they refer to: what a class left open has in it is not."""
    used: dict[str, Any] = {}
    while names:
        if (name := names.pop()) not in used:
            used[name] = schemas[name]
            names += re.findall(f'"{REF}(.*?)"', json.dumps(schemas[name]))
    return used


def main() -> None:
    made = text()
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != made:
            sys.exit(f"{FILE.name} is old: run python -m docs.engine_schemas")
        return
    FILE.write_text(made)


if __name__ == "__main__":
    main()
