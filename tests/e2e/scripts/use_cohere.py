"""Runs in cohere's own environment: ranks the job's documents by both of the SDK's clients.

Prints a JSON object: what each returned, and the SDK's exceptions.
"""

import json
import sys
from typing import Any

import cohere
from cohere.core.api_error import ApiError


def ranked(client: Any, **fields: Any) -> Any:
    try:
        found = client.rerank(**fields)
    except ApiError as error:
        return {"error": type(error).__name__, "status": error.status_code, "body": error.body}
    return [[result.index, result.relevance_score] for result in found.results]


job = json.load(sys.stdin)
to = {"api_key": job["key"], "base_url": job["url"]}
clients = {"v2": cohere.ClientV2(**to), "v1": cohere.Client(**to)}
print(
    json.dumps(
        {
            name: [ranked(client, **fields) for fields in job["calls"]]
            for name, client in clients.items()
        }
    )
)
