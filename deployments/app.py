"""The graph on one page: which Ray Serve applications a models file becomes.

One application per engine model, so that models come and go without touching each other, and one
for the routers. None has a route in Ray Serve: routers listen for themselves. For `serve deploy`
and KubeRay the two builders are import paths: `deployments.app:build_engine` and
`deployments.app:build_router`, each with the argument `models`, the models file; `build_engine`
also takes `model`, the ID.
"""

from __future__ import annotations

import re

from ray import serve
from ray.serve import Application, RunTarget
from ray.serve.schema import LoggingConfig

from deployments.engine import DRAIN_S, STOP_GRACE_S, EngineReplica
from deployments.router import RouterReplica
from serving.catalogue.load import load_catalogue
from serving.catalogue.spec import Catalogue, EngineSpec
from serving.engine.server import VLLM

ROUTER_APP = "router"
# Drains are bounded by what Serve waits for; a little more than what we wait for.
GRACE_S = 5.0
_QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


def engine_app(spec: EngineSpec, *, engine: str = VLLM, drain_s: float = DRAIN_S) -> Application:
    """The application of one engine model."""
    return serve.deployment(
        EngineReplica,
        name="engine",
        num_replicas=spec.replicas,
        ray_actor_options={"num_cpus": spec.cpus, "num_gpus": spec.gpus_per_replica},
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=drain_s + STOP_GRACE_S + GRACE_S,
        logging_config=_QUIET,
    ).bind(spec.model_dump(), engine, drain_s)


def router_app(catalogue: Catalogue, *, drain_s: float = DRAIN_S) -> Application:
    """The application of the routers."""
    return serve.deployment(
        RouterReplica,
        name="router",
        num_replicas=catalogue.router.replicas,
        ray_actor_options={"num_cpus": catalogue.router.cpus},
        health_check_period_s=1.0,
        graceful_shutdown_timeout_s=drain_s + GRACE_S,
        logging_config=_QUIET,
    ).bind(catalogue.model_dump(), drain_s)


def engine_app_name(model_id: str) -> str:
    """The Serve application's name for a model; names take no slashes or hashes."""
    return "model-" + re.sub(r"[^A-Za-z0-9_.-]", "-", model_id)


def run_targets(
    catalogue: Catalogue, *, engine: str = VLLM, drain_s: float = DRAIN_S
) -> list[RunTarget]:
    """Every application of a catalogue, for `serve.run_many`."""
    apps = {ROUTER_APP: router_app(catalogue, drain_s=drain_s)}
    for spec in catalogue.engines:
        apps[engine_app_name(spec.id)] = engine_app(spec, engine=engine, drain_s=drain_s)
    return [RunTarget(app, name=name, route_prefix=None) for name, app in apps.items()]


def build_router(args: dict[str, str]) -> Application:
    """For `serve deploy`: the routers of the models file `args["models"]`."""
    return router_app(load_catalogue(args["models"]))


def build_engine(args: dict[str, str]) -> Application:
    """For `serve deploy`: the engine of model `args["model"]` in the file `args["models"]`.

    Raises:
        ValueError: the file has no such engine model.
    """
    catalogue = load_catalogue(args["models"])
    for spec in catalogue.engines:
        if spec.id == args["model"]:
            return engine_app(spec)
    known = ", ".join(spec.id for spec in catalogue.engines)
    raise ValueError(f"{args['models']}: no engine model '{args['model']}'; it has {known}")
