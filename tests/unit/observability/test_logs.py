from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from serving.observability.logs import Seldom, Sparing, open_log


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / f"log-test-{os.getpid()}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_one_object_a_line(tmp_path: Path) -> None:
    log = open_log("log-test", str(tmp_path / "new" / "folder"), router="r1")
    log.info("hello", text="two\nlines\u2028\x85 🎉", number=1.5, nothing=None, path=tmp_path)
    log.warning("careful")
    log.error("broken", code="x")
    hello, careful, broken = lines(tmp_path / "new" / "folder")
    assert hello["event"] == "hello"
    assert hello["text"] == "two\nlines\u2028\x85 🎉"
    assert (hello["number"], hello["nothing"]) == (1.5, None)
    assert [line["level"] for line in (hello, careful, broken)] == ["INFO", "WARNING", "ERROR"]
    for line in (hello, careful, broken):
        assert line["component"] == "log-test"
        assert line["router"] == "r1"
        assert line["time"]


def test_an_exception_stays_on_one_line(tmp_path: Path) -> None:
    log = open_log("log-test", str(tmp_path))
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        log.exception("failed", error, request_id="r1")
    (line,) = lines(tmp_path)
    assert line["request_id"] == "r1"
    assert "ValueError" in line["exc_info"]


def test_bind_adds_to_a_copy(tmp_path: Path) -> None:
    log = open_log("log-test", str(tmp_path), router="r1")
    log.bind(replica="x", router="r2").info("one")
    log.info("two")
    one, two = lines(tmp_path)
    assert (one["replica"], one["router"]) == ("x", "r2")
    assert "replica" not in two


def test_opening_again_does_not_double_lines(tmp_path: Path) -> None:
    open_log("log-test", str(tmp_path))
    open_log("log-test", str(tmp_path)).info("once")
    assert len(lines(tmp_path)) == 1


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    open_log("log-test").info("hello")
    captured = capsys.readouterr()
    assert json.loads(captured.err)["event"] == "hello"
    assert captured.out == ""


def test_what_strangers_cause_is_logged_sparingly(tmp_path: Path) -> None:
    log = Sparing(open_log("log-test", str(tmp_path)), Seldom(every_s=0.2))
    for _ in range(10):
        log.warning("refused", reason="why")
    log.warning("another")
    time.sleep(0.25)
    log.warning("refused", reason="why")
    found = [(line["event"], line["left_out"]) for line in lines(tmp_path)]
    assert found == [("refused", 0), ("another", 0), ("refused", 9)]
