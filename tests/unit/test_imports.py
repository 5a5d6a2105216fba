"""Imports point one way and close no circle, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up: a module may import its own floor and those before it in this list.
FLOORS = (
    ("serving", "serving.errors", "serving.settings", "serving.heap"),
    ("serving.wire",),
    ("serving.observability",),
    ("serving.api",),
    ("serving.http",),
    ("serving.catalogue",),
    ("serving.store",),
    ("serving.accounts",),
    ("serving.engine.interface",),
    ("serving.engine",),
    ("serving.upstream",),
    ("serving.router",),
    ("serving.cli",),
    ("deployments",),
)
# Stand apart: they reach the service over HTTP, or make what it serves.
APART = ("loadtests", "local_models")
# The engine modules that a router may import: a hosted model is an engine in the router's process,
# whose calls are run, paid for and given turns as those of any other.
ENGINE_FOR_ROUTERS = {
    f"serving.engine.{name}" for name in ("interface", "calls", "allowance", "fair_queue")
}


def files(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


PACKAGES = ("serving", "deployments", *APART)
EVERYTHING = [file for package in PACKAGES for file in files(package)]
MODULES = {module_name(file) for file in EVERYTHING}


def imports(file: str) -> Iterator[str]:
    """The modules a file imports anywhere in it, under `TYPE_CHECKING` and in functions too."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else node.module or ""


def top_levels(file: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def floor(module: str) -> int:
    found = [
        (len(name), number)
        for number, names in enumerate(FLOORS)
        for name in names
        if module == name or (name != "serving" and module.startswith(f"{name}."))
    ]
    assert found, f"{module} is on no floor"
    return max(found)[1]


def test_there_is_something_to_check() -> None:
    assert len(EVERYTHING) > 100


@pytest.mark.parametrize("file", [f for f in EVERYTHING if not f.startswith("deployments/")])
def test_ray_is_imported_in_deployments_only(file: str) -> None:
    assert "ray" not in top_levels(file)


@pytest.mark.parametrize(
    "file", [f for f in EVERYTHING if not f.startswith(("serving/engine/vllm/", "local_models/"))]
)
def test_vllm_is_imported_by_its_own_engine_only(file: str) -> None:
    assert "vllm" not in top_levels(file)


# What vLLM's processes are started with.
WITH_TORCH = ("serving/engine/hf/", "serving/engine/vllm/patches/processes.py")


@pytest.mark.parametrize("file", [f for f in files("serving") if not f.startswith(WITH_TORCH)])
def test_torch_is_imported_by_the_transformers_engine_only(file: str) -> None:
    assert not top_levels(file) & {"torch", "transformers"}


def test_httptools_is_imported_where_heads_are_read_only() -> None:
    users = [
        file for file in files("serving") + files("deployments") if "httptools" in top_levels(file)
    ]
    assert users == ["serving/http/head.py"]


@pytest.mark.parametrize("file", [f for f in EVERYTHING if not f.startswith("serving/store/")])
def test_sql_is_in_the_store_only(file: str) -> None:
    assert not top_levels(file) & {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "sqlite3"}


@pytest.mark.parametrize("file", [f for package in APART for f in files(package)])
def test_what_stands_apart_imports_none_of_the_service(file: str) -> None:
    assert not top_levels(file) & {"serving", "deployments", "tests"}


@pytest.mark.parametrize("file", files("serving") + files("deployments"))
def test_no_import_runs_back_up(file: str) -> None:
    own = floor(module_name(file))
    for imported in imports(file):
        top = imported.partition(".")[0]
        assert top not in {*APART, "docs", "tests"}
        if top in ("serving", "deployments"):
            assert floor(imported) <= own, f"{file} imports {imported}"


@pytest.mark.parametrize("file", files("serving/router") + files("serving/upstream"))
def test_a_router_knows_no_engine_but_its_interface(file: str) -> None:
    engine = {name for name in imports(file) if name.startswith("serving.engine")}
    assert engine <= ENGINE_FOR_ROUTERS


def test_no_imports_close_a_circle() -> None:
    graph = {
        module_name(file): {name for name in imports(file) if name in MODULES} - {"serving"}
        for file in EVERYTHING
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports close a circle: {' -> '.join(reversed(error.args[1]))}")
