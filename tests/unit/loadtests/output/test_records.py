"""Lines in aiperf's form. That its own classes read them is tried by hand: it does not install
beside the other packages. What it asks of a line is written down here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadtests.measure.record import Outcome, Record
from loadtests.output.records import RecordWriter, join
from tests.unit.loadtests.measure.records import failed, streamed

START = 1_700_000_000.0
# Of `MetricRecordMetadata` and `MetricValue` of aiperf 0.13: what must be there, and its type.
REQUIRED = {
    "session_num": int,
    "request_start_ns": int,
    "request_end_ns": int,
    "worker_id": str,
    "record_processor_id": str,
    "benchmark_phase": str,
}


def write(path: Path, *records: Record) -> list[dict[str, Any]]:
    with RecordWriter(path, lambda: START, "w1") as writer:
        for record in records:
            writer.write(record)
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_stream(tmp_path: Path) -> None:
    record = streamed(
        1.5, (0.25, 0.5, 0.75), late_s=0.05, request_id="abc", priority=2, account="x"
    )
    (found,) = write(tmp_path / "r.jsonl", record)
    assert found["metadata"] == {
        "session_num": 0,
        "turn_index": 0,
        "conversation_id": "0",
        "credit_issued_ns": 1_700_000_001_500_000_000,
        "request_start_ns": 1_700_000_001_550_000_000,
        "request_end_ns": 1_700_000_002_250_000_000,
        "worker_id": "w1",
        "record_processor_id": "w1",
        "benchmark_phase": "profiling",
        "phase_name": "steady",
        "was_cancelled": False,
        "request_index": 0,
        "traffic": "chat",
        "model": "m",
        "account": "x",
        "outcome": "ok",
        "status": 200,
        "x_request_id": "abc",
        "priority": 2,
    }
    assert found["metrics"] == {
        "lag": {"value": 50, "unit": "ms"},
        "time_to_first_token": {"value": 200, "unit": "ms"},
        "time_to_first_token_from_due": {"value": 250, "unit": "ms"},
        "request_latency": {"value": 700, "unit": "ms"},
        "request_latency_from_due": {"value": 750, "unit": "ms"},
        "inter_token_latency": {"value": 250, "unit": "ms"},
        "input_sequence_length": {"value": 10, "unit": "tokens"},
        "output_sequence_length": {"value": 3, "unit": "tokens"},
    }
    assert "error" not in found


def test_other_ends(tmp_path: Path) -> None:
    refused, left, wrong, warm = write(
        tmp_path / "r.jsonl",
        failed(1, 429, "HTTP 429"),
        streamed(1, outcome=Outcome.CANCELLED, usage_seen=False),
        streamed(1, checked=True, wrong=True),
        streamed(1, counted=False),
    )
    assert refused["error"] == {"code": 429, "type": "HTTP 429", "message": "HTTP 429"}
    assert "request_latency" not in refused["metrics"]
    assert left["metadata"]["was_cancelled"]
    assert left["metadata"]["cancellation_time_ns"] == left["metadata"]["request_end_ns"]
    assert "output_sequence_length" not in left["metrics"]
    assert wrong["metadata"]["wrong"]
    assert warm["metadata"]["benchmark_phase"] == "warmup"
    for found in (refused, left, wrong, warm):
        assert found["metadata"].keys() >= REQUIRED.keys()
        for name, kind in REQUIRED.items():
            assert type(found["metadata"][name]) is kind
        for value in found["metrics"].values():
            assert value.keys() == {"value", "unit"}


def test_one_that_was_never_begun(tmp_path: Path) -> None:
    (found,) = write(tmp_path / "r", failed(2, 0, "never sent", begun_s=0.0, sent_s=0.0))
    assert found["metadata"]["request_start_ns"] == 1_700_000_002_000_000_000
    assert "lag" not in found["metrics"]
    assert found["error"]["code"] is None


def test_only_whole_lines_are_written_and_not_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    real = os.write

    def write(file: int, data: bytes) -> int:
        written.append(bytes(data))
        return real(file, data)

    monkeypatch.setattr("loadtests.output.records.os.write", write)
    writer = RecordWriter(tmp_path / "r", lambda: START, clock=lambda: 0.0)
    for n in range(1000):
        writer.write(streamed(n))
    assert 2 <= len(written) <= 20
    assert all(block.endswith(b"}\n") for block in written)
    # What a kill would leave now can be read.
    lines = (tmp_path / "r").read_bytes().splitlines()
    assert 0 < len([json.loads(line) for line in lines]) < 1000
    writer.close()
    writer.close()
    assert len((tmp_path / "r").read_bytes().splitlines()) == 1000


def test_lines_do_not_wait_for_long(tmp_path: Path) -> None:
    now = [0.0]
    writer = RecordWriter(tmp_path / "r", lambda: START, clock=lambda: now[0])
    writer.write(streamed())
    assert (tmp_path / "r").read_bytes() == b""
    now[0] = 1.5
    writer.write(streamed())
    assert (tmp_path / "r").read_bytes().count(b"\n") == 2
    writer.close()


def test_a_write_of_which_the_kernel_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(
        "loadtests.output.records.os.write", lambda file, data: real(file, data[:100])
    )
    assert len(write(tmp_path / "r", streamed(), streamed())) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_ends_no_run() -> None:
    writer = RecordWriter(Path("/dev/full"), lambda: START)
    writer.write(streamed())
    writer.flush()
    writer.write(streamed())
    writer.close()
    assert writer.problem == "records are missing: No space left on device"


def test_those_of_several_processes_become_one_file(tmp_path: Path) -> None:
    parts = [tmp_path / "0", tmp_path / "1"]
    for part in parts:
        write(part, streamed(), streamed())
    join(parts, tmp_path / "records.jsonl")
    assert len((tmp_path / "records.jsonl").read_bytes().splitlines()) == 4
    assert not any(part.exists() for part in parts)
