"""What is borrowed of vLLM's pooling endpoints: where texts to embed or to score become tokens.

Its app renders each prompt of a request by itself, in a pool with one thread that all requests
share. `serving/engine/vllm/rehearsal.py` does it in a helper process instead, and what it found is
taken here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import msgspec
from fastapi import FastAPI

# What a prompt of text becomes; another key would not survive the way to the engine server.
_INPUT_KEYS = frozenset(("type", "prompt_token_ids", "prompt", "arrival_time", "cache_salt"))

Render = Callable[[Any], Awaitable[Any]]


class Pooled(msgspec.Struct):
    """One prompt to embed or to score, as tokens. `extra` is for the model: where the second text
    of a pair begins."""

    inputs: dict[str, Any]
    extra: dict[str, Any] | None = None

    @property
    def tokens(self) -> int:
        return len(self.inputs["prompt_token_ids"])


def is_cross_encoder(tasks: tuple[str, ...], model_config: Any) -> bool:
    """True for a model that vLLM scores pairs with: a classifier that has one label."""
    labels = getattr(model_config.hf_config, "num_labels", 0)
    return bool(model_config.get_pooling_task(tasks) == "classify" and labels == 1)


def record(app: FastAPI, found: Callable[[], list[Pooled | None]]) -> None:
    """Write what the prompts of a request become into the list that `found` returns, in their
    order. None stands for one that is more than text."""

    def recording(render: Render) -> Render:
        async def render_and_note(request: Any) -> Any:
            # Renders begin in the order of the prompts, and may end in another.
            notes = found()
            at = len(notes)
            notes.append(None)
            rendered = await render(request)
            notes[at] = _plain(rendered)
            return rendered

        return render_and_note

    _replace_renders(app, recording)


class Replay:
    """Gives vLLM's app what is known already of the current task's request."""

    def __init__(self) -> None:
        self._known: ContextVar[Iterator[Pooled] | None] = ContextVar("pooled", default=None)

    def install(self, app: FastAPI) -> None:
        """Have this app ask here first."""

        def replaying(render: Render) -> Render:
            async def render_or_take(request: Any) -> Any:
                known = self._known.get()
                return await render(request) if known is None else _rendered(next(known), request)

            return render_or_take

        _replace_renders(app, replaying)

    def set(self, known: Iterable[Pooled] | None) -> None:
        """Of the request that the current task, and those it starts, work on."""
        self._known.set(None if known is None else iter(known))


def _replace_renders(app: FastAPI, replace: Callable[[Render], Render]) -> None:
    """`render_async` of a processor takes one prompt of a request."""
    for name in ("serving_embedding", "serving_scores"):
        if (serving := getattr(app.state, name, None)) is not None:
            processor = serving.io_processor
            processor.render_async = replace(processor.render_async)


def _plain(rendered: Any) -> Pooled | None:
    inputs = rendered["prompts"]
    if inputs["type"] != "token" or not inputs.keys() <= _INPUT_KEYS:
        return None
    # Its text is in no answer.
    kept = {name: value for name, value in inputs.items() if name != "prompt"}
    return Pooled(kept, rendered["params"].extra_kwargs)


def _rendered(known: Pooled, request: Any) -> dict[str, Any]:
    params = request["params"]
    if known.extra is not None:
        params = params.clone()
        params.extra_kwargs = known.extra
    return {
        "prompts": known.inputs,
        "params": params,
        "lora_requests": request["lora_requests"],
        "priorities": request["priorities"],
    }
