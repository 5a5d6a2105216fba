"""Every endpoint of the API, in one table.

An entry says who may call the endpoint, in which dialect its errors are written, and what answers
it: a page of the router, what administrators ask of it, or the model that the body names. The
pipeline (`serving/router/pipeline.py`) reads the table and knows no endpoint by name, so an
endpoint that the engines' OpenAI app answers is one more line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from serving.api import admin, deployments, llm_engine, pages, usage, v5_models
from serving.api.admin import Manage
from serving.api.asked import Ability, Asked, Incoming, Sent
from serving.api.audio import TRANSCRIPTIONS, TRANSLATIONS, AudioForm
from serving.api.chat_v4 import parse_chat
from serving.api.completion import parse_completion
from serving.api.dialect import ANTHROPIC, CREATE_COMPLETION, OPENAI, RESPONSES, Dialect
from serving.api.llm_engine import LLM_ENGINE
from serving.api.model_calls import parse_model_chat, parse_model_completion
from serving.api.openai import parse_openai
from serving.api.pages import ShowPage
from serving.api.usage import Report
from serving.wire.messages import UNMARKED

# Stands for the model ID in a path. IDs may have slashes, so it takes all that is left. Where it
# stands twice, it is the same ID: a deployment has that of its model.
NAME = "{model}"
# Azure's way to name a model; what follows is an OpenAI endpoint without its /v1.
AZURE = f"/openai/deployments/{NAME}"
# Anthropic's endpoints are this one and those below it.
MESSAGES = "/v1/messages"
# What metrics call a path that does not exist.
UNKNOWN_PATH = "other"


@dataclass(frozen=True, slots=True)
class Spooled:
    """How a body is parsed that is too large for a router's memory: while it comes."""

    parse: Callable[[Sent], Incoming]


@dataclass(frozen=True, slots=True)
class Relayed:
    """Answered by a replica: how the body is parsed, what the model must be able to do, and the
    path at which the engine's app answers, where that is not the endpoint's own. Where nothing
    `streams`, a `stream` in the body means nothing."""

    parse: Callable[[Sent, bytes], Asked] | Spooled
    needs: Ability
    path: str = ""
    streams: bool = True


@dataclass(frozen=True, slots=True)
class Managed:
    """Answered by the router for administrators, from the store. `reads` is the schema of its body
    by name; empty where it has none."""

    manage: Manage
    reads: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """Answered by the router from the ledger, with what the caller may see of it."""

    report: Report


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method.

    `public` endpoints ask for no key, but for those that name models: a listener that others than
    operators reach shows them only with a key (`serving/router/doors.py`), and without one `bare`,
    if there is one.  A `probe` is asked every few seconds by machines; it is
    counted, and logged only when it fails.
    """

    method: str
    path: str
    dialect: Dialect
    answer: ShowPage | Relayed | Managed | Reported
    public: bool = False
    probe: bool = False
    names_models: bool = False
    bare: ShowPage | None = None


def _openai(path: str, needs: Ability, *, streams: bool = True) -> Endpoint:
    """An endpoint that the engine's own OpenAI app answers."""
    return Endpoint("POST", path, OPENAI, Relayed(parse_openai, needs, streams=streams))


def _scoring(path: str, *ways: str) -> tuple[Endpoint, ...]:
    """An endpoint that compares texts, and other ways to it. vLLM's app has them too, and writes a
    warning for each request that comes below /v1."""
    other = Relayed(parse_openai, Ability.SCORE, path, streams=False)
    asked = _openai(path, Ability.SCORE, streams=False)
    return asked, *(Endpoint("POST", way, OPENAI, other) for way in ways)


def _azure(path: str, needs: Ability, *, streams: bool = True) -> tuple[Endpoint, Endpoint]:
    """The same endpoint in Azure's two ways: the model in the path, or the path below /openai."""
    answer = Relayed(parse_openai, needs, path, streams)
    ways = (AZURE + path.removeprefix("/v1"), "/openai" + path)
    return tuple(Endpoint("POST", way, OPENAI, answer) for way in ways)  # type: ignore[return-value]


def _responses() -> tuple[Endpoint, ...]:
    """OpenAI's Responses, also in Azure's two ways: its clients name the model in the body. What
    OpenAI would keep of a response is not kept here, and its paths say so."""
    path = "/v1/responses"
    ways = {path: "", "/openai/responses": path, "/openai/v1/responses": path}
    kept, missing = f"{path}/{NAME}", pages.no_stored_response
    return (
        *(
            Endpoint("POST", way, RESPONSES, Relayed(parse_openai, Ability.RESPONSES, answered))
            for way, answered in ways.items()
        ),
        Endpoint("GET", kept, OPENAI, missing),
        Endpoint("DELETE", kept, OPENAI, missing),
        Endpoint("GET", f"{kept}/input_items", OPENAI, missing),
        Endpoint("POST", f"{kept}/cancel", OPENAI, missing),
    )


