from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.catalogue.catalogue import Catalogue


def catalogue(*models: dict[str, Any], **more: Any) -> Catalogue:
    defaults = {"kind": "engine", "weights": "w", "context": 64}
    return Catalogue.model_validate({"models": [{**defaults, **at} for at in models], **more})


def test_changes() -> None:
    from deployments.rollout import changes

    old = catalogue({"id": "a"}, {"id": "b"}, {"id": "c"})
    new = catalogue({"id": "b", "context": 128}, {"id": "c"}, {"id": "d"})
    found = changes(old, new)
    assert (found.added, found.changed, found.removed) == (("d",), ("b",), ("a",))
    assert not found.other
    assert found


def test_aliases_and_router_settings_are_changes() -> None:
    from deployments.rollout import changes

    old = catalogue({"id": "a"})
    assert changes(old, catalogue({"id": "a"}, aliases={"b": "a"})).other
    assert changes(old, catalogue({"id": "a"}, drain_s=1)).other


def test_what_is_known_of_a_retired_id_is_a_change() -> None:
    from deployments.rollout import changes

    def with_date(day: str) -> Catalogue:
        retired = {"kind": "retired", "id": "old", "provider": "p", "retired_on": day}
        return Catalogue.model_validate(
            {"models": [{"kind": "engine", "id": "a", "weights": "w", "context": 64}, retired]}
        )

    assert changes(with_date("2026-01-01"), with_date("2027-01-01")).other
    assert not changes(with_date("2026-01-01"), with_date("2026-01-01"))


class Application:
    def __init__(self, status: str) -> None:
        self.status = status


def test_what_an_earlier_rollout_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments import rollout

    applications = {
        "router": Application("RUNNING"),
        "model-a": Application("RUNNING"),
        "model-b": Application("DEPLOY_FAILED"),
        "model-gone": Application("RUNNING"),
    }
    status = SimpleNamespace(applications=applications)
    monkeypatch.setattr(rollout.serve, "status", lambda: status)
    assert rollout.unfinished(catalogue({"id": "a"}, {"id": "b"}, {"id": "c"})) == (
        "missing  model-c",
        "leftover model-gone",
        "deploy_failed model-b",
    )
    del applications["model-gone"], applications["model-b"]
    assert rollout.unfinished(catalogue({"id": "a"})) == ()


def test_replicas_of_other_code_are_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments import rollout
    from deployments.code import engine_code, router_code
    from serving.wire.entry import Entry

    def entry(kind: str, model: str, code: str) -> Entry:
        return Entry(f"{kind}{model}{code}", kind, model, "127.0.0.1", 1, "", code=code)

    listed = [
        entry("router", "", router_code()),
        entry("engine", "a", engine_code()),
        entry("engine", "b", engine_code()),
        entry("engine", "b", "old"),
        entry("engine", "gone", "old"),
    ]
    old = False
    monkeypatch.setattr(rollout.directory, "listed", lambda: tuple(listed))
    monkeypatch.setattr(rollout.directory, "is_outdated", lambda: old)
    served = catalogue({"id": "a"}, {"id": "b"})
    assert rollout.outdated(served) == ("model-b",)
    # A service older than the digest says nothing of its code.
    listed.append(entry("router", "", ""))
    assert rollout.outdated(served) == ("model-b", "router")
    old = True
    assert rollout.outdated(served) == ("directory", "model-b", "router")
