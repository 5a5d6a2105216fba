"""`serving plan`, which reads a file and asks no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli import main as cli

SELECTION = """\
models:
  - llama-3-8b-instruct
  - id: mixtral-8x7b
    replicas: 2
  - id: tiny
    weights: ./tiny
    context: 128
    gpus: 0
  - Meta-Llama-3-8B-Instruct-DERTA
  - gpt-4o
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(SELECTION)
    return path


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.main, ["plan", *args])


def test_a_selection_that_fits(file: Path) -> None:
    result = run(str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    columns, llama, mixtral, tiny, *rest = result.stdout.splitlines()
    assert columns.split("  ")[0] == "MODEL"
    assert llama.split() == [
        *("llama-3-8b-instruct", "1", "1", "24", "15.0", "1.0", "0.4", "1.5", "17.9", "22.1"),
        *("yes", "5.2"),
    ]
    assert mixtral.split()[:4] == ["mixtral-8x7b", "2", "2", "80"]
    assert tiny.split() == ["tiny", "1", "CPU", *["-"] * 9]
    assert rest == [
        "GPUs in all: 1 of 24 GiB + 4 of 80 GiB",
        "adapters, on their bases' GPUs: 1",
        "providers' models, without GPUs: 1",
    ]


def test_what_cannot_fit_exits_1_and_says_what_would(file: Path) -> None:
    file.write_text(
        "models: [{id: falcon-7b, tensor_parallel: 2}, {id: mistral-7b, gpu_memory_gib: 20}]"
    )
    result = run(str(file))
    assert result.exit_code == 1
    assert " no " in result.stdout
    falcon, mistral = result.stderr.splitlines()
    assert falcon.startswith("error: model 'falcon-7b': tensor_parallel: cannot be 2: 71 attention")
    assert mistral.startswith("error: model 'mistral-7b': context: 32768 does not fit")


def test_other_gpus_than_the_models_say(file: Path) -> None:
    assert run(str(file), "--gpu-memory", "80").exit_code == 0
    result = run(str(file), "--gpu-memory", "16")
    assert result.exit_code == 1
    assert "GPUs in all: 5 of 16 GiB" in result.stdout


def test_what_is_not_known_is_told_and_no_refusal(file: Path) -> None:
    file.write_text(
        """\
models:
  - {id: a, weights: org/a, context: 128}
  - {id: falcon-7b, gpu_memory_gib: null}
"""
    )
    result = run(str(file))
    assert result.exit_code == 0
    assert "a: need unknown: its `architecture` is not given" in result.stdout
    assert "falcon-7b: fit unknown: give `gpu_memory_gib`" in result.stdout
    assert "GPUs in all: 2 of unstated memory" in result.stdout


def test_json_has_sizes_in_bytes(file: Path) -> None:
    result = run(str(file), "--json")
    assert result.stdout.count("\n") == 1
    answer = json.loads(result.stdout)
    assert answer["fits"] is True
    assert answer["gpus"] == [{"memory_gib": 24, "count": 1}, {"memory_gib": 80, "count": 4}]
    llama, _, tiny = answer["models"]
    assert llama["need"]["kv_cache"] == 2**30
    assert llama["problems"] == []
    assert tiny["need"] is None


def test_json_tells_problems_too(file: Path) -> None:
    result = run(str(file), "--json", "--gpu-memory", "8")
    assert result.exit_code == 1
    assert [bool(model["problems"]) for model in json.loads(result.stdout)["models"]] == [
        *(True, True, False)
    ]


@pytest.mark.parametrize("text", ["models: [gpt-4]", "models: ["])
def test_a_broken_file_exits_2(file: Path, text: str) -> None:
    file.write_text(text)
    result = run(str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {file}:")


def test_a_missing_file_exits_2(tmp_path: Path) -> None:
    result = run(str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_a_file_that_deploys_nothing(file: Path) -> None:
    file.write_text("models: []")
    assert run(str(file)).stdout == "GPUs in all: none\n"


def test_help_has_examples_columns_and_exit_codes() -> None:
    text = run("--help").stdout
    assert "Examples:\n    serving plan" in text
    for word in ("SEQUENCES", "OVERHEAD", "Exit codes:"):
        assert word in text
