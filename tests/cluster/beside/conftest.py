"""One service and one `vllm serve` for each model that the tests of this folder ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.inside.stacks import Model, Stack, bare
from local_models.make import RERANKER, WEIGHTS
from tests.cluster.beside.sides import Sides
from tests.cluster.conftest import apply, local_model, models_with
from tests.embed_shape import CONTEXT as EMBED_CONTEXT
from tests.embed_shape import write_embed
from tests.live import BASE, INSTRUCT, KEY, PIRATE, Server, poll
from tests.whisper_shape import CONTEXT as WHISPER_CONTEXT
from tests.whisper_shape import write_whisper

EMBED, WHISPER = "tiny-embed", "tiny-whisper"
RANKER_CONTEXT = 256
# Of the models that the running service does not have by itself: an alias for each.
ALIASES = {"embeddings": EMBED, "rerank-latest": RERANKER, "whisper-1": WHISPER}
# Their cache of keys and values in blocks, instead of a gigabyte of them.
CACHE = {"num_gpu_blocks_override": 256}


def _entry(name: str, task: str, weights: Path, context: int) -> dict[str, Any]:
    local = local_model(BASE)
    same = {field: local[field] for field in ("gpus", "cpus", "dtype", "env")}
    arguments = {**local["engine_args"], **CACHE}
    own = {"id": name, "task": task, "weights": str(weights), "context": context}
    return {**own, **same, "engine_args": arguments}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem != "test_alike":
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="package")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The models that the running service does not have by itself."""
    folder = tmp_path_factory.mktemp("shapes")
    write_embed(EMBED, folder / EMBED)
    write_whisper(folder / WHISPER)
    return {
        EMBED: _entry(EMBED, "embed", folder / EMBED, EMBED_CONTEXT),
        RERANKER: _entry(RERANKER, "score", WEIGHTS / RERANKER, RANKER_CONTEXT),
        WHISPER: _entry(WHISPER, "transcribe", folder / WHISPER, WHISPER_CONTEXT),
    }


def _model(live: Server, name: str, more: dict[str, dict[str, Any]]) -> Model:
    """As the stacks know a model: with one adapter, if it is one that has adapters."""
    if name in more:
        return Model(name, None, more[name], {})
    served = {entry["id"]: entry for entry in yaml.safe_load(live.models.read_text())["models"]}
    own = served[name]
    # Ours is shown no tools that it may not call (`serving/engine/vllm/arguments.py`).
    own["engine_args"] |= CACHE | {"exclude_tools_when_tool_choice_none": True}
    return Model(name, PIRATE if name == BASE else None, own, {"models": [own, served[PIRATE]]})


@pytest.fixture(scope="package")
def sides(
    request: pytest.FixtureRequest,
    _shared: Any,
    more: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sides]:
    """Both, with the models that the collected modules name in `BESIDE`. All start at once."""
    asked = {
        name
        for item in request.session.items
        for name in getattr(item.module, "BESIDE", ())  # type: ignore[attr-defined]
    }
    live: Server = _shared.get()
    with ExitStack() as ending:
        theirs: dict[str, Stack] = {}
        for name in (BASE, INSTRUCT, *more):
            if name in asked:
                folder = tmp_path_factory.mktemp(f"bare-{name}")
                theirs[name] = bare(_model(live, name, more), folder)
                ending.callback(theirs[name].stop)
        if added := [more[name] for name in more if name in asked]:
            aliases = {alias: name for alias, name in ALIASES.items() if name in asked}
            ending.callback(apply, live, live.models)
            apply(live, models_with(live, added, aliases=aliases))
        for stack in theirs.values():
            stack.wait_until_ready()
        poll(lambda: live.get(f"{live.url}/ready")["ready"], 60, "all are up")
        yield Sides(
            ending.enter_context(_client(live.url)),
            {name: ending.enter_context(_client(stack.url)) for name, stack in theirs.items()},
        )


def _client(url: str) -> httpx.Client:
    headers = {"x-api-key": KEY}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=120)
