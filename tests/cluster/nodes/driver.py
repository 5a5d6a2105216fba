"""What is asked of the cluster of `RAY_ADDRESS`, in a process on its head; prints one JSON line.

python -m tests.cluster.nodes.driver nodes | deploy FILE | replicas
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ray
from ray import serve
from ray.serve import RunTarget

from deployments.app import engine_app, router_app
from deployments.names import ROUTER_APP
from serving.catalogue.load import load_catalogue
from serving.catalogue.names import engine_app_name

DEPLOY_S = 280.0


def nodes() -> list[str]:
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


def deploy(file: str) -> dict[str, str]:
    """Deploy a models file, routers and engines each in their group."""
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    catalogue = load_catalogue(file)
    apps = {ROUTER_APP: router_app(catalogue, "routers")}
    for spec in catalogue.engines:
        apps[engine_app_name(spec.id)] = engine_app(spec, catalogue, "engines")
    serve.run_many(
        [RunTarget(app, name=name, route_prefix=None) for name, app in apps.items()],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    deadline = time.monotonic() + DEPLOY_S
    while True:
        found = {name: app.status for name, app in serve.status().applications.items()}
        if set(found.values()) == {"RUNNING"} and found.keys() >= apps.keys():
            return found
        if "DEPLOY_FAILED" in found.values() or time.monotonic() > deadline:
            raise RuntimeError(f"not deployed: {serve.status()}")
        time.sleep(0.5)


def replicas() -> dict[str, list[str]]:
    from ray.serve.context import _get_global_client

    details: dict[str, Any] = _get_global_client().get_serve_details()
    return {
        name: sorted(
            replica["node_ip"]
            for deployment in app["deployments"].values()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        )
        for name, app in details["applications"].items()
    }


if __name__ == "__main__":
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    word, *arguments = sys.argv[1:]
    print(json.dumps({"nodes": nodes, "deploy": deploy, "replicas": replicas}[word](*arguments)))
