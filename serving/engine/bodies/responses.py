"""What is particular to a body of OpenAI's Responses (`POST /v1/responses`).

Its chat is a list of items in `input`. An engine keeps nothing of a response, so a request that
builds on a kept one, or asks for one to be kept, is refused with the field that asks for it:
answered without it, it would be answered wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from serving.errors import InvalidRequest

PATH = "/v1/responses"

_SEND_ALL = "send the whole conversation as 'input'"
# What makes sense of these is kept by OpenAI, or by vLLM in its memory.
_STORED = {
    "previous_response_id": f"responses are not stored here; {_SEND_ALL}",
    "conversation": f"conversations are not stored here; {_SEND_ALL}",
    "previous_input_messages": f"is not taken; {_SEND_ALL}",
    "prompt": "prompt templates are not stored here; send the prompt as 'input'",
}
# These ask for something to be kept, unless they are false. vLLM also reads "yes" and 1 as true.
_ASK_TO_STORE = {
    "background": "must be false: responses are not stored here, so none can be fetched later",
    "store": "must be false: responses are not stored here",
}


def chat_field(path: str) -> str:
    """The field in which bodies of this path have their chat."""
    return "input" if path == PATH else "messages"


def check_response(given: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidRequest: which field of the body needs what is stored, or asks for storing, or is
            known to vLLM by another name.
    """
    for name, message in _STORED.items():
        if given.get(name) is not None:
            _refuse(name, message)
    for name, message in _ASK_TO_STORE.items():
        if given.get(name) not in (None, False):
            _refuse(name, message)
    items = given.get("input")
    for item in items if type(items) is list else ():
        if type(item) is dict and item.get("type") == "item_reference":
            _refuse("input", f"has an item_reference; items are not stored here: {_SEND_ALL}")
    limit = given.get("max_output_tokens")
    if isinstance(limit, int | float) and limit < 1:
        _refuse("max_output_tokens", "must be at least 1")


def is_constrained(given: Mapping[str, Any]) -> bool:
    """True if the answer has to fit a format that the caller gives."""
    text = given.get("text")
    form = text.get("format") if type(text) is dict else None
    return type(form) is dict and form.get("type") != "text"


def _refuse(name: str, message: str) -> NoReturn:
    raise InvalidRequest(f"'{name}': {message}", param=name)
