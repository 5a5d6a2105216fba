"""The router's ASGI app: from request to answer on one page.

1. headers, key and body are checked (`http`, `auth`); 2. the wire format is parsed (`api/`);
3. the model ID becomes a route (`resolve`); 4. the request goes to a replica and its answer back
(`relay`, `fleet`, `balance`, `link`); 5. its outcome is recorded (`record`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.types import Receive, Scope, Send

from serving.api.completion import parse_completion
from serving.api.envelope import error_body, openai_error_body, retry_headers
from serving.api.openai import peek
from serving.api.sse import error_event, openai_error_event
from serving.catalogue.catalogue import Catalogue
from serving.errors import (
    ClientLeft,
    Ended,
    InvalidField,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServingError,
)
from serving.http.listener import WRITE
from serving.http.request import Handler, Request, read_body, read_headers, request_id, respond
from serving.observability.logs import Log
from serving.observability.metrics import RouterMetrics
from serving.router.auth import KeyRing, choose_account
from serving.router.fleet import Fleet
from serving.router.pages import Pages
from serving.router.record import Record, Recorder
from serving.router.relay import Job, Relay
from serving.router.resolve import Resolver, Route
from serving.router.waiting import Demand
from serving.settings import Settings
from serving.wire.messages import CompletionCall, HttpCall, ImageRef

# Headers of an OpenAI request that mean something to vLLM; keys and cookies stay here.
_RELAYED_HEADERS = (b"content-type", b"accept", b"traceparent", b"tracestate")


# The `endpoint` label of paths that do not exist.
OTHER_ENDPOINT = "other"


class Gateway:
    """The ASGI application of one router replica. It knows no model until `serve` is called."""

    def __init__(
        self,
        *,
        settings: Settings,
        fleet: Fleet,
        demand: Demand,
        metrics: RouterMetrics,
        log: Log,
        router: str,
    ) -> None:
        self._settings = settings
        self._resolver = Resolver(Catalogue(models=()))
        self._fleet = fleet
        self._demand = demand
        self._metrics = metrics
        self._log = log
        self._keys = KeyRing(settings.api_keys.get_secret_value())
        self._pages = Pages(self._keys, fleet, metrics, router)
        self._recorder = Recorder(metrics, log)
        self._relay = Relay(
            fleet,
            demand,
            metrics,
            log,
            keepalive_s=settings.keepalive_s,
            timeout_s=settings.request_timeout_s,
            hold_s=settings.hold_s,
            hold_stream_s=settings.hold_stream_s,
            hold_max=settings.hold_max,
        )
        self._paths: dict[str, dict[str, Handler]] = {
            "/v4/completions": {"POST": partial(self._recorded, self._complete)},
            "/v2/completions": {"POST": partial(self._recorded, self._complete)},
            "/v1/completions": {"POST": partial(self._recorded, self._openai)},
            "/v1/chat/completions": {"POST": partial(self._recorded, self._openai)},
            **{path: {"GET": page} for path, page in self._pages.paths.items()},
        }

    def serve(self, catalogue: Catalogue) -> None:
        """Take over what is served from now on; requests that run are not touched."""
        self._resolver = Resolver(catalogue)
        self._pages.serve(self._resolver)
        self._fleet.serve(spec.id for spec in catalogue.engines)
        self._demand.update(catalogue.engines)

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
        if methods is None and (page := self._pages.of_one_model(path)) is not None:
            methods = {"GET": page}
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
        route = self._route(body.model, request)
        sampling = body.sampling()
        if body.images and not route.engine.vision:
            raise InvalidField(f"model '{body.model}' takes no images", param="images")
        if sampling.reasoning_effort and not getattr(route.engine, "reasoning", False):
            raise InvalidField(
                f"model '{body.model}' has no reasoning effort",
                param="model_parameters.reasoning_effort",
            )
        call = CompletionCall(
            request_id=request.id,
            model=body.model,
            prompt=body.prompt,
            stream=record.stream,
            sampling=sampling,
            served_model=route.model,
            adapter=route.adapter,
            images=tuple(ImageRef(at.image_url, at.detail or "auto") for at in body.images or ()),
            prompt_format=route.prompt_format,
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
        route = self._route(seen.model, request)
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
            prompt_format=route.prompt_format,
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

    def _route(self, asked: str, request: Request) -> Route:
        """The route of an ID. The response to an alias names who answers, also where its body has
        the ID that was asked for."""
        route = self._resolver.resolve(asked)
        if route.model != asked:
            request.reply_headers.append((b"x-served-model", route.model.encode()))
        return route

    async def _run(self, job: Job, request: Request, record: Record) -> None:
        record.engine, record.kind = job.route.engine.id, job.route.kind
        with self._recorder.in_flight(record):
            write = request.scope.get("extensions", {}).get(WRITE)
            await self._relay.run(job, record, request.receive, request.send, write)
