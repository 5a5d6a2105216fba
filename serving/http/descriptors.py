"""How many files, and so connections, this process may have open (getrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import contextlib
import resource

# For links to replicas, the router's own port, logs, listeners and what the libraries open; of a
# very low limit, half.
RESERVED = 256
# A request to a hosted model takes its client's connection and one to the provider.
FOR_EACH = 2
# What setrlimit(2) takes on macOS (OPEN_MAX) where the hard limit is infinite.
MACOS_LIMIT = 10_240


def raise_limit() -> int | None:
    """Let this process open as many files as it may allow itself, and return how many that is;
    None: any number. The usual soft limit of 1,024 is meant for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, MACOS_LIMIT):
        if soft == hard or soft >= limit != resource.RLIM_INFINITY:
            break
        # macOS gives hard limits that it does not take.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
            break
    return None if soft == resource.RLIM_INFINITY else soft


def connections_within(wanted: int, limit: int | None) -> int:
    """How many clients' connections a process may have that may open `limit` files: `wanted`, or
    fewer if these and what they bring with them would not fit."""
    if limit is None:
        return wanted
    return max(1, min(wanted, (limit - min(RESERVED, limit // 2)) // FOR_EACH))
