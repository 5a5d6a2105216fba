"""What the description of the API says of each endpoint, besides what the table of endpoints says.

One entry for each path of the table; a test holds the two together. Examples are for the local
profile, and a test runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serving.api.multipart import MEDIA_TYPE as FORM

BASE = "tiny-llama"
CHAT = "tiny-mistral-instruct"
EMBED = "tiny-embed"
RANK = "tiny-reranker"
_PIRATE = "tiny-llama.pirate.240601-120000"


@dataclass(frozen=True)
class Text:
    """One endpoint in words.

    Args:
        tag: the group in which it is shown.
        title: what it does, in a line.
        more: what else a caller should know; Markdown.
        reads: schemas of its body, any of which fits.
        takes: the type of its body, where it is not JSON.
        writes: the schema of its answer.
        streams: the schema of one event, where the answer may be a stream.
        examples: bodies by name; a test sends each.
        profile: false if the local profile has no model for the examples.
        query: parameters of the query by name.
        media: the type of the answer, where it is not JSON, or another than `writes`.
        refuses: where there is never an answer: the statuses of the refusals, and why they come.
    """

    tag: str
    title: str
    more: str = ""
    reads: tuple[str, ...] = ()
    takes: str = "application/json"
    writes: str = ""
    streams: str = ""
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    profile: bool = True
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: str = ""
    refuses: dict[str, str] = field(default_factory=dict)


_COMPLETION = Text(
    "Create Completion",
    "Complete a prompt",
    "The prompt reaches a base model as it is, and a chat model as one user message. With "
    "`stream`, each event has the text that was added; the last one has the finish reason and the "
    "usage.",
    reads=("CreateCompletion",),
    writes="Completion",
    streams="Completion",
    examples={
        "whole": {
            "model": BASE,
            "prompt": "The capital of France is",
            "model_parameters": {"temperature": 0, "max_tokens": 16},
        },
        "streamed, by an adapter": {
            "model": _PIRATE,
            "prompt": "The capital of France is",
            "model_parameters": {"temperature": 0, "max_tokens": 16},
            "stream": True,
        },
    },
)
_LIST: dict[str, dict[str, Any]] = {
    "all": {
        "schema": {"anyOf": [{"type": "boolean"}, {"const": ""}], "default": False},
        "description": "also the models that are known but not deployed; a bare `?all` will do",
    }
}
PAGES: dict[str, dict[str, Any]] = {
    **_LIST,
    "page": {"schema": {"type": "integer", "minimum": 1, "maximum": 10**8, "default": 1}},
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}},
    "model_type": {"schema": {"type": "string", "examples": ["COMPLETION", "EMBEDDING"]}},
    "sort_by": {
        "schema": {
            "type": "string",
            "pattern": "^(id|name|created_at|model_type)(:(asc|desc)?)?$",
            "examples": ["id:asc"],
        }
    },
}
_MODELS = Text("Models", "The model IDs", writes="ModelList", query=_LIST)
_MODEL = Text("Models", "One model ID", writes="Model")
_NO_RESPONSE = Text(
    "OpenAI",
    "Nothing: responses are not stored",
    "Always 404. The path's parameter is the ID of a response.",
    refuses={"404": "responses are not stored"},
)
_RECORDING = (
    "For models with `task: transcribe`. The body is a form; a model that is named before the file "
    "is looked at before the file has come. A recording that is longer than the model hears at "
    "once is cut where it is quiet."
)
_HEARD = {"model": "whisper-large-v3", "file": "meeting.mp3", "language": "en"}

TEXTS: dict[str, Text] = {
    "/v4/completions": _COMPLETION,
    "/v2/completions": _COMPLETION,
    "/v1/completions": Text(
        "OpenAI",
        "Complete a prompt",
        reads=("CompletionRequest",),
        writes="CompletionResponse",
        streams="CompletionStreamResponse",
        examples={
            "whole": {"model": BASE, "prompt": "The capital of France is", "max_tokens": 8},
            "streamed": {"model": BASE, "prompt": "My name is", "max_tokens": 8, "stream": True},
        },
    ),
    "/v1/chat/completions": Text(
        "OpenAI",
        "Answer a chat",
        reads=("ChatCompletionRequest",),
        writes="ChatCompletionResponse",
        streams="ChatCompletionStreamResponse",
        examples={
            "whole": {
                "model": CHAT,
                "messages": [{"role": "user", "content": "Hello!"}],
                "max_tokens": 16,
            },
            "streamed": {
                "model": CHAT,
                "messages": [{"role": "user", "content": "Say hello in Chinese"}],
                "max_tokens": 24,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        },
    ),
    "/v1/responses": Text(
        "OpenAI",
        "Answer a conversation",
        "Nothing is stored: `store` and `background` may only be false, and `previous_response_id` "
        "and `conversation` are refused. The whole conversation is sent as `input`.",
        reads=("ResponsesRequest",),
        writes="ResponsesResponse",
        streams="ResponseEvent",
        examples={
            "whole": {"model": CHAT, "input": "Hello!", "max_output_tokens": 16},
            "streamed": {
                "model": CHAT,
                "instructions": "Be brief.",
                "input": [{"role": "user", "content": "Say hello in Chinese"}],
                "max_output_tokens": 24,
                "stream": True,
            },
        },
    ),
    "/v1/responses/{model}": _NO_RESPONSE,
    "/v1/responses/{model}/input_items": _NO_RESPONSE,
    "/v1/responses/{model}/cancel": _NO_RESPONSE,
    "/v1/audio/transcriptions": Text(
        "OpenAI",
        "Write down what is said in a recording",
        _RECORDING,
        reads=("AudioRequest",),
        takes=FORM,
        writes="Transcription",
        streams="TranscriptEvent",
        media="text/plain",
        examples={"whole": _HEARD},
        profile=False,
    ),
    "/v1/audio/translations": Text(
        "OpenAI",
        "Write down in English what is said in a recording",
        _RECORDING,
        reads=("AudioRequest",),
        takes=FORM,
        writes="Translation",
        streams="Object",
        media="text/plain",
        examples={"whole": {**_HEARD, "language": "fr"}},
        profile=False,
    ),
    "/v1/messages": Text(
        "Anthropic",
        "Answer messages",
        "For models that generate on vLLM; `temperature`, `top_k` and `top_p` are taken of all. A "
        "stream has Anthropic's events, and `ping` while nothing happens.",
        reads=("AnthropicMessagesRequest",),
        writes="AnthropicMessagesResponse",
        streams="AnthropicStreamEvent",
        examples={
            "whole": {
                "model": CHAT,
                "messages": [{"role": "user", "content": "Hello!"}],
                "max_tokens": 16,
            },
            "streamed, by an adapter": {
                "model": _PIRATE,
                "messages": [{"role": "user", "content": "The capital of France is"}],
                "max_tokens": 16,
                "stream": True,
            },
        },
    ),
    "/v1/messages/count_tokens": Text(
        "Anthropic",
        "How many tokens messages have",
        reads=("AnthropicCountTokensRequest",),
        writes="AnthropicCountTokensResponse",
        examples={
            "a message": {"model": CHAT, "messages": [{"role": "user", "content": "Hello!"}]}
        },
    ),
    "/v1/embeddings": Text(
        "OpenAI",
        "Embed texts",
        "For models with `task: embed`.",
        reads=("EmbeddingCompletionRequest", "EmbeddingChatRequest"),
        writes="EmbeddingResponse",
        examples={"two texts": {"model": EMBED, "input": ["a fox", "the path"]}},
        profile=False,
    ),
    "/score": Text(
        "Scores",
        "Compare texts with others",
        "One text with each of several, or two lists of the same length. For models with "
        "`task: score`, which read both together, and with `task: embed`, whose score is the "
        "cosine of the two vectors. Texts only.",
        reads=(
            *("ScoreTextRequest", "ScoreDataRequest"),
            *("ScoreQueriesDocumentsRequest", "ScoreQueriesItemsRequest"),
        ),
        writes="ScoreResponse",
        examples={
            "one with two": {
                "model": RANK,
                "text_1": "What is the capital of France?",
                "text_2": ["The capital of France is Paris.", "A spider has eight legs."],
            }
        },
        profile=False,
    ),
    "/rerank": Text(
        "Scores",
        "Rank documents",
        "For the same models, in the form of Cohere's and Jina's APIs: the `top_n` documents that "
        "fit the query best, the best one first. Texts only.",
        reads=("RerankRequest",),
        writes="RerankResponse",
        examples={
            "the best of two": {
                "model": RANK,
                "query": "What is the capital of France?",
                "documents": ["A spider has eight legs.", "The capital of France is Paris."],
                "top_n": 1,
            }
        },
        profile=False,
    ),
    "/tokenize": Text(
        "Tokens",
        "The tokens of a text or a chat",
        reads=("TokenizeCompletionRequest", "TokenizeChatRequest"),
        writes="TokenizeResponse",
        examples={"a text": {"model": BASE, "prompt": "The capital of France is"}},
    ),
    "/detokenize": Text(
        "Tokens",
        "The text of tokens",
        reads=("DetokenizeRequest",),
        writes="DetokenizeResponse",
        examples={"some tokens": {"model": BASE, "tokens": [5, 6, 7]}},
    ),
    "/v1/models": _MODELS,
    "/v1/models/{model}": _MODEL,
    "/v4/models": Text("Models", "The model IDs, in pages", writes="ModelPage", query=PAGES),
    "/v4/models/{model}": Text("Models", "One model ID", writes="ModelInstance"),
    "/openai/models": _MODELS,
    "/openai/models/{model}": _MODEL,
    "/openai/v1/models": _MODELS,
    "/openai/v1/models/{model}": _MODEL,
    "/user-info": Text("Service", "The accounts that the key may use"),
    "/version": Text("Service", "The version of the service"),
    "/status": Text("Service", "Every model ID with its replicas"),
    "/metrics/targets": Text(
        "Service", "What Prometheus scrapes, as its HTTP service discovery reads it", writes="List"
    ),
    "/metrics": Text(
        "Service", "The router's metrics in Prometheus' text form", media="text/plain"
    ),
    "/health": Text("Service", "This router answers"),
    "/ping": Text("Service", "This router answers"),
    "/ready": Text(
        "Service", "Every model can answer", "503 until then, and while this router leaves."
    ),
    "/-/healthz": Text(
        "Service", "This router answers; KubeRay asks", "503 while this router leaves."
    ),
    "/openapi.json": Text("Service", "This description"),
    "/docs": Text("Service", "This description as a page", media="text/html"),
}
