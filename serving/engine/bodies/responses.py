"""What is particular to a body of OpenAI's Responses (`POST /v1/responses`).

Its chat is a list of items in `input`. Nothing is kept of a response (`serving/api/stored.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from serving.api.stored import refuse_stored
from serving.errors import InvalidRequest

# What `include` names where an answer is to have log probabilities.
LOGPROBS = "message.output_text.logprobs"
PATH = "/v1/responses"


def chat_field(path: str) -> str:
    """The field in which bodies of this path have their chat."""
    return "input" if path == PATH else "messages"


def check_response(given: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidRequest: which field of the body needs what is stored, or asks for storing, or is
            known to vLLM by another name, or not at all.
    """
    refuse_stored(given)
    limit = given.get("max_output_tokens")
    if isinstance(limit, int | float) and limit < 1:
        _refuse("max_output_tokens", "must be at least 1")
    choice = given.get("tool_choice")
    if type(choice) is dict and choice.get("type") == "allowed_tools":
        # vLLM shows the model all tools, and leaves its calls in the text as they are written.
        _refuse("tool_choice", "allowed_tools is not taken here; send the tools that are allowed")


def is_constrained(given: Mapping[str, Any]) -> bool:
    """True if the answer has to fit a format that the caller gives."""
    text = given.get("text")
    form = text.get("format") if type(text) is dict else None
    return type(form) is dict and form.get("type") != "text"


def _refuse(name: str, message: str) -> NoReturn:
    raise InvalidRequest(f"'{name}': {message}", param=name)
