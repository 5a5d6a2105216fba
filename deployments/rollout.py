"""Takes a running cluster from one catalogue to the next, without disturbing what stays.

New and changed models are deployed, and the routers take the new catalogue. Once every router has
it, none sends requests to a removed model any more; then the removed models' applications drain and
go. Last, a directory of another version is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import serve

from deployments import directory
from deployments.app import run_targets
from deployments.code import engine_code, router_code
from deployments.names import ROUTER, ROUTER_APP
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.names import ENGINE_APPS, engine_app_name

# Asking Serve for its status costs the controller milliseconds.
POLL_S = 1.0

Say = Callable[[str], None]


class RolloutFailed(Exception):
    """A model or the routers did not reach the new catalogue; the message says which and why."""


@dataclass(frozen=True)
class Changes:
    """What differs between two catalogues, as IDs of deployed models. `other`: something else
    differs, such as aliases, providers, retired IDs or settings."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    other: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.other)


def changes(old: Catalogue, new: Catalogue) -> Changes:
    """What a rollout from `old` to `new` does."""

    def rest(catalogue: Catalogue) -> Catalogue:
        """All but the deployed models. The others matter too: a retired ID's answer, for one."""
        deployed = {spec.id for spec in catalogue.deployed}
        known = tuple(spec for spec in catalogue.models if spec.id not in deployed)
        return catalogue.model_copy(update={"models": known})

    before = {spec.id: spec for spec in old.deployed}
    after = {spec.id: spec for spec in new.deployed}
    return Changes(
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        removed=tuple(name for name in before if name not in after),
        other=rest(old) != rest(new),
    )


def current_catalogue() -> Catalogue:
    """The catalogue that the routers of the connected cluster serve.

    Raises:
        RolloutFailed: no router answers.
    """
    try:
        handle = serve.get_deployment_handle(ROUTER, ROUTER_APP)
        answer = handle.catalogue.remote().result(timeout_s=30)
    except Exception as error:
        raise RolloutFailed(f"no router answers in this cluster: {error}") from error
    return Catalogue.model_validate(answer)


def outdated(catalogue: Catalogue) -> tuple[str, ...]:
    """The applications of a catalogue with replicas that run other code than this process has, and
    `directory` if that does: the next rollout replaces them."""
    found = set()
    for entry in directory.listed():
        if entry.kind == "router" and entry.code != router_code():
            found.add(ROUTER_APP)
        elif entry.kind == "engine" and entry.code != engine_code():
            found.add(engine_app_name(entry.model))
    found &= {ROUTER_APP, *_wanted(catalogue)}
    if directory.is_outdated():
        found.add("directory")
    return tuple(sorted(found))


def unfinished(catalogue: Catalogue) -> tuple[str, ...]:
    """Where the cluster differs from the catalogue that its routers have, one line per application.

    It differs if an earlier rollout was interrupted or a model failed.
    """
    wanted, there = _wanted(catalogue), _engine_apps()
    return (
        *(f"missing  {name}" for name in sorted(wanted - there.keys())),
        *(f"leftover {name}" for name in sorted(there.keys() - wanted)),
        *(
            f"{there[name].lower()} {name}"
            for name in sorted(wanted & there.keys())
            if there[name] != "RUNNING"
        ),
    )


def deploy(catalogue: Catalogue) -> None:
    """Have Ray Serve deploy a catalogue's applications; returns at once. Applications that have not
    changed are not touched."""
    serve.run_many(
        run_targets(catalogue),
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def roll_out(catalogue: Catalogue, *, say: Say, timeout_s: float) -> None:
    """Bring the connected cluster to `catalogue`; returns when it is there.

    Raises:
        RolloutFailed: a model failed to start, or not everything was done in `timeout_s`. What
            was deployed stays deployed.
    """
    deadline = time.monotonic() + timeout_s
    for name, status in _engine_apps().items():
        # Serve does not try the same version again by itself.
        if status == "DEPLOY_FAILED":
            say(f"taking down {name}, which has failed")
            serve.delete(name)
    deploy(catalogue)
    _wait({ROUTER_APP}, say, deadline)
    wanted = _wanted(catalogue)
    unwanted = _engine_apps().keys() - wanted
    for name in sorted(unwanted):
        say(f"removing {name}")
        serve.delete(name, _blocking=False)
    _wait(wanted, say, deadline)
    while left := unwanted & _engine_apps().keys():
        if time.monotonic() > deadline:
            raise RolloutFailed(f"still draining: {', '.join(sorted(left))}")
        time.sleep(POLL_S)
    # Last: until now replicas of both versions have used it.
    directory.renew()


def _wanted(catalogue: Catalogue) -> set[str]:
    """The names of the applications of the catalogue's engine models."""
    return {engine_app_name(spec.id) for spec in catalogue.engines}


def _engine_apps() -> dict[str, str]:
    """The status of each engine model's application in the cluster, by its name."""
    return {
        name: application.status
        for name, application in serve.status().applications.items()
        if name.startswith(ENGINE_APPS)
    }


def _wait(names: set[str], say: Say, deadline: float) -> None:
    """Wait until every application of `names` runs."""
    said = ""
    while True:
        applications = serve.status().applications
        for name in names & applications.keys():
            if applications[name].status == "DEPLOY_FAILED":
                raise RolloutFailed(f"{name} failed to start: {applications[name].message}")
        waiting = {
            name: app for name, app in applications.items()
            if name in names and app.status != "RUNNING"
        }  # fmt: skip
        if not waiting and names <= applications.keys():
            return
        if (text := progress(waiting)) and text != said:
            say(f"waiting for {text}")
            said = text
        if time.monotonic() > deadline:
            raise RolloutFailed(f"not in time: {text or ', '.join(sorted(names))}")
        time.sleep(POLL_S)


def progress(applications: Any) -> str:
    """Which deployments do not have all their replicas yet."""
    missing = []
    for name, application in sorted(applications.items()):
        for deployment in application.deployments.values():
            states = deployment.replica_states
            running, wanted = states.get("RUNNING", 0), sum(states.values())
            if deployment.status != "HEALTHY":
                missing.append(f"{name} ({running} of {wanted})")
    return ", ".join(missing)
