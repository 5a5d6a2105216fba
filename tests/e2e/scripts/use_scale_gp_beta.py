"""Runs in scale-gp-beta's own environment: one call for each item of the job on standard input.

`method` names it, as in `chat.completions.create`. Prints a JSON list: what came back, or the
SDK's exception.
"""

import functools
import json
import sys
from typing import Any

import httpx
from scale_gp_beta import APIError, SGPClient

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


def call(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    global sent
    sent = 0
    try:
        answer = functools.reduce(getattr, method.split("."), client)(**arguments)
        if arguments.get("stream"):
            return {"chunks": [chunk.to_dict() for chunk in answer]}
        if method == "models.list":
            return {"models": [model.to_dict() for model in answer], "sent": sent}
        return {"answer": answer.to_dict(), "sent": sent}
    except APIError as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "message": str(error),
            "body": error.body,
            "sent": sent,
        }


print(json.dumps([call(at["method"], at["arguments"]) for at in job["calls"]], default=str))
