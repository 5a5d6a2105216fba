"""Traces of real traffic, in the formats in which they are published.

Mooncake (kvcache-ai/Mooncake, FAST25-release/traces): JSON lines with `timestamp` in milliseconds,
`input_length`, `output_length` and `hash_ids`, one for each block of 512 tokens of the prompt;
prompts that begin with the same IDs begin with the same text.

BurstGPT (HPMLL/BurstGPT): CSV with `Timestamp` in seconds, `Request tokens` and `Response tokens`
(0 where the request had failed: it is sent and asks for one token). Other columns are left alone.

Azure LLM inference (Azure/AzurePublicDataset, 2023 and 2024): CSV with `TIMESTAMP`, a date and time
with up to seven digits of a second, `ContextTokens` and `GeneratedTokens`.
"""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TextIO

from loadtests.scenarios.arrivals import Trace
from loadtests.scenarios.errors import ScenarioError

BLOCK_TOKENS = 512
# Lines may be out of order by so many places; the published files are in order, or nearly so.
REORDERED = 4096


class Row(NamedTuple):
    """A request of a trace; `at_s` is on the trace's own clock."""

    at_s: float
    line: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def rows(trace: Trace, seconds: float) -> Iterator[Row]:
    """Yield the requests of a trace that fall into a phase, the first one at 0.

    The file is read along the way. Raises ScenarioError, which names the line.
    """
    first: float | None = None
    for row in islice(_ordered(trace), trace.limit):
        first = row.at_s if first is None else first
        at = (row.at_s - first) / trace.speed
        if at >= seconds:
            return
        yield row._replace(at_s=at)


def check(trace: Trace) -> None:
    """Read the beginning of a trace. Raises ScenarioError if it is not of its format, or empty."""
    if not list(islice(_read(trace), 100)):
        raise ScenarioError(f"{trace.path}:1: the trace has no requests")


def _ordered(trace: Trace) -> Iterator[Row]:
    """Yield all rows by time, with a heap of those that were read ahead."""
    ahead: list[Row] = []
    last = float("-inf")
    for row in _read(trace):
        if row.at_s < last:
            raise ScenarioError(
                f"{trace.path}:{row.line}: earlier by {last - row.at_s:g} s than lines far before "
                "it; sort the file by time"
            )
        heapq.heappush(ahead, row)
        if len(ahead) > REORDERED:
            last = ahead[0].at_s
            yield heapq.heappop(ahead)
    while ahead:
        yield heapq.heappop(ahead)


def _read(trace: Trace) -> Iterator[Row]:
    try:
        with open(trace.path, encoding="utf-8-sig", newline="") as file:
            yield from READERS[trace.format](trace.path, file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ScenarioError(f"{trace.path}: cannot be read: {reason}") from None


def _mooncake(path: str, file: TextIO) -> Iterator[Row]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
            prompt = int(found["input_length"])
            blocks = tuple(int(each) for each in found.get("hash_ids", ()))
            yield Row(
                float(found["timestamp"]) / 1000,
                line,
                max(1, prompt),
                max(1, int(found["output_length"])),
                blocks[: -(-prompt // BLOCK_TOKENS)],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _wrong(path, line, "mooncake", error) from None


def _table(
    path: str, file: TextIO, name: str, columns: tuple[str, str, str], clock: Callable[[str], float]
) -> Iterator[Row]:
    reader = csv.reader(file)
    head = [column.strip() for column in next(reader, [])]
    missing = [column for column in columns if column not in head]
    if missing:
        raise ScenarioError(
            f"{path}:1: a trace of the format {name} has the columns {', '.join(columns)}; "
            f"missing here: {', '.join(missing)}"
        )
    time, prompt, output = (head.index(column) for column in columns)
    for cells in reader:
        if not cells:
            continue
        try:
            yield Row(
                clock(cells[time]),
                reader.line_num,
                max(1, int(float(cells[prompt]))),
                max(1, int(float(cells[output]))),
            )
        except (ValueError, IndexError) as error:
            raise _wrong(path, reader.line_num, name, error) from None


def _burstgpt(path: str, file: TextIO) -> Iterator[Row]:
    return _table(path, file, "burstgpt", ("Timestamp", "Request tokens", "Response tokens"), float)


def _azure(path: str, file: TextIO) -> Iterator[Row]:
    return _table(
        path, file, "azure", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _date_and_time
    )


def _date_and_time(text: str) -> float:
    """Return a time's seconds. Dates without a zone are taken as UTC: only differences matter."""
    whole, dot, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    found = datetime.fromisoformat(whole + rest[digits:])
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    # datetime has microseconds and the files have tenths of them.
    return found.timestamp() + (float(f"0.{rest[:digits]}") if dot and digits else 0.0)


def _wrong(path: str, line: int, name: str, error: Any) -> ScenarioError:
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return ScenarioError(f"{path}:{line}: not a request of the format {name}: {what}")


READERS: dict[str, Callable[[str, TextIO], Iterator[Row]]] = {
    "mooncake": _mooncake,
    "burstgpt": _burstgpt,
    "azure": _azure,
}
