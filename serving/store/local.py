"""Where `serving up` keeps what outlives it: a folder of this user, one for each port."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

STATE_DIR = "SERVING_STATE_DIR"


def state_folder(port: int, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder: `SERVING_STATE_DIR`, or one in the user's folder of state
    (specifications.freedesktop.org/basedir-spec). It is not made here."""
    if given := environment.get(STATE_DIR):
        return Path(given).absolute()
    base = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "serving" / str(port)


def local_store_url(port: int, environment: Mapping[str, str] = os.environ) -> str:
    """The store of the `serving up` on a port, where `SERVING_STORE_URL` names no other."""
    return f"sqlite:///{state_folder(port, environment) / 'store.sqlite3'}"
