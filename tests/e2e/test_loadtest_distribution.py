"""`pip install ./loadtests` in an empty environment gives the command and none of the service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.sdk, pytest.mark.long]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder. The source is copied, as a build leaves files in it."""
    folder = tmp_path_factory.mktemp("loadtest")
    source = folder / "loadtests"
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(ROOT / "loadtests", source, ignore=ignored)
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", venv)
    pip = (venv / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--no-deps", "-r", ROOT / "requirements" / "loadtests.txt")
    run(*pip, source)
    return venv


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_works_where_nothing_else_is(environment: Path) -> None:
    loadtest = environment / "bin" / "loadtest"
    assert run(loadtest, "validate", "smoke").startswith("smoke: phases: 1")
    assert "cancel-storm" in run(loadtest, "scenarios")
    assert "requests; " in run(loadtest, "plan", "steady")
    assert "--join" in run(loadtest, "run", "--help")


def test_nothing_of_the_service_is_in_it(environment: Path) -> None:
    packages = next((environment / "lib").iterdir()) / "site-packages"
    installed = {path.name for path in packages.iterdir()}
    assert not installed & {"serving", "deployments", "local_models", "torch", "vllm", "numpy"}
    parts = {path.name for path in (packages / "loadtests").iterdir()}
    assert {"main.py", "run", "wire"} <= parts
    assert "inside" not in parts


def test_every_module_of_it_can_be_imported(environment: Path) -> None:
    names = (
        "import importlib, loadtests, pkgutil\n"
        "walk = pkgutil.walk_packages(loadtests.__path__, 'loadtests.')\n"
        "names = [m.name for m in walk if not m.name.endswith('__main__')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))"
    )
    assert int(run(environment / "bin" / "python", "-c", names)) > 30
