"""Wakes an event loop at a time, to the microsecond where the kernel can.

asyncio's and uvloop's own timers count in milliseconds: requests would be sent up to one late.
Linux has timerfd (`man 2 timerfd_create`), which Python has only since 3.13; hence ctypes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK if sys.platform != "win32" else 0
_TFD_TIMER_ABSTIME = 1


class Alarm(Protocol):
    """Calls back once at the time that was set last."""

    def set(self, when: float) -> None:
        """Set the time, of `time.monotonic`; a time that has passed is now."""

    def close(self) -> None:
        """Never ring again."""


def make_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    """Return the best alarm that there is here."""
    if sys.platform == "linux":
        return TimerfdAlarm(loop, ring)
    return LoopAlarm(loop, ring)


class LoopAlarm:
    """By the loop's own timers, a millisecond late at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """See Alarm."""
        self.close()
        self._handle = self._loop.call_later(max(0.0, when - time.monotonic()), self._ring)

    def close(self) -> None:
        """See Alarm."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class TimerfdAlarm:
    """By a file that is readable when it is time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._loop = loop
        self._ring = ring
        self._spec = _Itimerspec()
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._rings)

    def set(self, when: float) -> None:
        """See Alarm."""
        whole = int(max(when, 0.0))
        self._spec.value.sec = whole
        # All of it 0 would disarm the timer.
        self._spec.value.nsec = max(1, int((when - whole) * 1e9))
        spec = ctypes.byref(self._spec)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, spec, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _rings(self) -> None:
        # It may have been set anew after it had rung.
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._ring()

    def close(self) -> None:
        """See Alarm."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
