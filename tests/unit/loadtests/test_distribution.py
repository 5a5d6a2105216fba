"""The distribution `loadtest` has all that it needs, and asks for no package that it does not."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tests.unit.test_locks import PYTHONS, lock

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "loadtests"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
# What a package is imported as, where that is not its name.
MODULES = {"PyYAML": "yaml", "hdrhistogram": "hdrh"}


def files() -> list[Path]:
    found = [FOLDER / "__init__.py"]
    for package in SETUPTOOLS["packages"]:
        found += sorted((ROOT / package.replace(".", "/")).glob("*.py"))
    found += [ROOT / f"{module.replace('.', '/')}.py" for module in SETUPTOOLS["py-modules"]]
    return found


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_part_of_it_is_missing() -> None:
    inside = {module(file) for file in files()}
    for file in files():
        for name in imported(file):
            if name.partition(".")[0] == "loadtests":
                assert name in inside, f"{file.relative_to(ROOT)} imports {name}"


def test_every_package_of_the_folder_is_in_it() -> None:
    folders = {module(file) for file in FOLDER.rglob("__init__.py")} - {"loadtests"}
    # What starts this service's own processes stays in the repository.
    assert set(SETUPTOOLS["packages"]) == folders - {"loadtests.inside"}


def test_it_asks_for_what_it_imports_and_for_nothing_else() -> None:
    tops = {name.partition(".")[0] for file in files() for name in imported(file)}
    wanted = {Requirement(text).name for text in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]["tokenizer"]
    wanted |= {Requirement(text).name for text in extras}
    assert tops - set(sys.stdlib_module_names) - {"loadtests"} == {
        MODULES.get(name, name) for name in wanted
    }


def test_files_that_are_no_modules_are_in_it() -> None:
    data = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    packages = [ROOT / package.replace(".", "/") for package in SETUPTOOLS["packages"]]
    there = {
        path
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data == there


def test_the_lock_holds_what_it_asks_for() -> None:
    for python in PYTHONS:
        pins = lock("loadtests", python)
        for text in PROJECT["project"]["dependencies"]:
            asked = Requirement(text)
            assert asked.specifier.contains(pins[asked.name.lower()]), text
        assert not pins.keys() & {"torch", "transformers", "vllm", "numpy", "ray"}
