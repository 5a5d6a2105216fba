"""Adapters in directories and in repositories. The cache is laid out as `huggingface_hub` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engine.checkpoints import fetch_adapter, local_checkpoint
from serving.errors import BadAdapter

COMMIT = "a" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository `org/lora`, in the cache of a machine without a network."""
    repository = tmp_path / "models--org--lora"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert fetch_adapter(str(tmp_path), None) == str(tmp_path)
    assert local_checkpoint(str(tmp_path), None) == str(tmp_path)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_repository_by_its_revision(cached: Path, revision: str | None) -> None:
    assert Path(fetch_adapter("org/lora", revision)) == cached
    assert Path(local_checkpoint("org/lora", revision)) == cached


def test_what_cannot_be_had_is_the_adapters_fault(cached: Path) -> None:
    for path, revision in (("org/other", None), ("org/lora", "b" * 40), ("no id at all!", None)):
        with pytest.raises(BadAdapter, match="no repository that can be fetched"):
            fetch_adapter(path, revision)
    with pytest.raises(BadAdapter, match="no directory '/not/here'"):
        fetch_adapter("/not/here", None)


def test_a_base_that_is_not_here_stays_its_id(cached: Path) -> None:
    assert local_checkpoint("org/other", None) == "org/other"
