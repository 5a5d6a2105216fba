from __future__ import annotations

import pytest
import yaml

from serving.catalogue.yaml_lines import RepeatedKey, parse

TEXT = """\
shared: &shared
  colour: red
  size: 1
items:
  - name
  - <<: *shared
    size: 2
    deep: {a: [1,
      2]}
"""


def test_data_is_as_yaml_reads_it() -> None:
    assert parse(TEXT).data == yaml.safe_load(TEXT)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("items",), 4),
        (("items", 0), 5),
        (("items", 1), 6),
        (("items", 1, "size"), 7),
        (("items", 1, "colour"), 2),
        (("items", 1, "deep", "a", 1), 9),
        (("items", 1, "missing", "too"), 6),
        (("items", 9), 4),
        (("nothing",), 1),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int) -> None:
    assert parse(TEXT).line(path) == line


def test_repeated_keys() -> None:
    text = "a: 1\nb: &x {c: 1, c: 2}\nd: [*x, {a: 1}]\na: 2\n"
    found = sorted(parse(text).repeated, key=lambda each: each.line)
    assert found == [RepeatedKey(2, "c", 2), RepeatedKey(4, "a", 1)]


def test_two_merges_are_no_repeated_key() -> None:
    assert parse("a: &a {x: 1}\nb: {<<: *a, x: 2}").repeated == ()


def test_an_endless_structure_ends() -> None:
    assert parse("a: &a [*a]").repeated == ()


def test_an_empty_text() -> None:
    document = parse("")
    assert (document.data, document.line(("a",))) == (None, 1)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "{[a]: 1}: 2", "\x00"])
def test_what_is_no_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse(text)
