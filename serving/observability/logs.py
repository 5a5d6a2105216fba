"""Logs: one JSON object a line, to a file or to standard error.

Prompts, completions and keys are never passed to a log. `Log` is a small wrapper so that call
sites name their fields instead of formatting them into a sentence.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter

MAX_FILE_BYTES = 128 * 1024 * 1024


class Log:
    """Structured events with fields that every line of this process repeats."""

    def __init__(self, logger: logging.Logger, **fields: Any) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: Any) -> Log:
        """The same log with more repeated fields."""
        return Log(self._logger, **{**self._fields, **fields})

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info(event, extra={**self._fields, **fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={**self._fields, **fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={**self._fields, **fields})

    def exception(self, event: str, error: BaseException, **fields: Any) -> None:
        """An unexpected exception with its stack; only for bugs, never for bad input."""
        self._logger.error(event, exc_info=error, extra={**self._fields, **fields})


class Seldom:
    """Lets each event pass at most once in `every_s` seconds: for what strangers can cause as often
    as they like."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._last: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def due(self, event: str) -> int | None:
        """How many were left out since the last one that passed; None: leave this one out too."""
        now = time.monotonic()
        if now - self._last.get(event, -self._every_s) < self._every_s:
            self._left_out[event] += 1
            return None
        self._last[event] = now
        return self._left_out.pop(event, 0)


class Sparing:
    """Writes a warning of each event seldom, with the number of those that it left out before
    (`left_out`)."""

    def __init__(self, log: Log, seldom: Seldom | None = None) -> None:
        self._log = log
        self._seldom = seldom or Seldom()

    def warning(self, event: str, **fields: Any) -> None:
        left_out = self._seldom.due(event)
        if left_out is not None:
            self._log.warning(event, **fields, left_out=left_out)


class _File(RotatingFileHandler):
    """Rotates after the line that fills the file. The base class formats every line twice to know
    beforehand whether it would."""

    def shouldRollover(self, record: logging.LogRecord) -> int:
        return self.stream is not None and self.stream.tell() >= self.maxBytes


def open_log(component: str, directory: str | None = None, **fields: Any) -> Log:
    """The log of one process.

    Args:
        component: `router`, `engine`, ...; it names the logger and the file.
        directory: where `COMPONENT-PID.jsonl` goes (made if need be); None is standard error.
        fields: repeated on every line, `model` and `replica` for example.
    """
    logger = logging.getLogger(f"serving.{component}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    handler: logging.Handler
    if directory:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        handler = _File(
            folder / f"{component}-{os.getpid()}.jsonl", maxBytes=MAX_FILE_BYTES, backupCount=4
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(message)s",
            rename_fields={"levelname": "level", "message": "event"},
            static_fields={"component": component},
            timestamp="time",
        )
    )
    logger.addHandler(handler)
    return Log(logger, **fields)
