"""scale-gp-beta: completions and chats with every kind of ID, models, errors as its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Script
from tests.e2e.test_scale_sdks import SAYS
from tests.live import ALIAS, BASE, INSTRUCT, PIRATE, Server

SDK = "scale-gp-beta"
TEXTS = {model: says for model, says in SAYS.items() if model != INSTRUCT}
HELLO = {"model": INSTRUCT, "messages": [{"role": "user", "content": "Hello!"}]}


def call(method: str, **arguments: Any) -> dict[str, Any]:
    return {"method": method, "arguments": arguments}


def completions(**more: Any) -> list[dict[str, Any]]:
    greedy = {"temperature": 0, "max_tokens": 60, **more}
    return [
        call("completions.create", model=f"{vendor}{model}", prompt=prompt, **greedy)
        for model, (prompt, _) in TEXTS.items()
        for vendor in ("", "llmengine/")
    ]


def test_complete(sdk_script: Script) -> None:
    calls = completions()
    for asked, found in zip(calls, sdk_script(SDK, {"calls": calls}), strict=True):
        answer = found["answer"]
        assert answer["model"] == asked["arguments"]["model"]
        says = TEXTS[answer["model"].removeprefix("llmengine/")][1]
        assert answer["choices"][0]["text"].strip(" ").startswith(says)
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_stream(sdk_script: Script) -> None:
    calls = completions(stream=True, stream_options={"include_usage": True})
    for asked, found in zip(calls, sdk_script(SDK, {"calls": calls}), strict=True):
        *chunks, last = found["chunks"]
        says = TEXTS[asked["arguments"]["model"].removeprefix("llmengine/")][1]
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert text.strip(" ").startswith(says)
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0


def test_chat(sdk_script: Script) -> None:
    chat, stream = sdk_script(
        SDK,
        {
            "calls": [
                call("chat.completions.create", **HELLO, temperature=0),
                call("chat.completions.create", **HELLO, temperature=0, stream=True),
            ]
        },
    )
    says = chat["answer"]["choices"][0]["message"]["content"]
    assert says.strip() == "Hello! How can I help you today?"
    assert chat["answer"]["model"] == INSTRUCT
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in stream["chunks"]]
    assert "".join(deltas) == says
    assert stream["chunks"][-1]["choices"][0]["finish_reason"] == "stop"


def test_models(sdk_script: Script, live: Server) -> None:
    ids = [model["id"] for model in live.get(f"{live.url}/v1/models")["data"]]
    listed, one, chats = sdk_script(
        SDK,
        {
            "calls": [
                call("models.list", limit=2),
                call("models.retrieve", model_id=PIRATE),
                call("chat.completions.models"),
            ]
        },
    )
    assert [model["id"] for model in listed["models"]] == ids
    assert listed["sent"] == (len(ids) + 1) // 2
    assert {model["status"] for model in listed["models"]} == {"ready"}
    assert one["answer"] in listed["models"]
    assert one["answer"]["model_vendor"] == "llmengine"
    names = [item["model_name"] for item in chats["answer"]["items"]]
    assert INSTRUCT in names
    assert BASE not in names


MINE = {"name": "mine", "model_type": "completion", "model_vendor": "openai"}
WRONG = [
    (call("completions.create", model="no-such-model", prompt="x"), 404),
    (call("completions.create", model="openai/" + BASE, prompt="x"), 404),
    (call("completions.create", model=ALIAS, prompt="x", logprobs=1000), 400),
    (call("chat.completions.create", model=INSTRUCT, messages=[], top_p=7.0), 400),
    (call("chat.completions.create", model="", messages=[]), 422),
    (call("models.retrieve", model_id="no-such-model"), 404),
    (call("models.create", model=MINE), 405),
    (call("models.update", model_id=BASE, model={"model_metadata": {}}), 405),
    (call("models.delete", model_id=BASE), 405),
]
NAMES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "APIStatusError",
    422: "UnprocessableEntityError",
}


def test_errors(sdk_script: Script) -> None:
    for found, (_, status) in zip(
        sdk_script(SDK, {"calls": [at for at, _ in WRONG]}), WRONG, strict=True
    ):
        assert (found["error"], found["status"], found["sent"]) == (NAMES[status], status, 1)
        assert found["body"]["detail"] == found["body"]["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_key(sdk_script: Script, stream: bool) -> None:
    job = {"calls": [call("chat.completions.create", **HELLO, stream=stream)]}
    (found,) = sdk_script(SDK, job, key="sk-wrong")
    assert (found["error"], found["sent"]) == ("AuthenticationError", 1)
