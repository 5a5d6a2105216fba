"""Everything in this folder and below runs against real Ray and real vLLM engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import LOCAL, ROOT, Server, free_port

APPLY_S = 240

Reference = Callable[..., list[list[dict[str, Any]]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)


def local_model(model_id: str) -> dict[str, Any]:
    """A model of the local profile, its weights an absolute path."""
    models = yaml.safe_load(LOCAL.read_text())["models"]
    (model,) = [model for model in models if model["id"] == model_id]
    weights = str((LOCAL.parent / model["weights"]).resolve())
    return {**model, "weights": weights}


@pytest.fixture(scope="session")
def reference() -> Reference:
    """`reference(model_id, batches, **changes)`: vLLM's own answers, without any of our code."""

    def run(
        model_id: str, batches: list[list[tuple[str, str | None]]], **changes: Any
    ) -> list[list[dict[str, Any]]]:
        model = local_model(model_id)
        engine = {"model": model["weights"], "max_model_len": model["context"]}
        engine |= model["engine_args"]
        if "lora" in model:
            engine |= {"enable_lora": True, "max_lora_rank": model["lora"]["max_rank"]}
        engine |= changes
        job = {"engine": engine, "chat": model["prompt_style"] == "chat", "calls": batches}
        env = os.environ | model["env"] | {"VLLM_PORT": str(free_port())}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("reference.py"))],
            input=json.dumps(job),
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        answers: list[list[dict[str, Any]]] = json.loads(done.stdout)
        return answers

    return run


def models_with(live: Server, entries: list[Any], **more: dict[str, Any]) -> Path:
    """The models file of the running service, with more entries and more of other sections."""
    data = yaml.safe_load(live.models.read_text())
    data["models"] += entries
    for section, values in more.items():
        data[section] = {**data.get(section, {}), **values}
    file = live.folder / "more.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def apply(live: Server, file: Path, *options: str, status: int = 0) -> str:
    """Run `serving apply` and return what it says; its exit status must be `status`."""
    command = [sys.executable, "-m", "deployments.apply", str(file)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [*command, "--run-dir", str(live.folder), *options],
        cwd=live.code,
        env=env | {"PYTHONPATH": str(live.code)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APPLY_S,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr
