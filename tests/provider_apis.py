"""What a provider's double answers in the APIs beside chat: the events of a stream, and the whole
answer as the last of the list.

Shapes as published: platform.openai.com/docs/api-reference/responses (and `responses-streaming`,
`embeddings`); docs.anthropic.com/en/api/messages (and `messages-streaming`,
`messages-count-tokens`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
# Takes the model, the words and the prompt's tokens (None: no usage is told).
Api = Callable[[str, tuple[str, ...], int | None], list[Event]]


def responses(model: str, words: tuple[str, ...], prompt: int | None) -> list[Event]:
    text = {"type": "output_text", "text": "".join(words), "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    begun: Event = {"id": "resp_1", "object": "response", "model": model, "error": None}
    begun |= {"status": "in_progress", "output": [], "usage": None, "store": False}
    done = {**begun, "status": "completed", "output": [message]}
    if prompt is not None:
        count = len(words)
        done["usage"] = {"input_tokens": prompt, "output_tokens": count,
                         "total_tokens": prompt + count}  # fmt: skip
    deltas = [
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": word} for word in words
    ]
    events: list[Event] = [
        {"type": "response.created", "response": begun},
        *deltas,
        {"type": "response.completed", "response": done},
    ]
    return [{**event, "sequence_number": at} for at, event in enumerate(events)] + [done]


def messages(model: str, words: tuple[str, ...], prompt: int | None) -> list[Event]:
    usage = {} if prompt is None else {"input_tokens": prompt - 2, "cache_read_input_tokens": 2}
    begun: Event = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    begun |= {"content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    block = {"type": "text", "text": "".join(words)}
    whole = {**begun, "content": [block], "stop_reason": "end_turn"}
    whole["usage"] = {**usage, "output_tokens": len(words)} if usage else None
    if not usage:
        begun["usage"] = None
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in words
    ]
    last: Event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    if usage:
        last["usage"] = {"output_tokens": len(words)}
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {**block, "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        last,
        {"type": "message_stop"},
        whole,
    ]


def count_tokens(model: str, words: tuple[str, ...], prompt: int | None) -> list[Event]:
    return [{"input_tokens": prompt or 0}]


def embeddings(model: str, words: tuple[str, ...], prompt: int | None) -> list[Event]:
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
    answer: Event = {"object": "list", "data": data, "model": model}
    if prompt is not None:
        answer["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt}
    return [answer]


APIS: dict[str, Api] = {
    "/responses": responses,
    "/messages": messages,
    "/messages/count_tokens": count_tokens,
    "/embeddings": embeddings,
}
