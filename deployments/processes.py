"""Ends every process that this one has started, directly or not.

A subreaper (prctl(2)) inherits every orphan among its descendants, so that what a killed Ray
worker had started, such as an engine, is still found and ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it ends, however it ends.

    Only the direct parent counts, which must not have ended before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def end_descendants(*, grace_s: float) -> None:
    """SIGTERM every descendant, SIGKILL those left after `grace_s`, until there are none."""
    me = psutil.Process()
    children = me.children(recursive=True)
    if grace_s > 0:
        for child in children:
            _quietly(child.terminate)
        psutil.wait_procs(children, timeout=grace_s)
    while children := _alive(me):
        for child in children:
            _quietly(child.kill)
        psutil.wait_procs(children, timeout=1.0)
        reap()


def _alive(me: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in me.children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action()


def reap() -> list[tuple[int, int]]:
    """Collect children that have ended, adopted ones included: their IDs and exit statuses, which
    are negative signal numbers for those that a signal ended."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found
