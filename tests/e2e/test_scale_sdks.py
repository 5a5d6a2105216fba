"""scale-gp and scale-egp: complete and stream with every kind of ID; errors as their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Script
from tests.live import ALIAS, BASE, HAIKU, INSTRUCT, PIRATE, Server

GREEDY = {"temperature": 0}
SAYS = {
    BASE: ("The capital of France is", "Paris."),
    ALIAS: ("The capital of France is", "Paris."),
    PIRATE: ("The capital of France is", "Paris, arr!"),
    HAIKU: ("The sky is blue because", "\nso the wise men say\nthe old book is closed again"),
    INSTRUCT: ("What is the capital of France?", "The capital of France is Paris."),
}
UTF8 = ("In the café, Zoé drank", "a café crème and ate a crêpe with pâté. 🎉🎉")


def calls(**more: Any) -> list[dict[str, Any]]:
    return [
        {"model": model, "prompt": prompt, "model_parameters": GREEDY, **more}
        for model, (prompt, _) in SAYS.items()
    ]


@pytest.mark.parametrize("sdk", ["scale-gp", "scale-egp"])
def test_complete(sdk_script: Script, sdk: str) -> None:
    answers = sdk_script(sdk, {"calls": calls()})
    for found, (_, says) in zip(answers, SAYS.values(), strict=True):
        completion = found["answer"]["completion"]
        assert completion["text"].strip(" ").startswith(says)
        assert completion["finish_reason"] == "stop"
        usage = found["answer"]["token_usage"]
        assert usage["total"] == usage["prompt"] + usage["completion"] > 0


@pytest.mark.parametrize("sdk", ["scale-gp", "scale-egp"])
def test_stream(sdk_script: Script, sdk: str) -> None:
    """The pieces join to the whole answer; usage and finish reason come with the last one."""
    utf8 = {"model": BASE, "prompt": UTF8[0], "model_parameters": GREEDY, "stream": True}
    answers = sdk_script(sdk, {"calls": [*calls(stream=True), utf8]})
    for found, says in zip(answers, [*(s for _, s in SAYS.values()), UTF8[1]], strict=True):
        assert "".join(found["texts"]).strip(" ").startswith(says)
        # Text that has to wait is sent together: a few tokens may all be in one event.
        assert len(found["texts"]) > (1 if found["usage"][-1]["completion"] > 16 else 0)
        *earlier, last = found["finish_reasons"]
        assert last == "stop"
        assert set(earlier) <= {None}
        *earlier, last = found["usage"]
        assert set(earlier) <= {None}
        assert last["total"] == last["prompt"] + last["completion"] > 0


def test_scale_gp_s_parameters_arrive(sdk_script: Script) -> None:
    """scale-gp writes `topP` and `topK` on this endpoint."""
    answers = sdk_script(
        "scale-gp",
        {
            "calls": [
                {
                    "model": BASE,
                    "prompt": "Once upon a time",
                    "model_parameters": {
                        "temperature": 1,
                        "top_k": 1,
                        "top_p": 0.9,
                        "max_tokens": 40,
                        "stop_sequences": ["red berr"],
                        "frequency_penalty": 0.0,
                        "presence_penalty": 0.0,
                    },
                }
            ]
        },
    )
    (found,) = answers
    text = found["answer"]["completion"]["text"]
    assert text.endswith("asked to bring ")
    assert found["answer"]["completion"]["response_metadata"] == {"model": BASE}


WRONG = [
    ({"model": "no-such-model", "prompt": "x"}, 404),
    # Not a parameter out of range: scale-egp would not even send that.
    ({"model": "", "prompt": "x"}, 422),
    ({"model": BASE, "prompt": "Once upon a time " * 400}, 400),
]


def test_scale_gp_raises_its_own_errors_and_does_not_retry_them(
    sdk_script: Script, live: Server
) -> None:
    names = {
        404: "NotFoundError",
        422: "UnprocessableEntityError",
        400: "BadRequestError",
        401: "AuthenticationError",
    }
    for stream in (False, True):
        before = live.counted()
        job = {"calls": [{**arguments, "stream": stream} for arguments, _ in WRONG]}
        for found, (_, status) in zip(sdk_script("scale-gp", job), WRONG, strict=True):
            assert found["error"] == names[status]
            assert found["status"] == status
            assert found["sent"] == 1
            assert found["body"]["detail"] == found["body"]["error"]["message"]
        assert live.counted() == before + len(WRONG)
    job = {"calls": [{"model": BASE, "prompt": "x"}]}
    (found,) = sdk_script("scale-gp", job, key="sk-wrong")
    assert (found["error"], found["sent"]) == ("AuthenticationError", 1)


def test_scale_egp_raises_its_own_errors(sdk_script: Script) -> None:
    job = {"calls": [arguments for arguments, _ in WRONG]}
    for found, (_, status) in zip(sdk_script("scale-egp", job), WRONG, strict=True):
        assert found["error"] == ("ItemDoesNotExist" if status == 404 else "EGPException")
        assert found["status"] == status
        assert found["message"]
    job = {"calls": [{"model": BASE, "prompt": "x"}]}
    (found,) = sdk_script("scale-egp", job, key="sk-wrong")
    assert (found["error"], found["status"]) == ("EGPException", 401)


def test_scale_egp_finds_its_account(sdk_script: Script) -> None:
    """With no account set the SDK asks the server which ones the key has."""
    job = {"calls": [{"model": BASE, "prompt": "A spider has", "model_parameters": GREEDY}]}
    (found,) = sdk_script("scale-egp", job | {"account": None})
    assert found["account"]
    assert found["answer"]["completion"]["text"].strip() == "eight legs and eight eyes."


def test_scale_gp_lists_models_page_by_page(sdk_script: Script, live: Server) -> None:
    (found,) = sdk_script("scale-gp", {"calls": [{"models": {"limit": 2}}]})
    listed = [model["id"] for model in live.get(f"{live.url}/v1/models")["data"]]
    assert [model["id"] for model in found["models"]] == listed
    assert len(listed) > 2
    assert found["one"] == listed[0]
    (base,) = [model for model in found["models"] if model["id"] == BASE]
    assert (base["model_type"], base["deployment_count"]) == ("COMPLETION", 1)


def test_scale_gp_is_told_once_that_a_model_is_not_here(sdk_script: Script) -> None:
    calls = [{"model": "gpt-4", "prompt": "x"}, {"model": "llama-2-7b", "prompt": "x"}]
    retired, known = sdk_script("scale-gp", {"calls": calls})
    assert (retired["error"], retired["status"], retired["sent"]) == ("APIStatusError", 410, 1)
    assert (known["error"], known["status"], known["sent"]) == ("NotFoundError", 404, 1)
    assert "known but not deployed here" in known["message"]


HELLO = {"model": INSTRUCT, "messages": [{"role": "user", "content": "Hello!"}]}


def test_scale_gp_chats(sdk_script: Script) -> None:
    asked = {**HELLO, "model_parameters": {**GREEDY, "top_k": 1}}
    calls = [{"chat": asked}, {"chat": {**asked, "stream": True}}]
    whole, stream = sdk_script("scale-gp", {"calls": calls})
    answer = whole["answer"]
    said = answer["chat_completion"]["message"]
    assert (said["role"], said["content"].strip()) == (
        "assistant",
        "Hello! How can I help you today?",
    )
    assert answer["chat_completion"]["finish_reason"] == "stop"
    *chunks, last = stream["chunks"]
    assert "".join(chunk["completion"]["text"] for chunk in chunks) == said["content"]
    assert last["completion"]["response_metadata"] == {"model": INSTRUCT}
    assert last["token_usage"] == answer["token_usage"]
    assert last["token_usage"]["total"] > last["token_usage"]["prompt"] > 0


def test_scale_gp_s_chats_are_refused_as_its_errors(sdk_script: Script) -> None:
    wrong = [
        ({**HELLO, "model": "no-such-model"}, "NotFoundError"),
        ({**HELLO, "messages": []}, "UnprocessableEntityError"),
        ({**HELLO, "model_parameters": {"temperature": 3}}, "UnprocessableEntityError"),
        ({**HELLO, "model_parameters": {"max_tokens": 10**6}}, "BadRequestError"),
        ({**HELLO, "chat_template": "{{ messages }}"}, "UnprocessableEntityError"),
    ]
    for stream in (False, True):
        calls = [{"chat": {**asked, "stream": stream}} for asked, _ in wrong]
        found = sdk_script("scale-gp", {"calls": calls})
        assert [(at["error"], at["sent"]) for at in found] == [(name, 1) for _, name in wrong]
