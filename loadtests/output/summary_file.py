"""`summary.json`: written whole or not at all, and read with its version."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import ValidationError

from loadtests.measure.summary import Summary

VERSION = 1


class SummaryError(Exception):
    """A file that is no summary which this version can read. The message names the file and says
    what to do."""


def write_summary(summary: Summary, path: Path) -> None:
    """Write it in the place of what was there. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_summary(path: Path) -> Summary:
    """Read it, or the `summary.json` in a folder of a run. Raises SummaryError."""
    if path.is_dir():
        path = path / "summary.json"
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise SummaryError(f"{path}: {error.strerror}; name a run's folder or its file") from error
    except ValueError as error:
        raise SummaryError(f"{path} is no JSON: {error}") from error
    version = found.get("version") if isinstance(found, dict) else None
    if version is None:
        raise SummaryError(f"{path} is no summary of a run: it has no `version`")
    if version != VERSION:
        raise SummaryError(
            f"{path} is of version {version}, and this loadtest reads version {VERSION}: "
            "read it with the loadtest that wrote it, or run again"
        )
    try:
        return Summary.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SummaryError(f"{path} is no summary of a run: {where}: {first['msg']}") from error
