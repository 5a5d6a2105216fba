"""Ray's token: made for one run, unless the operator has said otherwise."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.environment import (
    TOKEN_PATH,
    asks_for_no_token,
    make_token,
    serve_environment,
    set_defaults,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    # So that what the functions set is taken away again.
    for name in (*serve_environment(), TOKEN_PATH):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_token_of_its_own(tmp_path: Path) -> None:
    set_defaults(serve_environment())
    file = tmp_path / "token"
    make_token(file)
    assert os.environ[TOKEN_PATH] == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_text()
    assert len(first) == 64
    make_token(tmp_path / "other")
    assert os.environ[TOKEN_PATH] == str(file), "what the environment names stays"
    del os.environ[TOKEN_PATH]
    make_token(file)
    assert file.read_text() != first, "one for each run"


def test_the_file_of_somebody_else_is_not_written_into(tmp_path: Path) -> None:
    theirs, link = tmp_path / "theirs", tmp_path / "token"
    theirs.write_text("x")
    link.symlink_to(theirs)
    make_token(link)
    assert theirs.read_text() == "x"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", TOKEN_PATH])
def test_the_operators_token_wins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "given")
    make_token(tmp_path / "token")
    assert os.environ[name] == "given"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "no_token"),
    [(None, False), ("token", False), ("TOKEN", False), ("disabled", True), ("", True)],
)
def test_the_operators_mode_wins(
    mode: str | None, no_token: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    set_defaults(serve_environment())
    assert asks_for_no_token() is no_token
    make_token(tmp_path / "token")
    assert bool(list(tmp_path.iterdir())) is not no_token


def test_ray_reads_the_token(tmp_path: Path) -> None:
    """The loader that each of Ray's processes has, in a process of its own."""
    set_defaults(serve_environment())
    make_token(tmp_path / "token")
    code = (
        "from ray._raylet import AuthenticationTokenLoader as Loader\n"
        "from deployments.ray_internals import asks_for_token\n"
        "print(Loader.instance().has_token(), asks_for_token())"
    )
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
