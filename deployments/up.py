"""`serving up`: the whole service on this machine, in the foreground, until Ctrl-C.

Starts Ray, the routers and every engine of a models file, says what it waits for, prints a banner
with a command to paste, and stops everything when it is told to stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from deployments.address import not_free, unguarded, url_of
from deployments.apply import CLUSTER_FILE, write_cluster_file
from deployments.callers import Callers
from deployments.environment import (
    asks_for_no_token,
    local_environment,
    make_token,
    serve_environment,
    set_defaults,
)
from deployments.supervisor import EXIT_FAILED, Supervisor
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.load import CatalogueError, load_catalogue
from serving.wire.address import host_port

EXIT_USAGE = 2
EXIT_RUNNING = 4
# CPUs that the cluster has left for models that `serving apply` adds.
ROOM_CPUS = 16
DEFAULT_MODELS = Path(__file__).with_name("models") / "local.yaml"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  serving up                                       the tiny local models, on CPU
  serving up --models deployments/models/NAME.yaml your own models file
  serving up --port 9000
\b
Environment:
  SERVING_API_KEYS   keys callers may use, "KEY" or "KEY:ACCOUNT", comma-separated
                     (default: "sk-local" if --host is loopback; else a key is made at
                     the first start and shown once)
  SERVING_STATE_DIR  where accounts and keys are kept, in an SQLite file
                     (default: ~/.local/state/serving/PORT)
  SERVING_STORE_URL  another database for them; empty: none
  SERVING_LOG_DIR    where the JSON logs go (default: --run-dir/logs)
\b
Exit codes: 0 stopped when told to; 1 a model failed to start; 2 a mistake in the
arguments or the models file; 4 already running, or the port is taken; 5 Ray
died (the last line but one says which process, and where its log is).
""",
)
@click.option(
    "--models",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEFAULT_MODELS,
    help="Models file.  [default: the tiny local profile]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".serving"),
    show_default=True,
    help="Where logs and the lock file go.",
)
@click.option(
    "--timeout", default=1800.0, show_default=True, help="Seconds all models may take to start."
)
@click.option("--restart", is_flag=True, help="Start again when Ray dies, if all had been ready.")
def main(models: Path, host: str, port: int, run_dir: Path, timeout: float, restart: bool) -> None:
    """Serve the models of a file on this machine until Ctrl-C."""
    try:
        catalogue = load_catalogue(models)
    except CatalogueError as error:
        click.echo(f"serving up: {error}", err=True)
        sys.exit(EXIT_USAGE)
    if not catalogue.deployed:
        click.echo(f"serving up: {models}: names no model to serve; add one to `models:`", err=True)
        sys.exit(EXIT_USAGE)
    callers = Callers(host, port)
    if problem := unguarded(host) or callers.problem():
        click.echo(f"serving up: {problem}", err=True)
        sys.exit(EXIT_USAGE)
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    url = url_of(host, port)
    with _only_one(port, url):
        if problem := not_free(host, port):
            click.echo(
                f"serving up: cannot listen on {host_port(host, port)}: {problem}; stop what runs "
                "there, or choose another --port",
                err=True,
            )
            sys.exit(EXIT_RUNNING)
        token_file = run_dir / f"ray-{port}.token"

        def drive(up: Callable[[], None]) -> int:
            return Up(catalogue, host, port, url, run_dir, token_file, timeout, callers).run(up)

        try:
            sys.exit(Supervisor(drive, restart=restart).run())
        finally:
            (run_dir / CLUSTER_FILE).unlink(missing_ok=True)
            token_file.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_one(port: int, url: str) -> Iterator[None]:
    """Hold the lock of this port; the kernel drops it when this process ends, however it ends."""
    path = Path(tempfile.gettempdir()) / f"serving-up-{port}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            click.echo(
                f"serving up: already running on {url} (process {lock.read().strip() or '?'}); "
                "stop it with Ctrl-C there, or choose another --port",
                err=True,
            )
            sys.exit(EXIT_RUNNING)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Up:
    """One run of the local service, in the process that drives Ray (`supervisor.py`)."""

    def __init__(
        self,
        catalogue: Catalogue,
        host: str,
        port: int,
        url: str,
        run_dir: Path,
        token_file: Path,
        timeout_s: float,
        callers: Callers,
        out: TextIO = sys.stderr,
    ) -> None:
        self._catalogue = catalogue
        self._host = host
        self._port = port
        self._url = url
        self._run_dir = run_dir
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._callers = callers
        self._out = out
        self._stop = threading.Event()
        self._started = time.monotonic()

    def run(self, up: Callable[[], None]) -> int:
        """Bring everything up, call `up`, wait for SIGTERM and take everything down; the exit
        status. What is left after a failure is for the supervisor to end."""
        self._prepare_environment()
        if not self._callers.prepare(self._say):
            return EXIT_FAILED
        signal.signal(signal.SIGTERM, self._on_signal)
        self._say("starting Ray")
        self._start_cluster()
        if self._wait_until_ready():
            self._banner()
            up()
            self._stop.wait()
        if not self._stop.is_set():
            return EXIT_FAILED
        with contextlib.suppress(Exception):
            import ray

            ray.shutdown()
        return 0

    def _prepare_environment(self) -> None:
        os.environ.setdefault("SERVING_LOG_DIR", str(self._run_dir / "logs"))
        os.environ["SERVING_CLUSTER_TOKEN"] = secrets.token_hex(16)
        os.environ["SERVING_HOST"] = self._host
        os.environ["SERVING_PORT"] = str(self._port)
        set_defaults(serve_environment())
        set_defaults(local_environment())
        make_token(self._token_file)
        if asks_for_no_token():
            self._say("RAY_AUTH_MODE lets every user of this machine run programs as this user")

    def _start_cluster(self) -> None:
        import ray
        from ray import serve

        from deployments.rollout import deploy

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        catalogue = self._catalogue
        cpus = catalogue.router.cpus * catalogue.router.replicas + sum(
            spec.cpus * spec.replicas for spec in catalogue.engines
        )
        ray.init(
            address="local",
            # Engines and routers are counted against this; Serve's own actors take none.
            num_cpus=max(os.cpu_count() or 1, int(cpus) + 1) + ROOM_CPUS,
            include_dashboard=False,
            object_store_memory=100 * 1024 * 1024,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=True,
        )
        # Ray installs a handler of its own.
        signal.signal(signal.SIGTERM, self._on_signal)
        serve.start(
            proxy_location="Disabled",
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        self._say("starting routers and engines")
        write_cluster_file(self._run_dir, ray.get_runtime_context().gcs_address)
        deploy(catalogue)

    def _wait_until_ready(self) -> bool:
        """True when every model answers; False when one failed or a signal came."""
        from ray import serve

        from deployments.rollout import progress

        deadline = self._started + self._timeout_s
        said = ""
        last_said = 0.0
        while not self._stop.is_set() and time.monotonic() < deadline:
            if _answers(f"{self._url}/ready"):
                return True
            applications = serve.status().applications
            for name, application in applications.items():
                if application.status == "DEPLOY_FAILED":
                    self._say(f"{name} failed to start: {application.message}")
                    self._say(f"logs: {os.environ['SERVING_LOG_DIR']}")
                    return False
            text = progress(applications)
            if text != said or time.monotonic() - last_said > 10:
                self._say(f"waiting for {text or 'the HTTP entry'}")
                said, last_said = text, time.monotonic()
            self._stop.wait(0.5)
        if not self._stop.is_set():
            self._say(f"not ready after {self._timeout_s:g} s; see {os.environ['SERVING_LOG_DIR']}")
        return False

    def _banner(self) -> None:
        shown = self._callers.shown
        catalogue = self._catalogue
        lines = [
            "",
            f"  ready after {time.monotonic() - self._started:.0f} s",
            "",
            f"  URL      {self._url}",
            f"  API key  {shown}",
            "  models   " + "\n           ".join(model.id for model in catalogue.deployed),
            *(f"  alias    {alias} -> {target}" for alias, target in catalogue.aliases.items()),
            f"  logs     {os.environ['SERVING_LOG_DIR']}",
            *([f"  store    {where}"] if (where := self._callers.store_shown) else []),
            "",
            f"  curl {self._url}/v4/completions -H 'x-api-key: {shown}' \\",
            "    -H 'content-type: application/json' \\",
            f'    -d \'{{"model": "{catalogue.deployed[0].id}", "prompt": "Once upon a time"}}\'',
            "",
            "  Ctrl-C stops everything.",
        ]
        print("\n".join(lines), file=self._out, flush=True)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._stop.set()

    def _say(self, message: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"[{seconds:5.1f} s] {message}", file=self._out, flush=True)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main(prog_name="serving up")
