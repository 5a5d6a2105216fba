from __future__ import annotations

from pathlib import Path

import pytest

from docs import models
from serving.catalogue.load import seed_catalogue


def test_docs_models_md_is_not_stale() -> None:
    assert models.main(["--check"]) == 0, "run `python -m docs.models`"


def test_a_stale_file_is_told_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "FILE", tmp_path / "models.md")
    assert models.main(["--check"]) == 1
    assert "is stale; run" in capsys.readouterr().err
    assert models.main([]) == 0
    assert models.main(["--check"]) == 0


def test_every_id_has_a_row() -> None:
    lines = models.document().splitlines()
    for model in seed_catalogue().models:
        assert sum(line.startswith(f"| `{model.id}` |") for line in lines) == 1


def test_rows_are_as_wide_as_their_headers() -> None:
    for line in models.document().splitlines():
        if line.startswith("| `"):
            width = line.replace("\\|", "").count("|")
            assert width in (15, 10)


def test_a_proof_without_its_test_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "RETIRED", models.Proof("wonders", "tests/none.py"))
    assert "wonders" not in models.document()
