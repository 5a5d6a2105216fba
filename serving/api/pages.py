"""The pages that a router answers itself: which models there are, and how the router is doing.

A page is a function of what a router shows (`View`) and of what was asked (`Ask`).
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from serving.api.excerpt import excerpt
from serving.api.models import (
    ModelEntry,
    model_instance,
    model_page,
    openai_model,
    parse_query,
)
from serving.errors import NotFound

DEFAULT_ACCOUNT = "default"


class View(Protocol):
    """What a router shows of itself and of the fleet."""

    @property
    def router(self) -> str: ...

    @property
    def started(self) -> int:
        """When the router started, in seconds since 1970."""

    @property
    def leaving(self) -> bool:
        """True once load balancers are to send nothing new here."""

    def entries(self, *, everything: bool) -> list[ModelEntry]:
        """The deployed models in catalogue order; with `everything` also the known ones."""

    def entry(self, model_id: str) -> ModelEntry:
        """One deployed model.

        Raises:
            UnknownModel, NotDeployed, RetiredModel: there is none with this ID.
        """

    def status(self) -> list[dict[str, Any]]:
        """Every model ID with its replicas."""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether every model can answer, and how many replicas each has."""

    def targets(self) -> list[dict[str, Any]]:
        """What Prometheus scrapes, in the form of its `http_sd_config`."""

    def metrics(self) -> bytes:
        """The router's metrics in Prometheus' text form."""

    def openapi(self) -> bytes:
        """The API's description as an OpenAPI document."""

    def docs(self) -> bytes:
        """The API's description as a page for people."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a page is asked for. `name` is the model ID in the path, if there is one. `key_id` tells
    callers apart without showing their key; it is empty where no key is needed."""

    query: bytes = b""
    name: str = ""
    key_id: str = ""
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A whole response."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


ShowPage = Callable[[View, Ask], Page]


def openai_models(view: View, ask: Ask) -> Page:
    """`GET /v1/models`."""
    entries = view.entries(everything=parse_query(ask.query).all)
    data = [openai_model(entry, view.started) for entry in entries]
    return json_page({"object": "list", "data": data})


def one_openai_model(view: View, ask: Ask) -> Page:
    """`GET /v1/models/{model}`."""
    return json_page(openai_model(view.entry(ask.name), view.started))


def no_stored_response(view: View, ask: Ask) -> Page:
    """What is asked of a response after it has been given: nothing of it is kept.

    Raises:
        NotFound: always.
    """
    raise NotFound(
        f"no response '{excerpt(ask.name)}': responses are not stored here, so none can be "
        "retrieved, deleted or cancelled; to go on with a conversation, send all of it as 'input'",
        param="response_id",
    )


def model_instances(view: View, ask: Ask) -> Page:
    """`GET /v4/models`."""
    query = parse_query(ask.query)
    entries = view.entries(everything=query.all)
    return json_page(model_page(entries, query, view.started, ask.account))


def one_model_instance(view: View, ask: Ask) -> Page:
    """`GET /v4/models/{model}`."""
    return json_page(model_instance(view.entry(ask.name), view.started, ask.account))


def user_info(view: View, ask: Ask) -> Page:
    """`GET /user-info` as scale-egp reads it: the accounts this key may use."""
    account = ask.account or DEFAULT_ACCOUNT
    return json_page(
        {
            "id": ask.key_id,
            "email": f"{ask.key_id}@serving.invalid",
            "first_name": None,
            "last_name": None,
            "access_profiles": [{"role": "admin", "account": {"id": account, "name": account}}],
        }
    )


def status(view: View, ask: Ask) -> Page:
    """`GET /status`, which `serving status` reads."""
    uptime_s = round(time.time() - view.started, 1)
    return json_page({"router": view.router, "uptime_s": uptime_s, "models": view.status()})


def targets(view: View, ask: Ask) -> Page:
    """`GET /metrics/targets`, Prometheus' HTTP service discovery: every router and engine replica.
    It asks for a key because it names internal addresses."""
    return json_page(view.targets())


def health(view: View, ask: Ask) -> Page:
    """`GET /health`: this router answers. KubeRay's own probe looks for the word `success`."""
    return json_page({"alive": True, "router": view.router, "status": "success"})


def reachable(view: View, ask: Ask) -> Page:
    """`GET /-/healthz`: new connections are welcome; 503 once they are to go elsewhere."""
    page = health(view, ask)
    return Page(page.body, 503) if view.leaving else page


def version(view: View, ask: Ask) -> Page:
    """`GET /version`: of this service. That of an engine stands in its `system_fingerprint`."""
    return json_page({"version": importlib.metadata.version("serving")})


def ready(view: View, ask: Ask) -> Page:
    """`GET /ready`: 503 until every model can answer."""
    is_ready, body = view.readiness()
    return json_page(body, 200 if is_ready else 503)


def bare_ready(view: View, ask: Ask) -> Page:
    """`GET /ready` without the models, for callers who may not know which there are."""
    is_ready, _ = view.readiness()
    return json_page({"ready": is_ready}, 200 if is_ready else 503)


def openapi(view: View, ask: Ask) -> Page:
    """`GET /openapi.json`."""
    return Page(view.openapi())


def docs(view: View, ask: Ask) -> Page:
    """`GET /docs`."""
    return Page(view.docs(), content_type=b"text/html; charset=utf-8")


def metrics(view: View, ask: Ask) -> Page:
    """`GET /metrics`."""
    return Page(view.metrics(), content_type=CONTENT_TYPE_LATEST.encode())


def json_page(body: object, status: int = 200) -> Page:
    """A page of JSON."""
    return Page(msgspec.json.encode(body), status)
