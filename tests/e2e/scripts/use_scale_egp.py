"""Runs in scale-egp's own environment: one call for each item of the job on standard input.

Prints a JSON list: what came back, or the SDK's exception. With no account in the job the SDK asks
`GET /user-info` for one.
"""

import json
import sys
from typing import Any

from scale_egp.exceptions import EGPException
from scale_egp.sdk.client import EGPClient
from scale_egp.sdk.types.completions import ModelParameters


def call(arguments: dict[str, Any]) -> dict[str, Any]:
    stream = arguments.pop("stream", False)
    parameters = arguments.pop("model_parameters", None)
    try:
        client = EGPClient(api_key=job["key"], account_id=job["account"], endpoint_url=job["url"])
        arguments |= {"account_id": client.account_id}
        if parameters is not None:
            arguments["model_parameters"] = ModelParameters(**parameters)
        if stream:
            chunks = [json.loads(c.json()) for c in client.completions().stream(**arguments)]
            return {
                "texts": [chunk["completion"]["text"] for chunk in chunks],
                "finish_reasons": [chunk["completion"]["finish_reason"] for chunk in chunks],
                "usage": [chunk["token_usage"] for chunk in chunks],
                "account": client.account_id,
            }
        answer = client.completions().create(**arguments)
        return {"answer": json.loads(answer.json()), "account": client.account_id}
    except EGPException as error:
        return {"error": type(error).__name__, "status": error.code, "message": str(error)}


job = json.load(sys.stdin)
print(json.dumps([call(arguments) for arguments in job["calls"]]))
