"""The engines that hostile bodies are sent to (`tests.fuzz_bodies`), and what each is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local_models.make import RERANKER
from serving.api import llm_engine
from serving.api.chat_v4 import ChatRequest, parse_chat
from serving.api.completion import CompletionRequest
from serving.api.model_calls import (
    ModelChat,
    ModelCompletion,
    parse_model_chat,
    parse_model_completion,
)
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.wire.messages import AdapterRef
from tests.embed_shape import CONTEXT, write_embed
from tests.live import INSTRUCT, LOCAL, PIRATE, free_port

MODEL = "tiny-llama"
WEIGHTS = LOCAL.parents[2] / "local_models" / "weights"

# What a bystander asks for, where nothing else is said: a short stream.
STREAM = {"prompt": "Once upon a time", "max_tokens": 16, "stream": True}
MESSAGES = [{"role": "user", "content": "Once upon a time"}]
CREATE_COMPLETION = "/v4/completions"
RESPONSES = "/v1/responses"
ANTHROPIC: dict[str, dict[str, Any]] = {
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 3},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
}
TEXTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 3},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 3},
    CREATE_COMPLETION: {"prompt": "a", "model_parameters": {"max_new_tokens": 3}},
}
SCALE: dict[str, tuple[Callable[[Any, bytes], Any], Any, dict[str, Any]]] = {
    "/v4/chat-completions": (
        parse_chat,
        ChatRequest,
        {"model": MODEL, "messages": MESSAGES, "model_parameters": {"max_tokens": 3}},
    ),
    "/v4/models/completions": (
        parse_model_completion,
        ModelCompletion,
        {"prompt": "a", "max_tokens": 3},
    ),
    "/v4/models/chat-completions": (
        parse_model_chat,
        ModelChat,
        {"prompt": "a", "chat_history": MESSAGES, "max_tokens": 3},
    ),
    "/v1/llm/completions-sync": (
        llm_engine.parse_sync,
        llm_engine.CompletionV1,
        {"prompt": "a", "max_new_tokens": 3},
    ),
    "/v1/llm/completions-stream": (
        llm_engine.parse_stream,
        llm_engine.CompletionV1,
        {"prompt": "a", "max_new_tokens": 3},
    ),
}
TOKENS: dict[str, dict[str, Any]] = {
    "/tokenize": {"prompt": "Once upon a time"},
    "/detokenize": {"tokens": [5, 6]},
}
SCORES: dict[str, dict[str, Any]] = {
    "/score": {"text_1": "Once upon a time", "text_2": ["a", "b"]},
    "/rerank": {"query": "Once upon a time", "documents": ["a", "b"]},
}

CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
TOOLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": CALL}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
        "chat_template_kwargs": {"enable_thinking": False},
        "max_tokens": 24,
    }
}


@dataclass
class Subject:
    """An engine: what is sent to it, as what, what is left in it (empty: nothing), and what a
    bystander asks it for."""

    engine: Any
    bases: dict[str, dict[str, Any]]
    models: dict[str, Any]
    left: Callable[[], list[Any]]
    beside: tuple[str, dict[str, Any]] = ("/v1/completions", STREAM)
    adapters: tuple[AdapterRef | None, ...] = (None,)


def _model(**fields: Any) -> EngineSpec:
    """The base of the local profile, with other fields; its environment is this process's."""
    models = yaml.safe_load(LOCAL.read_text())["models"]
    (model,) = [model for model in models if model["id"] == MODEL]
    os.environ.update(model["env"], VLLM_PORT=str(free_port()), VLLM_LOGGING_LEVEL="CRITICAL")
    # Nothing is stored, whatever vLLM is told.
    os.environ["VLLM_ENABLE_RESPONSES_API_STORE"] = "1"
    return EngineSpec.model_validate({**model, "weights": str(WEIGHTS / MODEL), **fields})


async def _vllm(
    spec: EngineSpec,
    images: ImageLimits = ImageLimits(),  # noqa: B008 - frozen
) -> tuple[Any, dict[str, Any], Callable[[], list[Any]]]:
    from serving.engine.vllm.engine import VllmEngine

    engine = await VllmEngine.start(spec, images)
    processor, app = engine._llm.output_processor, engine._app
    assert app is not None

    def left() -> list[Any]:
        return [
            list(processor.request_states),
            list(processor.parent_requests),
            list(processor.external_req_ids),
            app.kept(),
            [entry for entry in engine._adapters._entries.values() if entry.holders],
        ]

    return engine, dict(app.request_models), left


