"""A replica's code: which files and packages count, and that every change of them shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments.code import (
    DIRECTORY_CODE,
    ENGINE_CODE,
    NOT_IN_ENGINES,
    NOT_IN_ROUTERS,
    ROOT,
    ROUTER_CODE,
    digest,
    installed_packages,
    source_files,
)
from tests.unit.test_imports import MODULES, files, imports, module_name

# Where each process begins; what is imported by name at run time begins here too.
ROUTER_BEGINS = ("deployments.router", "serving.upstream.engine")
ENGINE_BEGINS = (
    "deployments.engine",
    "serving.engine.server",
    "serving.engine.vllm.engine",
    "serving.engine.hf.engine",
    "serving.engine.lifetime",
)


def imported_from(begins: tuple[str, ...]) -> set[str]:
    """Every module of ours that these import, and those that they import."""
    by_module = {
        module_name(file): file for package in ("serving", "deployments") for file in files(package)
    }
    found: set[str] = set()
    todo = list(begins)
    while todo:
        if (module := todo.pop()) not in found:
            found.add(module)
            todo += [name for name in imports(by_module[module]) if name in MODULES]
    return {by_module[module] for module in found}


@pytest.mark.parametrize(
    ("begins", "include", "exclude"),
    [
        (ROUTER_BEGINS, ROUTER_CODE, NOT_IN_ROUTERS),
        (ENGINE_BEGINS, ENGINE_CODE, NOT_IN_ENGINES),
        (("deployments.directory",), DIRECTORY_CODE, ()),
    ],
    ids=["router", "engine", "directory"],
)
def test_everything_that_a_replica_imports_counts(
    begins: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    counted = {str(file.relative_to(ROOT)) for file in source_files(ROOT, include, exclude)}
    assert imported_from(begins) <= counted
    assert all((ROOT / name).exists() for name in (*include, *exclude))


def test_what_the_other_kind_runs_does_not_count() -> None:
    def counted(include: tuple[str, ...], exclude: tuple[str, ...]) -> set[str]:
        return {str(file.relative_to(ROOT)) for file in source_files(ROOT, include, exclude)}

    routers = counted(ROUTER_CODE, NOT_IN_ROUTERS)
    engines = counted(ENGINE_CODE, NOT_IN_ENGINES)
    assert "serving/router/relay.py" in routers - engines
    assert "serving/engine/vllm/engine.py" in engines - routers
    assert "serving/wire/frames.py" in routers & engines
    assert "serving/cli/main.py" not in routers | engines


def test_every_change_changes_the_digest(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "serving" / "wire", tmp_path / "wire")

    def now(packages: tuple[str, ...] = ("vllm-1",)) -> str:
        return digest(tmp_path, source_files(tmp_path, ("wire",), ()), list(packages))

    before = now()
    assert now() == before
    assert now(("vllm-2",)) != before
    assert now(("vllm-1", "more-1")) != before
    frames = tmp_path / "wire" / "frames.py"
    text = frames.read_text()
    frames.write_text(text + "#")
    assert now() != before
    frames.write_text(text)
    assert now() == before
    frames.rename(frames.with_name("links.py"))
    assert now() != before


def test_packages_are_known_by_name_and_version() -> None:
    import msgspec

    assert f"msgspec-{msgspec.__version__}" in installed_packages()
