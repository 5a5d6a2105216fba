"""What is asked of the cluster of `RAY_ADDRESS`, in a process on its head; prints one JSON line.

python -m tests.cluster.nodes.driver nodes | deploy FILE | replicas
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from deployments.names import ROUTER_APP
from serving.catalogue.load import load_catalogue
from serving.catalogue.names import engine_app_name

DEPLOY_S = 280.0


def nodes() -> list[str]:
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


def deploy(file: str) -> dict[str, str]:
    """Deploy a models file as KubeRay does the chart's, routers and engines each in their group."""
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    text = Path(file).read_text()
    apps = {ROUTER_APP: ("build_router", {"models_yaml": text, "group": "routers"})}
    for spec in load_catalogue(file).engines:
        args = {"models_yaml": text, "model": spec.id, "group": "engines"}
        apps[engine_app_name(spec.id)] = ("build_engine", args)
    applications = [
        {
            "name": name,
            "route_prefix": None,
            "import_path": f"deployments.app:{builder}",
            "args": args,
        }
        for name, (builder, args) in apps.items()
    ]
    _get_global_client().deploy_apps(
        ServeDeploySchema.model_validate(
            {"proxy_location": "Disabled", "applications": applications}
        )
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
