"""A summary survives its file, and what is none is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.measure.summary import Summary
from loadtests.output.summary_file import SummaryError, read_summary, write_summary
from loadtests.scenarios.model import Goal
from tests.unit.loadtests.measure.records import failed, streamed
from tests.unit.loadtests.measure.test_validity import run


def summary() -> Summary:
    goal = Goal(measure="ttft_p99_ms", at_most=500)
    return run([streamed(10), streamed(11), failed(12)], goals=(goal,))


def test_there_and_back(tmp_path: Path) -> None:
    written = summary()
    write_summary(written, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == written
    assert read_summary(tmp_path) == written  # by its folder
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_what_was_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space"):
            write_summary(summary(), path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no `version`"),
        ('{"name": "x"}', "no `version`"),
        ('{"version": 2}', "of version 2, and this loadtest reads version 1"),
        ('{"version": 1}', "scenario: Field required"),
    ],
)
def test_what_is_no_summary(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(SummaryError, match=words):
        read_summary(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SummaryError, match="No such file"):
        read_summary(tmp_path)


def test_unknown_fields_are_not_passed_over(tmp_path: Path) -> None:
    found = json.loads(summary().model_dump_json()) | {"later": 1}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(found))
    with pytest.raises(SummaryError, match="later: Extra inputs"):
        read_summary(path)
