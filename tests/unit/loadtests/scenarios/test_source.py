from __future__ import annotations

import pytest

from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.source import Source, parse

TEXT = """\
name: x
phases:
  - name: a
    arrivals: {kind: poisson,
               rate: 5}
  - name: b
"""


def test_every_value_has_its_line() -> None:
    source = parse("f.yaml", TEXT)
    assert source.data["phases"][0]["arrivals"] == {"kind": "poisson", "rate": 5}
    assert source.place(()) == "f.yaml:1"
    assert source.place(("phases", 0, "arrivals")) == "f.yaml:4"
    assert source.place(("phases", 0, "arrivals", "rate")) == "f.yaml:5"
    assert source.place(("phases", 1, "name")) == "f.yaml:6"


def test_what_is_missing_has_the_line_of_what_it_belongs_to() -> None:
    assert parse("f.yaml", TEXT).place(("phases", 1, "seconds")) == "f.yaml:6"


def test_what_an_option_gave_has_its_name() -> None:
    source = Source("f.yaml", {}, {(): 1}, {("a", "b"): "--set a.b=1"})
    assert source.place(("a", "b", "c")) == "--set a.b=1"
    assert source.place(("a",)) == "f.yaml:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml:1: is empty; it needs `name`, `phases` and `traffic`"),
        ("# nothing\n", "f.yaml:1: is empty"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: `a` is given twice; line 1 has it too"),
        ("x:\n  - {a: 1}\n  - {a: 1,\n     a: 2}\n", "f.yaml:4: `a` is given twice; line 3"),
        ("a: [1\nb: 2\n", "f.yaml:2: no YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: no YAML: found character '\\t'"),
        ("a: *b\n", "f.yaml:1: no YAML: found undefined alias"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1: no YAML: could not determine"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: no YAML: but found another document"),
        ("a: 1\nb: \x00\n", "f.yaml:2: no YAML: special characters are not allowed"),
        ("a: &x [*x]\n", "f.yaml:1: an alias is part of itself; write it out"),
        ("? [a]\n: 1\n", "f.yaml:1: no YAML: found unhashable key"),
    ],
)
def test_what_is_no_yaml(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse("f.yaml", text)
    assert str(error.value).startswith(message)
