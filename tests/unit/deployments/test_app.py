"""What Ray Serve is asked to deploy: what an engine is told, and what makes a replica a new one."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from serving.catalogue.catalogue import Catalogue

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Bound(NamedTuple):
    """One of Ray Serve's deployments, and the arguments of its replicas."""

    deployment: Any
    arguments: tuple[Any, ...]


def deployments_of(
    fields: dict[str, Any] | None = None, router: int = 2, **more: Any
) -> dict[str, Bound]:
    """The deployments by application, of a catalogue with model `m`."""
    from ray.serve import Application, Deployment

    from deployments.app import run_targets

    model = {"kind": "engine", "id": "m", "weights": "w", "context": 64, **(fields or {})}
    data = {"models": [model], "router": {"replicas": router}, **more}
    catalogue = Catalogue.model_validate(data)
    bound: list[Bound] = []

    def bind(deployment: Deployment, *arguments: Any) -> Application:
        bound.append(Bound(deployment, arguments))
        return Application(deployment)

    with patch.object(Deployment, "bind", bind):
        targets = run_targets(catalogue)
    return {target.name: each for target, each in zip(targets, bound, strict=True)}


def version(fields: dict[str, Any] | None = None, **more: Any) -> str:
    found = deployments_of(fields, **more)["model-m"].deployment.version
    assert isinstance(found, str)
    return found


def schema(fields: dict[str, Any] | None = None) -> Any:
    from ray.serve.deployment import deployment_to_schema

    return deployment_to_schema(deployments_of(fields)["model-m"].deployment)


def test_only_an_engine_that_takes_images_is_told_their_limits() -> None:
    images = {"allowed_hosts": ["a.org"], "max_bytes": 5}
    told = deployments_of({"vision": True}, images=images)["model-m"].arguments[-1]
    assert told["max_bytes"] == 5
    assert told["allowed_hosts"] == ["a.org"]
    assert deployments_of(images=images)["model-m"].arguments[-1] == {}
    assert version(images=images) == version()
    assert version({"vision": True}, images=images) != version({"vision": True})


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": "other"},
        {"context": 128},
        {"engine_args": {"max_num_seqs": 2}},
        {"env": {"A": "b"}},
        {"lora": {}},
        {"runtime": "transformers"},
    ],
)
def test_what_a_replica_is_made_of_makes_it_a_new_one(fields: dict[str, Any]) -> None:
    assert version(fields) != version()


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 3},
        {"min_replicas": 0},
        {"idle_s": 5},
        {"note": "n"},
        {"licence": "mit"},
        {"gpu_memory_gib": 80},
    ],
)
def test_how_many_there_are_does_not(fields: dict[str, Any]) -> None:
    assert version(fields) == version()


def test_routers_are_given_a_catalogue_without_being_made_anew() -> None:
    one, other = (deployments_of({"context": size})["router"].deployment for size in (64, 128))
    assert one.version == other.version is not None
    assert one.user_config != other.user_config


def test_a_model_that_may_sleep_starts_asleep() -> None:
    scale = schema({"replicas": 3, "min_replicas": 0}).autoscaling_config
    assert (scale.min_replicas, scale.initial_replicas, scale.max_replicas) == (0, None, 3)
    # One lease is enough for Serve to start all replicas.
    assert 1 / scale.target_ongoing_requests == pytest.approx(3)
    assert "autoscaling_config" not in schema().model_fields_set


def test_application_names() -> None:
    from serving.catalogue.names import engine_app_name

    assert engine_app_name("llama-2-7b") == "model-llama-2-7b"
    assert engine_app_name("a/b") != engine_app_name("a-b")
    assert "/" not in engine_app_name("a/b")


def test_other_code_makes_new_replicas_of_what_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments import app

    def versions() -> tuple[str, str]:
        found = deployments_of()
        return found["router"].deployment.version, found["model-m"].deployment.version

    router, engine = versions()
    monkeypatch.setattr(app, "router_code", lambda: "other")
    new_router, same_engine = versions()
    assert new_router != router
    assert same_engine == engine
    monkeypatch.setattr(app, "engine_code", lambda: "other")
    assert versions()[1] != engine


def test_the_builders_take_the_file_as_text_and_a_group() -> None:
    from deployments.app import build_engine, build_router

    text = "models: [{id: m, weights: /w, context: 64, cpus: 2}]"
    args = {"models_yaml": text, "group": "gpu-1x24"}
    engine = build_engine({**args, "model": "m"})._bound_deployment
    assert engine.ray_actor_options["resources"] == {"gpu-1x24": 1}
    assert (engine.ray_actor_options["num_cpus"], engine.ray_actor_options["num_gpus"]) == (2, 1)
    router = build_router(args)._bound_deployment
    assert router.ray_actor_options["resources"] == {"gpu-1x24": 1}
    plain = build_router({"models_yaml": text})._bound_deployment
    assert not plain.ray_actor_options.get("resources")
    with pytest.raises(ValueError, match="deploys no engine model 'n' but m"):
        build_engine({**args, "model": "n"})


def test_in_a_group_a_version_names_what_the_replicas_are_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever else changes in the file; and whichever image's pod builds."""
    from deployments import app

    text = "models: [{id: m, weights: w, context: 64}, {id: n, weights: w, context: %d}]\n"

    def versions(models_yaml: str) -> dict[str, str | None]:
        args = {"models_yaml": models_yaml, "group": "gpu-1x24"}
        built = {name: app.build_engine({**args, "model": name}) for name in ("m", "n")}
        built["router"] = app.build_router(args)
        return {name: each._bound_deployment._version for name, each in built.items()}

    before = versions(text % 64)
    assert versions(text % 64 + "aliases: {a: m}\n") == before
    changed = versions(text % 32)
    assert {name for name in before if changed[name] != before[name]} == {"n"}
    monkeypatch.setattr(app, "router_code", lambda: "other")
    monkeypatch.setattr(app, "engine_code", lambda: "other")
    assert versions(text % 64) == before
