"""The graph on one page: which Ray Serve applications a catalogue becomes.

One application per engine model, so that models come and go without touching each other, and one
for the routers. None has a route in Ray Serve: routers listen for themselves. Deploying an
application again that has not changed restarts nothing: its version names what its replicas are
made of, their code included (`code.py`). Routers take a new catalogue while they run
(`user_config`).

For `serve deploy` and KubeRay the two builders are import paths: `deployments.app:build_engine` and
`deployments.app:build_router`. Each takes `models`, the models file's path, or `models_yaml`, its
text; `build_engine` also takes `model`, the ID. With `group`, each replica takes one of a resource
of that name, which the nodes of a worker group have one of each: so it runs in that group alone,
and one to a node. A group's code is its image, which changes with the whole cluster, and who builds
may have another image than who runs: the version of what is in a group does not name the code.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray import serve
from ray.serve import Application, Deployment, RunTarget
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from deployments.code import engine_code, router_code
from deployments.engine import EngineReplica
from deployments.names import ENGINE, ROUTER, ROUTER_APP
from deployments.ray_internals import with_version
from deployments.router import RouterReplica
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.grace import grace
from serving.catalogue.load import load_catalogue, load_text
from serving.catalogue.names import engine_app_name
from serving.catalogue.spec import EngineSpec

# How often Serve looks whether a replica that is taken down has calls left.
SHUTDOWN_LOOK_S = 0.2
# Leases of routers on a replica (deployments/leases.py): the only calls to it that Serve sees.
MAX_LEASES = 1000
# Serve hears of leases every ten seconds and decides by their mean over this time.
LOOK_BACK_S = 11.0
_QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
# Fields of a spec that restart no replica when they change.
_NOT_OF_A_REPLICA = {
    *("replicas", "min_replicas", "idle_s", "start_timeout_s"),
    # Only shown, or used to plan.
    *("deployed", "note", "certainty", "licence", "gpu_memory_gib", "architecture", "config"),
    # Of routers.
    *("price", "quota"),
}


def engine_app(spec: EngineSpec, catalogue: Catalogue, group: str = "") -> Application:
    """The application of one engine model of the catalogue, anywhere or in a worker group."""
    drain_s = catalogue.drain_s
    scale: dict[str, Any] = {"num_replicas": spec.replicas}
    if spec.fewest_replicas < spec.replicas:
        scale = {"autoscaling_config": _by_leases(spec)}
    deployment = serve.deployment(
        EngineReplica,
        name=ENGINE,
        max_ongoing_requests=MAX_LEASES,
        ray_actor_options={
            "num_cpus": spec.cpus,
            "num_gpus": spec.gpus_per_replica,
            **_in_group(group),
        },
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=SHUTDOWN_LOOK_S,
        graceful_shutdown_timeout_s=grace(catalogue).engine_s,
        logging_config=_QUIET,
        **scale,
    )
    # An engine that takes no images must not restart when the limits on them change.
    images = catalogue.images.model_dump(mode="json") if spec.vision else {}
    made_of = spec.model_dump(mode="json", exclude=_NOT_OF_A_REPLICA)
    code = "" if group else engine_code()
    return _versioned(deployment, code, made_of, drain_s, images).bind(
        spec.model_dump(mode="json"), drain_s, images
    )


def router_app(catalogue: Catalogue, group: str = "") -> Application:
    """The application of the routers, anywhere or in a worker group."""
    deployment = serve.deployment(
        RouterReplica,
        name=ROUTER,
        user_config=catalogue.model_dump(mode="json"),
        num_replicas=catalogue.router.replicas,
        # A single router is followed before it goes. In a group each has a node of its own, which
        # leaves no room for that; and of several, the others go on.
        max_surge_percent=100 if catalogue.router.replicas == 1 and not group else 0,
        ray_actor_options={"num_cpus": catalogue.router.cpus, **_in_group(group)},
        health_check_period_s=1.0,
        graceful_shutdown_wait_loop_s=SHUTDOWN_LOOK_S,
        graceful_shutdown_timeout_s=grace(catalogue).router_s,
        logging_config=_QUIET,
    )
    drain_s, leave_s = catalogue.drain_s, catalogue.router.leave_s
    code = "" if group else router_code()
    return _versioned(deployment, code, drain_s, leave_s).bind(drain_s, leave_s)


def run_targets(catalogue: Catalogue) -> list[RunTarget]:
    """Every application of a catalogue, for `serve.run_many`."""
    apps = {ROUTER_APP: router_app(catalogue)}
    for spec in catalogue.engines:
        apps[engine_app_name(spec.id)] = engine_app(spec, catalogue)
    return [RunTarget(app, name=name, route_prefix=None) for name, app in apps.items()]


def build_router(args: dict[str, str]) -> Application:
    """For `serve deploy` and KubeRay: the routers of a models file."""
    return router_app(_catalogue(args), args.get("group", ""))


def build_engine(args: dict[str, str]) -> Application:
    """For `serve deploy` and KubeRay: the engine of model `args["model"]` of a models file.

    Raises:
        ValueError: the file deploys no such engine model.
    """
    catalogue = _catalogue(args)
    for spec in catalogue.engines:
        if spec.id == args["model"]:
            return engine_app(spec, catalogue, args.get("group", ""))
    known = ", ".join(spec.id for spec in catalogue.engines)
    file = args.get("models", "models.yaml")
    raise ValueError(f"{file}: deploys no engine model '{args['model']}' but {known}")


def _catalogue(args: dict[str, str]) -> Catalogue:
    if text := args.get("models_yaml"):
        return load_text(text)
    return load_catalogue(args["models"])


def _in_group(group: str) -> dict[str, Any]:
    return {"resources": {group: 1}} if group else {}


def _by_leases(spec: EngineSpec) -> AutoscalingConfig:
    """All replicas while any router holds a lease, `min_replicas` while none does."""
    return AutoscalingConfig(
        # No `initial_replicas`: every later change would take the model back to it, leases or not.
        min_replicas=spec.fewest_replicas,
        max_replicas=spec.replicas,
        target_ongoing_requests=1 / spec.replicas,
        upscale_delay_s=0,
        downscale_delay_s=LOOK_BACK_S,
        downscale_to_zero_delay_s=LOOK_BACK_S,
        look_back_period_s=LOOK_BACK_S,
    )


def _versioned(deployment: Deployment, *made_of: Any) -> Deployment:
    """The deployment, with a version that changes when what its replicas are made of does."""
    version = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return with_version(deployment, version)
