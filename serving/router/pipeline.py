"""What happens to a request in a router, on one page.

1. **authenticate**: who calls (`auth`).
2. **read**: the body, within its limits (`http/request`); a recording goes to disk (`http/spool`)
   and is looked at as it comes: steps 4 and 5 need not wait for all of it.
3. **parse**: what it asks for, by its endpoint (`api/endpoints`).
4. **admit**: whether it may pass, and who pays (`admission`).
5. **resolve**: which route its model ID has (`resolve`).
6. **relay**: to a replica and back (`relay`).
7. **settle**: what it used is charged, counted and logged, once, whatever its end (`settlement`).

A page, and what administrators ask for, the router answers itself: they take only the first step
and the last. Every endpoint goes
this way; what differs between them stands in the table of endpoints.
"""

from __future__ import annotations

from functools import partial

from msgspec import structs
from starlette.types import Receive, Scope, Send

from serving.accounts.caller import ANYONE, Caller, Role
from serving.accounts.ring import KeyRing
from serving.api.admin import Administration, Order
from serving.api.asked import Ability, Asked, Incoming
from serving.api.dialect import Dialect
from serving.api.endpoints import (
    Endpoint,
    Endpoints,
    Managed,
    Match,
    Relayed,
    Reported,
    Spooled,
    dialect_at,
)
from serving.api.envelope import retry_headers
from serving.api.excerpt import excerpt
from serving.api.pages import Ask, ShowPage
from serving.api.usage import Inquiry, Ledger
from serving.catalogue.catalogue import Catalogue
from serving.errors import (
    ClientLeft,
    Ended,
    InvalidField,
    MethodNotAllowed,
    NoStore,
    NotFound,
    ServingError,
    Unauthenticated,
)
from serving.http.request import Request
from serving.http.spool import Spool, Spools
from serving.observability.logs import Log
from serving.router.admission import Admission, Ticket
from serving.router.auth import Accounts
from serving.router.cross_origin import CrossOrigin
from serving.router.doors import Doors
from serving.router.large_bodies import LargeBodies
from serving.router.record import Record, Recorder
from serving.router.relay import Job, Relay
from serving.router.resolve import Resolver, Route
from serving.router.response import Response
from serving.router.settlement import Settlements
from serving.router.spaces import CacheSpaces
from serving.router.standing import Standings
from serving.router.view import RouterView
from serving.settings import Settings

# Larger than any body of the admin API.
MAX_ORDER_BYTES = 128 * 1024


