"""What the description says of the endpoints of Scale's own clients: their words and examples, and
the schemas of what they read and write."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.chat_v4 import ChatRequest
from serving.api.llm_engine import CompletionV1
from serving.api.model_calls import ModelChat, ModelCompletion
from serving.api.openapi.describe import BASE, CHAT, PAGES, Text

_GP, _BETA, _ENGINE = "scale-gp", "scale-gp-beta", "LLM Engine"
_HELLO = [{"role": "user", "content": "Hello!"}]
_ENDPOINT_NAME: dict[str, dict[str, Any]] = {
    "model_endpoint_name": {
        "required": True,
        "description": "a model ID",
        "example": BASE,
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    }
}
_CURSOR: dict[str, dict[str, Any]] = {
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}},
    "starting_after": {"schema": {"type": "string"}, "description": "the ID before the page"},
    "ending_before": {"schema": {"type": "string"}, "description": "the ID after the page"},
    "model_vendor": {"schema": {"type": "string", "examples": ["llmengine", "openai"]}},
    "name": {"schema": {"type": "string"}},
    "sort_by": {
        "schema": {
            "enum": ["id", "name", "model_type", "model_vendor", "created_at", "status"],
        }
    },
    "sort_order": {"schema": {"enum": ["asc", "desc"], "default": "asc"}},
}
_CHAT_CURSOR = {name: value for name, value in _CURSOR.items() if name != "name"}
_DEPLOYMENT_PAGES = {
    **{name: PAGES[name] for name in ("page", "limit")},
    "sort_by": {
        "schema": {
            "type": "string",
            "pattern": "^(id|name|model_instance_id|created_at|status)(:(asc|desc)?)?$",
            "examples": ["id:asc"],
        }
    },
}
_V5 = "A body of OpenAI's. `model` may be VENDOR/ID. The stream ends without `[DONE]`."

SCALE_TEXTS: dict[str, Text] = {
    "/v4/chat-completions": Text(
        _GP,
        "Answer a chat",
        "The parameters are Create Completion's, and so are the events of a stream.",
        reads=("ChatRequest",),
        writes="ChatV4",
        streams="Completion",
        examples={
            "whole": {
                "model": CHAT,
                "messages": _HELLO,
                "model_parameters": {"temperature": 0, "max_tokens": 16},
            },
            "streamed": {
                "model": CHAT,
                "messages": _HELLO,
                "model_parameters": {"max_tokens": 16},
                "stream": True,
            },
        },
    ),
    "/v4/models/{model}/completions": Text(
        _GP,
        "Complete a prompt with one deployment",
        "The ID of a deployment is that of its model.",
        reads=("ModelCompletion",),
        writes="ModelAnswer",
        streams="ModelAnswer",
        examples={
            "whole": {"model": BASE, "prompt": "The capital of France is", "max_tokens": 8},
            "streamed": {"model": BASE, "prompt": "My name is", "max_tokens": 8, "stream": True},
        },
    ),
    "/v4/models/{model}/chat-completions": Text(
        _GP,
        "Answer a chat with one deployment",
        reads=("ModelChat",),
        writes="ModelAnswer",
        streams="ModelAnswer",
        examples={
            "whole": {
                "model": CHAT,
                "chat_history": _HELLO,
                "prompt": "What is the capital of France?",
                "max_tokens": 16,
            },
            "streamed": {
                "model": CHAT,
                "chat_history": [],
                "prompt": "Hello!",
                "max_tokens": 16,
                "stream": True,
            },
        },
    ),
    "/v4/model-deployments": Text(
        _GP, "The deployments of all models", writes="DeploymentPage", query=_DEPLOYMENT_PAGES
    ),
    "/v4/models/{model}/deployments": Text(
        _GP, "The deployment of a model", writes="DeploymentPage", query=_DEPLOYMENT_PAGES
    ),
    "/v4/models/{model}/deployments/{model}": Text(_GP, "One deployment", writes="Deployment"),
    "/v5/completions": Text(
        _BETA,
        "Complete a prompt",
        _V5,
        reads=("CompletionRequest",),
        writes="CompletionResponse",
        streams="CompletionStreamResponse",
        examples={
            "whole": {"model": f"llmengine/{BASE}", "prompt": "My name is", "max_tokens": 8},
            "streamed": {"model": BASE, "prompt": "My name is", "max_tokens": 8, "stream": True},
        },
    ),
    "/v5/chat/completions": Text(
        _BETA,
        "Answer a chat",
        _V5,
        reads=("ChatCompletionRequest",),
        writes="ChatCompletionResponse",
        streams="ChatCompletionStreamResponse",
        examples={
            "whole": {"model": CHAT, "messages": _HELLO, "max_tokens": 16},
            "streamed": {
                "model": CHAT,
                "messages": _HELLO,
                "max_tokens": 16,
                "stream": True,
            },
        },
    ),
    "/v5/models": Text(_BETA, "The model IDs", writes="InferenceModels", query=_CURSOR),
    "/v5/models/{model}": Text(_BETA, "One model ID", writes="InferenceModel"),
    "/v5/chat/completions/models": Text(
        _BETA, "The models for chats", writes="ModelDefinitions", query=_CHAT_CURSOR
    ),
    "/v1/llm/completions-sync": Text(
        _ENGINE,
        "Complete a prompt",
        "The prompt reaches every model as it is.",
        reads=("CompletionV1",),
        writes="CompletionSyncV1",
        examples={"whole": {"prompt": "The capital of France is", "max_new_tokens": 8}},
        query=_ENDPOINT_NAME,
    ),
    "/v1/llm/completions-stream": Text(
        _ENGINE,
        "Complete a prompt, streamed",
        reads=("CompletionV1",),
        streams="CompletionStreamV1",
        examples={"streamed": {"prompt": "The capital of France is", "max_new_tokens": 8}},
        query=_ENDPOINT_NAME,
    ),
    "/v1/llm/model-endpoints": Text(_ENGINE, "The models", writes="ModelEndpoints"),
    "/v1/llm/model-endpoints/{model}": Text(_ENGINE, "One model", writes="ModelEndpoint"),
}

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": ["integer", "null"]}
_REASON: dict[str, Any] = {"type": ["string", "null"]}
_FLAG: dict[str, Any] = {"type": "boolean"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": required | optional}


def _items(name: str, **more: Any) -> dict[str, Any]:
    return _object({"items": {"type": "array", "items": {"$ref": name}}, **more})


def scale_schemas(ref: str) -> dict[str, Any]:
    """Every schema by its name. `ref` stands before the name of one in a reference."""
    _, read = msgspec.json.schema_components(
        [ChatRequest, ModelCompletion, ModelChat, CompletionV1], ref_template=ref + "{name}"
    )
    nothing = {"type": "null"}
    read["ChatRequest"]["properties"]["model_parameters"] = {
        "anyOf": [{"$ref": ref + "ModelParameters"}, nothing]
    }
    passed = {"type": ["object", "null"]}
    for name in ("ModelCompletion", "ModelChat"):
        read[name]["properties"]["chat_template_kwargs"] = passed
    read["CompletionV1"]["properties"]["guided_json"] = passed
    usage = {"type": ["object", "null"]}
    message = _object({"role": {"const": "assistant"}, "content": _TEXT})
    counts = {"num_prompt_tokens": _COUNT, "num_completion_tokens": _COUNT}
    page = {name: {"type": "integer"} for name in ("current_page", "items_per_page")}
    return {
        **read,
        "ChatV4": _object(
            {
                "chat_completion": _object({"message": message, "finish_reason": _REASON}),
                "token_usage": usage,
            }
        ),
        "ModelAnswer": _object(
            {
                "completions": {"type": "array", "items": {"type": "array"}},
                "finish_reason": _REASON,
                "prompt_tokens": _COUNT,
                "response_tokens": _COUNT,
            },
            choices={"type": ["array", "null"]},
        ),
        "Deployment": _object(
            {"id": _TEXT, "name": _TEXT, "model_instance_id": _TEXT, "status": _TEXT}
        ),
        "DeploymentPage": _items(ref + "Deployment", **page, total_item_count={"type": "integer"}),
        "InferenceModel": _object(
            {
                "id": _TEXT,
                "name": _TEXT,
                "model_type": {"enum": ["generic", "completion", "chat_completion"]},
                "model_vendor": _TEXT,
                "status": {"enum": ["ready", "deploying"]},
            }
        ),
        "InferenceModels": _items(ref + "InferenceModel", has_more=_FLAG),
        "ModelDefinition": _object(
            {"model_name": _TEXT, "model_type": _TEXT, "model_vendor": _TEXT}
        ),
        "ModelDefinitions": _items(ref + "ModelDefinition", has_more=_FLAG),
        "CompletionSyncV1": _object(
            {"request_id": _TEXT, "output": _object({"text": _TEXT, **counts})}
        ),
        "CompletionStreamV1": _object(
            {"request_id": _TEXT},
            output={
                "anyOf": [_object({"text": _TEXT, "finished": _FLAG, **counts}), nothing],
            },
            error={"type": ["object", "null"]},
        ),
        "ModelEndpoint": _object(
            {"name": _TEXT, "status": _TEXT, "source": _TEXT, "inference_framework": _TEXT}
        ),
        "ModelEndpoints": _object(
            {"model_endpoints": {"type": "array", "items": {"$ref": ref + "ModelEndpoint"}}}
        ),
    }
