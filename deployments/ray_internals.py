"""All that this package borrows of Ray's internals, a function each.

Public parts of Ray used as documented are imported where they are used. What is here may change
with any release of Ray. `tests/unit/deployments/test_ray_internals.py` holds each assumption
against the installed version.
"""

from __future__ import annotations

from typing import Any

from ray._raylet import (  # type: ignore[attr-defined]  # compiled
    AuthenticationMode,
    get_authentication_mode,
)
from ray.serve import Deployment
from ray.serve._private import replica
from ray.serve._private.config import DeploymentConfig
from ray.serve.context import _get_global_client
from ray.serve.schema import APIType


class _Versioned(DeploymentConfig):  # type: ignore[misc]  # Ray's types are not followed
    """A deployment's configuration that keeps the version it was made with.

    Of an application that is declared, Serve's `get_deploy_args` sets another one: a digest of its
    import path and arguments, which have the whole models file in them.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "version":
            super().__setattr__(name, value)


def with_version(deployment: Deployment, version: str) -> Deployment:
    """The deployment, whose replicas stay as they are as long as its version does, however it is
    deployed.

    Without one, Serve takes every `run` for new code and restarts all replicas, and every change of
    a `serveConfigV2`'s arguments too. The option is no longer public (docs/decisions.md 21).
    """
    versioned = deployment.options(_internal=True, version=version)
    config = versioned._deployment_config
    versioned._deployment_config = _Versioned.model_construct(
        config.model_fields_set | {"version"}, **dict(config) | {"version": version}
    )
    return versioned


def open_no_grpc_port() -> None:
    """Keep the replica in this process from opening Serve's gRPC port.

    Each replica opens one on all addresses and unpickles what it is sent there. Handles call by
    gRPC or by Ray's own actor calls; ours do the latter (RAY_SERVE_USE_GRPC_BY_DEFAULT=0 in
    `environment.py`), so nobody asks this port. Serve opens it after the constructor of the class
    that it deploys, which is where this is called. The server itself still starts and stops.
    """
    replica.add_port_to_grpc_server = _no_port


def _no_port(server: Any, address: str) -> int:
    """The port that Serve tells its controller: none."""
    return 0


def asks_for_token() -> bool:
    """True if Ray's servers in this process refuse calls without the cluster's token."""
    return bool(get_authentication_mode() == AuthenticationMode.TOKEN)


def declared_configs() -> dict[str, dict[str, Any]]:
    """The configuration of each application of the connected cluster that Serve was given as one
    (by REST, as KubeRay and `serve deploy` do), by name. `serve.status()` does not say which.

    An application that is being deleted has lost its configuration; it is there, and empty.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return {}
    return {
        name: application.get("deployed_app_config") or {}
        for name, application in client.get_serve_details()["applications"].items()
        if application["source"] == APIType.DECLARATIVE
    }
