"""`serving apply`: bring a running service to what a models file says, without a restart."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from deployments.declared import ADVICE, Declared, declared, unified
from deployments.environment import TOKEN_PATH, local_environment, set_defaults
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.load import CatalogueError, load_catalogue, load_text
from serving.wire.address import split_host_port

if TYPE_CHECKING:
    from deployments.rollout import Changes

# In the run directory of `serving up`: how to reach its cluster.
CLUSTER_FILE = "ray-cluster.json"
EXIT_FAILED, EXIT_USAGE, EXIT_NO_CLUSTER, EXIT_DECLARED = 1, 2, 3, 4


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  serving apply models.yaml             add, change and remove models
  serving apply models.yaml --dry-run   only say what would change
  serving apply models.yaml --address 10.0.0.5:6379
\b
Models that are no longer in the file drain and are removed. Models that did
not change are not touched, nor are requests to them. A model that has failed
is tried again, and an interrupted run is finished. A changed model's replicas
are replaced one after the other: with a single replica the model is away
while it loads. Replicas that run other code than is installed here, packages
included, are outdated and are replaced in the same way.
\b
On a cluster whose applications are declared (KubeRay's `serveConfigV2`, or
`serve deploy`) nothing is changed: what has to change there is on stdout, as
`diff -u` writes it.
\b
Exit codes: 0 done (or nothing to do, or --dry-run); 1 a model failed to
start, or not in time; 2 a mistake in the arguments or the file; 3 no running
service; 4 changed nothing, since the applications are declared.
""",
)
@click.argument("models", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--address",
    help="Ray cluster.  [default: that of `serving up` here, else $RAY_ADDRESS, else this node's]",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".serving"),
    show_default=True,
    help="Where `serving up` keeps its files.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds it may take in all.")
def main(models: Path, address: str | None, run_dir: Path, dry_run: bool, timeout: float) -> None:
    """Bring a running service to what the file MODELS says."""
    try:
        catalogue = load_catalogue(models)
    except CatalogueError as error:
        _end(EXIT_USAGE, str(error))
    here = {} if address else _of_run_dir(run_dir)
    found = address or here.get("address") or os.environ.get("RAY_ADDRESS", "auto")
    _check_reachable(found)
    if found.startswith("127."):
        set_defaults(local_environment())
    # A process that joins a cluster has to be told that Ray asks for a token there.
    set_defaults({"RAY_AUTH_MODE": here.get("auth_mode") or "token"})
    if token_path := here.get("token_path"):
        # Of another cluster, and it would come first.
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ[TOKEN_PATH] = token_path
    import ray

    try:
        ray.init(address=found, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # noqa: BLE001 - Ray raises several unrelated kinds
        _end(EXIT_NO_CLUSTER, f"no Ray cluster at {found}: {error}")
    try:
        _run(catalogue, models, dry_run, timeout)
    finally:
        ray.shutdown()


def _run(catalogue: Catalogue, file: Path, dry_run: bool, timeout_s: float) -> None:
    from deployments import ray_internals, rollout

    # After the import, which sets the level.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    started = time.monotonic()

    def say(message: str) -> None:
        click.echo(f"[{time.monotonic() - started:5.1f} s] {message}", err=True)

    try:
        if there := declared(ray_internals.declared_configs()):
            _show(there, catalogue, file, dry_run)
            return
        difference = rollout.changes(rollout.current_catalogue(), catalogue)
        _say_changes(difference)
        outdated = rollout.outdated(catalogue)
        for name in outdated:
            click.echo(f"outdated {name}")
        left = () if difference else rollout.unfinished(catalogue)
        for what in left:
            click.echo(what)
        if not (difference or outdated or left):
            click.echo("nothing to do")
        elif not dry_run:
            rollout.roll_out(catalogue, say=say, timeout_s=timeout_s)
            say("done")
    except rollout.RolloutFailed as error:
        _end(EXIT_FAILED, str(error))
    except Exception as error:  # noqa: BLE001 - of Ray, or of a service of another version
        _end(EXIT_FAILED, f"{type(error).__name__}: {error}")


def _show(there: Declared, catalogue: Catalogue, file: Path, dry_run: bool) -> None:
    """Say what has to change where the cluster's applications are declared."""
    from deployments import rollout

    old = load_text(there.models_yaml) if there.models_yaml else rollout.current_catalogue()
    difference = rollout.changes(old, catalogue)
    _say_changes(difference)
    if not difference:
        click.echo("nothing to do")
        return
    if there.models_yaml:
        click.echo(unified(there.models_yaml, file.read_text(encoding="utf-8"), str(file)))
    if dry_run:
        click.echo(ADVICE.format(file=file), err=True)
    else:
        _end(EXIT_DECLARED, ADVICE.format(file=file))


def _say_changes(difference: Changes) -> None:
    for word in ("added", "changed", "removed"):
        for name in getattr(difference, word):
            click.echo(f"{word:8} {name}")
    if difference.other:
        click.echo("changed  aliases, providers or settings of the routers")


def write_cluster_file(run_dir: Path, address: str) -> None:
    """Write what `serving apply` needs to know about the cluster that this process has started."""
    found = {
        "address": address,
        "auth_mode": os.environ["RAY_AUTH_MODE"],
        "token_path": os.environ.get(TOKEN_PATH),
    }
    (run_dir / CLUSTER_FILE).write_text(json.dumps(found))


def _of_run_dir(run_dir: Path) -> dict[str, str | None]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run_dir / CLUSTER_FILE).read_text())
        if isinstance(found, dict):
            return found
    return {}


def _check_reachable(address: str) -> None:
    """Exit if nothing listens at the address; Ray itself would try for minutes."""
    try:
        where = split_host_port(address)
    except ValueError:
        return
    try:
        socket.create_connection(where, timeout=5).close()
    except OSError as error:
        _end(EXIT_NO_CLUSTER, f"no Ray cluster at {address}: {error}; is `serving up` running?")


def _end(status: int, message: str) -> NoReturn:
    click.echo(f"serving apply: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main(prog_name="serving apply")