class Pipeline:
    """The ASGI application of one router. It knows no model until `set_catalogue` is called."""

    def __init__(
        self,
        *,
        settings: Settings,
        endpoints: Endpoints,
        keys: KeyRing,
        administration: Administration | None,
        doors: Doors,
        accounts: Accounts,
        cross_origin: CrossOrigin,
        spaces: CacheSpaces,
        standings: Standings,
        large: LargeBodies,
        spools: Spools,
        admission: Admission,
        usage: Ledger | None,
        relay: Relay,
        view: RouterView,
        recorder: Recorder,
        settlements: Settlements,
        log: Log,
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._keys = keys
        self._administration = administration
        self._doors = doors
        self._accounts = accounts
        self._cross_origin = cross_origin
        self._spaces = spaces
        self._standings = standings
        self._large = large
        self._spools = spools
        self._admission = admission
        self._usage = usage
        self._resolver = Resolver(Catalogue(models=()))
        self._relay = relay
        self._view = view
        self._recorder = recorder
        self._settlements = settlements
        self._log = log

    def set_catalogue(self, catalogue: Catalogue) -> None:
        """Set what is served from now on; running requests keep the route they have."""
        self._resolver = self._view.resolver = Resolver(catalogue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point. For an HTTP request it raises nothing but a cancellation."""
        if scope["type"] != "http":
            raise RuntimeError(f"no support for {scope['type']}")
        request = Request.of(scope, receive, send)
        match = self._endpoints.match(request.path)
        record = Record(request.id, match.path)
        dialect = dialect_at(match, request.path)
        if dialect.id_header:
            request.reply_headers.append((dialect.id_header, request.id.encode()))
        try:
            await self._answer(request, match, record)
            record.end()
        except (ClientLeft, Ended) as error:
            record.end(error)
        except ServingError as error:
            record.end(error)
            await self._refuse(request, error, dialect)
        except Exception as error:  # noqa: BLE001 - the caller gets no stack trace, the log does
            record.end(error)
            path = excerpt(request.path)
            self._log.exception("request_failed", error, request_id=request.id, path=path)
            bug = ServingError("internal error; the log has its cause")
            await self._refuse(request, bug, dialect)
        except BaseException as error:
            record.end(error)
            raise
        finally:
            await self._settlements.settle(record)

    async def _answer(self, request: Request, match: Match, record: Record) -> None:
        request.read_headers(self._settings.max_header_bytes)
        request.reply_headers += self._cross_origin.headers(request.headers)
        if await self._allow(request, match, record):
            return
        endpoint = _endpoint(request, match)
        record.quiet = endpoint.probe
        caller, answer = self._authenticate(request, endpoint)
        record.key = caller.key_id
        managed = isinstance(answer, Managed)
        caller.check_endpoint(request.method, match.path, manages=managed)
        if isinstance(answer, Relayed):
            request.name, request.path = match.name, answer.path or match.path
            await self._complete(request, answer, endpoint.dialect, caller, record)
        elif isinstance(answer, Reported):
            await self._report(request, answer, match.name, caller, record)
        elif isinstance(answer, Managed):
            await self._manage(request, answer, match.name, caller, record)
        else:
            await self._show(request, answer, match.name, caller, record)

    async def _allow(self, request: Request, match: Match, record: Record) -> bool:
        """Answer a browser that asks whether it may send a request; False if that is not asked."""
        if not match.methods:
            return False
        methods = _methods(match)
        headers = self._cross_origin.preflight(request.method, request.headers, methods)
        if headers is None:
            return False
        record.quiet, record.status = True, 204
        await request.start(204, headers)
        await request.send({"type": "http.response.body"})
        return True

    def _authenticate(
        self, request: Request, endpoint: Endpoint
    ) -> tuple[Caller, ShowPage | Relayed | Managed | Reported]:
        """Who calls, and the answer that this caller may have.

        Raises:
            Unauthenticated: it needs a key.
            Forbidden, StoreUnavailable: as `KeyRing.authenticate`.
        """
        headers = request.headers
        if endpoint.public and not (
            endpoint.names_models and not self._doors.shows_pages(request.scope, headers)
        ):
            return ANYONE, endpoint.answer
        try:
            return self._keys.authenticate(headers, request.scope), endpoint.answer
        except Unauthenticated:
            if endpoint.bare is None:
                raise
            return ANYONE, endpoint.bare

    async def _complete(
        self, request: Request, endpoint: Relayed, dialect: Dialect, caller: Caller, record: Record
    ) -> None:
        """Everything from reading to relaying."""
        if isinstance(endpoint.parse, Spooled):
            with self._spools.open() as spool:
                incoming = endpoint.parse.parse(request)
                await self._spool(request, endpoint.needs, incoming, caller, record, spool)
                record.received()
                asked = incoming.asked(spool.body)
                # The bytes of a recording say nothing of its tokens.
                await self._run(request, endpoint, asked, b"", dialect, caller, record)
            return
        body = await request.read_body(
            limit=self._settings.max_body_bytes, timeout_s=self._settings.body_timeout_s
        )
        record.received()
        parse = endpoint.parse
        asked = await self._large.read(body, lambda: parse(request, body))
        await self._run(request, endpoint, asked, body, dialect, caller, record)

    async def _spool(
        self,
        request: Request,
        needs: Ability,
        incoming: Incoming,
        caller: Caller,
        record: Record,
        spool: Spool,
    ) -> None:
        """Read a large body. Who may not ask, and a model that cannot answer, is refused before the
        rest has come."""

        async def take(data: bytes) -> None:
            incoming.feed(data)
            if incoming.model and record.ticket is None:
                await self._admit(request, incoming.model, None, b"", caller, record)
                self._route(record.endpoint, needs, incoming.model, caller)

        await request.spool_body(
            spool,
            take,
            limit=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )

    async def _run(
        self,
        request: Request,
        endpoint: Relayed,
        asked: Asked,
        said: bytes,
        dialect: Dialect,
        caller: Caller,
        record: Record,
    ) -> None:
        """Everything from admitting to relaying. `said` is the body, as far as its length says
        how long the prompt is."""
        record.stream = asked.streams and endpoint.streams
        ticket = record.ticket or await self._admit(
            request, asked.model, asked.account_id, said, caller, record
        )
        hold, account = ticket.hold, record.account or None
        route = self._route(record.endpoint, endpoint.needs, asked.model, caller)
        asked.check(route.abilities)
        if route.model != asked.model:
            # The body may have the alias.
            request.reply_headers.append((b"x-served-model", route.model.encode()))
        record.engine, record.kind = route.engine.id, route.kind
        record.served_model, record.version = route.model, route.version
        call, body = asked.call(request.id, route)
        standing = self._standings.of(caller, account, request.headers, batch=call.standing.batch)
        space = self._spaces.of(caller, account)
        allowance = hold.granted if hold is not None and hold.spends else 0
        call = structs.replace(call, cache_space=space, standing=standing, allowance=allowance)
        job = Job(
            call, body, route, dialect, partial(self._settlements.before_last_byte, record), hold
        )
        response = Response(
            request, record, keepalive_s=self._settings.keepalive_s, keepalive=dialect.keepalive
        )
        try:
            with self._recorder.in_flight(record):
                await self._relay.run(job, record, response)
        finally:
            response.close()

    async def _admit(
        self,
        request: Request,
        model: str,
        body_account: str | None,
        said: bytes,
        caller: Caller,
        record: Record,
    ) -> Ticket:
        """The permission to ask a model ID, and who pays for it. Raises as `Accounts.charged` and
        `Admission.admit`."""
        record.model = model
        account = self._accounts.charged(caller, request, body_account)
        record.account = account or ""
        record.ticket = await self._admission.admit(caller, account, model, said)
        if (hold := record.ticket.hold) is not None:
            request.reply_headers += hold.headers()
        return record.ticket

    def _route(self, path: str, needs: Ability, model: str, caller: Caller) -> Route:
        """The route of a model ID.

        Raises:
            InvalidField: the model does not answer at `path`.
        """
        route = self._resolver.resolve(model, caller)
        if needs not in route.abilities:
            paths = ", ".join(self._endpoints.answering(route.abilities))
            raise InvalidField(
                f"model '{excerpt(model)}' does not answer at {path}; ask it at {paths}",
                param="model",
            )
        return route

    async def _show(
        self, request: Request, show: ShowPage, name: str, caller: Caller, record: Record
    ) -> None:
        """Answer with a page."""
        account = self._accounts.choose(caller, request.headers)
        view = self._view.seen_by(caller)
        page = show(view, Ask(request.query, name, caller.key_id, account))
        record.status = page.status
        await request.respond(page.status, page.body, page.content_type, list(page.headers))

    async def _manage(
        self, request: Request, managed: Managed, name: str, caller: Caller, record: Record
    ) -> None:
        """Do what an administrator asks for."""
        self._accounts.choose(caller, request.headers)
        if self._administration is None:
            raise NoStore(
                "accounts and keys are kept in a store, and this installation has none; set "
                "SERVING_STORE_URL"
            )
        body = b""
        if managed.reads:
            limit = min(MAX_ORDER_BYTES, self._settings.max_body_bytes)
            body = await request.read_body(limit=limit, timeout_s=self._settings.body_timeout_s)
        order = Order(request.id, caller.key_id, name, request.query, body)
        page = await managed.manage(self._administration, order)
        record.status = page.status
        # An answer may have a key in it.
        headers = [(b"cache-control", b"no-store")]
        await request.respond(page.status, page.body, page.content_type, headers)

    async def _report(
        self, request: Request, reported: Reported, name: str, caller: Caller, record: Record
    ) -> None:
        """Answer with what was used."""
        account = self._accounts.choose(caller, request.headers)
        if self._usage is None:
            raise NoStore(
                "usage is kept in a store, and this installation has none; set SERVING_STORE_URL"
            )
        admin = caller.role is Role.ADMIN
        inquiry = Inquiry(caller.key_id, account, admin, request.query, name)
        page = await reported.report(self._usage, inquiry)
        record.status = page.status
        await request.respond(page.status, page.body, page.content_type, list(page.headers))

    async def _refuse(self, request: Request, error: ServingError, dialect: Dialect) -> None:
        """Answer with an error."""
        headers = retry_headers(error) + error.headers
        if error.status in (408, 413, 431):
            # The rest of the request may still be on its way: this connection cannot be used again.
            headers.append((b"connection", b"close"))
        body = dialect.body(error, request.id)
        await request.respond(error.status, body, b"application/json", headers)


def _endpoint(request: Request, match: Match) -> Endpoint:
    """The endpoint of a request's path and method.

    Raises:
        NotFound, MethodNotAllowed: there is none.
    """
    if not match.methods:
        raise NotFound(f"no such path: {excerpt(request.path)}")
    endpoint = match.methods.get("GET" if request.method == "HEAD" else request.method)
    if endpoint is None:
        allowed = _methods(match)
        request.reply_headers.append((b"allow", allowed.encode()))
        path, method = excerpt(request.path), excerpt(request.method)
        raise MethodNotAllowed(f"{path} takes {allowed}, not {method}")
    return endpoint


def _methods(match: Match) -> str:
    """The methods of a path; what can be had can be asked about."""
    return ", ".join([*match.methods, *(["HEAD"] if "GET" in match.methods else [])])
