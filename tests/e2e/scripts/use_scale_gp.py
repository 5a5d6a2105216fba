"""Runs in scale-gp's own environment: one call for each item of the job on standard input.

Prints a JSON list: what came back, or the SDK's exception.
"""

import functools
import json
import sys
from typing import Any

import httpx
from scale_gp import APIError, SGPClient

job = json.load(sys.stdin)
sent = 0


def count(request: httpx.Request) -> None:
    global sent
    sent += 1


client = SGPClient(
    api_key=job["key"],
    account_id=job["account"],
    base_url=job["url"],
    http_client=httpx.Client(event_hooks={"request": [count]}, timeout=60),
)


def chat(**arguments: Any) -> dict[str, Any]:
    answer = client.chat_completions.create(**arguments)
    if arguments.get("stream"):
        return {"chunks": [chunk.to_dict() for chunk in answer]}
    return {"answer": answer.to_dict(), "sent": sent}


def of_model(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = functools.reduce(getattr, method.split("."), client.models)(**arguments)
    if arguments.get("stream"):
        return {"chunks": [chunk.to_dict() for chunk in answer]}
    if method.endswith(("list", "list_all")):
        return {"items": [item.to_dict() for item in answer], "sent": sent}
    return {"answer": answer.to_dict(), "sent": sent}


def call(arguments: dict[str, Any]) -> dict[str, Any]:
    global sent
    sent = 0
    try:
        if "models" in arguments:
            models = client.models.list(**arguments["models"])
            one = client.models.retrieve(models.items[0].id)
            return {"models": [model.model_dump(mode="json") for model in models], "one": one.id}
        if "method" in arguments:
            return of_model(**arguments)
        if "chat" in arguments:
            return chat(**arguments["chat"])
        if arguments.get("stream"):
            # Its chunks are not of the declared type, but what they hold is the same.
            chunks = [chunk.to_dict() for chunk in client.completions.create(**arguments)]
            return {
                "texts": [chunk["completion"]["text"] for chunk in chunks],
                "finish_reasons": [chunk["completion"]["finish_reason"] for chunk in chunks],
                "usage": [chunk["token_usage"] for chunk in chunks],
            }
        answer = client.completions.create(**arguments)
        return {"answer": answer.model_dump(), "sent": sent}
    except APIError as error:
        status = getattr(error, "status_code", None)
        return {
            "error": type(error).__name__,
            "status": status,
            "message": str(error),
            "body": error.body,
            "sent": sent,
        }


print(json.dumps([call(arguments) for arguments in job["calls"]], default=str))
