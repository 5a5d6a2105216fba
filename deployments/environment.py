"""The environment Ray reads when it is imported, set in every installation we ship."""

from __future__ import annotations

import os


def serve_environment() -> dict[str, str]:
    """Variables for every node; a value that is already set wins."""
    return {
        # Replicas run on Serve's own event loop, without a thread in between.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The option above also gives every replica an HTTP listener, which nobody uses, and holds a
        # replica that is taken down for 30 s so that load balancers notice.
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
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
        "RAY_DEDUP_LOGS": "0",
    }


def set_defaults(variables: dict[str, str]) -> None:
    """Set what is not set yet; before Ray is imported."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
