"""What vLLM's handler of Anthropic's Messages does otherwise than it should.

The handler turns a request into one for chat, and the answer of chat back. In between

- what a request has that chat does not take is raised as whatever exception comes up: a 500, or a
  400 with pydantic's account of vLLM's own models;
- an error inside a stream, in OpenAI's form, is read as a part of the answer, which it is not: the
  caller is told of that, and not of the error;
- the arguments of a call to a tool are read as JSON, and need not be it: a limit on tokens may cut
  them short, which would be a 400;
- what is known of the model's chat template is found out once, when the server starts or for the
  first request that needs it. Here the template depends on the request.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_core import from_json
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.logger import init_logger

_logger = init_logger(__name__)
# How an error in OpenAI's form begins in a stream, and one that the handler makes of an exception.
_ERROR, _BROKEN = 'data: {"error"', "event: error\n"
# What is said of an exception of the handler itself; it has been logged.
_BUG = _ERROR + ': {"message": "the engine failed on this request", "code": 500}}\n\n'


async def correct_messages(app: FastAPI, template: Callable[[], str | None]) -> None:
    """Correct the handler of `app`, if it has one. `template` returns the chat template of the
    current request, None for the model's own.

    To be called before the first request.
    """
    handler = getattr(app.state, "anthropic_serving_messages", None)
    if handler is None:
        return
    # Asking it renders chats, which in the middle of a request would be that request's.
    await handler._get_disabled_thinking_effort()
    default = handler._merge_inline_system

    def merges(_: Any) -> bool:
        own = template()
        return default if own is None else _merges_system(own)

    kind = type(handler)
    handler.__class__ = type(
        kind.__name__, (_Corrected, kind), {"_merge_inline_system": property(merges)}
    )


@functools.lru_cache(256)
def _merges_system(template: str) -> bool:
    """True if a template wants all system messages first; as vLLM finds out."""
    return bool(AnthropicServingMessages._detect_merge_inline_system(template))


class _Corrected(AnthropicServingMessages):  # type: ignore[misc]  # vLLM is not typed for us
    """The handler, with its errors told as those of chat are."""

    @classmethod
    def to_chat_completion_request(cls, *args: Any, **kwargs: Any) -> Any:
        """Whatever is raised in here, the request's body made it."""
        try:
            return super().to_chat_completion_request(*args, **kwargs)
        except VLLMError:
            raise  # it says what is wrong
        except ValidationError as error:
            raise VLLMValidationError(_said(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the body made it
            raise VLLMValidationError(
                f"the body is malformed: {type(error).__name__}: {error}"
            ) from None

    async def create_messages(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().create_messages(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - answered, and logged if it is a failure
            return _response(error)

    async def count_tokens(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().count_tokens(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - as above
            return _response(error)

    def messages_full_converter(self, generator: Any) -> Any:
        """A whole answer; of a call that was cut short, what there is."""
        for choice in generator.choices:
            for call in choice.message.tool_calls:
                call.function.arguments = json.dumps(_arguments(call.function.arguments))
        return super().messages_full_converter(generator)

    async def message_stream_converter(self, generator: AsyncIterator[str]) -> AsyncIterator[str]:
        """The events of an answer. An error ends them, in OpenAI's form, which is read and told in
        ours by who called the app (`refusals.py`)."""
        failure = ""

        async def parts() -> AsyncIterator[str]:
            nonlocal failure
            async for part in generator:
                if part.startswith(_ERROR):
                    failure = part
                    return
                yield part

        async for event in super().message_stream_converter(parts()):
            if event.startswith(_BROKEN):
                yield _BUG
                return
            yield event
        if failure:
            yield failure


def _response(error: Exception) -> ErrorResponse:
    """vLLM's route would log a trace of every caller's mistake, with the caller's text in it, and
    answer with the text of every failure."""
    response = create_error_response(error)
    if response.error.code >= 500 and not isinstance(error, VLLMError):
        _logger.error("a request to Messages failed", exc_info=error)
        response.error.message = "the engine failed on this request"
    return response


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = from_json(text, allow_inf_nan=False, allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _said(error: ValidationError) -> str:
    """What pydantic says, without what it was given and where to read more."""
    said = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(str(part) for part in one["loc"])
        said.append(f"{place}: {one['msg']}" if place else str(one["msg"]))
    return "; ".join(said)
