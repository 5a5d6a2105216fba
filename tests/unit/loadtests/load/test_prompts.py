from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.load.prompts import Line, lines_of
from loadtests.scenarios.errors import ScenarioError


def test_a_text_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("Hello!\n\n  Once upon a time\n")
    assert lines_of(str(path)) == [Line("Hello!"), Line("  Once upon a time")]


def test_objects_with_references(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "2+2=", "reference": "4", "id": 7}\n{"prompt": "a\\nb"}\n')
    assert lines_of(str(path)) == [Line("2+2=", "4"), Line("a\nb")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", ":1: the file is empty"),
        ('{"prompt": "a"}\nHello\n', ":2: no JSON"),
        ('{"text": "a"}\n', ":1: must be an object with texts"),
        ('["a"]\n', ":1: must be an object with texts"),
        ('{"prompt": "a", "reference": 4}\n', ":1: must be an object with texts"),
    ],
)
def test_other_things(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        lines_of(str(path))
    assert str(error.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none.txt: cannot be read: No such file"):
        lines_of(str(tmp_path / "none.txt"))
