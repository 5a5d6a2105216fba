"""The environment Ray reads when it is imported, set in every installation we ship."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

# Where Ray finds its token, unless it stands in RAY_AUTH_TOKEN itself.
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


def serve_environment() -> dict[str, str]:
    """Variables for every node; a value that is already set wins."""
    return {
        # Replicas run on Serve's own event loop, without a thread in between.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The option above also gives every replica an HTTP listener, which nobody uses, and holds a
        # replica that is taken down for 30 s so that load balancers notice.
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        # And makes handles call replicas by gRPC, on a port that `ray_internals` keeps closed.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
        # Ray's ports unpickle what they are sent: whoever may call them may run anything here. With
        # this they refuse calls without the cluster's token.
        "RAY_AUTH_MODE": "token",
        # Ray starts workers at nice 15, behind whatever else the machine does: right for batch
        # jobs, wrong for routers and engines.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def local_environment() -> dict[str, str]:
    """More variables for a cluster on this machine alone."""
    return {
        # Named after the systems it was made for. At 0 a node has the address 127.0.0.1, so that no
        # port of a local cluster is open to the network.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # The same for the ports of torch's gloo in the engine cores: by default they are on the
        # address that the machine's name has.
        "GLOO_SOCKET_IFNAME": "lo",
        "RAY_DEDUP_LOGS": "0",
    }


def set_defaults(variables: dict[str, str]) -> None:
    """Set what is not set yet; before Ray is imported."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def asks_for_no_token() -> bool:
    """True if the environment tells Ray to take calls from anybody."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"


def make_token(path: Path) -> None:
    """Give the Ray cluster that this process starts a token of its own, in a file that only this
    user may read. A token that the environment names stays.

    Without this Ray writes one into the home directory, where it is the token of every cluster.
    """
    if asks_for_no_token() or {"RAY_AUTH_TOKEN", TOKEN_PATH} & os.environ.keys():
        return
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ[TOKEN_PATH] = str(path)
