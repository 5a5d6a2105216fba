"""`serving render-values`: the models file as values of the chart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from serving.catalogue.load import load_catalogue
from serving.catalogue.plan import plan
from serving.cli import main as cli

FILE = """\
# A comment stays.
drain_s: 600
router: {replicas: 3, cpus: 1}
models:
  - llama-3-8b-instruct
  - {id: "a/b", weights: /opt/tiny, context: 128, gpus: 0}
  - Meta-Llama-3-8B-Instruct-DERTA
  - gpt-4o
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(FILE)
    return path


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.main, ["render-values", *args])


def rendered(*args: str) -> dict[str, Any]:
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, "")
    models = yaml.safe_load(result.stdout)["models"]
    assert isinstance(models, dict)
    return models


def test_the_file_is_in_it_as_it_is(file: Path) -> None:
    found = rendered(str(file))
    assert found["file"] == FILE
    assert found["digest"] == hashlib.sha256(FILE.encode()).hexdigest()
    assert (found["drainSeconds"], found["router"]) == (600, {"replicas": 3, "cpus": 1})
    assert "# A comment stays." in run(str(file)).stdout


def test_what_the_chart_must_know_of_the_models(file: Path) -> None:
    found = rendered(str(file))
    assert [engine["group"] for engine in found["engines"]] == ["gpu-1x24", "cpu-1"]
    assert found["engines"][1]["app"].startswith("model-a-b-")
    assert [each["id"] for each in found["repositories"]] == [
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "Youliang/llama3-8b-instruct-lora-derta-100step",
    ]
    assert found["providers"] == [{"name": "openai", "env": "OPENAI_API_KEY", "file": ""}]
    assert found["first"] == {"id": "llama-3-8b-instruct", "completes": True}


def test_the_groups_are_those_of_the_plan(file: Path) -> None:
    gpus = {
        group["gpuMemoryGiB"]: group["gpus"] * group["replicas"]
        for group in rendered(str(file))["groups"]
        if group["gpus"]
    }
    assert gpus == plan(load_catalogue(file).engines).gpus


def test_groups_of_before_keep_their_places(file: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(run(str(file)).stdout)
    file.write_text("models: [mixtral-8x7b]")
    found = rendered(str(file), "--before", str(values))["groups"]
    assert [(group["name"], group["replicas"]) for group in found] == [
        *(("gpu-1x24", 0), ("cpu-1", 0), ("gpu-2x80", 1)),
    ]


def test_a_group_of_its_own(file: Path) -> None:
    found = rendered(str(file), "--group", "llama-3-8b-instruct=urgent")
    assert found["groups"][0]["name"] == found["engines"][0]["group"] == "urgent"


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        ("models: [{id: m, weights: ./w, context: 64}]", (), "relative to the file"),
        ("models: []", (), "names no model to serve"),
        ("models: [nothing-known]", (), "models.yaml:1: model 'nothing-known'"),
        (FILE, ("--group", "x"), "write MODEL=NAME"),
        (FILE, ("--group", "x=y"), "no engine model is called 'x'"),
    ],
)
def test_what_cannot_be_rendered(
    file: Path, text: str, args: tuple[str, ...], message: str
) -> None:
    file.write_text(text)
    result = run(str(file), *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_values_of_something_else_are_refused(file: Path) -> None:
    result = run(str(file), "--before", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no values of `serving render-values`" in result.stderr


def test_what_does_not_fit_exits_1(file: Path) -> None:
    file.write_text("models: [{id: mistral-7b, gpu_memory_gib: 20}]")
    result = run(str(file))
    assert result.exit_code == 1
    assert "does not fit" in result.stderr
