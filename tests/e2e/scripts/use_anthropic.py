"""Runs in anthropic's own environment: one call for each item of the job on standard input.

Prints a JSON list: what came back, or the SDK's exception.
"""

import json
import sys
from typing import Any

from anthropic import Anthropic, APIStatusError

job = json.load(sys.stdin)
client = Anthropic(api_key=job["key"], base_url=job["url"], timeout=60)


def call(do: str, arguments: dict[str, Any]) -> dict[str, Any]:
    messages = client.messages
    if do == "count_tokens":
        return {"tokens": messages.count_tokens(**arguments).input_tokens}
    if do == "create":
        answer = messages.create(**arguments)
        return {"answer": answer.model_dump(), "request_id": answer._request_id}
    if do == "beta":
        return {"answer": client.beta.messages.create(**arguments).model_dump()}
    if do == "events":
        return {"events": [event.type for event in messages.create(stream=True, **arguments)]}
    with messages.stream(**arguments) as stream:
        if do == "text_stream":
            return {"texts": list(stream.text_stream), "request_id": stream.request_id}
        kinds = [event.type for event in stream]
        return {"events": kinds, "answer": stream.get_final_message().model_dump()}


def tell(item: dict[str, Any]) -> dict[str, Any]:
    try:
        return call(item.pop("do"), item)
    except APIStatusError as error:
        return {
            "error": type(error).__name__,
            "status": error.status_code,
            "kind": error.type,
            "body": error.body,
            "request_id": error.request_id,
        }


print(json.dumps([tell(item) for item in job["calls"]]))
