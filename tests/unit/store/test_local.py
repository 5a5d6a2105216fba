from __future__ import annotations

from pathlib import Path

import pytest

from serving.store.local import local_store_url, state_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, str(Path.home() / ".local/state/serving/8000")),
        ({"XDG_STATE_HOME": "/x"}, "/x/serving/8000"),
        ({"XDG_STATE_HOME": "/x", "SERVING_STATE_DIR": "/y"}, "/y"),
        ({"SERVING_STATE_DIR": "here"}, str(Path("here").absolute())),
    ],
)
def test_where_state_is(environment: dict[str, str], folder: str) -> None:
    assert str(state_folder(8000, environment)) == folder
    assert local_store_url(8000, environment) == f"sqlite:///{folder}/store.sqlite3"
