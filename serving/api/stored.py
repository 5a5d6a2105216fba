"""What OpenAI's Responses would keep of a request, and what nobody keeps here.

A request that builds on a kept response, or asks for one to be kept, is refused with the field that
asks for it: answered without it, it would be answered wrongly. That holds for engines and for
hosted providers, where what is kept would be another caller's to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from serving.errors import InvalidRequest

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


def refuse_stored(given: Mapping[str, Any]) -> None:
    """Check a body of `POST /v1/responses`.

    Raises:
        InvalidRequest: which field needs what is stored, or asks for storing.
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


def _refuse(name: str, message: str) -> NoReturn:
    raise InvalidRequest(f"'{name}': {message}", param=name)