async def start_vllm(_: Path) -> Subject:
    """A model that generates, with adapters and tools."""
    engine, models, left = await _vllm(_model(tool_parser="hermes"))
    pirate = AdapterRef(PIRATE, str(WEIGHTS / "adapters" / "pirate"))
    models[CREATE_COMPLETION] = [CompletionRequest]
    answers = {RESPONSES: {"input": "Once upon a time", "max_output_tokens": 3}}
    bases = TEXTS | TOKENS | ANTHROPIC | answers
    return Subject(engine, bases, models, left, adapters=(None, pirate))


async def start_scale(_: Path) -> Subject:
    """The same model at the paths of Scale's own clients."""
    subject = await start_vllm(_)
    subject.bases = {path: base for path, (*_, base) in SCALE.items()}
    subject.models = {path: [kind] for path, (_, kind, _) in SCALE.items()}
    return subject


async def start_embed(folder: Path) -> Subject:
    """A model that embeds."""
    write_embed("tiny-embed", folder)
    spec = _model(weights=str(folder), context=CONTEXT, task="embed", prompt_style="raw", lora=None)
    engine, models, left = await _vllm(spec)
    bases: dict[str, dict[str, Any]] = {"/v1/embeddings": {"input": "Once upon a time"}}
    (beside,) = bases.items()
    return Subject(engine, bases | SCORES | TOKENS, models, left, beside)


async def start_score(_: Path) -> Subject:
    """A cross-encoder."""
    own = {"context": CONTEXT, "task": "score", "prompt_style": "raw", "lora": None}
    engine, models, left = await _vllm(_model(weights=str(WEIGHTS / RERANKER), **own))
    beside = ("/score", SCORES["/score"])
    return Subject(engine, SCORES | TOKENS, models, left, beside)


async def start_vision(folder: Path) -> Subject:
    """A model that sees."""
    # By another process: the engine's core is forked from this one, which torch's threads must not
    # have been started in.
    subprocess.run([sys.executable, "-m", "tests.vision_shape", str(folder)], check=True)
    weights = folder / "tiny-vision"
    spec = _model(
        weights=str(weights),
        context=256,
        dtype="float32",
        vision=True,
        lora=None,
        engine_args={"enforce_eager": True, "max_num_seqs": 256, "model_impl": "transformers"},
    )
    images = ImageLimits(max_per_request=2, max_bytes=2_000_000, max_pixels=1_000_000)
    engine, models, left = await _vllm(spec, images)
    content = [{"type": "text", "text": "a"}]
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
    return Subject(engine, {"/v1/chat/completions": chat} | TOKENS, models, left)


async def start_tools(_: Path) -> Subject:
    """A model that calls tools and thinks."""
    parsers = {"tool_parser": "hermes", "reasoning_parser": "deepseek_v3"}
    spec = _model(weights=str(WEIGHTS / INSTRUCT), prompt_style="chat", lora=None, **parsers)
    engine, models, left = await _vllm(spec)
    return Subject(engine, TOOLS, models, left)


async def start_transformers(_: Path) -> Subject:
    """The other engine."""
    from serving.engine.hf.engine import HfEngine
    from serving.engine.hf.openai_body import ChatBody, CompletionBody

    spec = _model(runtime="transformers", lora=None, engine_args={"threads": 1}, env={})
    engine = await HfEngine.start(spec, ImageLimits())
    models = {
        "/v1/completions": [CompletionBody],
        "/v1/chat/completions": [ChatBody],
        CREATE_COMPLETION: [CompletionRequest],
    }
    return Subject(engine, TEXTS, models, lambda: [engine.load().running, engine.load().waiting])


ENGINES = {
    "vllm": start_vllm,
    "scale": start_scale,
    "embed": start_embed,
    "score": start_score,
    "tools": start_tools,
    "vision": start_vision,
    "transformers": start_transformers,
}
