"""How many files, and so connections, this process may have open (getrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import contextlib
import resource

# For links to replicas, logs, listeners and what the libraries open.
RESERVED = 256
# A request to a hosted model takes its client's connection and one to the provider.
FOR_EACH = 2


def raise_limit() -> int | None:
    """Let this process open as many files as it may allow itself, and return how many that is;
    None: any number. The usual soft limit of 1,024 is meant for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS refuses some hard limits that it gives.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


def connections_within(wanted: int, limit: int | None) -> int:
    """How many clients' connections a process may have that may open `limit` files: `wanted`, or
    fewer if these and what they bring with them would not fit."""
    if limit is None:
        return wanted
    return max(1, min(wanted, (limit - RESERVED) // FOR_EACH))
