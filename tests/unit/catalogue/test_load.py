from __future__ import annotations

from pathlib import Path

import pytest

from serving.catalogue.load import CatalogueError, load_catalogue

GOOD = """
models:
  - id: tiny
    weights: ./weights/tiny
    context: 256
    lora: {max_loaded: 2}
  - id: tiny.pirate
    kind: adapter
    base: tiny
    weights: /elsewhere/pirate
aliases:
  latest: tiny.pirate
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def refusal(file: Path) -> str:
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(file)
    return str(caught.value)


def test_a_good_file(file: Path) -> None:
    file.write_text(GOOD)
    catalogue = load_catalogue(file)
    assert catalogue.engines[0].kind == "engine"
    assert catalogue.engines[0].weights == str(file.parent / "weights/tiny")
    assert catalogue.adapters[0].weights == "/elsewhere/pirate"
    assert catalogue.aliases == {"latest": "tiny.pirate"}


def test_a_repository_id_is_no_path(file: Path) -> None:
    file.write_text(GOOD.replace("./weights/tiny", "org/tiny"))
    assert load_catalogue(file).engines[0].weights == "org/tiny"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("context: 256", "context: many", ("model 'tiny'", "context")),
        ("context: 256", "", ("model 'tiny'", "context", "required")),
        ("max_loaded: 2", "max_loaded: 0", ("model 'tiny'", "lora.max_loaded")),
        ("context: 256", "context: 256\n    colour: red", ("model 'tiny'", "colour")),
        ("kind: adapter", "kind: poem", ("model 'tiny.pirate'", "kind")),
        ("id: tiny\n", "\n", ("model 'number 1'", "id")),
        ("base: tiny", "base: huge", ("tiny.pirate", "huge")),
        ("latest: tiny.pirate", "latest: gone", ("latest", "gone")),
    ],
)
def test_a_finding_names_file_model_and_field(
    file: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert GOOD.count(old) >= 1
    file.write_text(GOOD.replace(old, new, 1))
    message = refusal(file)
    for word in (str(file), *words):
        assert word in message


def test_every_finding_is_told(file: Path) -> None:
    file.write_text("models: [{id: a, weights: w}, {id: b, weights: w}]")
    assert len(refusal(file).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "models", "models: 5", "models: {a: b}", "models: [5]", "models: [", "models:"],
)
def test_a_file_of_another_shape(file: Path, text: str) -> None:
    file.write_text(text)
    assert str(file) in refusal(file)


def test_a_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00models")
    assert str(file) in refusal(file)


def test_a_missing_file(file: Path) -> None:
    assert refusal(file) == f"{file}: No such file or directory"
