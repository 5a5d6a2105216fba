"""One cluster of several nodes for all tests of this folder; see `cluster.py`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import local_model
from tests.cluster.nodes.cluster import REDIS, Cluster, models_file
from tests.live import BASE


@pytest.fixture(scope="session")
def nodes() -> Iterator[Cluster]:
    if REDIS not in os.environ:
        pytest.skip("only with `make test-nodes` or `make test-rolling`")

    # The names of Ray's sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
    cluster = Cluster(folder, models_file(folder, local_model(BASE)))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        if "SERVING_TESTS_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
