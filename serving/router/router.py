"""One router, put together: the composition root of everything that a router process runs."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence

from serving.accounts.keeper import Keeper
from serving.accounts.ledger.books import Books
from serving.accounts.quota.limits import Limits
from serving.api.endpoints import ENDPOINTS, Endpoints
from serving.api.openapi.description import Description
from serving.api.structure import BodyShape
from serving.catalogue.catalogue import Catalogue
from serving.http.descriptors import connections_within, raise_limit
from serving.http.listener import HttpServer, listen
from serving.http.spool import Spools
from serving.observability.logs import Log
from serving.observability.router_metrics import LedgerMetrics, QuotaMetrics, RouterMetrics
from serving.router.admission import Admission, Charged, OpenDoor, Policy
from serving.router.auth import Accounts
from serving.router.copies import Copies
from serving.router.cross_origin import CrossOrigin
from serving.router.demand import Demand
from serving.router.doors import Doors
from serving.router.doubts import Doubts
from serving.router.fleet import Fleet
from serving.router.hosted import HostedModels
from serving.router.large_bodies import LargeBodies
from serving.router.pipeline import Pipeline
from serving.router.quarantine import Quarantine
from serving.router.record import Recorder
from serving.router.relay import Relay
from serving.router.resolve import Resolver
from serving.router.retry_budget import RetryBudget
from serving.router.settlement import Settlements
from serving.router.spaces import CacheSpaces
from serving.router.standing import Standings
from serving.router.view import RouterView
from serving.router.waiting import Waiting
from serving.settings import Settings
from serving.store.engine import Store
from serving.wire.address import host_port
from serving.wire.entry import Entry

# Prometheus, probes and operators keep a handful on a router's own port.
OWN_CONNECTIONS = 64


def nobody_starts_models(model: str, wanted: bool) -> None:
    """The `want` of a router without Ray: nothing starts or stops replicas."""


class Router:
    """A pipeline that serves on the port all routers of a machine share, and on one of its own.

    The connections of each are bounded apart, so that probes are answered however many callers
    there are.

    Args:
        router: this router's ID.
        own_host: address of the listener that only this router has.
        drain_s: how long `close` lets requests go on, in seconds.
        leave_s: how long `close` goes on accepting before that, in seconds, if no other router
            serves the shared port of this machine; `/ready` is 503 meanwhile.
        code: digest of the code that this process runs.
        want: called with a model that sleeps and whether it is needed now (`demand.py`).
        policy: which requests may run, and who pays; by default all may, and nobody pays.

    Raises:
        ValueError: other machines could call with a key that everybody knows, or the store's URL is
            not valid.
        KeysFileError: the file of keys cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        router: str,
        own_host: str,
        drain_s: float,
        log: Log,
        leave_s: float = 0.0,
        want: Callable[[str, bool], None] = nobody_starts_models,
        policy: Policy | None = None,
        rng: random.Random | None = None,
        code: str = "",
    ) -> None:
        settings.check_key()
        self._settings = settings
        self._doors = Doors(settings)
        self._code = code
        self._id = router
        self._own_host = own_host
        self._drain_s = drain_s
        self._leave_s = leave_s
        self._prepared = False
        # Once it has started, that of its own port and the one of callers.
        self._own: HttpServer | None = None
        self._shared: HttpServer | None = None
        self.metrics = metrics = RouterMetrics()
        url = settings.store_url.get_secret_value()
        self._store = Store(url, migrates=settings.store_migrates) if url else None
        self.keeper = keeper = Keeper(settings, self._store, metrics, log)
        self.books = Books(settings, self._store, LedgerMetrics(metrics.registry), log, rng=rng)
        self.limits = Limits(self._store, keeper.book, QuotaMetrics(metrics.registry), log)
        self._demand = Demand(want)
        self.hosted = HostedModels(metrics, log)
        rng = rng or random.Random()
        keep_s = settings.quarantine_s
        self.quarantine = Quarantine(metrics, log, keep_s=keep_s)
        self.doubts = Doubts(self.quarantine.convict, log, keep_s=keep_s, rng=rng)
        self.fleet = Fleet(
            router=router,
            token=settings.cluster_token.get_secret_value(),
            metrics=metrics,
            log=log,
            rng=rng,
            local=self.hosted.replicas,
            on_suspects=self.quarantine.add,
            on_doubts=self.doubts.hear,
        )
        self.waiting = Waiting(
            self.fleet,
            self._demand,
            hold_s=settings.hold_s,
            hold_stream_s=settings.hold_stream_s,
            hold_max=settings.hold_max,
        )
        relay = Relay(
            self.fleet,
            self._demand,
            self.waiting,
            self.quarantine,
            self.doubts,
            Copies(),
            RetryBudget(),
            metrics,
            log,
            timeout_s=settings.request_timeout_s,
        )
        self._log = log
        self._recorder = Recorder(metrics, log)
        self._settlements = Settlements(self._recorder, log)
        self._view = RouterView(
            router, Resolver(Catalogue(models=())), self.fleet, metrics, Description(ENDPOINTS)
        )
        spools = Spools(settings.spool_dir, settings.spool_bytes)
        metrics.spooled.set_function(lambda: spools.used)
        spaces = CacheSpaces(settings)
        shape = BodyShape(
            settings.max_body_brackets, settings.max_body_commas, settings.max_body_escapes
        )
        self.pipeline = Pipeline(
            settings=settings,
            endpoints=Endpoints(ENDPOINTS),
            keys=keeper.ring,
            administration=keeper.admin,
            doors=self._doors,
            accounts=Accounts(settings.account_policy, keeper.book, metrics),
            cross_origin=CrossOrigin(settings.origins),
            spaces=spaces,
            standings=Standings(keeper.book, spaces),
            large=LargeBodies(shape),
            spools=spools,
            admission=Admission(policy or self._policy(), self.limits.limiter),
            usage=self.books.usage,
            relay=relay,
            view=self._view,
            recorder=self._recorder,
            settlements=self._settlements,
            log=log,
        )

    @property
    def serving(self) -> bool:
        """True while its listeners accept requests."""
        return bool(self.servers) and all(server.serving for server in self.servers)

    @property
    def servers(self) -> Sequence[HttpServer]:
        """What listens, once it has started."""
        return [server for server in (self._own, self._shared) if server is not None]

    @property
    def port(self) -> int:
        """The port that callers use, once it has started."""
        assert self._shared is not None
        return self._shared.port

    @property
    def entry(self) -> Entry:
        """This router's entry in the directory, once it has started."""
        assert self._own is not None
        host, port = self._own_host, self._own.port
        return Entry(self._id, "router", "", host, port, host_port(host, port), code=self._code)

    async def set_catalogue(self, catalogue: Catalogue) -> None:
        """Set what is served from now on; running requests keep the route they have."""
        await self.hosted.prepare(catalogue)
        self.hosted.update(catalogue)
        self.limits.set_catalogue(catalogue)
        self.pipeline.set_catalogue(catalogue)
        self.fleet.set_models(spec.id for spec in catalogue.engines)
        self._demand.update(catalogue.engines)

    async def prepare(self) -> None:
        """Read the keys and open the ledger; done once.

        Raises:
            OSError: the ledger's folder takes nothing.
        """
        if not self._prepared:
            self._prepared = True
            await self.keeper.start()
            await self.books.start()
            self.limits.start()

    async def start(self) -> None:
        """Prepare, and listen.

        Raises:
            OSError: as `prepare`; or the address is taken, or not ours.
        """
        await self.prepare()
        settings = self._settings
        own = listen(self._own_host, settings.own_port)
        shared = listen(settings.host, settings.port, shared=True)
        connections = connections_within(settings.max_connections, raise_limit())
        if connections < settings.max_connections:
            wanted = settings.max_connections
            self._log.warning("open_files_limit_connections", wanted=wanted, granted=connections)
        self._own = self._server(own, OWN_CONNECTIONS)
        self._shared = self._server(shared, connections, self._leave_s)
        self._doors.own_port = self._own.port
        for server in self.servers:
            await server.start()

    def _policy(self) -> Policy:
        return OpenDoor() if self.books.ledger is None else Charged(self.books.ledger)

    def _server(
        self, listener: socket.socket, connections: int, leave_s: float = 0.0
    ) -> HttpServer:
        return HttpServer(
            self.pipeline,
            listener,
            drain_s=self._drain_s,
            leave_s=leave_s,
            max_connections=connections,
            on_refused=self._recorder.refused,
            on_leaving=self._on_leaving,
        )

    def _on_leaving(self) -> None:
        """No other router serves the port: load balancers have to leave."""
        self._log.info("router_leaving", seconds=self._leave_s)
        self._view.leaving = True

    async def close(self) -> None:
        """Leave the shared port to the other routers, or once load balancers have left; let running
        requests end, and show how many there are until then."""
        if self._shared is not None:
            await self._shared.close()
        if self._own is not None:
            await self._own.close()
        await self._settlements.close()
        self._demand.close()
        await self.fleet.close()
        await self.hosted.close()
        await self.limits.close()
        await self.keeper.close()
        await self.books.close()
        if self._store is not None:
            await self._store.close()
