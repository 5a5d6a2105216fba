"""The router's ASGI app: every path, from request to answer, on one page.

1. headers, key and body are checked (`http`, `auth`); 2. the wire format is parsed (`api/`);
3. the model ID becomes a route (`resolve`); 4. the request goes to a replica and its answer back
(`relay`, `fleet`, `balance`, `link`); 5. its outcome is recorded (`record`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

from serving.api.completion import parse_completion
from serving.api.envelope import error_body, openai_error_body, retry_headers
from serving.api.openai import model_object, peek
from serving.api.sse import error_event, openai_error_event
from serving.engine.protocol import CompletionCall, HttpCall
from serving.errors import (
    ClientLeft,
    Ended,
    InvalidField,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServingError,
)
from serving.gateway.auth import KeyRing, choose_account, user_info
from serving.gateway.fleet import Fleet
from serving.gateway.http import (
    Headers,
    read_body,
    read_headers,
    request_id,
    respond,
    respond_json,
)
from serving.gateway.record import Record, Recorder
from serving.gateway.relay import Job, Relay
from serving.gateway.resolve import Resolver, Route
from serving.gateway.status import fleet_ready, fleet_status, scrape_targets
from serving.http_server import WRITE
from serving.observability.logs import Log
from serving.observability.metrics import RouterMetrics
from serving.settings import Settings

# Headers of an OpenAI request that mean something to vLLM; keys and cookies stay here.
_RELAYED_HEADERS = (b"content-type", b"accept", b"traceparent", b"tracestate")


# The `endpoint` label of paths that do not exist.
OTHER_ENDPOINT = "other"


@dataclass(slots=True)
class Request:
    """One HTTP request on its way through a handler."""

    scope: Scope
    receive: Receive
    send: Send
    path: str
    id: str
    reply_headers: Headers
    headers: Mapping[bytes, bytes]


Handler = Callable[[Request], Awaitable[None]]


class Gateway:
    """The ASGI application of one router replica."""

    def __init__(
        self,
        *,
        settings: Settings,
        resolver: Resolver,
        fleet: Fleet,
        metrics: RouterMetrics,
        log: Log,
        router: str,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._fleet = fleet
        self._metrics = metrics
        self._log = log
        self._router = router
        self._started = time.time()
        self._keys = KeyRing(settings.api_keys.get_secret_value())
        self._recorder = Recorder(metrics, log)
        self._relay = Relay(
            fleet,
            metrics,
            log,
            keepalive_s=settings.keepalive_s,
            timeout_s=settings.request_timeout_s,
        )
        self._paths: dict[str, dict[str, Handler]] = {
            "/v4/completions": {"POST": partial(self._recorded, self._complete)},
            "/v2/completions": {"POST": partial(self._recorded, self._complete)},
            "/v1/completions": {"POST": partial(self._recorded, self._openai)},
            "/v1/chat/completions": {"POST": partial(self._recorded, self._openai)},
            "/v1/models": {"GET": self._models},
            "/user-info": {"GET": self._user_info},
            "/status": {"GET": self._status},
            "/metrics/targets": {"GET": self._targets},
            "/health": {"GET": self._health},
            # What KubeRay's probes ask of every pod that serves.
            "/-/healthz": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics_text},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point. Nothing but a client that left is raised out of it."""
        if scope["type"] != "http":
            raise RuntimeError(f"no support for {scope['type']}")
        path = scope["path"][len(scope.get("root_path", "")) :]
        identity = request_id(scope)
        request = Request(
            scope, receive, send, path, identity, [(b"x-request-id", identity.encode())], {}
        )
        try:
            handler = self._admit(request)
            await handler(request)
        except (ClientLeft, Ended):
            pass
        except ServingError as error:
            await self._refuse(request, error)
        except Exception as error:  # noqa: BLE001 - the caller gets no stack trace, the log does
            self._log.exception("request_failed", error, request_id=identity, path=path)
            await self._refuse(request, ServingError("internal error; the log has its cause"))

    def _admit(self, request: Request) -> Handler:
        """The handler of a request whose path, method and headers are acceptable; one that is
        refused here is counted here."""
        try:
            request.headers = read_headers(request.scope, self._settings.max_header_bytes)
            return self._handler(request)
        except ServingError as error:
            endpoint = request.path if request.path in self._paths else OTHER_ENDPOINT
            with self._recorder.request(request.id, endpoint):
                raise error

    def _handler(self, request: Request) -> Handler:
        path = request.path
        methods = self._paths.get(path)
        if methods is None and path.startswith("/v1/models/"):
            methods = {"GET": self._model}
        if methods is None:
            raise NotFound(f"no such path: {path}")
        handler = methods.get(request.scope["method"])
        if handler is None:
            allowed = ", ".join(methods)
            request.reply_headers.append((b"allow", allowed.encode()))
            raise MethodNotAllowed(f"{path} takes {allowed}, not {request.scope['method']}")
        return handler

    async def _refuse(self, request: Request, error: ServingError) -> None:
        """Answer with an error in the dialect of the path."""
        render = openai_error_body if request.path.startswith("/v1/") else error_body
        headers = retry_headers(error) + request.reply_headers
        if error.status in (408, 413, 431):
            # The rest of the request may still be on its way; this connection is of no use.
            headers.append((b"connection", b"close"))
        await respond(request.send, error.status, render(error, request.id), headers=headers)

    # completions

    async def _recorded(
        self, handler: Callable[[Request, Record], Awaitable[None]], request: Request
    ) -> None:
        with self._recorder.request(request.id, request.path) as record:
            await handler(request, record)

    async def _complete(self, request: Request, record: Record) -> None:
        """Create Completion, `POST /v4/completions` and `/v2/completions`."""
        caller = self._keys.authenticate(request.headers)
        body = parse_completion(await self._body(request, record))
        account = choose_account(caller, request.headers, body.account_id)
        record.model, record.stream = body.model, bool(body.stream)
        self._charge(account, record, request)
        route = self._resolver.resolve(body.model)
        if body.images:
            raise InvalidField(f"model '{body.model}' takes no images", param="images")
        if body.model_parameters and body.model_parameters.reasoning_effort:
            raise InvalidField(
                f"model '{body.model}' has no reasoning effort",
                param="model_parameters.reasoning_effort",
            )
        call = CompletionCall(
            request_id=request.id,
            model=body.model,
            prompt=body.prompt,
            stream=record.stream,
            sampling=body.sampling(),
            served_model=route.model,
            adapter=route.adapter,
        )

        def failure(error: ServingError) -> bytes:
            return error_event(error_body(error, request.id))

        await self._run(Job(call, b"", route, request.reply_headers, failure), request, record)

    async def _openai(self, request: Request, record: Record) -> None:
        """The OpenAI endpoints, which vLLM's own app answers in the replica."""
        caller = self._keys.authenticate(request.headers)
        body = await self._body(request, record)
        seen = peek(body)
        record.model, record.stream = seen.model, bool(seen.stream)
        self._charge(choose_account(caller, request.headers, None), record, request)
        route = self._resolver.resolve(seen.model)
        call = HttpCall(
            request_id=request.id,
            model=seen.model,
            method="POST",
            path=request.path,
            query=request.scope["query_string"].decode("latin-1"),
            headers=tuple(
                (name.decode(), request.headers[name].decode("latin-1"))
                for name in _RELAYED_HEADERS
                if name in request.headers
            ),
            adapter=route.adapter,
        )

        def failure(error: ServingError) -> bytes:
            return openai_error_event(openai_error_body(error, request.id))

        await self._run(Job(call, body, route, request.reply_headers, failure), request, record)

    async def _body(self, request: Request, record: Record) -> bytes:
        body = await read_body(
            request.receive,
            request.headers,
            limit=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )
        record.received(len(body))
        return body

    def _charge(self, account: str | None, record: Record, request: Request) -> None:
        """Apply the account policy: `account_id` is "gradually enforced" (the API's words)."""
        record.account = account or ""
        if account is not None or self._settings.account_policy == "off":
            return
        message = "no account: set account_id or the header x-selected-account-id"
        if self._settings.account_policy == "enforce":
            raise InvalidRequest(message, param="account_id")
        self._metrics.without_account.inc()
        request.reply_headers.append((b"x-account-warning", message.encode()))

    async def _run(self, job: Job, request: Request, record: Record) -> None:
        record.engine, record.kind = job.route.engine.id, job.route.kind
        with self._recorder.in_flight(record):
            write = request.scope.get("extensions", {}).get(WRITE)
            await self._relay.run(job, record, request.receive, request.send, write)

    # models

    def _entry(self, model_id: str, route: Route) -> dict[str, object]:
        parent = None
        if route.adapter is not None and model_id == route.model:
            parent = route.engine.id
        return model_object(model_id, int(self._started), route.model, parent, route.engine.context)

    async def _models(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        data = [self._entry(name, self._resolver.resolve(name)) for name in self._resolver.ids]
        await respond_json(
            request.send, 200, {"object": "list", "data": data}, request.reply_headers
        )

    async def _model(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        name = unquote(request.path.removeprefix("/v1/models/"))
        entry = self._entry(name, self._resolver.resolve(name))
        await respond_json(request.send, 200, entry, request.reply_headers)

    async def _user_info(self, request: Request) -> None:
        caller = self._keys.authenticate(request.headers)
        account = choose_account(caller, request.headers, None)
        await respond_json(request.send, 200, user_info(caller, account), request.reply_headers)

    # operation

    async def _status(self, request: Request) -> None:
        self._keys.authenticate(request.headers)
        body = {
            "router": self._router,
            "uptime_s": round(time.time() - self._started, 1),
            "models": fleet_status(self._resolver, self._fleet),
        }
        await respond_json(request.send, 200, body, request.reply_headers)

    async def _targets(self, request: Request) -> None:
        """Prometheus' HTTP service discovery: every router and engine replica. It asks for a key
        because it names internal addresses."""
        self._keys.authenticate(request.headers)
        targets = scrape_targets(self._fleet.listed)
        await respond_json(request.send, 200, targets, request.reply_headers)

    async def _health(self, request: Request) -> None:
        await respond_json(
            request.send, 200, {"alive": True, "router": self._router}, request.reply_headers
        )

    async def _ready(self, request: Request) -> None:
        ready, body = fleet_ready(self._resolver, self._fleet)
        await respond_json(request.send, 200 if ready else 503, body, request.reply_headers)

    async def _metrics_text(self, request: Request) -> None:
        await respond(
            request.send,
            200,
            self._metrics.text(),
            CONTENT_TYPE_LATEST.encode(),
            request.reply_headers,
        )
