"""`serving apply` of a changed model and changed routers loses nothing, on one machine.

Over several machines: `nodes/test_rolling.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import apply, local_model
from tests.cluster.nodes.load import Load
from tests.live import BASE, KEY, Server

pytestmark = [pytest.mark.stops_server, pytest.mark.long]

STREAMS, CLIENTS = 100, 6


def models_file(folder: Path, leave_s: float, **changes: int) -> Path:
    """Two routers, and two replicas of a model that is changed."""
    model = local_model(BASE)
    args = {**model["engine_args"], **changes}
    data = {
        "router": {"replicas": 2, "cpus": 0.1, "leave_s": leave_s},
        "drain_s": 60,
        "models": [{**model, "replicas": 2, "engine_args": args}],
    }
    file = folder / f"leave-{leave_s}-{len(changes)}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of its own: what it serves is another file after each test."""
    folder = tmp_path_factory.mktemp("rolled")
    server = Server(folder / "run", models_file(folder, 3.0))
    server.start()
    try:
        server.wait_whole()
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("leave_s", "changes", "said"),
    [
        (3.0, {"max_num_seqs": 200}, f"changed  {BASE}\n"),
        (3.1, {"max_num_seqs": 200}, "changed  aliases, providers or settings of the routers\n"),
    ],
    ids=["a model", "routers"],
)
def test_nothing_is_lost(
    rolled: Server, tmp_path: Path, leave_s: float, changes: dict[str, int], said: str
) -> None:
    routers = {each.replica for each in rolled.routers()}
    engines = {each.replica for each in rolled.engines()}
    load = Load(
        ["127.0.0.1"], BASE, streams=STREAMS, clients=CLIENTS, port=rolled.port, key=KEY
    ).start()
    try:
        assert apply(rolled, models_file(tmp_path, leave_s, **changes)) == said
    finally:
        load.stop()
    rolled.wait_whole()
    print(f"\n{said.strip()}: {load}")
    new_routers = {each.replica for each in rolled.routers()}
    new_engines = {each.replica for each in rolled.engines()}
    assert new_engines.isdisjoint(engines) or "routers" in said
    assert new_routers.isdisjoint(routers) or "routers" not in said
    assert load.streams.sent >= STREAMS
    assert load.short.sent > CLIENTS
    assert (load.streams.failed, load.short.failed) == (0, 0)
