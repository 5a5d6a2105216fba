"""New code under the same models file is rolled out, and the same code again restarts nothing.

Runs after everything else, on a service of its own, whose code is a copy that the test edits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import apply, local_model
from tests.live import BASE, ROOT, Server

pytestmark = [pytest.mark.stops_server, pytest.mark.long]

# Both kinds of replica run this file, and the router shows what it says.
SHARED = Path("serving/api/pages.py")
OLD, NEW = '"alive": True', '"alive": "upgraded"'
ENTRY = Path("serving/wire/entry.py")
DIRECTORY = Path("deployments/directory.py")
OLD_DIRECTORY = "self._code = code"
ROUTERS_ONLY = Path("serving/router/view.py")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One engine and two routers, with code of their own."""
    folder = tmp_path_factory.mktemp("upgrade")
    code = folder / "code"
    for package in ("serving", "deployments"):
        shutil.copytree(ROOT / package, code / package)
    models = folder / "models.yaml"
    data = {"router": {"replicas": 2, "cpus": 0.1}, "models": [local_model(BASE) | {"replicas": 1}]}
    models.write_text(yaml.safe_dump(data))
    server = Server(folder / "run", models, code)
    server.start()
    try:
        server.wait_whole()
        yield server
        assert server.stop() == 0
        assert not server.left()
    finally:
        server.kill()


def edit(server: Server, file: Path, old: str, new: str) -> None:
    text = (server.code / file).read_text()
    assert old in text
    (server.code / file).write_text(text.replace(old, new))


def names(server: Server) -> tuple[set[str], set[str]]:
    """The routers and the engine replicas that there are."""
    routers = {target.replica for target in server.routers()}
    return routers, {target.replica for target in server.engines()}


def alive(server: Server) -> list[object]:
    """What each router's own code says."""
    return [server.get(f"{router.url}/health")["alive"] for router in server.routers()]


def test_an_upgrade_of_the_code_is_an_upgrade(copied: Server) -> None:
    routers, engines = names(copied)
    assert apply(copied, copied.models) == "nothing to do\n"
    assert names(copied) == (routers, engines)
    assert alive(copied) == [True, True]

    edit(copied, SHARED, OLD, NEW)
    # While both versions run, the old directory passes this on. Then it is replaced.
    edit(copied, ENTRY, 'code: str = ""', 'code: str = ""\n    more: str = "later"')
    made = copied.folder / "made"
    edit(copied, DIRECTORY, *(OLD_DIRECTORY, OLD_DIRECTORY + f'; open("{made}", "x").close()'))
    outdated = f"outdated directory\noutdated model-{BASE}\noutdated router\n"
    assert apply(copied, copied.models, "--dry-run") == outdated
    assert names(copied) == (routers, engines)
    assert apply(copied, copied.models) == outdated
    copied.wait_whole()
    new_routers, new_engines = names(copied)
    assert not new_routers & routers
    assert not new_engines & engines
    assert alive(copied) == ["upgraded", "upgraded"]
    assert copied.text(BASE, "A spider has").strip() == "eight legs and eight eyes."
    assert made.exists(), "by the new directory, and only once"

    # New routers learn from the new directory where the engine is, which had known the old one.
    edit(copied, ROUTERS_ONLY, "import time", "import time  # changed")
    assert apply(copied, copied.models) == "outdated router\n"
    copied.wait_whole()
    last_routers, last_engines = names(copied)
    assert not last_routers & new_routers
    assert last_engines == new_engines
    assert apply(copied, copied.models) == "nothing to do\n"