def _audio() -> Iterator[Endpoint]:
    """What is asked of a recording, also in Azure's two ways. Its body is a form."""
    for path in (TRANSCRIPTIONS, TRANSLATIONS):
        for way in (path, AZURE + path.removeprefix("/v1"), "/openai" + path):
            answered = "" if way == path else path
            answer = Relayed(Spooled(AudioForm), Ability.TRANSCRIBE, answered)
            yield Endpoint("POST", way, OPENAI, answer)


def _anthropic(path: str, needs: Ability, *, streams: bool = True) -> Endpoint:
    """An endpoint of Anthropic's, which the engine's OpenAI app answers too."""
    return Endpoint("POST", path, ANTHROPIC, Relayed(parse_openai, needs, streams=streams))


def _v5(path: str, engine_path: str) -> Endpoint:
    """An OpenAI endpoint as scale-gp-beta asks it: its streams end without a mark."""

    def parse(sent: Sent, body: bytes) -> Asked:
        return replace(parse_openai(sent, body), form=UNMARKED)

    answer = Relayed(parse, Ability.GENERATE, engine_path)
    return Endpoint("POST", path, CREATE_COMPLETION, answer)


def _formed(
    path: str, parse: Callable[[Sent, bytes], Asked], dialect: Dialect = CREATE_COMPLETION
) -> Endpoint:
    """An endpoint whose answer the engine server writes in a form of its own."""
    return Endpoint("POST", path, dialect, Relayed(parse, Ability.GENERATE))


def _completion(path: str) -> Endpoint:
    answer = Relayed(lambda _, body: parse_completion(body), Ability.GENERATE)
    return Endpoint("POST", path, CREATE_COMPLETION, answer)


def _page(
    path: str, show: ShowPage, dialect: Dialect = CREATE_COMPLETION, *, public: bool = False
) -> Endpoint:
    return Endpoint("GET", path, dialect, show, public)


def _probe(
    path: str, show: ShowPage, *, names_models: bool = False, bare: ShowPage | None = None
) -> Endpoint:
    dialect = CREATE_COMPLETION
    return Endpoint("GET", path, dialect, show, True, True, names_models, bare)


def _usage(path: str, report: Report) -> Endpoint:
    return Endpoint("GET", path, CREATE_COMPLETION, Reported(report))


def _admin() -> Iterator[Endpoint]:
    """Accounts and keys, for administrators. What the path names is no model, but it may have any
    characters as well."""
    accounts, keys = "/v4/admin/accounts", "/v4/admin/keys"
    for method, path, manage, reads in (
        ("GET", accounts, admin.accounts, ""),
        ("POST", accounts, admin.create_account, "NewAccount"),
        ("GET", f"{accounts}/{NAME}", admin.one_account, ""),
        ("PATCH", f"{accounts}/{NAME}", admin.change_account, "AccountChange"),
        ("GET", keys, admin.keys, ""),
        ("POST", keys, admin.create_key, "NewKey"),
        ("GET", f"{keys}/{NAME}", admin.one_key, ""),
        ("PATCH", f"{keys}/{NAME}", admin.change_key, "KeyChange"),
        ("POST", f"{keys}/{NAME}/rotate", admin.rotate_key, "Rotation"),
        ("POST", f"{keys}/{NAME}/revoke", admin.revoke_key, "Nothing"),
        ("GET", "/v4/admin/audit", admin.audit, ""),
    ):
        yield Endpoint(method, path, CREATE_COMPLETION, Managed(manage, reads))


