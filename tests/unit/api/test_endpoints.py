"""The table of endpoints, and how a request finds its entry."""

from __future__ import annotations

import pytest

from serving.api.asked import Ability
from serving.api.dialect import ANTHROPIC, CREATE_COMPLETION, OPENAI, RESPONSES
from serving.api.endpoints import (
    ENDPOINTS,
    NAME,
    UNKNOWN_PATH,
    Endpoint,
    Endpoints,
    Relayed,
    dialect_at,
)
from serving.api.llm_engine import LLM_ENGINE

TABLE = Endpoints()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda at: at.path)
def test_each_entry_is_found_at_its_path(endpoint: Endpoint) -> None:
    name = "vendor/name" if NAME in endpoint.path else ""
    match = TABLE.match(endpoint.path.replace(NAME, name))
    assert match.methods[endpoint.method] is endpoint
    assert (match.path, match.name) == (endpoint.path, name)


@pytest.mark.parametrize(
    ("path", "endpoint", "name"),
    [
        ("/v4/models/a/deployments/a", "/v4/models/{model}/deployments/{model}", "a"),
        ("/v4/models/a/b/deployments/a/b/", "/v4/models/{model}/deployments/{model}", "a/b"),
        ("/v4/models/a/deployments/b", "/v4/models/{model}", "a/deployments/b"),
        ("/v4/models/ab/deployments/a", "/v4/models/{model}", "ab/deployments/a"),
        ("/v4/models/a/deployments", "/v4/models/{model}/deployments", "a"),
        ("/v4/models/deployments", "/v4/models/{model}", "deployments"),
        ("/v4/models/a/b/completions", "/v4/models/{model}/completions", "a/b"),
        ("/v4/models/a/chat-completions", "/v4/models/{model}/chat-completions", "a"),
    ],
)
def test_a_path_with_an_id_in_it(path: str, endpoint: str, name: str) -> None:
    match = TABLE.match(path)
    assert (match.path, match.name) == (endpoint, name)


def test_entries_do_not_hide_each_other() -> None:
    keys = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v1/completions/x",
        "/openai/deployments//completions",
        "/v4/models//deployments",
        "/V1/models",
        "/v4/model",
    ],
)
def test_a_path_that_does_not_exist_has_no_methods_and_one_label(path: str) -> None:
    match = TABLE.match(path)
    assert not match.methods
    assert match.path == UNKNOWN_PATH


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda at: at.path)
def test_openai_s_endpoints_speak_openai_s_dialect(endpoint: Endpoint) -> None:
    ours: tuple[str, ...] = (
        "/v2/completions",
        "/v4/",
        "/v5/",
        "/user-info",
        "/status",
        "/metrics",
        "/health",
        "/ready",
        "/-/",
    )
    ours += ("/ping", "/version", "/openapi.json", "/docs")
    expected = CREATE_COMPLETION if endpoint.path.startswith(ours) else OPENAI
    if endpoint.path.endswith("/responses"):
        expected = RESPONSES
    if endpoint.path.startswith("/v1/llm/"):
        expected = LLM_ENGINE
    if endpoint.path.startswith("/v1/messages"):
        expected = ANTHROPIC
    assert endpoint.dialect is expected


def test_a_path_that_does_not_exist_is_refused_as_its_neighbours() -> None:
    for path, dialect in (
        ("/v1/nothing", OPENAI),
        ("/v1/messagesx", OPENAI),
        ("/v1/messages/batches", ANTHROPIC),
        ("/v4/nothing", CREATE_COMPLETION),
    ):
        assert dialect_at(TABLE.match(path), path) is dialect


def test_what_is_public() -> None:
    """What machines probe and the API's description need no key; no model can be asked without
    one."""
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.public}
    probes = {"/health", "/-/healthz", "/ping", "/ready", "/metrics"}
    assert public == {*probes, "/openapi.json", "/docs"}
    assert {endpoint.path for endpoint in ENDPOINTS if endpoint.probe} == probes
    assert not any(isinstance(at.answer, Relayed) for at in ENDPOINTS if at.public)


def test_where_a_model_can_be_asked() -> None:
    assert TABLE.answering(frozenset({Ability.EMBED})) == ["/v1/embeddings"]
    assert "/v1/embeddings" not in TABLE.answering(frozenset({Ability.GENERATE}))
    assert TABLE.answering(frozenset({Ability.SCORE})) == ["/score", "/rerank"]
    assert TABLE.answering(frozenset({Ability.MESSAGES})) == [
        "/v1/messages",
        "/v1/messages/count_tokens",
    ]
    assert TABLE.answering(frozenset()) == []


@pytest.mark.parametrize(
    ("path", "asks"),
    [("/v1/score", "/score")] + [(path, "/rerank") for path in ("/v1/rerank", "/v2/rerank")],
)
def test_scores_have_several_paths(path: str, asks: str) -> None:
    """Below /v1 vLLM's app would write a warning for each request."""
    endpoint, known = TABLE.match(path).methods["POST"], TABLE.match(asks).methods["POST"]
    assert isinstance(endpoint.answer, Relayed)
    assert endpoint.answer.path == asks
    assert endpoint.dialect is known.dialect is OPENAI
    assert isinstance(known.answer, Relayed)
    assert endpoint.answer.needs is known.answer.needs is Ability.SCORE
