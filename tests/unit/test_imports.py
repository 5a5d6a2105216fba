"""Imports point one way. Each rule below is an arrow of docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VLLM = {f"serving/engine/vllm{part}.py" for part in ("", "_app", "_chats", "_collector", "_images")}
TORCH = {f"serving/engine/hf_{part}.py" for part in ("batch", "engine", "rows", "sampling")}

# From the foundation up: a module may import its own layer and those above it in this list.
# `engine/protocol` holds the structures that cross the process boundary; `api` writes from them.
LAYERS = (
    ("serving.errors", "serving.settings", "serving.heap", "serving.engine.protocol"),
    ("serving.observability",),
    ("serving.api", "serving.http_server"),
    ("serving.catalogue",),
    ("serving.engine",),
    ("serving.gateway",),
    ("serving.cli", "serving.cli_client", "serving.cli_output", "serving.cli_plan"),
)
# The router speaks to engines over the link and needs nothing else of theirs; but hosted providers'
# models are engines that run in its own process.
SHARED_WITH_GATEWAY = {
    "serving.engine.protocol",
    "serving.engine.frames",
    "serving.engine.completion",
    "serving.engine.upstream.client",
    "serving.engine.upstream.engine",
}


def files(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def imports(file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def top_levels(file: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def layer(module: str) -> int:
    ranks = [
        (len(name), rank)
        for rank, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert ranks, f"{module} is in no layer"
    return max(ranks)[1]


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


EVERYTHING = files("serving") + files("deployments") + files("loadtests")


def test_there_is_something_to_check() -> None:
    assert len(EVERYTHING) > 30


@pytest.mark.parametrize("file", [f for f in EVERYTHING if not f.startswith("deployments/")])
def test_ray_is_imported_in_deployments_only(file: str) -> None:
    assert "ray" not in top_levels(file)


@pytest.mark.parametrize(
    "file", [f for f in EVERYTHING if f not in VLLM and not f.startswith("deployments/tiny/")]
)
def test_vllm_is_imported_by_its_own_engine_only(file: str) -> None:
    assert "vllm" not in top_levels(file)


@pytest.mark.parametrize("file", [f for f in files("serving") if f not in TORCH])
def test_torch_is_imported_by_the_transformers_engine_only(file: str) -> None:
    assert not top_levels(file) & {"torch", "transformers"}


@pytest.mark.parametrize("file", files("serving"))
def test_serving_knows_no_deployment(file: str) -> None:
    assert not top_levels(file) & {"deployments", "loadtests", "tests"}


@pytest.mark.parametrize("file", files("loadtests"))
def test_loadtests_know_only_the_wire(file: str) -> None:
    assert not top_levels(file) & {"serving", "deployments", "tests"}


@pytest.mark.parametrize("file", files("serving"))
def test_layers_point_one_way(file: str) -> None:
    name = module_name(file)
    if name == "serving":
        return
    own = layer(name)
    for imported in imports(file):
        if imported.startswith("serving."):
            assert layer(imported) <= own, f"{name} imports {imported}"


@pytest.mark.parametrize("file", files("serving/gateway"))
def test_the_gateway_shares_only_the_wire_with_engines(file: str) -> None:
    engine = {name for name in imports(file) if name.startswith("serving.engine")}
    assert engine <= SHARED_WITH_GATEWAY