ENDPOINTS = (
    _completion("/v4/completions"),
    _completion("/v2/completions"),
    _openai("/v1/completions", Ability.GENERATE),
    _openai("/v1/chat/completions", Ability.GENERATE),
    *_responses(),
    _openai("/v1/embeddings", Ability.EMBED, streams=False),
    *_scoring("/score", "/v1/score"),
    *_scoring("/rerank", "/v1/rerank", "/v2/rerank"),
    *_audio(),
    _anthropic(MESSAGES, Ability.MESSAGES),
    _anthropic(f"{MESSAGES}/count_tokens", Ability.MESSAGES, streams=False),
    *_azure("/v1/completions", Ability.GENERATE),
    *_azure("/v1/chat/completions", Ability.GENERATE),
    *_azure("/v1/embeddings", Ability.EMBED, streams=False),
    _openai("/tokenize", Ability.TOKENIZE, streams=False),
    _openai("/detokenize", Ability.TOKENIZE, streams=False),
    _formed("/v4/chat-completions", parse_chat),
    _formed(f"/v4/models/{NAME}/completions", parse_model_completion),
    _formed(f"/v4/models/{NAME}/chat-completions", parse_model_chat),
    _formed("/v1/llm/completions-sync", llm_engine.parse_sync, LLM_ENGINE),
    _formed("/v1/llm/completions-stream", llm_engine.parse_stream, LLM_ENGINE),
    _v5("/v5/completions", "/v1/completions"),
    _v5("/v5/chat/completions", "/v1/chat/completions"),
    _page("/v1/models", pages.openai_models, OPENAI),
    _page(f"/v1/models/{NAME}", pages.one_openai_model, OPENAI),
    _page("/v4/models", pages.model_instances),
    _page(f"/v4/models/{NAME}", pages.one_model_instance),
    _page("/v4/model-deployments", deployments.deployments),
    _page(f"/v4/models/{NAME}/deployments", deployments.deployments_of_model),
    _page(f"/v4/models/{NAME}/deployments/{NAME}", deployments.one_deployment),
    _page("/openai/models", pages.openai_models, OPENAI),
    _page(f"/openai/models/{NAME}", pages.one_openai_model, OPENAI),
    _page("/openai/v1/models", pages.openai_models, OPENAI),
    _page(f"/openai/v1/models/{NAME}", pages.one_openai_model, OPENAI),
    _page("/v1/llm/model-endpoints", llm_engine.model_endpoints, LLM_ENGINE),
    _page(f"/v1/llm/model-endpoints/{NAME}", llm_engine.one_model_endpoint, LLM_ENGINE),
    _page("/v5/models", v5_models.models),
    _page(f"/v5/models/{NAME}", v5_models.one_model),
    _page("/v5/chat/completions/models", v5_models.chat_models),
    _usage("/v4/usage", usage.usage),
    _usage("/v4/usage/entries", usage.entries),
    _usage(f"/v4/models/{NAME}/usage-statistics", usage.statistics),
    _usage(f"/v4/model-deployments/{NAME}/usage-statistics", usage.statistics),
    *_admin(),
    _page("/user-info", pages.user_info),
    _page("/version", pages.version),
    # They say nothing of this installation, and a browser sends no key.
    _page("/openapi.json", pages.openapi, public=True),
    _page("/docs", pages.docs, public=True),
    _page("/status", pages.status),
    _page("/metrics/targets", pages.targets),
    _probe("/metrics", pages.metrics, names_models=True),
    _probe("/health", pages.health),
    _probe("/ping", pages.health),
    _probe("/ready", pages.ready, names_models=True, bare=pages.bare_ready),
    # What KubeRay's probes ask every pod that serves.
    _probe("/-/healthz", pages.reachable),
)


@dataclass(frozen=True, slots=True)
class Match:
    """The endpoints of one path by method, and the model ID in the path, if there is one."""

    path: str
    methods: Mapping[str, Endpoint]
    name: str = ""


_NOTHING = Match(UNKNOWN_PATH, {})


class Endpoints:
    """Finds a path's endpoints in a table."""

    def __init__(self, table: Sequence[Endpoint] = ENDPOINTS) -> None:
        self._table = table
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in table:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        self._exact: dict[str, Match] = {}
        # What stands before and after the model ID. The longest end is looked at first, since it
        # may have a shorter one in it.
        self._named: list[tuple[str, str, Match]] = []
        for path, methods in by_path.items():
            before, name, after = path.partition(NAME)
            if name:
                self._named.append((before, after, Match(path, methods)))
            else:
                self._exact[path] = Match(path, methods)
        self._named.sort(key=lambda named: len(named[1]), reverse=True)

    def match(self, path: str) -> Match:
        """The endpoints at `path`, with or without a slash at its end; for a path that does not
        exist, a match without methods."""
        if (found := self._exact.get(path)) is not None:
            return found
        path = path.rstrip("/") or "/"
        if (found := self._exact.get(path)) is not None:
            return found
        for before, after, match in self._named:
            if (name := _name_in(path, before, after)) is not None:
                return Match(match.path, match.methods, name) if name else _NOTHING
        return _NOTHING

    def answering(self, abilities: frozenset[Ability]) -> list[str]:
        """The paths at which a model with these abilities answers."""
        return [
            endpoint.path
            for endpoint in self._table
            if isinstance(endpoint.answer, Relayed)
            and endpoint.answer.needs in abilities
            and not endpoint.answer.path
        ]


def _name_in(path: str, before: str, after: str) -> str | None:
    """The model ID in `path`, if what stands before and after it does."""
    between, twice, after = after.rpartition(NAME)
    size = len(path) - len(before) - len(after)
    if twice:
        size = (size - len(between)) // 2
    name = path[len(before) : len(before) + size] if size >= 0 else ""
    whole = before + name + (between + name if twice else "") + after
    return name if whole == path else None


def dialect_at(match: Match, path: str) -> Dialect:
    """The dialect in which a request to `path` is refused. A path that does not exist has that of
    its neighbours."""
    for endpoint in match.methods.values():
        return endpoint.dialect
    if path.startswith("/v1/llm/"):
        return LLM_ENGINE
    if path.startswith(f"{MESSAGES}/"):
        return ANTHROPIC
    return OPENAI if path.startswith(("/v1/", "/openai/")) else CREATE_COMPLETION
