"""`serving apply` where the applications are declared: it deploys nothing, whatever it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments import apply
from deployments.apply import EXIT_DECLARED
from serving.catalogue.load import load_catalogue

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODELS = "models:\n  - {id: a, weights: /w, context: 64}\n"
MORE = MODELS + "  - {id: b, weights: /w, context: 64}\n"


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reaches Ray Serve, in a cluster whose routers are declared with MODELS."""
    from deployments import ray_internals, rollout

    calls: list[Any] = []
    config = {"name": "router", "args": {"models_yaml": MODELS, "group": "router"}}
    monkeypatch.setattr(ray_internals, "declared_configs", lambda: {"router": config})
    for name in ("run_many", "delete", "run"):
        monkeypatch.setattr(rollout.serve, name, lambda *a, **k: calls.append((a, k)))
    return calls


def run(file: Path, text: str, *, dry_run: bool = False) -> int:
    file.write_text(text)
    try:
        apply._run(load_catalogue(file), file, dry_run, 1.0)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_it_shows_the_change_and_deploys_nothing(
    deployed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    assert run(file, MORE) == EXIT_DECLARED
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "added    b"
    assert "+  - {id: b, weights: /w, context: 64}" in out.splitlines()
    assert "nothing was changed" in err
    assert f"serving render-values {file}" in err
    assert not deployed


def test_a_dry_run_says_the_same_and_is_no_failure(
    deployed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "m.yaml", MORE, dry_run=True) == 0
    assert "added    b" in capsys.readouterr().out
    assert not deployed


def test_a_file_that_is_declared_already_needs_nothing(
    deployed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "m.yaml", "# as it is\n" + MODELS) == 0
    assert capsys.readouterr() == ("nothing to do\n", "")
    assert not deployed
