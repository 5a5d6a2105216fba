"""docs/operations.md lists every setting of the environment, with the default that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from serving.engine.queue_limits import QueueLimits
from serving.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = [
    (f"{kind.model_config['env_prefix']}{name}".upper(), field.default)
    for kind in (Settings, QueueLimits)
    for name, field in kind.model_fields.items()
]
# Rows of a table whose first cell has variables only: `A`, `B` | default of A, default of B |
ROW = re.compile(r"^\| (`SERVING_\w+`(?:, `SERVING_\w+`)*) \| ([^|]*) \|", re.MULTILINE)


def defaults() -> dict[str, str]:
    """What the tables say, by variable. One default may be that of all in its row."""
    found = {}
    for names, cell in ROW.findall(TEXT):
        variables = [name.strip("`") for name in names.split(", ")]
        each = cell.split(", ")
        if len(each) != len(variables):
            each = [cell] * len(variables)
        found |= dict(zip(variables, each, strict=True))
    return found


DEFAULTS = defaults()


def shown(default: Any) -> str:
    """A default as the tables have it."""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(("name", "default"), SETTINGS)
def test_every_setting_is_listed_with_its_default(name: str, default: Any) -> None:
    assert name in DEFAULTS, f"docs/operations.md has no row of {name}"
    if default is not None and shown(default) and isinstance(default, int | float | str):
        # A table may say more: "0: any free one".
        said = DEFAULTS[name].replace("`", "").split(":")[0].strip()
        assert said == shown(default), f"{name} is {shown(default)}, docs/operations.md: {said}"


def test_every_setting_that_is_listed_exists() -> None:
    files = [
        path for folder in ("serving", "deployments") for path in (ROOT / folder).rglob("*.py")
    ]
    code = "\n".join(path.read_text() for path in files)
    known = dict(SETTINGS)
    for name in DEFAULTS:
        if name not in known and name not in code:
            # Of a group with a prefix: SERVING_LIMIT_ and the field `messages`.
            prefix, field = next(
                (name[: at + 1], name[at + 1 :].lower())
                for at in range(len(name) - 1, 0, -1)
                if name[at] == "_" and f'"{name[: at + 1]}"' in code
            )
            assert f"    {field}: " in code, f"nothing reads {name}, nor {field} with {prefix}"
