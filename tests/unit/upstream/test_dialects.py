from __future__ import annotations

from typing import Any

import pytest

from serving.catalogue.providers import Provider
from serving.catalogue.spec import UpstreamSpec
from serving.errors import InvalidField
from serving.upstream.dialects import DIALECTS, chat_body, check_chat
from serving.wire.messages import CompletionCall, Sampling


def call(stream: bool = False, **sampling: Any) -> CompletionCall:
    return CompletionCall("r", "m", "prompt", stream, Sampling(**sampling), "m")


def body(dialect: str, spec: dict[str, Any] | None = None, **sampling: Any) -> dict[str, Any]:
    model = UpstreamSpec(kind="upstream", id="m", provider="p", model="theirs", **(spec or {}))
    return chat_body(call(**sampling), model, DIALECTS[dialect])


def test_every_dialect_of_the_catalogue_is_known() -> None:
    assert set(DIALECTS) == set(Provider.model_fields["dialect"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_defaults_are_not_sent_but_for_the_temperature(dialect: str) -> None:
    assert body(dialect) == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "prompt"}],
        "temperature": 0.2,
    }


@pytest.mark.parametrize(
    ("dialect", "field"),
    [("openai", "max_completion_tokens"), ("anthropic", "max_tokens"), ("gemini", "max_tokens")],
)
def test_the_limit_has_the_dialects_name(dialect: str, field: str) -> None:
    assert body(dialect, max_tokens=5)[field] == 5


def test_only_who_needs_a_limit_gets_the_catalogues() -> None:
    spec = {"max_output": 99}
    assert body("anthropic", spec)["max_tokens"] == 99
    assert body("anthropic", spec, max_tokens=5)["max_tokens"] == 5
    assert not {"max_tokens", "max_completion_tokens"} & set(body("openai", spec))


def test_reasoning_models_get_their_effort_and_no_default_temperature() -> None:
    sent = body("openai", {"reasoning": True}, reasoning_effort="low")
    assert sent["reasoning_effort"] == "low"
    assert "temperature" not in sent
    assert body("openai", {"reasoning": True}, temperature=0.7)["temperature"] == 0.7


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "name", ["top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort"]
)
def test_a_parameter_is_sent_or_refused(dialect: str, name: str) -> None:
    value: Any = "low" if name == "reasoning_effort" else 1
    if name in DIALECTS[dialect].cannot:
        with pytest.raises(InvalidField) as caught:
            body(dialect, **{name: value})
        assert caught.value.param == f"model_parameters.{name}"
    else:
        assert body(dialect, **{name: value})[name] == value


def test_stop_sequences() -> None:
    assert body("openai", stop=(" ", "x"))["stop"] == [" ", "x"]
    assert body("anthropic", stop=("x",))["stop"] == ["x"]
    with pytest.raises(InvalidField):
        body("anthropic", stop=("x", " "))


def test_a_chat_is_checked_only_for_what_would_be_ignored() -> None:
    for dialect in ("openai", "gemini"):
        check_chat({"seed": 1, "logprobs": True, "temperature": 9, "n": 3}, DIALECTS[dialect])
    odd = {"tools": [{}, 5, {"function": 3}], "stop": 5, "temperature": "x", "seed": None}
    check_chat(odd, DIALECTS["anthropic"])
