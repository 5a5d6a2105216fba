"""scale-gp's `models`: completions and chats of one deployment, lists, and what is not managed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import Script
from tests.e2e.test_scale_sdks import GREEDY, SAYS
from tests.live import BASE, INSTRUCT, PIRATE, Server, poll

SDK = "scale-gp"
HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def call(method: str, **arguments: Any) -> dict[str, Any]:
    return {"method": method, "arguments": arguments}


def completions(**more: Any) -> list[dict[str, Any]]:
    return [
        call("completions.create", model_deployment_id=model, prompt=prompt, **GREEDY, **more)
        for model, (prompt, _) in SAYS.items()
    ]


def test_completions(sdk_script: Script) -> None:
    whole = sdk_script(SDK, {"calls": completions()})
    stream = sdk_script(SDK, {"calls": completions(stream=True)})
    for found, chunks, (prompt, says) in zip(whole, stream, SAYS.values(), strict=True):
        answer = found["answer"]
        ((asked, (text,)),) = answer["completions"]
        assert asked == prompt
        assert text.strip(" ").startswith(says)
        assert answer["finish_reason"] == "stop"
        assert answer["prompt_tokens"] > 0
        *earlier, last = chunks["chunks"]
        assert "".join(chunk["completions"][0][1][0] for chunk in chunks["chunks"]) == text
        assert {chunk["finish_reason"] for chunk in earlier} <= {None}
        assert last["finish_reason"] == "stop"
        assert last["response_tokens"] == answer["response_tokens"] > 0


def test_chats(sdk_script: Script) -> None:
    asked = {
        "model_deployment_id": INSTRUCT,
        "chat_history": HISTORY,
        "prompt": "What is the capital of France?",
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 1,
    }
    whole, stream = sdk_script(
        SDK,
        {
            "calls": [
                call("chat_completions.create", **asked),
                call("chat_completions.create", **asked, stream=True),
            ]
        },
    )
    answer = whole["answer"]
    ((prompt, (text,)),) = answer["completions"]
    assert prompt == asked["prompt"]
    assert answer["response_tokens"] <= 8
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert len(tokens) == answer["response_tokens"]
    assert "".join(chunk["completions"][0][1][0] for chunk in stream["chunks"]) == text
    assert stream["chunks"][-1]["response_tokens"] == answer["response_tokens"]


def test_deployments(sdk_script: Script, live: Server) -> None:
    ids = [model["id"] for model in live.get(f"{live.url}/v1/models")["data"]]
    every, of_one, one = sdk_script(
        SDK,
        {
            "calls": [
                call("deployments.list_all", limit=2),
                call("deployments.list", model_instance_id=PIRATE),
                call("deployments.retrieve", model_instance_id=PIRATE, deployment_id=PIRATE),
            ]
        },
    )
    assert [item["id"] for item in every["items"]] == ids
    assert {item["status"] for item in every["items"]} == {"READY"}
    assert of_one["items"] == [one["answer"]]
    assert one["answer"]["model_instance_id"] == PIRATE
    assert one["answer"]["account_id"] == "acme"


def test_usage_statistics(sdk_script: Script, live: Server) -> None:
    now = datetime.now(UTC)
    times = {
        "start_date": (now - timedelta(days=1)).isoformat(),
        "end_date": (now + timedelta(days=1)).isoformat(),
        "chunks": 2,
    }
    url = f"{live.url}/v4/models/{PIRATE}/usage-statistics?{urlencode(times)}"

    def summed(parts: list[dict[str, Any]]) -> Counter[str]:
        total: Counter[str] = Counter()
        for part in parts:
            total.update({name: n for name, n in part.items() if name != "date"})
        return total

    def told() -> dict[str, Any]:
        """What the SDK reads, which is of its own account."""
        of_model, of_deployment = sdk_script(
            SDK,
            {
                "calls": [
                    call("usage_statistics.retrieve", model_name=PIRATE, **times),
                    call(
                        "deployments.usage_statistics.retrieve", model_deployment_id=PIRATE, **times
                    ),
                ]
            },
        )
        assert of_model == of_deployment
        answer: dict[str, Any] = of_model["answer"]
        return answer

    before, all_before = told(), summed(live.get(url)["data"])
    asked = call("completions.create", model_deployment_id=PIRATE, prompt="Once", **GREEDY)
    answer = sdk_script(SDK, {"calls": [asked]})[0]["answer"]
    more = Counter(
        prompt_tokens=answer["prompt_tokens"],
        response_tokens=answer["response_tokens"],
        summary_tokens=answer["prompt_tokens"] + answer["response_tokens"],
    )
    # Entries are added up as they come to the store.
    poll(
        lambda: summed(live.get(url)["data"]) == all_before + more,
        10,
        "the completion is in the sums",
    )
    after, raw = told(), live.get(url)
    assert summed(after["data"]) == summed(before["data"]) + more
    # The SDK has made times of the dates, which the script writes in its own way.
    dates = [str(datetime.fromisoformat(part["date"])) for part in raw["data"]]
    assert [part["date"] for part in after["data"]] == dates
    assert after.keys() == raw.keys()
    assert len(raw["data"]) == 2


PROMPT = {"model_deployment_id": BASE, "prompt": "x"}
WRONG = [
    (call("completions.create", model_deployment_id="no-such-model", prompt="x"), 404),
    (call("completions.create", **PROMPT, top_k=0), 422),
    (call("completions.create", **PROMPT, logprobs=True), 422),
    (call("completions.create", **PROMPT, max_tokens=10**6), 400),
    (call("chat_completions.create", **PROMPT, chat_history=[{"role": "x", "content": ""}]), 422),
    (call("deployments.list", model_instance_id="no-such-model"), 404),
    (call("deployments.retrieve", model_instance_id=BASE, deployment_id="other"), 404),
    (call("create", name="mine", model_type="COMPLETION", account_id="acme"), 405),
    (call("update", model_id=BASE, name="mine"), 405),
    (call("delete", model_id=BASE), 405),
    (call("deployments.create", model_instance_id=BASE, name="mine"), 405),
    (call("deployments.delete", model_instance_id=BASE, deployment_id=BASE), 405),
]
NAMES = {
    400: "BadRequestError",
    404: "NotFoundError",
    405: "APIStatusError",
    422: "UnprocessableEntityError",
}


@pytest.mark.parametrize("key", ["sk-local", "sk-wrong"])
def test_errors(sdk_script: Script, key: str) -> None:
    found = sdk_script(SDK, {"calls": [at for at, _ in WRONG]}, key=key)
    for at, (_, status) in zip(found, WRONG, strict=True):
        if key == "sk-wrong" and status != 405:
            assert (at["error"], at["sent"]) == ("AuthenticationError", 1)
        else:
            assert (at["error"], at["status"], at["sent"]) == (NAMES[status], status, 1)
            assert at["body"]["detail"] == at["body"]["error"]["message"]
