from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from serving.cli import client as cli_client
from serving.cli import main as cli

Handler = Callable[[httpx.Request], httpx.Response]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVING_URL", raising=False)
    monkeypatch.delenv("SERVING_API_KEY", raising=False)


def run(
    handler: Handler, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Result:
    factory = functools.partial(cli_client.make_client, transport=httpx.MockTransport(handler))
    return CliRunner().invoke(cli.main, args, input=stdin, env=env, obj=factory)


def answers(status: int, body: Any, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, json=body, headers=headers)


class Recorder:
    """Keeps the request and gives one answer."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.request = request
        return httpx.Response(200, json=self.body)

    @property
    def sent(self) -> Any:
        return json.loads(self.request.content)


def chunk(text: str, finish_reason: str | None = None, completion: int = 3) -> dict[str, Any]:
    usage = {"prompt": 5, "completion": completion, "total": 5 + completion}
    return {
        "completion": {"text": text, "finish_reason": finish_reason, "response_metadata": None},
        "token_usage": usage if finish_reason else None,
    }


def frame(text: str, finish_reason: str | None = None, completion: int = 3) -> bytes:
    body = json.dumps(chunk(text, finish_reason, completion), ensure_ascii=False)
    return f"data: {body}\n\n".encode()


def streams(*parts: bytes) -> Handler:
    return lambda request: httpx.Response(200, content=iter(parts))


STREAM = streams(frame("Par"), frame("is."), frame("", "stop"))
COMPLETE = ("complete", "tiny", "The capital of France is")


def openai_model(id: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": 1, "owned_by": "serving", **fields}


MODELS = {
    "object": "list",
    "data": [
        openai_model("tiny", root="tiny", parent=None, max_model_len=2048, tool_parser="hermes"),
        openai_model("tiny.law", root="tiny.law", parent="tiny", max_model_len=2048),
        openai_model("latest", root="tiny", parent=None, max_model_len=None),
    ],
}
