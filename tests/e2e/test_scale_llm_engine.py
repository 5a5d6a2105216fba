"""scale-llm-engine: completions with every kind of ID, models, errors as its own."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e.conftest import Script
from tests.e2e.test_scale_sdks import SAYS
from tests.live import ALIAS, BASE, INSTRUCT, PIRATE, Server

SDK = "scale-llm-engine"
TEXTS = {model: says for model, says in SAYS.items() if model != INSTRUCT}
WAYS = ("Completion.create", "Completion.acreate")


def call(method: str, **arguments: Any) -> dict[str, Any]:
    return {"method": method, "arguments": arguments}


def completions(method: str, **more: Any) -> list[dict[str, Any]]:
    greedy = {"temperature": 0, "max_new_tokens": 60, **more}
    return [
        call(method, model=model, prompt=prompt, **greedy) for model, (prompt, _) in TEXTS.items()
    ]


@pytest.mark.parametrize("way", WAYS)
def test_complete(sdk_script: Script, way: str) -> None:
    found = sdk_script(SDK, {"calls": completions(way)})
    for answer, (_, says) in zip(found, TEXTS.values(), strict=True):
        output = answer["answer"]["output"]
        assert output["text"].strip(" ").startswith(says)
        assert output["num_prompt_tokens"] > 0
        assert output["num_completion_tokens"] > 0
        assert answer["answer"]["request_id"]


@pytest.mark.parametrize("way", WAYS)
def test_stream(sdk_script: Script, way: str) -> None:
    found = sdk_script(SDK, {"calls": completions(way, stream=True)})
    for answer, (_, says) in zip(found, TEXTS.values(), strict=True):
        outputs = [chunk["output"] for chunk in answer["chunks"]]
        assert "".join(output["text"] for output in outputs).strip(" ").startswith(says)
        *earlier, last = [output["finished"] for output in outputs]
        assert (set(earlier), last) == ({False}, True)
        counts = [output["num_completion_tokens"] for output in outputs]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]
        assert {chunk["error"] for chunk in answer["chunks"]} == {None}


def test_what_it_asks_for_is_done(sdk_script: Script) -> None:
    prompt = TEXTS[BASE][0]
    greedy = {"model": BASE, "prompt": prompt, "temperature": 0, "max_new_tokens": 8}
    plain, whole, stream, choice, pattern, stop, included = sdk_script(
        SDK,
        {
            "calls": [
                call("Completion.create", **greedy),
                call("Completion.create", **greedy, return_token_log_probs=True),
                call("Completion.create", **greedy, return_token_log_probs=True, stream=True),
                call("Completion.create", **greedy, guided_choice=[" Rome", " Oslo"]),
                call("Completion.create", **greedy, guided_regex="[0-9]{3}"),
                call("Completion.create", **greedy, stop_sequences=["ris"]),
                call(
                    "Completion.create",
                    **greedy,
                    stop_sequences=["ris"],
                    include_stop_str_in_output=True,
                ),
            ]
        },
    )
    text = plain["answer"]["output"]["text"]
    assert plain["answer"]["output"]["tokens"] is None
    output = whole["answer"]["output"]
    assert "".join(token["token"] for token in output["tokens"]).startswith(text)
    assert len(output["tokens"]) == output["num_completion_tokens"]
    assert all(token["log_prob"] <= 0 for token in output["tokens"])
    tokens = [chunk["output"]["token"] for chunk in stream["chunks"]]
    assert [token for token in tokens if token] == output["tokens"]
    assert choice["answer"]["output"]["text"] in (" Rome", " Oslo")
    assert re.fullmatch("[0-9]{3}", pattern["answer"]["output"]["text"])
    assert stop["answer"]["output"]["text"] == " Pa"
    assert included["answer"]["output"]["text"] == " Paris"


def test_models(sdk_script: Script, live: Server) -> None:
    listed, one = sdk_script(SDK, {"calls": [call("Model.list"), call("Model.get", model=PIRATE)]})
    ids = [model["id"] for model in live.get(f"{live.url}/v1/models")["data"]]
    endpoints = listed["answer"]["model_endpoints"]
    assert [at["name"] for at in endpoints] == ids
    assert {at["status"] for at in endpoints} == {"READY"}
    assert one["answer"] in endpoints
    assert (one["answer"]["model_name"], one["answer"]["inference_framework"]) == (BASE, "vllm")


MINE = {"name": "mine", "model": "llama-2-7b", "inference_framework_image_tag": "latest"}
PROMPT = {"prompt": "x", "max_new_tokens": 2}
WRONG = [
    (call("Completion.create", model="no-such-model", **PROMPT), "NotFoundError"),
    (call("Completion.create", model="gpt-4", **PROMPT), "UnknownError"),
    (call("Completion.create", model=ALIAS, prompt="x", max_new_tokens=0), "UnknownError"),
    (call("Completion.create", model=ALIAS, prompt="x", max_new_tokens=10**6), "BadRequestError"),
    (call("Completion.create", model=ALIAS, **PROMPT, guided_regex="("), "BadRequestError"),
    (call("Completion.create", model=ALIAS, prompt="x " * 9000), "BadRequestError"),
    (call("Model.get", model="no-such-model"), "NotFoundError"),
    (call("Model.create", **MINE), "UnknownError"),
    (call("Model.update", name=BASE, max_workers=2), "UnknownError"),
    (call("Model.delete", model_endpoint_name=BASE), "UnknownError"),
    (call("FineTune.list"), "NotFoundError"),
]


def test_errors(sdk_script: Script, live: Server) -> None:
    found = sdk_script(SDK, {"calls": [at for at, _ in WRONG]})
    assert [at["error"] for at in found] == [name for _, name in WRONG]
    assert all(at["message"] and "{" not in at["message"][:1] for at in found)
    assert "max_new_tokens" in found[3]["message"]
    streamed = [
        {**at, "arguments": {**at["arguments"], "stream": True}}
        for at, _ in WRONG
        if at["method"] == "Completion.create"
    ]
    again = sdk_script(SDK, {"calls": streamed})
    assert [at["error"] for at in again] == [name for _, name in WRONG[: len(streamed)]]
    (wrong,) = sdk_script(SDK, {"calls": [call("Model.list")]}, key="sk-wrong")
    assert wrong["error"] == "UnauthorizedError"
